// What kernels say in a way that nvcc and, against the emulator of the tests, a C++ compiler understand.
#pragma once

#include <cuda_runtime.h>

// A kernel's shared memory is one struct without constructors, or as many bytes as its launch asked for.
#if defined(ONNXVIZ_CUDA_EMULATED)
#define ONNXVIZ_SHARED(Type, name) Type& name = *static_cast<Type*>(::cuda_emulator::static_shared(sizeof(Type)))
#define ONNXVIZ_DYNAMIC_SHARED(name) unsigned char* const name = ::cuda_emulator::dynamic_shared()
#define ONNXVIZ_UNROLL
#define ONNXVIZ_NO_UNROLL
#else
#define ONNXVIZ_SHARED(Type, name) __shared__ Type name
#define ONNXVIZ_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#define ONNXVIZ_UNROLL _Pragma("unroll")
#define ONNXVIZ_NO_UNROLL _Pragma("unroll 1")
#endif

namespace onnxviz::cuda {

constexpr unsigned whole_warp = 0xffffffffu;

}  // namespace onnxviz::cuda
