// The CUDA kernels of occlusion on the emulator: byte for byte what the CPU's core writes, and not a byte beside it.
#include "onnxviz/cuda/occlusion.h"

#include <limits>
#include <stdexcept>

#include "check.h"
#include "device_bytes.h"

using namespace onnxviz;
using namespace onnxviz::test;

namespace {

std::string text(const ImageLayout& layout) {
  return std::to_string(layout.planes) + " x " + std::to_string(layout.height) + " x " + std::to_string(layout.width) +
         " pixels of " + std::to_string(layout.pixel_bytes) + " bytes";
}

// How far behind a multiple of 16 bytes memory begins.
struct Shifts {
  std::size_t image, fill, batch;
};

// A batch on the device beside the CPU's.
void check_copies(const ImageLayout& layout, const std::vector<Box>& boxes, const Shifts& shifts, std::size_t margin,
                 const std::string& which) {
  const cuda::Stream stream(0);
  const Bytes image = random_bytes(layout.bytes(), 1);
  const Bytes fill = random_bytes(layout.bytes(), 2);
  const auto copies = static_cast<std::int64_t>(boxes.size());
  Bytes wanted = random_bytes(layout.bytes() * boxes.size(), 5);
  const DeviceBytes on_device(image, shifts.image, margin, stream), filling(fill, shifts.fill, margin, stream);
  const DeviceBytes batch(wanted, shifts.batch, margin, stream);
  fill_occluded(image.data(), fill.data(), layout, boxes.data(), nullptr, copies, wanted.data(), 1);
  cuda::fill_occluded(on_device.data(), filling.data(), layout, boxes.data(), nullptr, copies, batch.data(),
                      stream.view());
  CHECK_FOR(batch.are(wanted, stream), which + ", " + text(layout) + ", " + std::to_string(boxes.size()) +
                                           " copies, shifts " + std::to_string(shifts.image) + " " +
                                           std::to_string(shifts.fill) + " " + std::to_string(shifts.batch));
}

// A batch on the device, filled twice, beside the CPU's; `shift` moves all memory off its multiple of 16.
void check_fill(const ImageLayout& layout, std::size_t count, std::size_t shift, std::size_t margin,
                bool again = true) {
  const cuda::Stream stream(0);
  const Bytes image = random_bytes(layout.bytes(), 1);
  const Bytes fill = random_bytes(layout.bytes(), 2);
  const auto boxes = random_boxes(layout, count, 3);
  const auto later = random_boxes(layout, count, 4);
  const auto copies = static_cast<std::int64_t>(count);
  Bytes wanted = random_bytes(layout.bytes() * count, 5);
  const DeviceBytes on_device(image, shift, margin, stream), filling(fill, shift, margin, stream);
  const DeviceBytes batch(wanted, shift, margin, stream);

  fill_occluded(image.data(), fill.data(), layout, boxes.data(), nullptr, copies, wanted.data(), 1);
  cuda::fill_occluded(on_device.data(), filling.data(), layout, boxes.data(), nullptr, copies, batch.data(),
                      stream.view());
  CHECK_FOR(batch.are(wanted, stream), text(layout) + ", shift " + std::to_string(shift));
  if (!again) return;

  fill_occluded(image.data(), fill.data(), layout, later.data(), boxes.data(), copies, wanted.data(), 1);
  cuda::fill_occluded(on_device.data(), filling.data(), layout, later.data(), boxes.data(), copies, batch.data(),
                      stream.view());
  CHECK_FOR(batch.are(wanted, stream), text(layout) + ", again, shift " + std::to_string(shift));
}

void copies_equal_the_cpu() {
  for (const ImageLayout& layout : {ImageLayout{3, 9, 7, 4}, ImageLayout{1, 8, 11, 3}, ImageLayout{1, 1, 1, 12},
                                    ImageLayout{4, 5, 6, 2}, ImageLayout{3, 16, 16, 1}, ImageLayout{3, 7, 7, 1},
                                    ImageLayout{2, 12, 20, 4}, ImageLayout{1, 6, 5, 64}, ImageLayout{4, 4, 4, 16},
                                    ImageLayout{2, 4, 3, 8}, ImageLayout{16, 3, 1, 1}, ImageLayout{1, 64, 3, 2}}) {
    for (const std::size_t shift : {0, 1, 2, 4, 8}) {
      for (const std::size_t margin : {0, 64}) check_fill(layout, 11, shift, margin);
    }
  }
}

// Sizes that let copies begin anywhere, with image, fill and batch each elsewhere, up to their last bytes.
void copies_may_begin_anywhere() {
  for (std::int64_t size = 1; size <= 35; ++size) {
    const auto at = static_cast<std::size_t>(size);
    const auto boxes = random_boxes({1, 1, size, 1}, 20, 3);
    check_copies({1, 1, size, 1}, boxes, {at % 16, at * 7 % 16, at * 3 % 16}, 64, "size");
  }
  for (std::size_t shift = 0; shift < 16; ++shift) {
    const ImageLayout layout{2, 5, 13, 1};
    const auto boxes = random_boxes(layout, 37, static_cast<unsigned>(shift) + 10);
    for (const std::size_t other : {0, 5, 8}) {
      check_copies(layout, boxes, {shift, other, 0}, 64, "image");
      check_copies(layout, boxes, {other, shift, 1}, 64, "fill");
      check_copies(layout, boxes, {other, 0, shift}, 64, "batch");
    }
  }
  // Memory that ends, or begins and ends, where nobody may read or write.
  for (const std::int64_t size : {std::int64_t{48}, std::int64_t{4096}}) {
    for (std::size_t shift = 0; shift < 16; ++shift) {
      const std::vector<Box> boxes(3, Box{0, 0, 1, size});
      check_copies({1, 1, size, 1}, boxes, {0, 0, shift}, 0, "ends");
    }
  }
}

// Boxes that begin and end at every byte of a vector, in rows of any length: many to a vector, and many vectors long.
void edges_of_boxes_are_exact() {
  for (const std::int64_t width : {1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 50}) {
    const ImageLayout layout{2, 4, width, 1};
    std::vector<Box> boxes;
    for (std::int64_t left = 0; left < std::min<std::int64_t>(width, 18); ++left) {
      for (const std::int64_t wide : {1, 2, 5, 16}) {
        const std::int64_t top = static_cast<std::int64_t>(boxes.size()) % 4;
        boxes.push_back({top, left, top + 1, std::min(width, left + wide)});
      }
    }
    for (const std::size_t shift : {0, 3}) check_copies(layout, boxes, {0, 0, shift}, 64, "edges");
  }
}

// Counts around what a thread, a period and a launch take: 4, 16 times as many, 240 and 1024.
void counts_of_copies_are_exact() {
  for (const std::size_t count : {3, 4, 5, 15, 16, 17, 63, 64, 65, 127, 129, 239, 240, 241, 1023, 1024, 1025, 2050}) {
    for (const ImageLayout& layout : {ImageLayout{1, 2, 3, 1}, ImageLayout{1, 3, 3, 2}, ImageLayout{1, 2, 2, 4}}) {
      check_copies(layout, random_boxes(layout, count, 8), {0, 0, count % 16}, 64, "count");
    }
  }
}

// More copies than one launch takes, more rows and planes than a grid has in its second dimension, and a large image.
void no_count_is_too_large() {
  check_fill({2, 3, 4, 4}, 200, 0, 64);
  check_fill({2, 3, 4, 4}, 600, 0, 64);
  check_fill({1, 3, 5, 1}, 121, 1, 64);
  check_fill({1, 70000, 1, 4}, 3, 0, 64);
  check_fill({70000, 1, 1, 1}, 3, 0, 64, false);
  check_fill({1, 1, 1, 1}, 70000, 0, 64, false);
  check_fill({1, 1100, 4096, 1}, 3, 0, 0, false);
  check_fill({3, 97, 101, 4}, 9, 0, 64);
}

void check_windows(const Overlay& overlay, bool with_border, std::size_t shift, std::size_t margin,
                   const std::string& which) {
  const cuda::Stream stream(0);
  Bytes wanted = random_bytes(overlay.window_layout().bytes() * overlay.placements.size(), 6);
  const DeviceBytes original(overlay.original, shift, margin, stream), source(overlay.source, shift, margin, stream);
  const DeviceBytes border(overlay.border, shift, margin, stream), windows(wanted, shift, margin, stream);
  overlay.write(with_border ? overlay.border.data() : nullptr, wanted.data());
  cuda::overlay_windows(original.data(), overlay.map, source.data(), overlay.source_height, overlay.source_width,
                        overlay.shared_source ? 0 : overlay.source_layout().bytes(), overlay.placements.data(),
                        static_cast<std::int64_t>(overlay.placements.size()), overlay.height, overlay.width,
                        with_border ? border.data() : nullptr, windows.data(), stream.view());
  CHECK_FOR(windows.are(wanted, stream), which);
}

// As many windows, and sources for them.
void place_windows(Overlay& overlay, std::size_t count, std::mt19937& random) {
  overlay.placements.clear();
  for (std::size_t i = 0; i < count; ++i) overlay.placements.push_back(random_placement(overlay, false, random));
  overlay.source = random_bytes(overlay.source_layout().bytes() * (overlay.shared_source ? 1 : count), 2);
}

void windows_equal_the_cpu() {
  std::mt19937 random(7);
  Seen seen;
  const std::size_t shifts[] = {0, 0, 1, 2, 4, 8};
  for (const std::int64_t planes : {1, 2, 5}) {
    for (const std::int64_t pixel_bytes : {1, 2, 4, 12, 64}) {
      for (std::size_t i = 0; i < 60; ++i) {
        const bool inside = i % 3 == 0;
        const ImageLayout map{planes, between(random, 1, i % 4 == 0 ? 40 : 9), between(random, 1, i % 4 == 1 ? 70 : 9),
                              pixel_bytes};
        const Overlay overlay = random_overlay(map, inside, random);
        const std::size_t shift = shifts[i % 6];
        check_windows(overlay, true, shift, i % 2 == 0 ? 64 : 0, text(map) + ", case " + std::to_string(i));
        if (inside) check_windows(overlay, false, shift, 64, text(map) + ", case " + std::to_string(i));
        seen.add(overlay);
      }
    }
  }
  for (const int times : {seen.window_inside, seen.window_partly, seen.window_outside, seen.fresh_empty,
                          seen.fresh_inside, seen.fresh_sticks_out, seen.fresh_elsewhere, seen.shared, seen.own}) {
    CHECK_FOR(times > 40, std::to_string(times));
  }
}

// Rows of many vectors, so that whole ones are taken from the map, from the source, and from both.
void wide_windows_equal_the_cpu() {
  std::mt19937 random(8);
  for (const std::int64_t pixel_bytes : {1, 2, 4, 16}) {
    for (int i = 0; i < 24; ++i) {
      const ImageLayout map{2, 5, between(random, 60, 90), pixel_bytes};
      Overlay overlay{map, 3, between(random, 30, 50), between(random, 2, 6), between(random, 33, 70), i % 2 == 0,
                      {}, random_bytes(map.bytes(), 1), {}, random_bytes(static_cast<std::size_t>(pixel_bytes), 3)};
      place_windows(overlay, 9, random);
      check_windows(overlay, true, 0, 64, text(map) + ", wide case " + std::to_string(i));
    }
  }
}

// Planes and windows around what a thread takes of both, windows around what a launch takes: 120 and 512.
void counts_of_planes_and_windows_are_exact() {
  std::mt19937 random(10);
  for (const std::int64_t pixel_bytes : {1, 4, 16}) {
    for (const std::int64_t planes : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64}) {
      for (const std::size_t count : {1, 2, 3, 4, 5, 7, 9, 17}) {
        Overlay overlay = random_overlay({planes, 3, 4, pixel_bytes}, false, random);
        place_windows(overlay, count, random);
        check_windows(overlay, true, 0, count % 2 * 64, "planes of " + text(overlay.map));
      }
    }
  }
  for (const std::size_t count : {119, 120, 121, 511, 512, 513, 1030}) {
    Overlay overlay = random_overlay({2, 3, 4, 2}, false, random);
    place_windows(overlay, count, random);
    check_windows(overlay, true, 0, 64, std::to_string(count) + " windows");
  }
}

void windows_may_be_many_and_far_away() {
  std::mt19937 random(9);
  Overlay overlay = random_overlay({2, 5, 6, 4}, false, random);
  place_windows(overlay, 250, random);
  check_windows(overlay, true, 0, 64, "many");
  constexpr std::int64_t highest = std::numeric_limits<std::int64_t>::max();
  for (const std::int64_t distant : {-highest - 1, -highest / 2, highest / 2, highest}) {
    overlay.placements[0] = {distant, 0, distant, distant, {3, 3, 3, 9}};
    overlay.placements[1] = {0, distant, 0, 0, {highest, highest, -highest - 1, -highest - 1}};
    overlay.placements[2] = {distant, distant, 0, 0, {0, 0, 1, 1}};
    check_windows(overlay, true, 0, 64, "far away");
  }
}

void what_the_cpu_refuses_is_refused_in_its_words() {
  const cuda::Stream stream(0);
  const ImageLayout layout{3, 4, 5, 1};
  const Bytes image = random_bytes(layout.bytes(), 1);
  Bytes copies = random_bytes(2 * layout.bytes(), 2);
  const DeviceBytes on_device(image, 0, 16, stream), batch(copies, 0, 16, stream);
  const Box good{0, 0, 1, 1};
  for (const Box& wrong : {Box{-1, 0, 2, 2}, Box{0, 0, 5, 5}, Box{0, 0, 4, 6}, Box{3, 0, 2, 5}, Box{0, 4, 4, 3}}) {
    for (const bool is_previous : {false, true}) {
      const Box boxes[] = {good, is_previous ? good : wrong};
      const Box previous[] = {good, is_previous ? wrong : good};
      const std::string here = message_of<std::invalid_argument>([&] {
        cuda::fill_occluded(on_device.data(), on_device.data(), layout, boxes, previous, 2, batch.data(),
                            stream.view());
      });
      const std::string there = message_of<std::invalid_argument>([&] {
        fill_occluded(image.data(), image.data(), layout, boxes, previous, 2, copies.data(), 1);
      });
      CHECK_FOR(here == there && contains(here, "box 1 is ("), here);
    }
  }
  std::mt19937 random(1);
  Overlay overlay = random_overlay({2, 5, 6, 2}, true, random);
  for (const Placement& wrong : {Placement{0, 0, 0, 0, {0, 0, 9, 9}}, Placement{0, 0, 9, 9, {0, 0, 1, 1}},
                                 Placement{-1, 0, 0, 0, {}}, Placement{0, 99, 0, 0, {}}}) {
    overlay.placements = {wrong};
    const std::string here = message_of<std::invalid_argument>([&] {
      cuda::overlay_windows(on_device.data(), overlay.map, on_device.data(), overlay.source_height,
                            overlay.source_width, 0, &wrong, 1, overlay.height, overlay.width, nullptr, batch.data(),
                            stream.view());
    });
    const std::string there = message_of<std::invalid_argument>([&] { overlay.write(nullptr, copies.data()); });
    CHECK_FOR(here == there && contains(here, "position 0"), here);
  }
  CHECK(batch.are(random_bytes(2 * layout.bytes(), 2), stream));
  const ImageLayout wide{1, 1, std::int64_t{1} << 30, 1};
  CHECK(contains(message_of<std::invalid_argument>([&] {
                   cuda::fill_occluded(nullptr, nullptr, wide, &good, nullptr, 1, nullptr, stream.view());
                 }),
                 "larger than CUDA kernels count"));
}

void nothing_is_no_work() {
  const cuda::Stream stream(0);
  const Box none{0, 0, 0, 0};
  const Placement nowhere{};
  cuda::fill_occluded(nullptr, nullptr, {3, 4, 5, 1}, nullptr, nullptr, 0, nullptr, stream.view());
  cuda::fill_occluded(nullptr, nullptr, {0, 4, 5, 1}, &none, nullptr, 1, nullptr, stream.view());
  cuda::fill_occluded(nullptr, nullptr, {3, 0, 5, 1}, &none, &none, 1, nullptr, stream.view());
  cuda::overlay_windows(nullptr, {3, 4, 5, 1}, nullptr, 1, 1, 0, nullptr, 0, 2, 2, nullptr, nullptr, stream.view());
  cuda::overlay_windows(nullptr, {3, 4, 5, 1}, nullptr, 1, 1, 0, &nowhere, 1, 0, 2, nullptr, nullptr, stream.view());
  stream.synchronize();
}

}  // namespace

int main() {
  return onnxviz::test::run([] {
    copies_equal_the_cpu();
    copies_may_begin_anywhere();
    edges_of_boxes_are_exact();
    counts_of_copies_are_exact();
    no_count_is_too_large();
    windows_equal_the_cpu();
    wide_windows_equal_the_cpu();
    counts_of_planes_and_windows_are_exact();
    windows_may_be_many_and_far_away();
    what_the_cpu_refuses_is_refused_in_its_words();
    nothing_is_no_work();
  });
}
