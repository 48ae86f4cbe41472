// Holds for a build with CUDA on a machine with a device, for one without a device, and for a build without CUDA.
#include "onnxviz/cuda/device.h"

#include <stdexcept>

#include "check.h"

using namespace onnxviz;

int main() {
  return onnxviz::test::run([] {
    const std::string status = cuda::status();
    CHECK(cuda::compiled() == cuda::why_not_compiled().empty());
    CHECK((cuda::device_count() > 0) == status.empty());
    if (!cuda::compiled()) CHECK(!status.empty());
    if (status.empty()) {
      CHECK(static_cast<int>(cuda::devices().size()) == cuda::device_count());
      for (const cuda::Device& device : cuda::devices()) {
        CHECK(!device.name.empty());
        CHECK(device.major > 0 && device.memory > 0 && device.multiprocessors > 0);
      }
      CHECK(cuda::driver_version() > 0);
    } else {
      CHECK(!onnxviz::test::message_of<std::runtime_error>([] { cuda::devices(); }).empty());
    }
    CHECK((cuda::runtime_version() > 0) == cuda::compiled());
  });
}
