// Memory of a CUDA device and queues of work on it. csrc/cuda defines these; in csrc/no_cuda they throw why there is none.
#pragma once

#include <cstddef>
#include <memory>

namespace onnxviz::cuda {

// A queue of work on one device, ours or somebody else's. Nothing is done when a function that takes one returns, unless
// it says so.
struct StreamView {
  int device;
  void* handle;  // a cudaStream_t
};

class Stream {
 public:
  // Throws std::runtime_error where the device cannot be used.
  explicit Stream(int device);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  StreamView view() const { return view_; }
  void synchronize() const;

 private:
  StreamView view_;
};

// Waits until all work on the stream is done.
void synchronize(StreamView stream);

// Makes what comes on `later` wait for what is on `earlier` now.
void wait_for(StreamView later, StreamView earlier);

// Bytes on a device, freed with the object. They begin at a multiple of 256 and hold rubbish at first.
class Memory {
 public:
  Memory() = default;
  // Throws std::bad_alloc where the device has too little.
  Memory(std::size_t bytes, int device);
  ~Memory();
  Memory(Memory&& other) noexcept;
  Memory& operator=(Memory&& other) noexcept;

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  int device() const { return device_; }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  int device_ = 0;
};

// Device memory of `count` elements.
template <class T>
class Array {
 public:
  Array() = default;
  Array(std::size_t count, int device) : memory_(count * sizeof(T), device) {}

  T* data() const { return static_cast<T*>(memory_.data()); }
  std::size_t size() const { return memory_.bytes() / sizeof(T); }

 private:
  Memory memory_;
};

// Between device and device, or to or from the host; with a host's memory, which may be pageable, it is done on return.
void copy_on_device(void* to, const void* from, std::size_t bytes, StreamView stream);
void copy_to_device(void* to, const void* from, std::size_t bytes, StreamView stream);
void copy_to_host(void* to, const void* from, std::size_t bytes, StreamView stream);

// Bytes of the device that are free now, and all of them.
struct MemoryInfo {
  std::size_t free;
  std::size_t total;
};
MemoryInfo memory_info(int device);

// Number of the device that a pointer leads to; -1 for the host's memory.
int device_of(const void* pointer);

}  // namespace onnxviz::cuda
