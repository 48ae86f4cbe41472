#include "onnxviz/occlusion.h"

#include <random>
#include <stdexcept>
#include <vector>

#include "check.h"

using namespace onnxviz;
using onnxviz::test::contains;
using onnxviz::test::message_of;

namespace {

using Bytes = std::vector<unsigned char>;

Bytes random_bytes(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  Bytes bytes(count);
  for (auto& byte : bytes) byte = static_cast<unsigned char>(random());
  return bytes;
}

std::vector<Box> random_boxes(const ImageLayout& layout, std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  const auto below = [&](std::int64_t limit) { return static_cast<std::int64_t>(random()) % (limit + 1); };
  std::vector<Box> boxes;
  for (std::size_t i = 0; i < count; ++i) {
    const std::int64_t top = below(layout.height);
    const std::int64_t left = below(layout.width);
    boxes.push_back({top, left, top + below(layout.height - top), left + below(layout.width - left)});
  }
  boxes[0] = {0, 0, layout.height, layout.width};
  boxes[1] = {0, 0, 0, 0};
  boxes[2] = {layout.height, layout.width, layout.height, layout.width};
  return boxes;
}

// Byte by byte, from the definition.
Bytes expected_batch(const Bytes& image, const Bytes& fill, const ImageLayout& layout, const std::vector<Box>& boxes) {
  Bytes batch;
  for (const Box& box : boxes) {
    std::size_t at = 0;
    for (std::int64_t plane = 0; plane < layout.planes; ++plane) {
      for (std::int64_t row = 0; row < layout.height; ++row) {
        for (std::int64_t column = 0; column < layout.width; ++column) {
          const bool inside = box.top <= row && row < box.bottom && box.left <= column && column < box.right;
          for (std::int64_t byte = 0; byte < layout.pixel_bytes; ++byte, ++at) {
            batch.push_back(inside ? fill[at] : image[at]);
          }
        }
      }
    }
  }
  return batch;
}

void copies_differ_in_their_boxes_only() {
  for (const ImageLayout& layout : {ImageLayout{3, 9, 7, 4}, ImageLayout{1, 8, 11, 3}, ImageLayout{1, 1, 1, 12},
                                    ImageLayout{4, 5, 6, 2}, ImageLayout{3, 150, 170, 4}}) {
    const Bytes image = random_bytes(layout.bytes(), 1);
    const Bytes fill = random_bytes(layout.bytes(), 2);
    const auto boxes = random_boxes(layout, 12, 3);
    const auto later = random_boxes(layout, 12, 4);
    for (const int threads : {1, 3}) {
      Bytes batch(layout.bytes() * boxes.size(), 0xEE);
      const auto count = static_cast<std::int64_t>(boxes.size());
      fill_occluded(image.data(), fill.data(), layout, boxes.data(), nullptr, count, batch.data(), threads);
      CHECK(batch == expected_batch(image, fill, layout, boxes));
      fill_occluded(image.data(), fill.data(), layout, later.data(), boxes.data(), count, batch.data(), threads);
      CHECK(batch == expected_batch(image, fill, layout, later));
    }
  }
}

void boxes_outside_are_refused_before_anything_is_written() {
  const ImageLayout layout{3, 4, 5, 1};
  const Bytes image = random_bytes(layout.bytes(), 1);
  for (const Box& wrong : {Box{-1, 0, 2, 2}, Box{0, 0, 5, 5}, Box{0, 0, 4, 6}, Box{3, 0, 2, 5}, Box{0, 4, 4, 3}}) {
    const std::vector<Box> boxes{{0, 0, 1, 1}, wrong};
    Bytes batch(2 * layout.bytes(), 0xEE);
    const Bytes before = batch;
    const std::string message = message_of<std::invalid_argument>([&] {
      fill_occluded(image.data(), image.data(), layout, boxes.data(), nullptr, 2, batch.data(), 1);
    });
    CHECK_FOR(contains(message, "box 1 is (") && contains(message, "4 x 5 pixels"), message);
    CHECK(batch == before);
  }
}

void values_add_up_over_the_boxes() {
  const ImageLayout layout{1, 6, 7, 1};
  const auto boxes = random_boxes(layout, 30, 5);
  std::vector<double> values;
  for (std::size_t i = 0; i < boxes.size(); ++i) values.push_back(std::sin(static_cast<double>(i)));
  std::vector<double> sum(42, -1);
  std::vector<std::int64_t> covered(42, -1);
  accumulate_boxes(boxes.data(), values.data(), 30, 6, 7, sum.data(), covered.data());
  for (std::int64_t row = 0; row < 6; ++row) {
    for (std::int64_t column = 0; column < 7; ++column) {
      double wanted = 0;
      std::int64_t times = 0;
      for (std::size_t i = 0; i < boxes.size(); ++i) {
        const Box& box = boxes[i];
        if (box.top <= row && row < box.bottom && box.left <= column && column < box.right) {
          wanted += values[i];
          ++times;
        }
      }
      CHECK(sum[static_cast<std::size_t>(row * 7 + column)] == wanted);
      CHECK(covered[static_cast<std::size_t>(row * 7 + column)] == times);
    }
  }
}

}  // namespace

int main() {
  return onnxviz::test::run([] {
    copies_differ_in_their_boxes_only();
    boxes_outside_are_refused_before_anything_is_written();
    values_add_up_over_the_boxes();
  });
}
