#include "onnxviz/cuda/memory.h"

#include <stdexcept>

#include "onnxviz/cuda/device.h"

namespace onnxviz::cuda {
namespace {

[[noreturn]] void refuse() { throw std::runtime_error(status()); }

}  // namespace

Stream::Stream(int device) : view_{device, nullptr} { refuse(); }
Stream::~Stream() = default;
void Stream::synchronize() const { refuse(); }
void synchronize(StreamView) { refuse(); }
void wait_for(StreamView, StreamView) { refuse(); }

Memory::Memory(std::size_t, int) { refuse(); }
Memory::~Memory() = default;
Memory::Memory(Memory&&) noexcept = default;
Memory& Memory::operator=(Memory&&) noexcept = default;

void copy_on_device(void*, const void*, std::size_t, StreamView) { refuse(); }
void copy_to_device(void*, const void*, std::size_t, StreamView) { refuse(); }
void copy_to_host(void*, const void*, std::size_t, StreamView) { refuse(); }
MemoryInfo memory_info(int) { refuse(); }
int device_of(const void*) { refuse(); }

}  // namespace onnxviz::cuda
