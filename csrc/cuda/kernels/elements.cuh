// Elements of activation maps as bits, and the float32 that each is exactly.
#pragma once

#include "dialect.cuh"

namespace onnxviz::cuda {

struct Float32 {
  using Bits = unsigned;
  static __device__ __forceinline__ float value(Bits bits) { return __uint_as_float(bits); }
};

struct Bfloat16 {
  using Bits = unsigned short;
  static __device__ __forceinline__ float value(Bits bits) { return __uint_as_float(static_cast<unsigned>(bits) << 16); }
};

struct Float16 {
  using Bits = unsigned short;
  static __device__ __forceinline__ float value(Bits bits) {
    const unsigned magnitude = static_cast<unsigned>(bits) & 0x7fffu;
    // The exponent's bias is off by 112 in the place of a float32's: a product with 2^112, which also makes subnormal
    // numbers normal ones. What was infinite or NaN is then 65536 or more.
    const float scaled = __uint_as_float(magnitude << 13) * 5192296858534827628530496329220096.0f;
    const unsigned special = scaled >= 65536.0f ? 0x7f800000u : 0u;
    return __uint_as_float(__float_as_uint(scaled) | special | (static_cast<unsigned>(bits) & 0x8000u) << 16);
  }
};

}  // namespace onnxviz::cuda
