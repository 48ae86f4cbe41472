#include "onnxviz/cuda/occlusion.h"

#include <algorithm>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "kernels/occlusion.cuh"
#include "launch.h"
#include "onnxviz/occlusion_checks.h"

namespace onnxviz::cuda {
namespace {

// Blocks of copies are small and many, so that a device's last ones are soon done; windows' threads do less each.
constexpr int copy_threads = 128;
constexpr int overlay_threads = 256;
constexpr int warp_size = 32;
// Warps enough to keep any device busy; rows that they leave they come back for.
constexpr std::int64_t most_warps = 8192;
// Of rows, and of bytes in a row: sums of a few stay within 32 bits.
constexpr std::int64_t longest_side = std::int64_t{1} << 29;

void check_sides(std::initializer_list<std::int64_t> sides) {
  for (const std::int64_t side : sides) {
    if (side > longest_side) {
      throw std::invalid_argument("a map with a side of " + std::to_string(side) +
                                  " rows or bytes is larger than CUDA kernels count");
    }
  }
}

std::uint64_t number(const void* address) { return reinterpret_cast<std::uintptr_t>(address); }

// The largest piece of up to 16 bytes that all of these are whole numbers of.
unsigned common_unit(std::initializer_list<std::uint64_t> numbers) {
  std::uint64_t bits = 16;
  for (const std::uint64_t one : numbers) bits |= one;
  return static_cast<unsigned>(bits & (~bits + 1));
}

// Calls with a unit of so many bytes, none of which is ever made.
template <class Call>
void with_unit(unsigned bytes, const Call& call) {
  switch (bytes) {
    case 1: return call(static_cast<unsigned char*>(nullptr));
    case 2: return call(static_cast<unsigned short*>(nullptr));
    case 4: return call(static_cast<unsigned*>(nullptr));
    case 8: return call(static_cast<uint2*>(nullptr));
    default: return call(static_cast<uint4*>(nullptr));
  }
}

// A thread for each piece of work, once for each of so many groups of positions.
Grid grid_for(std::int64_t work, int most_threads, unsigned rows, unsigned layers) {
  const auto warps = static_cast<int>(blocks_for(std::min<std::int64_t>(work, most_threads), warp_size));
  const int threads = warp_size * std::max(warps, 1);
  return {dim3(blocks_for(work, threads), rows, layers), static_cast<unsigned>(threads)};
}

// Calls with room for the positions of one launch, how many came before and how many these are: `count` in as few
// launches as parameters allow, all of about the same size.
template <class Position, class Call>
void in_launches(std::int64_t count, const Call& call) {
  const auto with_room = [&](auto positions) {
    const std::int64_t launches = blocks_for(count, positions.most);
    const std::int64_t at_once = blocks_for(count, static_cast<int>(launches));
    for (std::int64_t done = 0; done < count; done += at_once) {
      call(positions, done, static_cast<int>(std::min(count - done, at_once)));
    }
  };
  constexpr int few = few_bytes / sizeof(Position);
  constexpr int many = many_bytes / sizeof(Position);
  if (count <= few) return with_room(Positions<Position, few>{});
  with_room(Positions<Position, many>{});
}

Area area(const Box& box, std::int64_t per_column) {
  return {static_cast<int>(box.top), static_cast<int>(box.left * per_column), static_cast<int>(box.bottom),
          static_cast<int>(box.right * per_column)};
}

// In rows and units of `per_column` to a pixel, beside the map where it lies anywhere past it.
Window window_of(const Placement& at, const ImageLayout& map, std::int64_t height, std::int64_t width,
                 std::int64_t per_column) {
  Window window{};
  window.top = static_cast<int>(std::clamp(at.top, -height, map.height));
  window.left = static_cast<int>(std::clamp(at.left, -width, map.width) * per_column);
  if (is_empty(at.fresh)) return window;  // its numbers may be any
  window.source_top = static_cast<int>(at.source_top);
  window.source_left = static_cast<int>(at.source_left * per_column);
  window.fresh = area(at.fresh, per_column);
  return window;
}

// What has been checked and is not empty.
void overlay_in_units(const void* original, const ImageLayout& layout, const void* source, std::int64_t source_height,
                      std::int64_t source_width, std::size_t source_stride, const Placement* placements,
                      std::int64_t count, std::int64_t height, std::int64_t width, const void* border, void* windows,
                      StreamView stream) {
  const auto pixel_bytes = static_cast<std::uint64_t>(layout.pixel_bytes);
  const unsigned bytes = common_unit(
      {pixel_bytes, number(original), number(source), source_stride, number(border), number(windows)});
  const std::int64_t per_column = layout.pixel_bytes / bytes;
  with_unit(bytes, [&](auto* null) {
    using Unit = std::remove_pointer_t<decltype(null)>;
    constexpr int most_planes = most_planes_per_thread<Unit>;
    OverlayShape<Unit> shape{};
    shape.planes = layout.planes;
    shape.planes_apart = (layout.planes + most_planes - 1) / most_planes;
    shape.planes_per_thread = static_cast<int>((layout.planes + shape.planes_apart - 1) / shape.planes_apart);
    const auto planes = [&](const void* first, std::int64_t rows, std::int64_t columns) {
      const std::int64_t plane_units = rows * columns * per_column;
      return Planes<Unit>{static_cast<const Unit*>(first), plane_units, shape.planes_apart * plane_units,
                          static_cast<int>(rows), static_cast<int>(columns * per_column)};
    };
    shape.map = planes(original, layout.height, layout.width);
    shape.source = planes(source, source_height, source_width);
    shape.source_stride = static_cast<std::int64_t>(source_stride / bytes);
    shape.border = static_cast<const Unit*>(border);
    shape.windows = static_cast<Unit*>(windows);
    shape.rows = static_cast<int>(height);
    shape.columns = static_cast<int>(width * per_column);
    shape.pixel = static_cast<int>(per_column);
    shape.window_step = shape.planes_apart * height * width * per_column;
    shape.window_units = layout.planes * height * width * per_column;
    in_launches<Window>(count, [&](auto& at, std::int64_t done, int some) {
      for (int i = 0; i < some; ++i) at.at[i] = window_of(placements[done + i], layout, height, width, per_column);
      const Grid grid = grid_for(shape.window_step, overlay_threads, static_cast<unsigned>(some), 1);
      launch(overlay<Unit, std::decay_t<decltype(at)>::most>, grid, queue(stream), shape, at);
      shape.source.units += some * shape.source_stride;
      shape.windows += some * shape.window_units;
    });
  });
}

void fill_all(const void* image, const void* fill, const ImageLayout& layout, const Box* boxes, std::int64_t count,
              void* batch, StreamView stream) {
  const auto size = static_cast<std::int64_t>(layout.bytes());
  const auto period = static_cast<int>(16 / common_unit({layout.bytes()}));
  // One more, since a copy may begin anywhere in its first 16 bytes.
  const std::int64_t vectors = (size + 15) / 16 + 1;
  in_launches<Area>(count, [&](auto& at, std::int64_t done, int some) {
    for (int i = 0; i < some; ++i) at.at[i] = area(boxes[done + i], layout.pixel_bytes);
    const int phases = std::min(period, some);
    const CopyShape shape{size, phases * size, static_cast<int>(layout.row_bytes()), static_cast<int>(layout.height),
                          phases};
    const unsigned groups = blocks_for(some, phases * copies_per_thread);
    launch(fill_copies<std::decay_t<decltype(at)>::most>,
           grid_for(vectors, copy_threads, static_cast<unsigned>(phases), groups),
           queue(stream), static_cast<const unsigned char*>(image), static_cast<const unsigned char*>(fill),
           static_cast<unsigned char*>(batch) + done * size, shape, some, at);
  });
}

void fill_difference(const void* image, const void* fill, const ImageLayout& layout, const Box* boxes,
                     const Box* previous, std::int64_t count, void* batch, StreamView stream) {
  const unsigned bytes =
      common_unit({static_cast<std::uint64_t>(layout.pixel_bytes), number(image), number(fill), number(batch)});
  const std::int64_t per_column = layout.pixel_bytes / bytes;
  with_unit(bytes, [&](auto* null) {
    using Unit = std::remove_pointer_t<decltype(null)>;
    in_launches<Patch>(count, [&](auto& patches, std::int64_t done, int some) {
      std::int64_t tallest = 0;
      for (int i = 0; i < some; ++i) {
        const Box& before = previous[done + i];
        const Box& now = boxes[done + i];
        patches.at[i] = {area(before, per_column), area(now, per_column)};
        tallest = std::max({tallest, before.bottom - before.top, now.bottom - now.top});
      }
      const std::int64_t rows = 2 * some * layout.planes * tallest;
      launch(move_patches<Unit, std::decay_t<decltype(patches)>::most>,
             grid_for(std::min(rows, most_warps) * warp_size, copy_threads, 1, 1), queue(stream),
             static_cast<const Unit*>(image), static_cast<const Unit*>(fill),
             static_cast<Unit*>(batch) + done * static_cast<std::int64_t>(layout.bytes() / bytes), layout.planes,
             layout.height, layout.width * per_column, tallest, some, patches);
    });
  });
}

}  // namespace

void fill_occluded(const void* image, const void* fill, const ImageLayout& layout, const Box* boxes,
                   const Box* previous, std::int64_t count, void* batch, StreamView stream) {
  check_boxes(boxes, count, layout.height, layout.width, "box");
  if (previous != nullptr) check_boxes(previous, count, layout.height, layout.width, "previous box");
  check_sides({layout.height, static_cast<std::int64_t>(layout.row_bytes())});
  if (count == 0 || layout.bytes() == 0) return;
  const CurrentDevice current(stream.device);
  if (previous != nullptr) {
    fill_difference(image, fill, layout, boxes, previous, count, batch, stream);
  } else {
    fill_all(image, fill, layout, boxes, count, batch, stream);
  }
}

void overlay_windows(const void* original, const ImageLayout& layout, const void* source, std::int64_t source_height,
                     std::int64_t source_width, std::size_t source_stride, const Placement* placements,
                     std::int64_t count, std::int64_t height, std::int64_t width, const void* border, void* windows,
                     StreamView stream) {
  check_placements(placements, count, layout, source_height, source_width, height, width, border != nullptr);
  check_sides({layout.height, source_height, height, layout.width * layout.pixel_bytes,
               source_width * layout.pixel_bytes, width * layout.pixel_bytes});
  if (count == 0 || layout.planes * height * width * layout.pixel_bytes == 0) return;
  const CurrentDevice current(stream.device);
  overlay_in_units(original, layout, source, source_height, source_width, source_stride, placements, count, height,
                   width, border, windows, stream);
}

}  // namespace onnxviz::cuda
