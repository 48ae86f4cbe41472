// The structs by which DLPack 1.x hands an array from one library to another, as its specification lays them out.
#pragma once

#include <cstdint>

namespace onnxviz::bindings {

enum DLDeviceType : std::int32_t { kDLCPU = 1, kDLCUDA = 2, kDLExtDev = 12 };

struct DLDevice {
  std::int32_t device_type;
  std::int32_t device_id;
};

struct DLDataType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};

struct DLTensor {
  void* data;
  DLDevice device;
  std::int32_t ndim;
  DLDataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // elements; null where the array is C-contiguous
  std::uint64_t byte_offset;
};

// What a capsule "dltensor" holds.
struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensor*);
};

struct DLPackVersion {
  std::uint32_t major;
  std::uint32_t minor;
};

constexpr std::uint64_t dlpack_read_only = 1;
constexpr std::uint64_t dlpack_copied = 2;

// What a capsule "dltensor_versioned" holds.
struct DLManagedTensorVersioned {
  DLPackVersion version;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned*);
  std::uint64_t flags;
  DLTensor dl_tensor;
};

}  // namespace onnxviz::bindings
