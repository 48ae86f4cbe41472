// The emulator behind cuda_runtime.h: fibers for threads, guarded pages for device memory, queues for streams.
#include <sys/mman.h>
#include <unistd.h>
#if defined(__x86_64__) && defined(__ELF__)
#define ONNXVIZ_OWN_SWITCH
#else
#include <ucontext.h>
#endif

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "cuda_runtime.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;

struct CUstream_st {
  std::deque<std::function<void()>> work;
};

struct CUevent_st {
  cudaStream_t stream = nullptr;
};

namespace cuda_emulator {
namespace {

constexpr std::size_t stack_bytes = std::size_t{256} << 10;
constexpr int most_threads = 1024;
constexpr unsigned char rubbish = 0xCB;
// Behind a block's shared memory, where nobody may write.
constexpr std::size_t shared_margin = 4096;

// -- stacks -----------------------------------------------------------------------------------------------------------

// Where somebody who waits goes on.
#if defined(ONNXVIZ_OWN_SWITCH)

// swapcontext asks the system for the signal mask, which would take nine tenths of the time of the tests. This saves
// what a call has to keep, and nothing else.
extern "C" void onnxviz_switch_stack(void** from, void* to);
asm(R"(
.text
.type onnxviz_switch_stack, @function
onnxviz_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size onnxviz_switch_stack, .-onnxviz_switch_stack
)");

struct Context {
  void* top = nullptr;

  void enter(char* stack, std::size_t bytes, void (*function)()) {
    constexpr int registers = 6;
    auto* const end = reinterpret_cast<void**>(reinterpret_cast<std::uintptr_t>(stack + bytes) / 16 * 16);
    end[-1] = nullptr;  // whom the function would return to
    end[-2] = reinterpret_cast<void*>(function);
    std::fill(end - 2 - registers, end - 2, nullptr);
    top = end - 2 - registers;
  }
  void switch_to(Context& other) { onnxviz_switch_stack(&top, other.top); }
};

#else

struct Context {
  ucontext_t context;

  void enter(char* stack, std::size_t bytes, void (*function)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = bytes;
    context.uc_link = nullptr;
    makecontext(&context, function, 0);
  }
  void switch_to(Context& other) { swapcontext(&context, &other.context); }
};

#endif

// -- threads of a block -----------------------------------------------------------------------------------------------

enum class State { ready, at_block_barrier, at_warp_barrier, exited };

struct Fiber {
  Context context;
  std::unique_ptr<char[]> stack;
  State state = State::exited;
  uint3 index{};
  void* fake_stack = nullptr;  // the address sanitizer's
};

struct Scheduler {
  Context context;
  void* fake_stack = nullptr;
  const void* stack = nullptr;
  std::size_t stack_size = 0;
  std::vector<Fiber> fibers{most_threads};
  int threads = 0;
  int current = 0;
  const std::function<void()>* body = nullptr;
  std::exception_ptr failure;
  std::vector<unsigned char> shared;
  std::size_t shared_size = 0;
  std::vector<unsigned char> dynamic;
  alignas(64) unsigned char slots[most_threads][slot_bytes];
};

Scheduler& scheduler() {
  static Scheduler one;
  return one;
}

void switch_to_fiber(Fiber& fiber) {
  Scheduler& s = scheduler();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&s.fake_stack, fiber.stack.get(), stack_bytes);
#endif
  s.context.switch_to(fiber.context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(s.fake_stack, nullptr, nullptr);
#endif
}

void switch_back(Fiber& fiber, bool for_good) {
  Scheduler& s = scheduler();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(for_good ? nullptr : &fiber.fake_stack, s.stack, s.stack_size);
#else
  (void)for_good;
#endif
  fiber.context.switch_to(s.context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fiber.fake_stack, &s.stack, &s.stack_size);
#endif
}

void enter_fiber() {
  Scheduler& s = scheduler();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &s.stack, &s.stack_size);
#endif
  Fiber& fiber = s.fibers[static_cast<std::size_t>(s.current)];
  try {
    (*s.body)();
  } catch (...) {
    s.failure = std::current_exception();
  }
  fiber.state = State::exited;
  switch_back(fiber, true);
}

void wait(State state) {
  Scheduler& s = scheduler();
  Fiber& fiber = s.fibers[static_cast<std::size_t>(s.current)];
  fiber.state = state;
  switch_back(fiber, false);
  threadIdx = fiber.index;
}

// The order in which threads, and blocks, get their turn.
class Order {
 public:
  Order() {
    const char* text = std::getenv("ONNXVIZ_CUDA_EMULATOR_ORDER");
    name_ = text == nullptr ? "forward" : text;
    const std::string random = "random:";
    if (name_.compare(0, random.size(), random) == 0) {
      random_ = true;
      generator_.seed(static_cast<unsigned>(std::stoul(name_.substr(random.size()))));
    } else if (name_ != "forward" && name_ != "reversed" && name_ != "strided") {
      throw std::runtime_error("ONNXVIZ_CUDA_EMULATOR_ORDER=" + name_ + ": forward, reversed, strided or random:SEED");
    }
  }

  std::vector<std::int64_t> of(std::int64_t count) {
    std::vector<std::int64_t> order(static_cast<std::size_t>(count));
    std::iota(order.begin(), order.end(), std::int64_t{0});
    if (name_ == "reversed") std::reverse(order.begin(), order.end());
    if (name_ == "strided") {
      // 101 shares no factor with a number of threads; where it does with a number of blocks, forward will do.
      if (std::gcd(count, std::int64_t{101}) == 1) {
        for (std::int64_t i = 0; i < count; ++i) order[static_cast<std::size_t>(i)] = (i * 101 + 37) % count;
      }
    }
    if (random_) std::shuffle(order.begin(), order.end(), generator_);
    return order;
  }

  // The warp that goes on alone, and then those behind it, until all have come to a barrier of the block; -1 where they
  // go on together. Random orders have both.
  int leader() const { return leader_; }
  void choose_leader(int warps) {
    leader_ = random_ && generator_() % 2 == 0 ? static_cast<int>(generator_() % static_cast<unsigned>(warps)) : -1;
  }

 private:
  std::string name_;
  bool random_ = false;
  int leader_ = -1;
  std::mt19937 generator_;
};

// Lets on whom a barrier keeps no longer. False where nobody could be.
bool release(Order& order) {
  Scheduler& s = scheduler();
  const int warps = (s.threads + warpSize - 1) / warpSize;
  bool released = false;
  for (int n = 0; n < warps; ++n) {
    const int first = (std::max(order.leader(), 0) + n) % warps * warpSize;
    const int last = std::min(first + warpSize, s.threads);
    int waiting = 0;
    int exited = 0;
    for (int i = first; i < last; ++i) {
      waiting += s.fibers[static_cast<std::size_t>(i)].state == State::at_warp_barrier;
      exited += s.fibers[static_cast<std::size_t>(i)].state == State::exited;
    }
    if (waiting != 0 && exited != 0) throw std::runtime_error("lanes of a warp left before its barrier");
    if (waiting != last - first) continue;
    for (int i = first; i < last; ++i) s.fibers[static_cast<std::size_t>(i)].state = State::ready;
    released = true;
    if (order.leader() >= 0) break;
  }
  if (released) return true;
  int waiting = 0;
  int exited = 0;
  for (int i = 0; i < s.threads; ++i) {
    waiting += s.fibers[static_cast<std::size_t>(i)].state == State::at_block_barrier;
    exited += s.fibers[static_cast<std::size_t>(i)].state == State::exited;
  }
  if (waiting != 0 && exited != 0) throw std::runtime_error("threads of a block left before its barrier");
  if (waiting != s.threads) return false;
  order.choose_leader(warps);
  for (int i = 0; i < s.threads; ++i) s.fibers[static_cast<std::size_t>(i)].state = State::ready;
  return true;
}

bool is_rubbish(const unsigned char* first, const unsigned char* end) {
  return std::all_of(first, end, [](unsigned char byte) { return byte == rubbish; });
}

// At the end of a block.
void check_shared_memory() {
  Scheduler& s = scheduler();
  const unsigned char* const dynamic_end = s.dynamic.data() + s.dynamic.size();
  bool untouched = is_rubbish(dynamic_end - shared_margin, dynamic_end);
  if (s.shared_size != 0) {
    const auto* const place = static_cast<const unsigned char*>(static_shared(s.shared_size));
    untouched = untouched && is_rubbish(place + s.shared_size, place + s.shared_size + shared_margin);
  }
  if (!untouched) throw std::runtime_error("a block wrote past the end of its shared memory");
}

void run_block(Order& order) {
  Scheduler& s = scheduler();
  s.threads = static_cast<int>(blockDim.x * blockDim.y * blockDim.z);
  s.failure = nullptr;
  s.shared_size = 0;
  std::fill(s.dynamic.begin(), s.dynamic.end(), rubbish);
  for (int i = 0; i < s.threads; ++i) {
    Fiber& fiber = s.fibers[static_cast<std::size_t>(i)];
    if (!fiber.stack) fiber.stack = std::make_unique<char[]>(stack_bytes);
    const auto number = static_cast<unsigned>(i);
    fiber.index = {number % blockDim.x, number / blockDim.x % blockDim.y, number / (blockDim.x * blockDim.y)};
#if defined(__SANITIZE_ADDRESS__)
    // Of a kernel that failed, whose threads never came to their ends.
    if (fiber.state != State::exited) ASAN_UNPOISON_MEMORY_REGION(fiber.stack.get(), stack_bytes);
#endif
    fiber.state = State::ready;
    fiber.context.enter(fiber.stack.get(), stack_bytes, enter_fiber);
  }
  for (;;) {
    for (const std::int64_t i : order.of(s.threads)) {
      Fiber& fiber = s.fibers[static_cast<std::size_t>(i)];
      if (fiber.state != State::ready) continue;
      s.current = static_cast<int>(i);
      threadIdx = fiber.index;
      switch_to_fiber(fiber);
      if (s.failure) std::rethrow_exception(s.failure);
    }
    bool all_exited = true;
    bool some_ready = false;
    for (int i = 0; i < s.threads; ++i) {
      const State state = s.fibers[static_cast<std::size_t>(i)].state;
      all_exited = all_exited && state == State::exited;
      some_ready = some_ready || state == State::ready;
    }
    if (all_exited) return check_shared_memory();
    if (!some_ready && !release(order)) throw std::runtime_error("threads of a block wait at different barriers");
  }
}

// -- device memory ----------------------------------------------------------------------------------------------------

struct Allocation {
  void* pages = nullptr;
  std::size_t mapped = 0;  // the guarding pages at both ends included
  std::size_t bytes = 0;
  int device = 0;
};

struct Machine {
  std::recursive_mutex mutex;
  std::map<const unsigned char*, Allocation> allocations;
  std::vector<cudaStream_t> streams;
  int open = 0;  // how many are inside `Unlocked`
  int device = 0;
  std::size_t used = 0;
};

Machine& machine() {
  static Machine* const one = new Machine;  // outlives whatever frees memory at exit
  return *one;
}

std::size_t page() {
  static const auto bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

bool protects() {
  static const bool wanted = [] {
    const char* text = std::getenv("ONNXVIZ_CUDA_EMULATOR_PROTECT");
    return text == nullptr || std::string(text) != "0";
  }();
  return wanted;
}

int device_count() {
  static const int count = [] {
    const char* text = std::getenv("ONNXVIZ_CUDA_EMULATOR_DEVICES");
    return text == nullptr ? 2 : std::atoi(text);
  }();
  return count;
}

std::size_t device_memory() {
  static const std::size_t bytes = [] {
    const char* text = std::getenv("ONNXVIZ_CUDA_EMULATOR_MEMORY");
    return text == nullptr ? std::size_t{4} << 30 : static_cast<std::size_t>(std::atoll(text));
  }();
  return bytes;
}

void protect(const Allocation& allocation, bool locked) {
  if (!protects()) return;
  mprotect(static_cast<unsigned char*>(allocation.pages) + page(), allocation.mapped - 2 * page(),
           locked ? PROT_NONE : PROT_READ | PROT_WRITE);
}

// While one lives, device memory may be touched.
class Unlocked {
 public:
  Unlocked() {
    Machine& m = machine();
    m.mutex.lock();
    if (m.open++ == 0) {
      for (const auto& [place, allocation] : m.allocations) protect(allocation, false);
    }
  }
  ~Unlocked() {
    Machine& m = machine();
    if (--m.open == 0) {
      for (const auto& [place, allocation] : m.allocations) protect(allocation, true);
    }
    m.mutex.unlock();
  }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;
};

void drain(cudaStream_t stream) {
  std::lock_guard<std::recursive_mutex> lock(machine().mutex);
  while (!stream->work.empty()) {
    const std::function<void()> work = std::move(stream->work.front());
    stream->work.pop_front();
    work();
  }
}

void drain_all() {
  std::lock_guard<std::recursive_mutex> lock(machine().mutex);
  for (const cudaStream_t stream : machine().streams) drain(stream);
}

void free_now(void* pointer) {
  if (pointer == nullptr) return;
  Machine& m = machine();
  std::lock_guard<std::recursive_mutex> lock(m.mutex);
  const auto found = m.allocations.find(static_cast<const unsigned char*>(pointer));
  if (found == m.allocations.end()) throw std::runtime_error("cudaFree of what cudaMalloc did not give");
  m.used -= found->second.bytes;
  munmap(found->second.pages, found->second.mapped);
  m.allocations.erase(found);
}

}  // namespace

void enqueue(cudaStream_t stream, std::function<void()> work) {
  if (stream == nullptr) {
    drain_all();
    work();
    return;
  }
  std::lock_guard<std::recursive_mutex> lock(machine().mutex);
  stream->work.push_back(std::move(work));
}

void run_grid(dim3 grid, dim3 block, std::size_t dynamic_shared, const std::function<void()>& thread) {
  const Unlocked unlocked;
  Scheduler& s = scheduler();
  s.body = &thread;
  s.dynamic.assign(dynamic_shared + shared_margin, rubbish);
  gridDim = grid;
  blockDim = block;
  Order order;
  const auto blocks = static_cast<std::int64_t>(grid.x) * grid.y * grid.z;
  for (const std::int64_t i : order.of(blocks)) {
    const auto number = static_cast<std::uint64_t>(i);
    blockIdx = {static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number / grid.x % grid.y),
                static_cast<unsigned>(number / (static_cast<std::uint64_t>(grid.x) * grid.y))};
    run_block(order);
  }
}

void wait_for_block() { wait(State::at_block_barrier); }

void wait_for_warp() { wait(State::at_warp_barrier); }

int thread_in_block() { return scheduler().current; }

int lanes_in_warp() {
  const Scheduler& s = scheduler();
  return std::min(warpSize, s.threads - s.current / warpSize * warpSize);
}

unsigned char* slot(int thread) { return scheduler().slots[thread]; }

void* static_shared(std::size_t bytes) {
  Scheduler& s = scheduler();
  // Every thread declares the same one struct, so the first call of a block makes it.
  if (s.shared_size == 0) {
    s.shared.assign(bytes + 64 + shared_margin, rubbish);
    s.shared_size = bytes;
  }
  if (s.shared_size != bytes) throw std::runtime_error("a kernel with two declarations of shared memory");
  void* place = s.shared.data();
  std::size_t space = s.shared.size();
  return std::align(64, bytes, place, space);
}

std::size_t& dynamic_shared_limit(const void* kernel) {
  static std::map<const void*, std::size_t> limits;
  return limits.try_emplace(kernel, std::size_t{48} << 10).first->second;
}

unsigned char* dynamic_shared() { return scheduler().dynamic.data(); }

}  // namespace cuda_emulator

using namespace cuda_emulator;

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorNotReady: return "not ready";
  }
  return "unknown error";
}

cudaError_t cudaGetLastError() { return cudaSuccess; }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = device_count();
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= device_count()) return cudaErrorInvalidDevice;
  machine().device = device;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = machine().device;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0 || device >= device_count()) return cudaErrorInvalidDevice;
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "emulated device %d", device);
  properties->totalGlobalMem = device_memory();
  properties->sharedMemPerBlockOptin = cuda_emulator::shared_of_a_block;
  properties->major = 9;
  properties->multiProcessorCount = 4;
  properties->l2CacheSize = 1 << 20;
  return cudaSuccess;
}

// The second device has less, for kernels that are chosen by it.
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int device) {
  if (device < 0 || device >= device_count()) return cudaErrorInvalidDevice;
  *value = (device == 0 ? 228 : 100) << 10;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *total = device_memory();
  *free = *total - machine().used;
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  Machine& m = machine();
  std::lock_guard<std::recursive_mutex> lock(m.mutex);
  *attributes = {cudaMemoryTypeUnregistered, 0, nullptr, const_cast<void*>(pointer)};
  const auto* byte = static_cast<const unsigned char*>(pointer);
  auto next = m.allocations.upper_bound(byte);
  if (next == m.allocations.begin()) return cudaSuccess;
  --next;
  if (byte < next->first + next->second.bytes) {
    *attributes = {cudaMemoryTypeDevice, next->second.device, const_cast<void*>(pointer), nullptr};
  }
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  drain_all();
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  std::lock_guard<std::recursive_mutex> lock(machine().mutex);
  *stream = new CUstream_st;
  machine().streams.push_back(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  std::lock_guard<std::recursive_mutex> lock(machine().mutex);
  drain(stream);
  auto& streams = machine().streams;
  streams.erase(std::remove(streams.begin(), streams.end(), stream), streams.end());
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream == nullptr) {
    drain_all();
  } else {
    drain(stream);
  }
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const cudaStream_t other = event->stream;
  if (other != nullptr && other != stream) enqueue(stream, [other] { drain(other); });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->stream = stream;
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) { return cudaStreamSynchronize(event->stream); }

cudaError_t cudaMallocBytes(void** pointer, std::size_t bytes) {
  Machine& m = machine();
  std::lock_guard<std::recursive_mutex> lock(m.mutex);
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  if (bytes > device_memory() - std::min(m.used, device_memory())) return cudaErrorMemoryAllocation;
  // The end lies 16 bytes or less before the guarding page: as near as vector loads allow. Before the first page of the
  // memory there is another one.
  const std::size_t padded = (bytes + 15) / 16 * 16;
  Allocation allocation;
  allocation.bytes = bytes;
  allocation.device = m.device;
  allocation.mapped = (padded + page() - 1) / page() * page() + 2 * page();
  allocation.pages = mmap(nullptr, allocation.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (allocation.pages == MAP_FAILED) return cudaErrorMemoryAllocation;
  auto* const end = static_cast<unsigned char*>(allocation.pages) + allocation.mapped - page();
  mprotect(allocation.pages, page(), PROT_NONE);
  mprotect(end, page(), PROT_NONE);
  unsigned char* const place = end - padded;
  std::memset(place, rubbish, padded);
  if (m.open == 0) protect(allocation, true);
  m.used += bytes;
  m.allocations[place] = allocation;
  *pointer = place;
  return cudaSuccess;
}

cudaError_t cudaFree(void* pointer) {
  drain_all();
  free_now(pointer);
  return cudaSuccess;
}

cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  enqueue(stream, [pointer] { free_now(pointer); });
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** pointer, std::size_t bytes) {
  *pointer = std::malloc(bytes == 0 ? 1 : bytes);
  return *pointer == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaFreeHost(void* pointer) {
  drain_all();
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind) {
  drain_all();
  const Unlocked unlocked;
  if (bytes != 0) std::memmove(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  enqueue(stream, [=] {
    const Unlocked unlocked;
    if (bytes != 0) std::memmove(to, from, bytes);
  });
  return cudaSuccess;
}

cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind, cudaStream_t stream) {
  if (width > to_pitch || width > from_pitch) return cudaErrorInvalidValue;
  enqueue(stream, [=] {
    const Unlocked unlocked;
    for (std::size_t row = 0; row < height; ++row) {
      std::memmove(static_cast<char*>(to) + row * to_pitch, static_cast<const char*>(from) + row * from_pitch, width);
    }
  });
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* pointer, int value, std::size_t bytes, cudaStream_t stream) {
  enqueue(stream, [=] {
    const Unlocked unlocked;
    if (bytes != 0) std::memset(pointer, value, bytes);
  });
  return cudaSuccess;
}
