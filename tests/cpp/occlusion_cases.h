// Boxes, windows and placements at random, for the tests of the CPU's core and of the CUDA kernels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "onnxviz/occlusion.h"

namespace onnxviz::test {

using Bytes = std::vector<unsigned char>;

inline Bytes random_bytes(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  Bytes bytes(count);
  for (auto& byte : bytes) byte = static_cast<unsigned char>(random());
  return bytes;
}

inline std::vector<Box> random_boxes(const ImageLayout& layout, std::size_t count, unsigned seed) {
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

// All that overlay_windows reads, and where the windows that it writes belong.
struct Overlay {
  ImageLayout map;
  std::int64_t source_height, source_width;
  std::int64_t height, width;
  bool shared_source;
  std::vector<Placement> placements;
  Bytes original, source, border;

  ImageLayout source_layout() const { return {map.planes, source_height, source_width, map.pixel_bytes}; }
  ImageLayout window_layout() const { return {map.planes, height, width, map.pixel_bytes}; }

  void write(const unsigned char* border_pixel, unsigned char* windows) const {
    overlay_windows(original.data(), map, source.data(), source_height, source_width,
                    shared_source ? 0 : source_layout().bytes(), placements.data(),
                    static_cast<std::int64_t>(placements.size()), height, width, border_pixel, windows);
  }
};

inline std::int64_t between(std::mt19937& random, std::int64_t low, std::int64_t high) {
  return low + static_cast<std::int64_t>(random()) % (high - low + 1);
}

// A source that may stick out of the map, and in what both have in common a box, in every fourth case an empty one.
inline Placement random_placement(const Overlay& overlay, bool inside, std::mt19937& random) {
  const ImageLayout& map = overlay.map;
  Placement at{};
  const std::int64_t beyond = inside ? 0 : 2;
  const std::int64_t top = inside ? 0 : -overlay.height, left = inside ? 0 : -overlay.width;
  at.top = between(random, top - beyond, map.height - (inside ? overlay.height : 0) + beyond);
  at.left = between(random, left - beyond, map.width - (inside ? overlay.width : 0) + beyond);
  at.source_top = between(random, 1 - overlay.source_height, map.height - 1);
  at.source_left = between(random, 1 - overlay.source_width, map.width - 1);
  const Box common{std::max<std::int64_t>(0, at.source_top), std::max<std::int64_t>(0, at.source_left),
                   std::min(map.height, at.source_top + overlay.source_height),
                   std::min(map.width, at.source_left + overlay.source_width)};
  at.fresh.top = between(random, common.top, common.bottom - 1);
  at.fresh.left = between(random, common.left, common.right - 1);
  at.fresh.bottom = between(random, at.fresh.top + 1, common.bottom);
  at.fresh.right = between(random, at.fresh.left + 1, common.right);
  switch (random() % 12) {
    case 0:
      at.fresh.bottom = at.fresh.top;
      break;
    case 1:
      at.fresh.right = at.fresh.left - 1;
      break;
    case 2:  // empty, far from everything
      at.fresh = {1000, -1000, 1000, 1000};
      break;
    case 3:
      at.fresh = common;
      break;
    default:
      break;
  }
  return at;
}

inline Overlay random_overlay(const ImageLayout& map, bool inside, std::mt19937& random) {
  Overlay overlay{map, between(random, 1, map.height + 3), between(random, 1, map.width + 3),
                  between(random, 1, map.height + (inside ? 0 : 3)), between(random, 1, map.width + (inside ? 0 : 3)),
                  random() % 2 == 0, {}, random_bytes(map.bytes(), 1), {}, {}};
  const auto count = static_cast<std::size_t>(between(random, 0, 5));
  for (std::size_t i = 0; i < count; ++i) overlay.placements.push_back(random_placement(overlay, inside, random));
  overlay.source = random_bytes(overlay.source_layout().bytes() * (overlay.shared_source ? 1 : count), 2);
  overlay.border = random_bytes(static_cast<std::size_t>(map.pixel_bytes), 3);
  return overlay;
}

// What a sweep has come across, so that it cannot miss a case unnoticed.
struct Seen {
  int window_inside = 0, window_partly = 0, window_outside = 0;
  int fresh_empty = 0, fresh_inside = 0, fresh_sticks_out = 0, fresh_elsewhere = 0;
  int shared = 0, own = 0;

  void add(const Overlay& overlay) {
    for (const Placement& at : overlay.placements) {
      const Box window{at.top, at.left, at.top + overlay.height, at.left + overlay.width};
      const auto apart = [](const Box& a, const Box& b) {
        return a.bottom <= b.top || b.bottom <= a.top || a.right <= b.left || b.right <= a.left;
      };
      const auto within = [](const Box& a, const Box& b) {
        return b.top <= a.top && b.left <= a.left && a.bottom <= b.bottom && a.right <= b.right;
      };
      const Box map{0, 0, overlay.map.height, overlay.map.width};
      ++(within(window, map) ? window_inside : apart(window, map) ? window_outside : window_partly);
      const bool empty = at.fresh.bottom <= at.fresh.top || at.fresh.right <= at.fresh.left;
      ++(empty                      ? fresh_empty
         : within(at.fresh, window) ? fresh_inside
         : apart(at.fresh, window)  ? fresh_elsewhere
                                    : fresh_sticks_out);
      ++(overlay.shared_source ? shared : own);
    }
  }
};

}  // namespace onnxviz::test
