#include "onnxviz/occlusion.h"

#include <algorithm>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "check.h"
#include "occlusion_cases.h"

using namespace onnxviz;
using namespace onnxviz::test;

namespace {

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

bool is_in(const Box& box, std::int64_t row, std::int64_t column) {
  return box.top <= row && row < box.bottom && box.left <= column && column < box.right;
}

// Pixel by pixel, from the definition.
Bytes expected_windows(const Overlay& overlay) {
  const ImageLayout& map = overlay.map;
  const auto pixel_of = [&](const Bytes& bytes, std::int64_t pixel) { return bytes.data() + pixel * map.pixel_bytes; };
  Bytes windows;
  for (std::size_t i = 0; i < overlay.placements.size(); ++i) {
    const Placement& at = overlay.placements[i];
    const std::int64_t slot = overlay.shared_source ? 0 : static_cast<std::int64_t>(i);
    for (std::int64_t plane = 0; plane < map.planes; ++plane) {
      for (std::int64_t row = at.top; row < at.top + overlay.height; ++row) {
        for (std::int64_t column = at.left; column < at.left + overlay.width; ++column) {
          const unsigned char* pixel = pixel_of(overlay.border, 0);
          if (is_in({0, 0, map.height, map.width}, row, column)) {
            pixel = pixel_of(overlay.original, (plane * map.height + row) * map.width + column);
            if (is_in(at.fresh, row, column)) {
              const std::int64_t source_row = (slot * map.planes + plane) * overlay.source_height + row - at.source_top;
              pixel = pixel_of(overlay.source, source_row * overlay.source_width + column - at.source_left);
            }
          }
          windows.insert(windows.end(), pixel, pixel + map.pixel_bytes);
        }
      }
    }
  }
  return windows;
}

// Writes the windows between guards, and says whether they are as expected and the guards as they were.
bool writes_expected(const Overlay& overlay, bool with_border) {
  constexpr std::ptrdiff_t guard = 67;
  const Bytes wanted = expected_windows(overlay);
  Bytes written = random_bytes(wanted.size() + 2 * guard, 6);
  Bytes all = written;
  std::copy(wanted.begin(), wanted.end(), all.begin() + guard);
  overlay.write(with_border ? overlay.border.data() : nullptr, written.data() + guard);
  return written == all;
}

void windows_are_crops_with_fresh_pixels() {
  std::mt19937 random(7);
  Seen seen;
  for (const std::int64_t planes : {1, 2, 5}) {
    for (const std::int64_t pixel_bytes : {1, 2, 4, 12, 64}) {
      for (int i = 0; i < 120; ++i) {
        const bool inside = i % 3 == 0;
        const ImageLayout map{planes, between(random, 1, 9), between(random, 1, 9), pixel_bytes};
        const Overlay overlay = random_overlay(map, inside, random);
        const std::string which = "planes " + std::to_string(planes) + ", pixel_bytes " + std::to_string(pixel_bytes) +
                                  ", case " + std::to_string(i);
        CHECK_FOR(writes_expected(overlay, true), which);
        if (inside) CHECK_FOR(writes_expected(overlay, false), which);
        seen.add(overlay);
      }
    }
  }
  for (const int times : {seen.window_inside, seen.window_partly, seen.window_outside, seen.fresh_empty,
                          seen.fresh_inside, seen.fresh_sticks_out, seen.fresh_elsewhere, seen.shared, seen.own}) {
    CHECK_FOR(times > 100, std::to_string(times));
  }
}

// 2 planes of 5 x 6 pixels, sources of 3 x 4, windows of 2 x 3.
Overlay small_overlay(const Placement& second) {
  Overlay overlay{{2, 5, 6, 2}, 3, 4, 2, 3, false, {{1, 1, 1, 1, {1, 1, 4, 5}}, second}, {}, {}, {}};
  overlay.original = random_bytes(overlay.map.bytes(), 1);
  overlay.source = random_bytes(2 * overlay.source_layout().bytes(), 2);
  overlay.border = random_bytes(2, 3);
  return overlay;
}

constexpr std::int64_t lowest = std::numeric_limits<std::int64_t>::min();
constexpr std::int64_t highest = std::numeric_limits<std::int64_t>::max();

void windows_may_lie_as_far_away_as_a_number_goes() {
  for (const std::int64_t distant : {lowest, lowest + 1, lowest / 2, highest / 2, highest}) {
    for (const bool down : {false, true}) {
      for (const std::int64_t other : {std::int64_t{1}, distant}) {
        const Placement at{down ? distant : other, down ? other : distant, 1, 1, {1, 1, 4, 5}};
        const Overlay overlay = small_overlay(at);
        Overlay bounded = overlay;
        bounded.placements[1].top = std::min<std::int64_t>(std::max<std::int64_t>(at.top, -100), 100);
        bounded.placements[1].left = std::min<std::int64_t>(std::max<std::int64_t>(at.left, -100), 100);
        const Bytes wanted = expected_windows(bounded);
        Bytes written(wanted.size());
        overlay.write(overlay.border.data(), written.data());
        CHECK_FOR(written == wanted, std::to_string(at.top) + ", " + std::to_string(at.left));
      }
    }
  }
}

void fresh_parts_outside_map_or_source_are_refused() {
  const std::vector<Placement> wrong{
      // The source is rows 1 to 3, columns 1 to 4: one pixel past each of its sides.
      {0, 0, 1, 1, {0, 1, 4, 5}},
      {0, 0, 1, 1, {1, 0, 4, 5}},
      {0, 0, 1, 1, {1, 1, 5, 5}},
      {0, 0, 1, 1, {1, 1, 4, 6}},
      // The source sticks out of the map on each side, and so does what shall be taken from it.
      {0, 0, -1, 1, {-1, 1, 2, 5}},
      {0, 0, 1, -1, {1, -1, 4, 3}},
      {0, 0, 3, 1, {3, 1, 6, 5}},
      {0, 0, 1, 3, {1, 3, 4, 7}},
      // So far away that a sum overflows.
      {0, 0, highest, 1, {1, 1, 4, 5}},
      {0, 0, highest - 1, 1, {highest - 1, 1, highest, 5}},
      {0, 0, 1, highest, {1, 1, 4, 5}},
      {0, 0, lowest, 1, {lowest, 1, lowest + 1, 5}},
      {0, 0, 1, lowest, {1, 1, 4, 5}},
      {0, 0, lowest, lowest, {1, 1, 4, 5}},
      {0, 0, 1, 1, {lowest, lowest, highest, highest}},
  };
  for (const Placement& at : wrong) {
    const Overlay overlay = small_overlay(at);
    Bytes windows(2 * overlay.window_layout().bytes(), 0xEE);
    const Bytes before = windows;
    const std::string message =
        message_of<std::invalid_argument>([&] { overlay.write(overlay.border.data(), windows.data()); });
    CHECK_FOR(contains(message, "fresh part of position 1 is not inside"), message);
    CHECK(windows == before);
  }
  // An empty one takes nothing: it may lie anywhere.
  for (const Box& empty :
       {Box{0, 0, 0, 0}, Box{-5, 2, -5, 3}, Box{highest, highest, lowest, lowest}, Box{2, 9, 4, 1}}) {
    CHECK(writes_expected(small_overlay({0, 0, 90, -90, empty}), false));
  }
}

void windows_past_the_map_are_refused_without_a_border() {
  const Box none{0, 0, 0, 0};
  for (const Placement& at : {Placement{-1, 0, 0, 0, none}, Placement{0, -1, 0, 0, none}, Placement{4, 0, 0, 0, none},
                              Placement{0, 4, 0, 0, none}, Placement{-9, 0, 0, 0, none}, Placement{0, 99, 0, 0, none},
                              Placement{highest, 0, 0, 0, none}, Placement{0, highest, 0, 0, none},
                              Placement{lowest, 0, 0, 0, none}, Placement{0, lowest, 0, 0, none}}) {
    const Overlay overlay = small_overlay(at);
    Bytes windows(2 * overlay.window_layout().bytes(), 0xEE);
    const Bytes before = windows;
    const std::string message = message_of<std::invalid_argument>([&] { overlay.write(nullptr, windows.data()); });
    CHECK_FOR(contains(message, "window of position 1 reaches past the map"), message);
    CHECK(windows == before);
  }
  for (const Placement& at : {Placement{0, 0, 0, 0, none}, Placement{3, 3, 0, 0, none}}) {
    CHECK(writes_expected(small_overlay(at), false));
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
    windows_are_crops_with_fresh_pixels();
    windows_may_lie_as_far_away_as_a_number_goes();
    fresh_parts_outside_map_or_source_are_refused();
    windows_past_the_map_are_refused_without_a_border();
    values_add_up_over_the_boxes();
  });
}
