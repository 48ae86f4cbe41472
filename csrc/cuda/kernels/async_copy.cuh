// Copies of 16 bytes from global to shared memory that run while the thread computes.
//
// A thread begins copies, closes them to a group, and waits until all but the last few groups have arrived; other
// threads see them after a barrier. Architectures before 8.0 copy at once.
#pragma once

#include "dialect.cuh"

#if defined(ONNXVIZ_CUDA_EMULATED)
#include <deque>
#include <map>
#include <vector>
#endif

namespace onnxviz::cuda {

#if defined(ONNXVIZ_CUDA_EMULATED)

// Copies are made when the thread waits for them, not before: who reads too early reads what was there.
struct PendingCopies {
  struct Copy {
    void* to;
    unsigned char bytes[16];
  };
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> groups;
};

inline PendingCopies& pending_copies() {
  static std::map<int, PendingCopies> of_thread;
  return of_thread[::cuda_emulator::thread_in_block()];
}

inline void begin_copy_16(void* shared, const void* global) {
  PendingCopies::Copy copy{shared, {}};
  std::memcpy(copy.bytes, global, 16);
  pending_copies().open.push_back(copy);
}

inline void close_copy_group() {
  pending_copies().groups.push_back(std::move(pending_copies().open));
  pending_copies().open.clear();
}

template <int Left>
inline void wait_for_copies() {
  PendingCopies& pending = pending_copies();
  while (pending.groups.size() > Left) {
    for (const auto& copy : pending.groups.front()) std::memcpy(copy.to, copy.bytes, 16);
    pending.groups.pop_front();
  }
}

#else

__device__ __forceinline__ void begin_copy_16(void* shared, const void* global) {
#if __CUDA_ARCH__ >= 800
  const auto place = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(place), "l"(global) : "memory");
#else
  *static_cast<uint4*>(shared) = *static_cast<const uint4*>(global);
#endif
}

__device__ __forceinline__ void close_copy_group() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int Left>
__device__ __forceinline__ void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(Left) : "memory");
#endif
}

#endif

}  // namespace onnxviz::cuda
