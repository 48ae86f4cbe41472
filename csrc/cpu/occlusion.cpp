#include "onnxviz/occlusion.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "parallel.h"

namespace onnxviz {
namespace {

// Below this many bytes the start of a thread costs more than it brings.
constexpr std::size_t bytes_worth_a_thread = std::size_t{1} << 21;

void check_boxes(const Box* boxes, std::int64_t count, std::int64_t height, std::int64_t width, const char* what) {
  for (std::int64_t i = 0; i < count; ++i) {
    const Box& box = boxes[i];
    const bool inside = 0 <= box.top && box.top <= box.bottom && box.bottom <= height && 0 <= box.left &&
                        box.left <= box.right && box.right <= width;
    if (!inside) {
      throw std::invalid_argument(std::string(what) + " " + std::to_string(i) + " is (" + std::to_string(box.top) +
                                  ", " + std::to_string(box.left) + ", " + std::to_string(box.bottom) + ", " +
                                  std::to_string(box.right) + "), not inside the image of " + std::to_string(height) +
                                  " x " + std::to_string(width) + " pixels");
    }
  }
}

void copy_box(const unsigned char* source, unsigned char* destination, const ImageLayout& layout, const Box& box) {
  const auto run = static_cast<std::size_t>((box.right - box.left) * layout.pixel_bytes);
  if (run == 0) return;
  for (std::int64_t plane = 0; plane < layout.planes; ++plane) {
    for (std::int64_t row = box.top; row < box.bottom; ++row) {
      const auto offset = static_cast<std::size_t>(
          ((plane * layout.height + row) * layout.width + box.left) * layout.pixel_bytes);
      std::memcpy(destination + offset, source + offset, run);
    }
  }
}

}  // namespace

void fill_occluded(const void* image, const void* fill, const ImageLayout& layout, const Box* boxes,
                   const Box* previous, std::int64_t count, void* batch, int threads) {
  check_boxes(boxes, count, layout.height, layout.width, "box");
  if (previous != nullptr) check_boxes(previous, count, layout.height, layout.width, "previous box");
  const auto* image_bytes = static_cast<const unsigned char*>(image);
  const auto* fill_bytes = static_cast<const unsigned char*>(fill);
  auto* batch_bytes = static_cast<unsigned char*>(batch);
  const std::size_t size = layout.bytes();

  const auto fill_one = [&](std::int64_t i) {
    unsigned char* slot = batch_bytes + static_cast<std::size_t>(i) * size;
    if (previous != nullptr) {
      copy_box(image_bytes, slot, layout, previous[i]);
    } else if (size != 0) {
      std::memcpy(slot, image_bytes, size);
    }
    copy_box(fill_bytes, slot, layout, boxes[i]);
  };

  // With `previous` only the boxes are touched, which no number of them makes worth a thread in practice.
  const std::size_t touched = previous != nullptr ? 0 : static_cast<std::size_t>(count) * size;
  const auto useful = static_cast<int>(std::min<std::size_t>(touched / bytes_worth_a_thread + 1, 64));
  parallel_for(count, std::min(thread_count(threads), useful), fill_one);
}

void accumulate_boxes(const Box* boxes, const double* values, std::int64_t count, std::int64_t height,
                      std::int64_t width, double* sum, std::int64_t* covered) {
  check_boxes(boxes, count, height, width, "box");
  std::fill(sum, sum + height * width, 0.0);
  std::fill(covered, covered + height * width, std::int64_t{0});
  for (std::int64_t i = 0; i < count; ++i) {
    const Box& box = boxes[i];
    for (std::int64_t row = box.top; row < box.bottom; ++row) {
      for (std::int64_t column = box.left; column < box.right; ++column) {
        sum[row * width + column] += values[i];
        covered[row * width + column] += 1;
      }
    }
  }
}

}  // namespace onnxviz
