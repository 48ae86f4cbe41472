// What the CPU and the CUDA side ask of boxes and placements before they write anything: the same, in the same words.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "onnxviz/occlusion.h"

namespace onnxviz {

// `what` names the boxes in the message, "box" or "previous box".
inline void check_boxes(const Box* boxes, std::int64_t count, std::int64_t height, std::int64_t width,
                        const char* what) {
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

inline bool is_empty(const Box& box) { return box.bottom <= box.top || box.right <= box.left; }

// Whoever calls may place things at any number, so no sum of two of them may overflow.
inline void check_placements(const Placement* placements, std::int64_t count, const ImageLayout& map,
                             std::int64_t source_height, std::int64_t source_width, std::int64_t height,
                             std::int64_t width, bool has_border) {
  for (std::int64_t i = 0; i < count; ++i) {
    const Placement& at = placements[i];
    const Box& fresh = at.fresh;
    if (!is_empty(fresh)) {
      const bool inside = fresh.top >= 0 && fresh.left >= 0 && fresh.bottom <= map.height &&
                          fresh.right <= map.width && fresh.top >= at.source_top &&
                          fresh.bottom - source_height <= at.source_top && fresh.left >= at.source_left &&
                          fresh.right - source_width <= at.source_left;
      if (!inside) {
        throw std::invalid_argument("the fresh part of position " + std::to_string(i) +
                                    " is not inside both the map and its source");
      }
    }
    const bool past = at.top < 0 || at.left < 0 || at.top > map.height - height || at.left > map.width - width;
    if (past && !has_border) {
      throw std::invalid_argument("the window of position " + std::to_string(i) +
                                  " reaches past the map, and no border is given");
    }
  }
}

}  // namespace onnxviz
