#include "onnxviz/cuda/memory.h"

#include <utility>

#include "launch.h"

namespace onnxviz::cuda {
namespace {

void copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, StreamView stream) {
  if (bytes == 0) return;
  const CurrentDevice current(stream.device);
  check(cudaMemcpyAsync(to, from, bytes, kind, queue(stream)), "cudaMemcpyAsync");
}

}  // namespace

Stream::Stream(int device) : view_{device, nullptr} {
  const CurrentDevice current(device);
  cudaStream_t stream = nullptr;
  // Not to wait for, and not to be waited for by, whatever a program around us does on the default stream.
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  view_.handle = stream;
}

Stream::~Stream() { cudaStreamDestroy(queue(view_)); }

void Stream::synchronize() const { cuda::synchronize(view_); }

void synchronize(StreamView stream) {
  const CurrentDevice current(stream.device);
  check(cudaStreamSynchronize(queue(stream)), "cudaStreamSynchronize");
}

void wait_for(StreamView later, StreamView earlier) {
  if (later.handle == earlier.handle) return;
  cudaEvent_t event = nullptr;
  {
    const CurrentDevice current(earlier.device);
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    check(cudaEventRecord(event, queue(earlier)), "cudaEventRecord");
  }
  const CurrentDevice current(later.device);
  const cudaError_t error = cudaStreamWaitEvent(queue(later), event, 0);
  cudaEventDestroy(event);  // what was queued behind it stays queued
  check(error, "cudaStreamWaitEvent");
}

Memory::Memory(std::size_t bytes, int device) : bytes_(bytes), device_(device) {
  if (bytes == 0) return;
  const CurrentDevice current(device);
  check(cudaMalloc(&data_, bytes), "cudaMalloc");
}

Memory::~Memory() {
  // Waits for work that may still use it.
  if (data_ != nullptr) cudaFree(data_);
}

Memory::Memory(Memory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)), device_(other.device_) {}

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(device_, other.device_);
  return *this;
}

void copy_on_device(void* to, const void* from, std::size_t bytes, StreamView stream) {
  copy(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
}

void copy_to_device(void* to, const void* from, std::size_t bytes, StreamView stream) {
  copy(to, from, bytes, cudaMemcpyHostToDevice, stream);
  synchronize(stream);
}

void copy_to_host(void* to, const void* from, std::size_t bytes, StreamView stream) {
  copy(to, from, bytes, cudaMemcpyDeviceToHost, stream);
  synchronize(stream);
}

MemoryInfo memory_info(int device) {
  const CurrentDevice current(device);
  MemoryInfo info{};
  check(cudaMemGetInfo(&info.free, &info.total), "cudaMemGetInfo");
  return info;
}

int device_of(const void* pointer) {
  cudaPointerAttributes attributes{};
  check(cudaPointerGetAttributes(&attributes, pointer), "cudaPointerGetAttributes");
  const bool there = attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged;
  return there ? attributes.device : -1;
}

}  // namespace onnxviz::cuda
