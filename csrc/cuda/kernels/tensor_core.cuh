// One step of a tensor core: a warp multiplies 16 x 32 signed bytes by 32 x 8 and adds to 16 x 8 integers.
//
// Fragments are those of PTX's mma.m16n8k32. With g = lane / 4 and t = lane % 4, four bytes to a register, the lowest
// column or row in the lowest byte:
//   a[0] row g, columns 4 t .. 4 t + 3      a[1] row g + 8, the same columns
//   a[2] row g, columns 16 + 4 t ..         a[3] row g + 8, those
//   b[0] rows 4 t .. 4 t + 3 of column g    b[1] rows 16 + 4 t .. of it
//   sums[0], sums[1] row g, columns 2 t and 2 t + 1; sums[2], sums[3] the same of row g + 8
#pragma once

#include <cstdint>

#include "dialect.cuh"

namespace onnxviz::cuda {

#if defined(ONNXVIZ_CUDA_EMULATED)

struct TensorFragments {
  unsigned a[4];
  unsigned b[2];
};

inline int product_of_bytes(unsigned a, unsigned b) {
  int sum = 0;
  for (int byte = 0; byte < 4; ++byte) {
    sum += static_cast<std::int8_t>(a >> 8 * byte & 255u) * static_cast<std::int8_t>(b >> 8 * byte & 255u);
  }
  return sum;
}

inline void multiply_add(int (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  const TensorFragments mine{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const int group = ::cuda_emulator::lane() / 4;
  const int column = ::cuda_emulator::lane() % 4 * 2;
  ::cuda_emulator::exchange(mine, [&](auto&& of) {
    for (int k = 0; k < 4; ++k) {
      const TensorFragments row = of(4 * group + k);
      for (int side = 0; side < 2; ++side) {
        const TensorFragments other = of(4 * (column + side) + k);
        for (int half = 0; half < 2; ++half) {
          sums[side] += product_of_bytes(row.a[2 * half], other.b[half]);
          sums[2 + side] += product_of_bytes(row.a[2 * half + 1], other.b[half]);
        }
      }
    }
    return 0;
  });
}

// sum of four products of signed bytes, added to `sum`
inline int multiply_add_bytes(int a, int b, int sum) {
  return sum + product_of_bytes(static_cast<unsigned>(a), static_cast<unsigned>(b));
}

#else

__device__ __forceinline__ void multiply_add(int (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  // Turing has the quarter of it: 8 x 16 by 16 x 8, its fragments the same words.
  const auto quarter = [](int& first, int& second, unsigned left, unsigned right) {
    asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
        : "+r"(first), "+r"(second)
        : "r"(left), "r"(right));
  };
  quarter(sums[0], sums[1], a[0], b[0]);
  quarter(sums[0], sums[1], a[2], b[1]);
  quarter(sums[2], sums[3], a[1], b[0]);
  quarter(sums[2], sums[3], a[3], b[1]);
#endif
}

__device__ __forceinline__ int multiply_add_bytes(int a, int b, int sum) { return __dp4a(a, b, sum); }

#endif

}  // namespace onnxviz::cuda
