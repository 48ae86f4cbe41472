// Bytes on a device that begin where a test wants them to, with others before and behind that nobody may change.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "occlusion_cases.h"
#include "onnxviz/cuda/memory.h"

namespace onnxviz::test {

class DeviceBytes {
 public:
  // They begin `shift` bytes behind a multiple of 16. Without a margin they end where the memory ends.
  DeviceBytes(const Bytes& bytes, std::size_t shift, std::size_t margin, const cuda::Stream& stream)
      : before_(margin + shift), size_(bytes.size()), whole_(random_bytes(before_ + size_ + margin, 99)),
        memory_(whole_.size(), 0) {
    std::copy(bytes.begin(), bytes.end(), whole_.begin() + static_cast<std::ptrdiff_t>(before_));
    cuda::copy_to_device(memory_.data(), whole_.data(), whole_.size(), stream.view());
  }

  // Null where there are none, as a view of an empty array is.
  unsigned char* data() const { return size_ == 0 ? nullptr : memory_.data() + before_; }

  // Whether they are now these, and everything around them is as it was.
  bool are(const Bytes& wanted, const cuda::Stream& stream) const {
    Bytes all = whole_;
    std::copy(wanted.begin(), wanted.end(), all.begin() + static_cast<std::ptrdiff_t>(before_));
    Bytes found(all.size());
    cuda::copy_to_host(found.data(), memory_.data(), found.size(), stream.view());
    return wanted.size() == size_ && found == all;
  }

 private:
  std::size_t before_;
  std::size_t size_;
  Bytes whole_;
  cuda::Array<unsigned char> memory_;
};

}  // namespace onnxviz::test
