#include "onnxviz/occlusion.h"

#include <algorithm>
#include <cstring>

#include "onnxviz/occlusion_checks.h"
#include "parallel.h"

namespace onnxviz {
namespace {

// Below this many bytes the start of a thread costs more than it brings.
constexpr std::size_t bytes_worth_a_thread = std::size_t{1} << 21;

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

// `count` pixels of the border, one behind the other.
void write_border(unsigned char* destination, const unsigned char* border, std::size_t pixel_bytes,
                  std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i, destination += pixel_bytes) std::memcpy(destination, border, pixel_bytes);
}

}  // namespace

void overlay_windows(const void* original, const ImageLayout& layout, const void* source, std::int64_t source_height,
                     std::int64_t source_width, std::size_t source_stride, const Placement* placements,
                     std::int64_t count, std::int64_t height, std::int64_t width, const void* border, void* windows) {
  const auto pixel = static_cast<std::size_t>(layout.pixel_bytes);
  const std::size_t map_row = layout.row_bytes();
  const std::size_t source_row = static_cast<std::size_t>(source_width) * pixel;
  const std::size_t window_row = static_cast<std::size_t>(width) * pixel;
  const auto* border_pixel = static_cast<const unsigned char*>(border);
  auto* destination = static_cast<unsigned char*>(windows);

  check_placements(placements, count, layout, source_height, source_width, height, width, border != nullptr);
  for (std::int64_t i = 0; i < count; ++i) {
    const Placement& at = placements[i];
    // Wholly past the map a window is the same wherever it lies; beside the map its numbers are small, and from <= to.
    const std::int64_t top = std::clamp(at.top, -height, layout.height);
    const std::int64_t left = std::clamp(at.left, -width, layout.width);
    // Columns of the window: border, then the map from `from` to `to`, in its middle the fresh ones, then border.
    const std::int64_t from = std::max<std::int64_t>(left, 0);
    const std::int64_t to = std::min(left + width, layout.width);
    const std::int64_t fresh_from = std::clamp(at.fresh.left, from, to);
    const std::int64_t fresh_to = std::clamp(at.fresh.right, fresh_from, to);
    const auto bytes = [pixel](std::int64_t pixels) { return static_cast<std::size_t>(pixels) * pixel; };
    const std::size_t before = bytes(from - left);

    for (std::int64_t plane = 0; plane < layout.planes; ++plane) {
      const auto* map_plane = static_cast<const unsigned char*>(original) +
                              static_cast<std::size_t>(plane * layout.height) * map_row;
      const auto* source_plane = static_cast<const unsigned char*>(source) +
                                 static_cast<std::size_t>(i) * source_stride +
                                 static_cast<std::size_t>(plane * source_height) * source_row;
      for (std::int64_t row = top; row < top + height; ++row, destination += window_row) {
        if (row < 0 || row >= layout.height) {
          write_border(destination, border_pixel, pixel, width);
          continue;
        }
        write_border(destination, border_pixel, pixel, from - left);
        const unsigned char* map_pixels = map_plane + static_cast<std::size_t>(row) * map_row + bytes(from);
        unsigned char* pixels = destination + before;
        if (row >= at.fresh.top && row < at.fresh.bottom && fresh_to > fresh_from) {
          const std::size_t ahead = bytes(fresh_from - from), middle = bytes(fresh_to - fresh_from);
          std::memcpy(pixels, map_pixels, ahead);
          std::memcpy(pixels + ahead,
                      source_plane + static_cast<std::size_t>(row - at.source_top) * source_row +
                          bytes(fresh_from - at.source_left),
                      middle);
          std::memcpy(pixels + ahead + middle, map_pixels + ahead + middle, bytes(to - fresh_to));
        } else {
          std::memcpy(pixels, map_pixels, bytes(to - from));
        }
        write_border(pixels + bytes(to - from), border_pixel, pixel, left + width - to);
      }
    }
  }
}

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
