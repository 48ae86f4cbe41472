// Device memory and queues for Python, and arrays shared by DLPack: capsules that go out, and those that come in.
#include "onnxviz/cuda/memory.h"

#include <pybind11/stl.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "arrays.h"
#include "dlpack.h"

namespace onnxviz::bindings {
namespace {

constexpr const char* legacy_name = "dltensor";
constexpr const char* versioned_name = "dltensor_versioned";

using Address = std::uintptr_t;
using SharedMemory = std::shared_ptr<cuda::Memory>;

// What device memory is to others. The emulator's is the host's, behind guards that are down only when told so: then
// everybody may read it, else nobody may.
int device_type() {
#if defined(ONNXVIZ_CUDA_EMULATED)
  const char* protect = std::getenv("ONNXVIZ_CUDA_EMULATOR_PROTECT");
  return protect != nullptr && std::strcmp(protect, "0") == 0 ? kDLCPU : kDLExtDev;
#else
  return kDLCUDA;
#endif
}

// A stream as the two protocols write it: 1 is the default one.
cuda::StreamView view_of(int device, Address handle) {
#if defined(ONNXVIZ_CUDA_EMULATED)
  if (handle == 2) handle = 1;  // the default one of each thread, which the emulator does not have
#endif
  return {device, handle == 1 ? nullptr : reinterpret_cast<void*>(handle)};
}

// -- capsules that go out ---------------------------------------------------------------------------------------------

// Lives as long as somebody holds the capsule or what was made of it.
template <class Managed>
struct Export {
  Managed managed{};
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;
  SharedMemory memory;
};

template <class Managed>
void delete_export(Managed* managed) {
  delete static_cast<Export<Managed>*>(managed->manager_ctx);
}

// Of a capsule that nobody took: who takes one renames it.
template <class Managed>
void delete_capsule(PyObject* capsule, const char* name) {
  if (PyCapsule_IsValid(capsule, name) == 0) return;
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule, name));
  if (managed->deleter != nullptr) managed->deleter(managed);
}

template <class Managed>
std::unique_ptr<Export<Managed>> make_export(const SharedMemory& memory, std::vector<std::int64_t> shape, int code,
                                             int bits) {
  auto made = std::make_unique<Export<Managed>>();
  made->memory = memory;
  made->shape = std::move(shape);
  made->strides.resize(made->shape.size());
  std::int64_t stride = 1;
  for (std::size_t axis = made->shape.size(); axis-- > 0;) {
    made->strides[axis] = stride;
    stride *= made->shape[axis];
  }
  made->managed.dl_tensor = {memory->data(),
                             {device_type(), device_type() == kDLCPU ? 0 : memory->device()},
                             static_cast<std::int32_t>(made->shape.size()),
                             {static_cast<std::uint8_t>(code), static_cast<std::uint8_t>(bits), 1},
                             made->shape.data(),
                             made->strides.data(),
                             0};
  made->managed.manager_ctx = made.get();
  made->managed.deleter = delete_export<Managed>;
  return made;
}

py::object to_dlpack(const SharedMemory& memory, std::vector<std::int64_t> shape, int code, int bits, bool versioned,
                     bool copied) {
  PyObject* capsule = nullptr;
  if (versioned) {
    auto made = make_export<DLManagedTensorVersioned>(memory, std::move(shape), code, bits);
    made->managed.version = {1, 0};
    made->managed.flags = copied ? dlpack_copied : 0;
    capsule = PyCapsule_New(&made->managed, versioned_name, [](PyObject* object) {
      delete_capsule<DLManagedTensorVersioned>(object, versioned_name);
    });
    if (capsule != nullptr) made.release();
  } else {
    auto made = make_export<DLManagedTensor>(memory, std::move(shape), code, bits);
    capsule = PyCapsule_New(&made->managed, legacy_name,
                            [](PyObject* object) { delete_capsule<DLManagedTensor>(object, legacy_name); });
    if (capsule != nullptr) made.release();
  }
  if (capsule == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(capsule);
}

// -- capsules that come in --------------------------------------------------------------------------------------------

// Somebody else's array, kept alive.
class Borrowed {
 public:
  explicit Borrowed(const py::object& capsule) {
    if (PyCapsule_IsValid(capsule.ptr(), versioned_name) != 0) {
      auto* managed = take<DLManagedTensorVersioned>(capsule, versioned_name, "used_dltensor_versioned");
      // A later major version may lay out everything behind the deleter in another way.
      if (managed->version.major != 1) throw std::invalid_argument("the capsule is of another DLPack than version 1");
      tensor_ = &managed->dl_tensor;
      read_only_ = (managed->flags & dlpack_read_only) != 0;
    } else if (PyCapsule_IsValid(capsule.ptr(), legacy_name) != 0) {
      tensor_ = &take<DLManagedTensor>(capsule, legacy_name, "used_dltensor")->dl_tensor;
    } else {
      throw std::invalid_argument("not a DLPack capsule, or one that somebody has taken");
    }
  }

  Address pointer() const { return reinterpret_cast<Address>(tensor_->data) + tensor_->byte_offset; }
  std::vector<std::int64_t> shape() const { return {tensor_->shape, tensor_->shape + tensor_->ndim}; }
  std::optional<std::vector<std::int64_t>> strides() const {
    if (tensor_->strides == nullptr) return std::nullopt;
    return std::vector<std::int64_t>(tensor_->strides, tensor_->strides + tensor_->ndim);
  }
  py::tuple dtype() const { return py::make_tuple(tensor_->dtype.code, tensor_->dtype.bits, tensor_->dtype.lanes); }
  bool read_only() const { return read_only_; }

 private:
  template <class Managed>
  Managed* take(const py::object& capsule, const char* name, const char* used) {
    auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule.ptr(), name));
    if (PyCapsule_SetName(capsule.ptr(), used) != 0) throw py::error_already_set();
    managed_ = std::shared_ptr<Managed>(managed, [](Managed* one) {
      if (one->deleter != nullptr) one->deleter(one);
    });
    return managed;
  }

  std::shared_ptr<void> managed_;
  const DLTensor* tensor_ = nullptr;
  bool read_only_ = false;
};

// -- copies -----------------------------------------------------------------------------------------------------------

void check_host(const py::array& array, const cuda::Memory& memory) {
  if ((array.flags() & py::array::c_style) == 0) throw std::invalid_argument("the array is not C-contiguous");
  if (static_cast<std::size_t>(array.nbytes()) != memory.bytes()) {
    throw std::invalid_argument("the array has not as many bytes as the device memory");
  }
}

void copy_from_host(const cuda::Memory& memory, const py::array& array, Address stream) {
  check_host(array, memory);
  const void* from = array.data();
  const py::gil_scoped_release release;
  cuda::copy_to_device(memory.data(), from, memory.bytes(), view_of(memory.device(), stream));
}

void copy_to_host(const cuda::Memory& memory, const py::array& array, Address stream) {
  check_host(array, memory);
  if (!array.writeable()) throw std::invalid_argument("the array is read-only");
  void* to = const_cast<void*>(array.data());
  const py::gil_scoped_release release;
  cuda::copy_to_host(to, memory.data(), memory.bytes(), view_of(memory.device(), stream));
}

}  // namespace

void register_cuda_memory(py::module_& module) {
  const auto release = py::call_guard<py::gil_scoped_release>();

  py::class_<cuda::Stream>(module, "Stream", py::is_final(), plain_metaclass(), "A queue of work on one device.")
      .def(py::init<int>(), py::arg("device"), release)
      .def_property_readonly("handle",
                             [](const cuda::Stream& stream) { return reinterpret_cast<Address>(stream.view().handle); })
      .def_property_readonly("device", [](const cuda::Stream& stream) { return stream.view().device; })
      .def("synchronize", &cuda::Stream::synchronize, release);

  py::class_<cuda::Memory, SharedMemory>(module, "Memory", py::is_final(), plain_metaclass(), "Bytes on one device.")
      .def(py::init<std::size_t, int>(), py::arg("nbytes"), py::arg("device"), release)
      .def_property_readonly("pointer",
                             [](const cuda::Memory& memory) { return reinterpret_cast<Address>(memory.data()); })
      .def_property_readonly("nbytes", &cuda::Memory::bytes)
      .def_property_readonly("device", &cuda::Memory::device)
      .def("copy_from_host", &copy_from_host, py::arg("array").noconvert(), py::arg("stream"))
      .def("copy_to_host", &copy_to_host, py::arg("array").noconvert(), py::arg("stream"))
      .def("to_dlpack", &to_dlpack, py::arg("shape"), py::arg("code"), py::arg("bits"), py::arg("versioned"),
           py::arg("copied"));

  py::class_<Borrowed>(module, "Borrowed", py::is_final(), plain_metaclass(), "An array from a DLPack capsule.")
      .def(py::init<const py::object&>(), py::arg("capsule"))
      .def_property_readonly("pointer", &Borrowed::pointer)
      .def_property_readonly("shape", &Borrowed::shape)
      .def_property_readonly("strides", &Borrowed::strides)
      .def_property_readonly("dtype", &Borrowed::dtype)
      .def_property_readonly("read_only", &Borrowed::read_only);

  module.def("device_type", &device_type, "What DLPack calls the memory of these devices.");
  module.def(
      "device_of", [](Address pointer) { return cuda::device_of(reinterpret_cast<const void*>(pointer)); },
      py::arg("pointer"), release, "Number of the device that memory is on; -1 for the host's.");
  module.def(
      "synchronize", [](int device, Address stream) { cuda::synchronize(view_of(device, stream)); }, py::arg("device"),
      py::arg("stream"), release, "Waits until all work on the stream is done.");
  module.def(
      "wait_for",
      [](int device, Address later, Address earlier) {
        cuda::wait_for(view_of(device, later), view_of(device, earlier));
      },
      py::arg("device"), py::arg("later"), py::arg("earlier"), release,
      "Makes what comes on one stream of a device wait for what is on another now.");
  module.def(
      "copy_on_device",
      [](Address to, Address from, std::size_t nbytes, int device, Address stream) {
        cuda::copy_on_device(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), nbytes,
                             view_of(device, stream));
      },
      py::arg("to"), py::arg("source"), py::arg("nbytes"), py::arg("device"), py::arg("stream"), release,
      "Copies from device memory to device memory, on the stream.");
  module.def(
      "memory_info",
      [](int device) {
        const cuda::MemoryInfo info = cuda::memory_info(device);
        return std::pair<std::size_t, std::size_t>(info.free, info.total);
      },
      py::arg("device"), release, "Bytes of a device that are free, and all of them.");
}

}  // namespace onnxviz::bindings
