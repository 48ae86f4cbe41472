// Stands where CUDA's own header stands, so that csrc/cuda compiles as C++ and runs on a CPU: what of CUDA it uses.
//
// A kernel's threads are fibers, run one block after the other in an order that ONNXVIZ_CUDA_EMULATOR_ORDER names
// (forward, reversed, strided, or random:SEED). They change places only at barriers, so a missing one shows as a wrong
// answer in some order. Device memory begins with rubbish, ends at a page that nobody may touch (and begins behind one
// where it fills pages), and may be touched by nobody but kernels and copies; work on a stream waits until somebody
// synchronises, as it may on a device. It says nothing about speed, races between warps, or a device's memory model.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <tuple>
#include <utility>

#define CUDART_VERSION 13000

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct uint3 {
  unsigned x, y, z;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};

extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;
constexpr int warpSize = 32;

// -- the runtime ------------------------------------------------------------------------------------------------------

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidDevice = 101,
  cudaErrorNotReady = 600,
};
enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81 };
enum cudaMemoryType { cudaMemoryTypeUnregistered, cudaMemoryTypeHost, cudaMemoryTypeDevice, cudaMemoryTypeManaged };
constexpr unsigned cudaStreamNonBlocking = 1;
constexpr unsigned cudaEventDisableTiming = 2;

struct cudaDeviceProp {
  char name[256];
  std::size_t totalGlobalMem;
  std::size_t sharedMemPerBlockOptin;
  int major;
  int minor;
  int multiProcessorCount;
  int l2CacheSize;
};
struct cudaPointerAttributes {
  cudaMemoryType type;
  int device;
  void* devicePointer;
  void* hostPointer;
};

using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;

const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total);
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaMallocBytes(void** pointer, std::size_t bytes);
template <class T>
cudaError_t cudaMalloc(T** pointer, std::size_t bytes) {
  return cudaMallocBytes(reinterpret_cast<void**>(pointer), bytes);
}
template <class T>
cudaError_t cudaMallocAsync(T** pointer, std::size_t bytes, cudaStream_t) {
  return cudaMallocBytes(reinterpret_cast<void**>(pointer), bytes);
}
cudaError_t cudaFree(void* pointer);
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream);
cudaError_t cudaMallocHost(void** pointer, std::size_t bytes);
cudaError_t cudaFreeHost(void* pointer);
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* pointer, int value, std::size_t bytes, cudaStream_t stream);

namespace cuda_emulator {

// Waits behind what is on the stream already.
void enqueue(cudaStream_t stream, std::function<void()> work);
void run_grid(dim3 grid, dim3 block, std::size_t dynamic_shared, const std::function<void()>& thread);

// Called by the threads of a kernel.
void wait_for_block();
void wait_for_warp();
int thread_in_block();
int lanes_in_warp();
// Memory of the block: what a kernel declares as shared, and what its launch asked for.
void* static_shared(std::size_t bytes);
unsigned char* dynamic_shared();

constexpr std::size_t slot_bytes = 64;
unsigned char* slot(int thread);

// What every lane of the warp has at this point; `read` is given a function from lane to value.
template <class T, class Read>
auto exchange(const T& value, Read&& read) {
  static_assert(sizeof(T) <= slot_bytes, "a slot holds 64 bytes");
  const int first = thread_in_block() / warpSize * warpSize;
  std::memcpy(slot(thread_in_block()), &value, sizeof value);
  wait_for_warp();
  const auto result = read([first](int lane) {
    if (lane < 0 || lane >= lanes_in_warp()) throw std::runtime_error("a lane that the warp does not have");
    T other;
    std::memcpy(&other, slot(first + lane), sizeof other);
    return other;
  });
  wait_for_warp();
  return result;
}

inline int lane() { return thread_in_block() % warpSize; }

inline void expect_full(unsigned mask) {
  if (mask != 0xffffffffu) throw std::runtime_error("only whole warps are emulated");
}

// Of dynamic shared memory a kernel gets 48 KB, and more where that was asked for.
constexpr std::size_t shared_of_a_block = std::size_t{227} << 10;
std::size_t& dynamic_shared_limit(const void* kernel);

template <class... Parameters, std::size_t... I>
std::tuple<Parameters...> unpack(void** places, std::index_sequence<I...>) {
  return {*static_cast<Parameters*>(places[I])...};
}

}  // namespace cuda_emulator

template <class... Parameters>
cudaError_t cudaLaunchKernel(void (*kernel)(Parameters...), dim3 grid, dim3 block, void** arguments,
                             std::size_t shared = 0, cudaStream_t stream = nullptr) {
  const unsigned threads = block.x * block.y * block.z;
  if (threads == 0 || threads > 1024 || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535) {
    return cudaErrorInvalidValue;
  }
  if (shared > cuda_emulator::dynamic_shared_limit(reinterpret_cast<const void*>(kernel))) return cudaErrorInvalidValue;
  auto values = cuda_emulator::unpack<Parameters...>(arguments, std::index_sequence_for<Parameters...>{});
  cuda_emulator::enqueue(stream, [=] {
    cuda_emulator::run_grid(grid, block, shared, [&] { std::apply(kernel, values); });
  });
  return cudaSuccess;
}

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int bytes) {
  if (bytes < 0 || static_cast<std::size_t>(bytes) > cuda_emulator::shared_of_a_block) return cudaErrorInvalidValue;
  cuda_emulator::dynamic_shared_limit(reinterpret_cast<const void*>(kernel)) = static_cast<std::size_t>(bytes);
  return cudaSuccess;
}

// -- what kernels call ------------------------------------------------------------------------------------------------

inline void __syncthreads() { cuda_emulator::wait_for_block(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  cuda_emulator::expect_full(mask);
  cuda_emulator::wait_for_warp();
}
inline void __threadfence() {}
inline void __threadfence_block() {}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize) {
  cuda_emulator::expect_full(mask);
  const int first = cuda_emulator::lane() / width * width;
  return cuda_emulator::exchange(value, [&](auto&& of) { return of(first + (source & (width - 1))); });
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int with, int width = warpSize) {
  cuda_emulator::expect_full(mask);
  const int lane = cuda_emulator::lane();
  const int other = lane ^ with;
  const bool inside = other / width <= lane / width;
  return cuda_emulator::exchange(value, [&](auto&& of) { return of(inside ? other : lane); });
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = warpSize) {
  cuda_emulator::expect_full(mask);
  const int lane = cuda_emulator::lane();
  const bool inside = lane % width + static_cast<int>(by) < width;
  return cuda_emulator::exchange(value, [&](auto&& of) { return of(inside ? lane + static_cast<int>(by) : lane); });
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = warpSize) {
  cuda_emulator::expect_full(mask);
  const int lane = cuda_emulator::lane();
  const bool inside = lane % width >= static_cast<int>(by);
  return cuda_emulator::exchange(value, [&](auto&& of) { return of(inside ? lane - static_cast<int>(by) : lane); });
}
inline unsigned __ballot_sync(unsigned mask, int holds) {
  cuda_emulator::expect_full(mask);
  return cuda_emulator::exchange(holds != 0, [&](auto&& of) {
    unsigned votes = 0;
    for (int lane = 0; lane < cuda_emulator::lanes_in_warp(); ++lane) votes |= static_cast<unsigned>(of(lane)) << lane;
    return votes;
  });
}
inline int __any_sync(unsigned mask, int holds) { return __ballot_sync(mask, holds) != 0; }
inline int __all_sync(unsigned mask, int holds) { return __ballot_sync(mask, holds == 0) == 0; }

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __clz(int bits) { return bits == 0 ? 32 : __builtin_clz(static_cast<unsigned>(bits)); }
// The lower word of high:low shifted right, by the lowest five bits of `by`.
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by) {
  return static_cast<unsigned>((static_cast<std::uint64_t>(high) << 32 | low) >> (by & 31u));
}
template <class T>
T __ldg(const T* place) {
  return *place;
}

// Compiled with -ffp-contract=off, so that these are what they say.
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return std::sqrt(a); }
inline float __double2float_ru(double a) {
  const float nearest = static_cast<float>(a);
  return static_cast<double>(nearest) < a ? std::nextafter(nearest, HUGE_VALF) : nearest;
}
inline float __double2float_rd(double a) {
  const float nearest = static_cast<float>(a);
  return static_cast<double>(nearest) > a ? std::nextafter(nearest, -HUGE_VALF) : nearest;
}
inline long long __double_as_longlong(double a) {
  long long bits;
  std::memcpy(&bits, &a, sizeof bits);
  return bits;
}
inline double __longlong_as_double(long long bits) {
  double a;
  std::memcpy(&a, &bits, sizeof a);
  return a;
}
inline unsigned __float_as_uint(float a) {
  unsigned bits;
  std::memcpy(&bits, &a, sizeof bits);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float a;
  std::memcpy(&a, &bits, sizeof a);
  return a;
}
using std::max;
using std::min;

template <class T, class Change>
T atomic_change(T* place, Change&& change) {
  const T before = *place;
  *place = change(before);
  return before;
}
template <class T>
T atomicAdd(T* place, T value) {
  return atomic_change(place, [&](T now) { return static_cast<T>(now + value); });
}
template <class T>
T atomicMin(T* place, T value) {
  return atomic_change(place, [&](T now) { return value < now ? value : now; });
}
template <class T>
T atomicMax(T* place, T value) {
  return atomic_change(place, [&](T now) { return now < value ? value : now; });
}
template <class T>
T atomicOr(T* place, T value) {
  return atomic_change(place, [&](T now) { return static_cast<T>(now | value); });
}
template <class T>
T atomicExch(T* place, T value) {
  return atomic_change(place, [&](T) { return value; });
}
template <class T>
T atomicCAS(T* place, T expected, T value) {
  return atomic_change(place, [&](T now) { return now == expected ? value : now; });
}
