// Batches of one encoded image with a patch laid over it, windows of its activations, and the per-pixel mean of what
// the patches did.
#pragma once

#include <cstddef>
#include <cstdint>

namespace onnxviz {

// How an encoded image or an activation map lies in memory: planes x height x width pixels of pixel_bytes, contiguous.
// A (C, H, W) tensor has C planes with one element per pixel; an (H, W, C) tensor has one plane whose pixels hold C
// elements; onnxruntime's blocked layout has C / 16 (or C / 8) planes whose pixels hold 16 (or 8).
struct ImageLayout {
  std::int64_t planes;
  std::int64_t height;
  std::int64_t width;
  std::int64_t pixel_bytes;

  std::size_t row_bytes() const { return static_cast<std::size_t>(width * pixel_bytes); }
  std::size_t bytes() const { return static_cast<std::size_t>(planes * height) * row_bytes(); }
};

// Rows top..bottom-1 and columns left..right-1.
struct Box {
  std::int64_t top;
  std::int64_t left;
  std::int64_t bottom;
  std::int64_t right;
};

// Writes `count` copies of `image` into `batch`, the pixels of boxes[i] in copy i taken from `fill` (an image of the
// same layout: one colour everywhere, or a blurred copy). Any element type: only bytes are moved.
//
// With `previous`, batch[i] already holds `image` patched at previous[i], as an earlier call left it, and only the two
// boxes are written. Throws std::invalid_argument for a box that is not inside the image. 0 threads means all cores.
void fill_occluded(const void* image, const void* fill, const ImageLayout& layout, const Box* boxes,
                   const Box* previous, std::int64_t count, void* batch, int threads);

// Where the window of one position lies, all in pixels of the whole map.
struct Placement {
  std::int64_t top;          // of the window that is written
  std::int64_t left;
  std::int64_t source_top;   // of the source
  std::int64_t source_left;
  Box fresh;                 // what is taken from the source; everything else is the original's
};

// The windows that one operator of an occluded network reads, made of what is known: `windows` gets `count` windows of
// height x width pixels, each a crop of `original` (a map of the given layout: what the network computes without a
// patch) with the pixels of `fresh` taken from the source of that position. A window may reach past the map; what lies
// there is `border`, one pixel. Sources lie source_stride bytes apart (0: all positions share one) and have
// source_height x source_width pixels of the same layout. Any element type: only bytes are moved.
//
// Throws std::invalid_argument, before anything is written, where `fresh` is not empty and not inside both map and
// source, or where a window reaches past the map and `border` is null. Runs on the caller's thread: each core works on
// positions of its own.
void overlay_windows(const void* original, const ImageLayout& layout, const void* source, std::int64_t source_height,
                     std::int64_t source_width, std::size_t source_stride, const Placement* placements,
                     std::int64_t count, std::int64_t height, std::int64_t width, const void* border, void* windows);

// sum (height, width): for each pixel the sum of values[i] over the boxes that cover it, in the order of i, in float64;
// covered (height, width): how many boxes those are. Both are overwritten.
void accumulate_boxes(const Box* boxes, const double* values, std::int64_t count, std::int64_t height,
                      std::int64_t width, double* sum, std::int64_t* covered);

}  // namespace onnxviz
