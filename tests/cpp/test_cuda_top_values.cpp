// Maxima of maps and the best of every channel, on the emulator: bit for bit what plain loops find.
#include "onnxviz/cuda/top_values.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <random>

#include "check.h"
#include "device_bytes.h"
#include "kernels/elements.cuh"

using namespace onnxviz;
using namespace onnxviz::test;

namespace {

constexpr float lowest = -std::numeric_limits<float>::infinity();

std::size_t size_of(cuda::MapElement element) { return element == cuda::MapElement::float32 ? 4 : 2; }

std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

float float_of(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// From the definition of the formats.
float decode(std::uint32_t bits, cuda::MapElement element) {
  if (element == cuda::MapElement::float32) return float_of(bits);
  if (element == cuda::MapElement::bfloat16) return float_of(bits << 16);
  const auto exponent = static_cast<int>(bits >> 10 & 31);
  const auto fraction = static_cast<float>(bits & 1023);
  const float sign = (bits & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 31) {
    return fraction == 0 ? sign * std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
  }
  return sign * (exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25));
}

struct Maps {
  cuda::MapsLayout layout;
  cuda::MapElement element;
  std::vector<std::uint32_t> bits;

  std::size_t count() const { return bits.size(); }

  Bytes bytes() const {
    const std::size_t size = size_of(element);
    Bytes all(count() * size);
    for (std::size_t i = 0; i < count(); ++i) {
      const auto half = static_cast<std::uint16_t>(bits[i]);
      std::memcpy(&all[i * size], size == 4 ? static_cast<const void*>(&bits[i]) : &half, size);
    }
    return all;
  }

  float value(std::int64_t image, std::int64_t channel, std::int64_t position) const {
    const std::int64_t at = layout.channels_last
                                ? (image * layout.positions + position) * layout.channels + channel
                                : (image * layout.channels + channel) * layout.positions + position;
    return decode(bits[static_cast<std::size_t>(at)], element);
  }
};

// Numbers of few values, so that there are ties, zeros of both signs, infinities and NaN; or any bits at all.
Maps random_maps(const cuda::MapsLayout& layout, cuda::MapElement element, bool any, std::mt19937& random) {
  Maps maps{layout, element, {}};
  const std::uint32_t halves[] = {0x0000, 0x8000, 0x3c00, 0xbc00, 0x7c00, 0xfc00, 0x7e00, 0xfe00, 0x0001, 0x8001};
  const std::uint32_t brains[] = {0x0000, 0x8000, 0x3f80, 0xbf80, 0x7f80, 0xff80, 0x7fc0, 0xffc0, 0x0001, 0x8001};
  // Maps without positive infinity, of NaN and the lowest alone, and of one value, are as frequent as any.
  const std::size_t from = random() % 8;
  const std::size_t to = from + 1 + random() % (10 - from);
  const auto total = static_cast<std::size_t>(layout.images * layout.channels * layout.positions);
  for (std::size_t i = 0; i < total; ++i) {
    const std::size_t which = from + random() % (to - from);
    std::uint32_t bits = static_cast<std::uint32_t>(random());
    if (!any) bits = element == cuda::MapElement::float16 ? halves[which] : brains[which];
    if (!any && element == cuda::MapElement::float32) bits <<= 16;
    maps.bits.push_back(element == cuda::MapElement::float32 ? bits : bits & 0xffff);
  }
  return maps;
}

struct Maxima {
  std::vector<float> values;
  std::vector<std::int64_t> positions;
};

bool same(const Maxima& a, const Maxima& b) {
  if (a.positions != b.positions || a.values.size() != b.values.size()) return false;
  return a.values.empty() || std::memcmp(a.values.data(), b.values.data(), a.values.size() * sizeof(float)) == 0;
}

Maxima expected_maxima(const Maps& maps) {
  Maxima found;
  for (std::int64_t image = 0; image < maps.layout.images; ++image) {
    for (std::int64_t channel = 0; channel < maps.layout.channels; ++channel) {
      float best = lowest;
      std::int64_t place = 0;
      for (std::int64_t position = 0; position < maps.layout.positions; ++position) {
        const float value = maps.value(image, channel, position);
        if (value > best) {
          best = value;
          place = position;
        }
      }
      found.values.push_back(best);
      found.positions.push_back(place);
    }
  }
  return found;
}

template <class T>
std::vector<T> on_host(const cuda::Array<T>& array, const cuda::Stream& stream) {
  std::vector<T> values(array.size());
  cuda::copy_to_host(values.data(), array.data(), values.size() * sizeof(T), stream.view());
  return values;
}

Maxima maxima_on_device(const Maps& maps, std::size_t shift) {
  const cuda::Stream stream(0);
  const DeviceBytes bytes(maps.bytes(), shift, 0, stream);
  const auto count = static_cast<std::size_t>(maps.layout.images * maps.layout.channels);
  const cuda::Array<float> values(count, 0);
  const cuda::Array<std::int64_t> positions(count, 0);
  cuda::channel_maxima(bytes.data(), maps.element, maps.layout, values.data(), positions.data(), stream.view());
  return {on_host(values, stream), on_host(positions, stream)};
}

void every_half_is_the_float_that_it_stands_for() {
  bool exact = true;
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const auto is_exact = [bits](float value, cuda::MapElement element) {
      const float wanted = decode(bits, element);
      return wanted == wanted ? bits_of(value) == bits_of(wanted) : value != value;
    };
    exact = exact && is_exact(cuda::Float16::value(half), cuda::MapElement::float16);
    exact = exact && is_exact(cuda::Bfloat16::value(half), cuda::MapElement::bfloat16);
  }
  CHECK(exact);
}

void maxima_are_the_first() {
  std::mt19937 random(1);
  for (const cuda::MapElement element :
       {cuda::MapElement::float32, cuda::MapElement::float16, cuda::MapElement::bfloat16}) {
    for (const bool channels_last : {false, true}) {
      for (const cuda::MapsLayout& sides :
           {cuda::MapsLayout{2, 3, 1, false}, cuda::MapsLayout{3, 5, 7, false}, cuda::MapsLayout{1, 33, 49, false},
            cuda::MapsLayout{2, 64, 9, false}, cuda::MapsLayout{1, 1, 100, false}, cuda::MapsLayout{0, 4, 4, false},
            cuda::MapsLayout{2, 3, 2048, false}, cuda::MapsLayout{1, 2, 5003, false}}) {
        for (int i = 0; i < 4; ++i) {
          cuda::MapsLayout layout = sides;
          layout.channels_last = channels_last;
          const Maps maps = random_maps(layout, element, i == 0, random);
          const std::size_t shift = i % 2 == 0 ? 0 : size_of(element) * (random() % (16 / size_of(element)));
          CHECK_FOR(same(maxima_on_device(maps, shift), expected_maxima(maps)),
                    std::to_string(layout.channels) + " channels, " + std::to_string(layout.positions) + " positions");
        }
      }
    }
  }
}

// One map whose maximum lies at every position in turn: no thread's share is left out.
void a_maximum_is_found_wherever_it_lies() {
  for (const bool channels_last : {false, true}) {
    for (const std::int64_t positions : {1, 31, 32, 33, 300, 2500}) {
      for (std::int64_t place = positions % 7; place < positions; place += positions / 23 + 1) {
        Maps maps{{1, 3, positions, channels_last}, cuda::MapElement::float32, {}};
        maps.bits.assign(static_cast<std::size_t>(3 * positions), bits_of(-3e38f));
        const std::int64_t at = channels_last ? place * 3 + 1 : positions + place;
        maps.bits[static_cast<std::size_t>(at)] = bits_of(-2e38f);
        CHECK_FOR(same(maxima_on_device(maps, 4), expected_maxima(maps)), std::to_string(place));
      }
    }
  }
}

struct Entry {
  float value;
  std::int64_t image;
  std::int64_t position;
};

// All that were seen, sorted: what a running list must hold after any order of batches.
void the_best_of_every_channel_are_kept() {
  std::mt19937 random(2);
  const cuda::Stream stream(0);
  for (const std::int64_t channels : {1, 7, 70}) {
    for (const std::int64_t k : {1, 9}) {
      const auto size = static_cast<std::size_t>(channels * k);
      const cuda::Array<float> values(size, 0);
      const cuda::Array<std::int64_t> images(size, 0), positions(size, 0);
      const cuda::TopValues top{values.data(), images.data(), positions.data()};
      cuda::clear_top_values(top, channels, k, stream.view());
      std::vector<std::vector<Entry>> seen(static_cast<std::size_t>(channels));
      std::vector<std::int64_t> numbers(400);
      for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<std::int64_t>(i);
      std::shuffle(numbers.begin(), numbers.end(), random);
      std::size_t done = 0;
      for (const std::size_t count : {1, 3, 0, 300, 5, 40}) {
        std::vector<float> batch;
        std::vector<std::int64_t> places;
        for (std::size_t i = 0; i < count; ++i) {
          for (std::size_t channel = 0; channel < seen.size(); ++channel) {
            const float choices[] = {lowest, -1, -0.0f, 0.0f, 1, 2, static_cast<float>(random() % 1000)};
            batch.push_back(choices[random() % (channel % 3 == 0 ? 7 : 5)]);
            places.push_back(static_cast<std::int64_t>(random() % 50));
            if (batch.back() != lowest) seen[channel].push_back({batch.back(), numbers[done + i], places.back()});
          }
        }
        const cuda::Array<float> new_values(batch.size(), 0);
        const cuda::Array<std::int64_t> new_positions(batch.size(), 0);
        cuda::copy_to_device(new_values.data(), batch.data(), batch.size() * sizeof(float), stream.view());
        cuda::copy_to_device(new_positions.data(), places.data(), places.size() * sizeof(std::int64_t), stream.view());
        std::vector<std::int64_t> of_batch(numbers.begin() + static_cast<std::ptrdiff_t>(done),
                                           numbers.begin() + static_cast<std::ptrdiff_t>(done + count));
        cuda::merge_top_values(new_values.data(), new_positions.data(), of_batch.data(),
                               static_cast<std::int64_t>(count), top, channels, k, stream.view());
        std::fill(of_batch.begin(), of_batch.end(), 12345);  // nobody reads them any more
        done += count;

        Maxima wanted, found{on_host(values, stream), on_host(positions, stream)};
        std::vector<std::int64_t> wanted_images;
        for (auto entries : seen) {
          std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
            if (a.value != b.value) return a.value > b.value;
            return a.image != b.image ? a.image < b.image : a.position < b.position;
          });
          entries.resize(static_cast<std::size_t>(k), {lowest, -1, 0});
          for (const Entry& entry : entries) {
            wanted.values.push_back(entry.value);
            wanted.positions.push_back(entry.position);
            wanted_images.push_back(entry.image);
          }
        }
        CHECK(same(found, wanted));
        CHECK(on_host(images, stream) == wanted_images);
      }
    }
  }
}

void what_cannot_be_searched_is_refused() {
  const cuda::Stream stream(0);
  for (const std::int64_t positions : {std::int64_t{0}, std::int64_t{1} << 31}) {
    CHECK(contains(message_of<std::invalid_argument>([&] {
                     cuda::channel_maxima(nullptr, cuda::MapElement::float32, {1, 1, positions, false}, nullptr, nullptr,
                                          stream.view());
                   }),
                   "1 to 2^31 - 1 can be searched"));
  }
}

}  // namespace

int main() {
  return onnxviz::test::run([] {
    every_half_is_the_float_that_it_stands_for();
    maxima_are_the_first();
    a_maximum_is_found_wherever_it_lies();
    the_best_of_every_channel_are_kept();
    what_cannot_be_searched_is_refused();
  });
}
