// Inner products of rows of small integers with vectors of signed bytes, exact on every instruction set.
#include "kernels.h"

#if defined(__AVX512VNNI__) || defined(__AVX2__)
#if defined(__GNUC__) && !defined(__clang__)
// The compiler's header leaves a register undefined on purpose and warns of it.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#endif

namespace onnxviz::ONNXVIZ_LEVEL {
namespace {

// The accumulators stay in registers only if the loops over them are unrolled.
#if defined(__GNUC__) && !defined(__clang__)
#define ONNXVIZ_UNROLL _Pragma("GCC unroll 16")
#else
#define ONNXVIZ_UNROLL
#endif

// Rows longer than this are read one after the other: several streams at once halve the bandwidth of the memory.
[[maybe_unused]] constexpr int64_t longest_row_in_company = 1024;
constexpr int64_t bytes_ahead = 3072;
constexpr int64_t longest_row_fetched = 512;
constexpr int64_t head_fetched = 512;

#if defined(__AVX512VNNI__)

inline __m512i load(const void* address) { return _mm512_loadu_si512(address); }

// sums += products of four neighbouring bytes each.
inline void add_products(__m512i& sums, __m512i row, __m512i vector) {
#if defined(__GNUC__) && !defined(__clang__)
  // The intrinsic costs a copy of the sums each time with this compiler, and the copies push them out of registers.
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(row), "v"(vector));
#else
  sums = _mm512_dpbusd_epi32(sums, row, vector);
#endif
}

inline __m128i fold(__m512i sums) {
  const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(sums), _mm512_extracti64x4_epi64(sums, 1));
  return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

// The totals of four vectors of sums.
inline __m128i totals(__m128i a, __m128i b, __m128i c, __m128i d) {
  const __m128i ab = _mm_add_epi32(_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));
  const __m128i cd = _mm_add_epi32(_mm_unpacklo_epi32(c, d), _mm_unpackhi_epi32(c, d));
  return _mm_add_epi32(_mm_unpacklo_epi64(ab, cd), _mm_unpackhi_epi64(ab, cd));
}

template <int rows_at_once, int vectors_at_once>
inline void store_totals(const __m512i (&sums)[vectors_at_once][rows_at_once], int32_t* products, int64_t stride) {
ONNXVIZ_UNROLL
  for (int v = 0; v < vectors_at_once; ++v) {
    if constexpr (rows_at_once % 4 == 0) {
ONNXVIZ_UNROLL
      for (int r = 0; r < rows_at_once; r += 4) {
        const __m128i four = totals(fold(sums[v][r]), fold(sums[v][r + 1]), fold(sums[v][r + 2]), fold(sums[v][r + 3]));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(products + v * stride + r), four);
      }
    } else {
ONNXVIZ_UNROLL
      for (int r = 0; r < rows_at_once; ++r) products[v * stride + r] = _mm512_reduce_add_epi32(sums[v][r]);
    }
  }
}

template <int rows_at_once, int vectors_at_once>
inline void tile(const uint8_t* const (&rows)[rows_at_once], const int8_t* vectors, int64_t vector_bytes,
                 int64_t columns, int32_t* products, int64_t stride) {
  __m512i sums[vectors_at_once][rows_at_once];
ONNXVIZ_UNROLL
  for (int v = 0; v < vectors_at_once; ++v) {
ONNXVIZ_UNROLL
    for (int r = 0; r < rows_at_once; ++r) sums[v][r] = _mm512_setzero_si512();
  }
  for (int64_t j = 0; j < columns; j += byte_block) {
    __m512i row[rows_at_once];
ONNXVIZ_UNROLL
    for (int r = 0; r < rows_at_once; ++r) row[r] = load(rows[r] + j);
ONNXVIZ_UNROLL
    for (int v = 0; v < vectors_at_once; ++v) {
      const __m512i vector = load(vectors + v * vector_bytes + j);
ONNXVIZ_UNROLL
      for (int r = 0; r < rows_at_once; ++r) add_products(sums[v][r], row[r], vector);
    }
  }
  store_totals<rows_at_once, vectors_at_once>(sums, products, stride);
}

constexpr int most_vectors = 6;

// Many vectors at many rows: 16 vectors, four columns of each, lie in one register, and four columns of a row meet all
// of them. No sums within a register are left to the end, and rows that lie a power of two apart, which share a few
// lines of the first cache, are few at a time. Vectors are packed so for each call and stretch of columns: that is
// quick beside the products, and the stretch stays in the nearest caches.
constexpr int64_t pack = 16;
constexpr int64_t packs_at_once = 3;
constexpr int64_t packed_rows = 256;
constexpr int64_t packed_columns = 1024;
constexpr int64_t fewest_packed_vectors = 8;
constexpr int rows_per_pack = 8;

// 16 x 16 of four bytes each.
inline void transpose(__m512i (&rows)[16]) {
  __m512i pairs[16];
ONNXVIZ_UNROLL
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  __m512i fours[16];
ONNXVIZ_UNROLL
  for (int i = 0; i < 16; i += 4) {
    fours[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
    fours[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
    fours[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
    fours[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
  }
ONNXVIZ_UNROLL
  for (int i = 0; i < 4; ++i) {
    const __m512i even_low = _mm512_shuffle_i32x4(fours[i], fours[i + 4], 0x88);
    const __m512i odd_low = _mm512_shuffle_i32x4(fours[i], fours[i + 4], 0xDD);
    const __m512i even_high = _mm512_shuffle_i32x4(fours[i + 8], fours[i + 12], 0x88);
    const __m512i odd_high = _mm512_shuffle_i32x4(fours[i + 8], fours[i + 12], 0xDD);
    rows[i] = _mm512_shuffle_i32x4(even_low, even_high, 0x88);
    rows[i + 8] = _mm512_shuffle_i32x4(even_low, even_high, 0xDD);
    rows[i + 4] = _mm512_shuffle_i32x4(odd_low, odd_high, 0x88);
    rows[i + 12] = _mm512_shuffle_i32x4(odd_low, odd_high, 0xDD);
  }
}

// Four columns of each vector after the other; vectors that are none are zeros.
inline void pack_vectors(const int8_t* vectors, int64_t vector_bytes, int64_t number, int64_t columns,
                         int8_t* packed) {
  for (int64_t j = 0; j < columns; j += byte_block, packed += pack * byte_block) {
    __m512i block[pack];
    for (int64_t v = 0; v < pack; ++v) {
      block[v] = v < number ? load(vectors + v * vector_bytes + j) : _mm512_setzero_si512();
    }
    transpose(block);
    for (int64_t i = 0; i < pack; ++i) _mm512_store_si512(packed + i * byte_block, block[i]);
  }
}

template <int rows_at_once, int packs>
inline void packed_tile(const uint8_t* rows, int64_t row_bytes, const int8_t* packed, int64_t pack_bytes,
                        int64_t columns, bool first, int32_t* products) {
  __m512i sums[rows_at_once][packs];
ONNXVIZ_UNROLL
  for (int r = 0; r < rows_at_once; ++r) {
ONNXVIZ_UNROLL
    for (int p = 0; p < packs; ++p) {
      sums[r][p] = first ? _mm512_setzero_si512() : _mm512_load_si512(products + (r * packs_at_once + p) * pack);
    }
  }
  for (int64_t j = 0; j < columns; j += 4, packed += 4 * pack) {
    __m512i vectors[packs];
ONNXVIZ_UNROLL
    for (int p = 0; p < packs; ++p) vectors[p] = _mm512_load_si512(packed + p * pack_bytes);
ONNXVIZ_UNROLL
    for (int r = 0; r < rows_at_once; ++r) {
      int32_t four;
      __builtin_memcpy(&four, rows + r * row_bytes + j, 4);
      const __m512i row = _mm512_set1_epi32(four);
ONNXVIZ_UNROLL
      for (int p = 0; p < packs; ++p) add_products(sums[r][p], row, vectors[p]);
    }
  }
ONNXVIZ_UNROLL
  for (int r = 0; r < rows_at_once; ++r) {
ONNXVIZ_UNROLL
    for (int p = 0; p < packs; ++p) _mm512_store_si512(products + (r * packs_at_once + p) * pack, sums[r][p]);
  }
}

template <int packs>
inline void packed_bytes(const uint8_t* rows, int64_t row_bytes, int64_t count, const int8_t* packed,
                         int64_t pack_bytes, int64_t columns, bool first, int32_t* products) {
  int64_t r = 0;
  for (; r + rows_per_pack <= count; r += rows_per_pack) {
    packed_tile<rows_per_pack, packs>(rows + r * row_bytes, row_bytes, packed, pack_bytes, columns, first,
                                      products + r * packs_at_once * pack);
  }
  for (; r < count; ++r) {
    packed_tile<1, packs>(rows + r * row_bytes, row_bytes, packed, pack_bytes, columns, first,
                          products + r * packs_at_once * pack);
  }
}

void many_bytes(const uint8_t* rows, int64_t row_bytes, int64_t count, const int8_t* vectors, int64_t vector_bytes,
                int64_t number, int64_t columns, int32_t* products, int64_t stride) {
  alignas(64) int8_t packed[packs_at_once * pack * packed_columns];
  alignas(64) int32_t sums[packed_rows * packs_at_once * pack];
  for (int64_t v = 0; v < number; v += packs_at_once * pack) {
    const int64_t left = number - v < packs_at_once * pack ? number - v : packs_at_once * pack;
    const int64_t packs = (left + pack - 1) / pack;
    for (int64_t r = 0; r < count; r += packed_rows) {
      const int64_t here = count - r < packed_rows ? count - r : packed_rows;
      for (int64_t j = 0; j < columns; j += packed_columns) {
        const int64_t width = columns - j < packed_columns ? columns - j : packed_columns;
        const int64_t pack_bytes = pack * width;
        for (int64_t p = 0; p < packs; ++p) {
          pack_vectors(vectors + (v + p * pack) * vector_bytes + j, vector_bytes, left - p * pack, width,
                       packed + p * pack_bytes);
        }
        const uint8_t* some = rows + r * row_bytes + j;
        if (packs == 3) {
          packed_bytes<3>(some, row_bytes, here, packed, pack_bytes, width, j == 0, sums);
        } else if (packs == 2) {
          packed_bytes<2>(some, row_bytes, here, packed, pack_bytes, width, j == 0, sums);
        } else {
          packed_bytes<1>(some, row_bytes, here, packed, pack_bytes, width, j == 0, sums);
        }
      }
      for (int64_t first = 0; first < here; first += 16) {
        const auto mask = static_cast<__mmask16>(here - first < 16 ? (1U << (here - first)) - 1 : 0xFFFFU);
        for (int64_t p = 0; p < packs; ++p) {
          __m512i block[16];
          for (int64_t i = 0; i < 16; ++i) {
            block[i] = first + i < here ? _mm512_load_si512(sums + ((first + i) * packs_at_once + p) * pack)
                                        : _mm512_setzero_si512();
          }
          transpose(block);
          for (int64_t i = 0; i < 16 && p * pack + i < left; ++i) {
            _mm512_mask_storeu_epi32(products + (v + p * pack + i) * stride + r + first, mask, block[i]);
          }
        }
      }
    }
  }
}

inline __m512i low_nibbles(__m512i both) { return _mm512_and_si512(both, _mm512_set1_epi8(0x0F)); }
inline __m512i high_nibbles(__m512i both) { return low_nibbles(_mm512_srli_epi16(both, 4)); }

template <int rows_at_once, int vectors_at_once>
inline void nibble_tile(const uint8_t* const (&rows)[rows_at_once], const int8_t* vectors, int64_t vector_bytes,
                        int64_t columns, int32_t* products, int64_t stride) {
  // Low and high nibbles have sums of their own: with fewer, an addition would wait for the one before it.
  __m512i low[vectors_at_once][rows_at_once];
  __m512i high[vectors_at_once][rows_at_once];
ONNXVIZ_UNROLL
  for (int v = 0; v < vectors_at_once; ++v) {
ONNXVIZ_UNROLL
    for (int r = 0; r < rows_at_once; ++r) low[v][r] = high[v][r] = _mm512_setzero_si512();
  }
  for (int64_t j = 0; j < columns; j += nibble_block) {
    __m512i low_row[rows_at_once];
    __m512i high_row[rows_at_once];
ONNXVIZ_UNROLL
    for (int r = 0; r < rows_at_once; ++r) {
      const __m512i both = load(rows[r] + j / 2);
      low_row[r] = low_nibbles(both);
      high_row[r] = high_nibbles(both);
    }
ONNXVIZ_UNROLL
    for (int v = 0; v < vectors_at_once; ++v) {
      const __m512i first = load(vectors + v * vector_bytes + j);
      const __m512i second = load(vectors + v * vector_bytes + j + 64);
ONNXVIZ_UNROLL
      for (int r = 0; r < rows_at_once; ++r) {
        add_products(low[v][r], low_row[r], first);
        add_products(high[v][r], high_row[r], second);
      }
    }
  }
ONNXVIZ_UNROLL
  for (int v = 0; v < vectors_at_once; ++v) {
ONNXVIZ_UNROLL
    for (int r = 0; r < rows_at_once; ++r) low[v][r] = _mm512_add_epi32(low[v][r], high[v][r]);
  }
  store_totals<rows_at_once, vectors_at_once>(low, products, stride);
}

#elif defined(__AVX2__)

inline int32_t total(__m256i sums) {
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xB1)));
}

// By way of 16-bit products: the instruction that multiplies bytes saturates their sums.
inline __m256i widen_unsigned(const uint8_t* bytes) {
  return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
}
inline __m256i widen_signed(const int8_t* bytes) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
}

template <int rows_at_once, int vectors_at_once>
inline void tile(const uint8_t* const (&rows)[rows_at_once], const int8_t* vectors, int64_t vector_bytes,
                 int64_t columns, int32_t* products, int64_t stride) {
  __m256i sums[vectors_at_once][rows_at_once];
ONNXVIZ_UNROLL
  for (int v = 0; v < vectors_at_once; ++v) {
ONNXVIZ_UNROLL
    for (int r = 0; r < rows_at_once; ++r) sums[v][r] = _mm256_setzero_si256();
  }
  for (int64_t j = 0; j < columns; j += 16) {
    __m256i row[rows_at_once];
ONNXVIZ_UNROLL
    for (int r = 0; r < rows_at_once; ++r) row[r] = widen_unsigned(rows[r] + j);
ONNXVIZ_UNROLL
    for (int v = 0; v < vectors_at_once; ++v) {
      const __m256i vector = widen_signed(vectors + v * vector_bytes + j);
ONNXVIZ_UNROLL
      for (int r = 0; r < rows_at_once; ++r) {
        sums[v][r] = _mm256_add_epi32(sums[v][r], _mm256_madd_epi16(row[r], vector));
      }
    }
  }
ONNXVIZ_UNROLL
  for (int v = 0; v < vectors_at_once; ++v) {
ONNXVIZ_UNROLL
    for (int r = 0; r < rows_at_once; ++r) products[v * stride + r] = total(sums[v][r]);
  }
}

constexpr int most_vectors = 2;

inline int32_t nibble_product(const uint8_t* row, const int8_t* vector, int64_t columns) {
  const __m256i low_half = _mm256_set1_epi8(0x0F);
  __m256i sums = _mm256_setzero_si256();
  // Nibbles times bytes, two to a sum, stay within 16 bits: here the direct instruction is exact.
  const __m256i ones = _mm256_set1_epi16(1);
  for (int64_t j = 0; j < columns; j += nibble_block, row += byte_block) {
    for (int64_t part = 0; part < 64; part += 32) {
      const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + part));
      const __m256i low = _mm256_and_si256(both, low_half);
      const __m256i high = _mm256_and_si256(_mm256_srli_epi16(both, 4), low_half);
      const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(vector + j + part));
      const __m256i second = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(vector + j + 64 + part));
      sums = _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_maddubs_epi16(low, first), ones));
      sums = _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_maddubs_epi16(high, second), ones));
    }
  }
  return total(sums);
}

#else

template <int rows_at_once, int vectors_at_once>
inline void tile(const uint8_t* const (&rows)[rows_at_once], const int8_t* vectors, int64_t vector_bytes,
                 int64_t columns, int32_t* products, int64_t stride) {
  for (int v = 0; v < vectors_at_once; ++v) {
    for (int r = 0; r < rows_at_once; ++r) {
      const uint8_t* row = rows[r];
      const int8_t* vector = vectors + v * vector_bytes;
      int32_t sum = 0;
      for (int64_t j = 0; j < columns; ++j) sum += static_cast<int32_t>(row[j]) * static_cast<int32_t>(vector[j]);
      products[v * stride + r] = sum;
    }
  }
}

constexpr int most_vectors = 1;

inline int32_t nibble_product(const uint8_t* row, const int8_t* vector, int64_t columns) {
  int32_t sum = 0;
  for (int64_t j = 0; j < columns; j += nibble_block, row += byte_block) {
    for (int64_t b = 0; b < byte_block; ++b) {
      sum += static_cast<int32_t>(row[b] & 0x0F) * static_cast<int32_t>(vector[j + b]);
      sum += static_cast<int32_t>(row[b] >> 4) * static_cast<int32_t>(vector[j + 64 + b]);
    }
  }
  return sum;
}

#endif

#if !defined(__AVX512VNNI__)
template <int rows_at_once, int vectors_at_once>
inline void nibble_tile(const uint8_t* const (&rows)[rows_at_once], const int8_t* vectors, int64_t vector_bytes,
                        int64_t columns, int32_t* products, int64_t stride) {
  for (int v = 0; v < vectors_at_once; ++v) {
    for (int r = 0; r < rows_at_once; ++r) {
      products[v * stride + r] = nibble_product(rows[r], vectors + v * vector_bytes, columns);
    }
  }
}
#endif

// Asks for codes that will be needed soon: the machine's own foresight ends with each short row.
inline void fetch(const uint8_t* codes, int64_t count) {
#if defined(__GNUC__)
  for (int64_t offset = 0; offset < count; offset += 64) __builtin_prefetch(codes + offset);
#else
  (void)codes;
  (void)count;
#endif
}

template <int rows_at_once>
void byte_rows(const uint8_t* const (&rows)[rows_at_once], const int8_t* vectors, int64_t vector_bytes, int64_t number,
               int64_t columns, int32_t* products, int64_t stride) {
  int64_t v = 0;
  for (; v + most_vectors <= number; v += most_vectors) {
    tile<rows_at_once, most_vectors>(rows, vectors + v * vector_bytes, vector_bytes, columns, products + v * stride,
                                     stride);
  }
  for (; v + 2 <= number; v += 2) {
    tile<rows_at_once, 2>(rows, vectors + v * vector_bytes, vector_bytes, columns, products + v * stride, stride);
  }
  if (v < number) {
    tile<rows_at_once, 1>(rows, vectors + v * vector_bytes, vector_bytes, columns, products + v * stride, stride);
  }
}

template <int rows_at_once>
void nibble_rows(const uint8_t* const (&rows)[rows_at_once], const int8_t* vectors, int64_t vector_bytes,
                 int64_t number, int64_t columns, int32_t* products, int64_t stride) {
  int64_t v = 0;
  for (; v + 2 <= number; v += 2) {
    nibble_tile<rows_at_once, 2>(rows, vectors + v * vector_bytes, vector_bytes, columns, products + v * stride, stride);
  }
  if (v < number) {
    nibble_tile<rows_at_once, 1>(rows, vectors + v * vector_bytes, vector_bytes, columns, products + v * stride, stride);
  }
}

void bytes(const uint8_t* rows, int64_t row_bytes, int64_t count, const int8_t* vectors, int64_t vector_bytes,
           int64_t number, int64_t columns, int32_t* products, int64_t stride) {
#if defined(__AVX512VNNI__)
  if (number >= fewest_packed_vectors) {
    many_bytes(rows, row_bytes, count, vectors, vector_bytes, number, columns, products, stride);
    return;
  }
#endif
  int64_t r = 0;
  if (number > 2 || columns <= longest_row_in_company) {
    for (; r + 4 <= count; r += 4) {
      const uint8_t* first = rows + r * row_bytes;
      if (columns <= longest_row_in_company) fetch(first + bytes_ahead, 4 * row_bytes);
      byte_rows<4>({first, first + row_bytes, first + 2 * row_bytes, first + 3 * row_bytes}, vectors, vector_bytes,
                   number, columns, products + r, stride);
    }
  }
  for (; r < count; ++r) {
    fetch(rows + (r + 1) * row_bytes, head_fetched);
    byte_rows<1>({rows + r * row_bytes}, vectors, vector_bytes, number, columns, products + r, stride);
  }
}

void nibbles(const uint8_t* rows, int64_t row_bytes, int64_t count, const int8_t* vectors, int64_t vector_bytes,
             int64_t number, int64_t columns, int32_t* products, int64_t stride) {
  int64_t r = 0;
  if (number > 2 || columns <= longest_row_in_company) {
    for (; r + 4 <= count; r += 4) {
      const uint8_t* first = rows + r * row_bytes;
      if (columns <= longest_row_in_company) fetch(first + bytes_ahead, 4 * row_bytes);
      nibble_rows<4>({first, first + row_bytes, first + 2 * row_bytes, first + 3 * row_bytes}, vectors, vector_bytes,
                     number, columns, products + r, stride);
    }
  }
  for (; r < count; ++r) {
    fetch(rows + (r + 1) * row_bytes, head_fetched);
    nibble_rows<1>({rows + r * row_bytes}, vectors, vector_bytes, number, columns, products + r, stride);
  }
}

void listed_bytes(const uint8_t* rows, int64_t row_bytes, const int64_t* numbers, int64_t count, const int8_t* vectors,
                  int64_t vector_bytes, int64_t number, int64_t columns, int32_t* products, int64_t stride) {
  int64_t r = 0;
  for (; r + 4 <= count; r += 4) {
    byte_rows<4>({rows + numbers[r] * row_bytes, rows + numbers[r + 1] * row_bytes, rows + numbers[r + 2] * row_bytes,
                  rows + numbers[r + 3] * row_bytes},
                 vectors, vector_bytes, number, columns, products + r, stride);
  }
  for (; r < count; ++r) {
    byte_rows<1>({rows + numbers[r] * row_bytes}, vectors, vector_bytes, number, columns, products + r, stride);
  }
}

void listed_nibbles(const uint8_t* rows, int64_t row_bytes, const int64_t* numbers, int64_t count,
                    const int8_t* vectors, int64_t vector_bytes, int64_t number, int64_t columns, int32_t* products,
                    int64_t stride) {
  int64_t r = 0;
  for (; r + 4 <= count; r += 4) {
    // Longer rows are foreseen by the machine itself.
    for (int64_t next = r + 4; row_bytes <= longest_row_fetched && next < count && next < r + 8; ++next) {
      fetch(rows + numbers[next] * row_bytes, row_bytes);
    }
    nibble_rows<4>({rows + numbers[r] * row_bytes, rows + numbers[r + 1] * row_bytes, rows + numbers[r + 2] * row_bytes,
                    rows + numbers[r + 3] * row_bytes},
                   vectors, vector_bytes, number, columns, products + r, stride);
  }
  for (; r < count; ++r) {
    nibble_rows<1>({rows + numbers[r] * row_bytes}, vectors, vector_bytes, number, columns, products + r, stride);
  }
}

}  // namespace

const ProductKernels product_kernels = {bytes, nibbles, listed_bytes, listed_nibbles};

}  // namespace onnxviz::ONNXVIZ_LEVEL
