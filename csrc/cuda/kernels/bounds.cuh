// What the codes of two rows prove about their distance.
//
// Rows and queries have one form, X ~ R = s (c - z): signed bytes c, an integer z, a float32 s, and a radius that is at
// least |X - R|. X = scale (x - reference), as in csrc/cpu/levels.h, and with a second row Q = t (v - y)
//     D^2 = |R - Q|^2 = |R|^2 + |Q|^2 - 2 s t C,     C = sum (c - z)(v - y) = I - z V - y U,
// I the product of the codes, V = sum v, U = sum (c - z). All of these are integers, and float64 holds them: |z| and
// |y| are at most about sqrt(2^53 / columns) - 512, so that y U, and C by Cauchy and Schwarz, stay below 2^53; I, z V
// and their difference are smaller still. What is rounded, and by how much, is in levels.h; contracted to fused
// multiply-add, as a compiler may, it is rounded less.
//
// Squares below the range of float64 are lost, each by at most 2^-1075 in the units of the bank: by the square root of
// `columns` of them, times `scale`, the computed distance may differ from the true one besides. sqrt(columns) 2^-100 is
// added for all that is lost in the units of the level, where nothing above 2^-500 is.
#pragma once

#include <cmath>
#include <cstdint>

#include "dialect.cuh"

namespace onnxviz::cuda {

// 32 units of float64 roundoff.
constexpr double slack = 0x1p-48;
// What rounding can do to a sum of squares of at most 2^22 terms, with a good margin.
constexpr double of_a_sum = 0x1p-30;

struct __align__(16) Terms {
  double norm;   // |R|^2
  double sum;    // sum of c - z
  double total;  // sum of c
  float scale;
  float zero;
  float radius;
  float residual_low;  // |X - P X| lies between them, where the level is projected
  float residual_high;
};

// What is the same for all pairs of a level.
struct Rules {
  double stretch;    // what a distance may be longer by in the level: 1, or that of the basis
  double widening;   // share that the distance that decides is rounded by
  double underflow;  // what numbers below the range of float64 may add to a distance, or take from it
  double scale;      // from distances to those of the level
  bool projected;
  double columns;  // of the level
};

struct Comparison {
  double squared;    // D^2
  double uncertain;  // that it may be wrong by
  double radius;     // of both
  double apart;      // what the residuals differ by at least
};

__device__ __forceinline__ Comparison compare(const Terms& row, const Terms& query, int product, const Rules& rules) {
  const double integer = static_cast<double>(product) - static_cast<double>(row.zero) * query.total -
                         static_cast<double>(query.zero) * row.sum;
  const double scales = 2 * static_cast<double>(row.scale) * static_cast<double>(query.scale);
  const double norms = row.norm + query.norm;
  Comparison comparison;
  comparison.squared = norms - scales * integer;
  // bound: s/norms * slack/0/
  comparison.uncertain = norms * slack;
  // bound: s/static_cast<double>(row.radius)/0/ s/static_cast<double>(query.radius)/0/
  comparison.radius = static_cast<double>(row.radius) + static_cast<double>(query.radius);
  comparison.apart = 0;
  if (rules.projected) {
    // bound: s/row.residual_low/row.residual_high/ s/query.residual_high/query.residual_low/
    const double above = static_cast<double>(row.residual_low) - static_cast<double>(query.residual_high);
    // bound: s/query.residual_low/query.residual_high/ s/row.residual_high/row.residual_low/
    const double below = static_cast<double>(query.residual_low) - static_cast<double>(row.residual_high);
    // bound: s/fmax(0.0, fmax(above, below))/fmax(above, below)/
    comparison.apart = fmax(0.0, fmax(above, below));
  }
  return comparison;
}

// Of a threshold on scale times the computed distance, what of it reaches into the level.
__device__ __forceinline__ double reach_of(double threshold, const Rules& rules) {
  // bound: s/rules.stretch/1/ s/(1 + rules.widening)/1/ s/rules.underflow/0/
  return rules.stretch * (threshold * (1 + rules.widening) + rules.underflow);
}

// Whether a row is farther than the threshold that `reach` is of. Without a square root; the slack at its end covers
// all that is rounded on both sides of it.
__device__ __forceinline__ bool is_beyond(const Comparison& comparison, double reach) {
  // bound: s/comparison.radius/0/
  const double far = reach + comparison.radius;
  // bound: s/comparison.uncertain/0/
  const double inside = comparison.squared - comparison.uncertain;
  // bound: s/comparison.apart * comparison.apart/0/
  const double nearest = inside + comparison.apart * comparison.apart;
  // bound: s/(1 + slack)/1/ s/>/>=/
  return nearest > far * far * (1 + slack);
}

// Bounds on scale times the computed distance, of a level that is not projected. What is rounded below is rounded by
// less than the slack of D where the bound is not 0, and of the bound itself above.
__device__ __forceinline__ double lower_bound(const Comparison& comparison, const Rules& rules) {
  // bound: s/comparison.uncertain/0/ s/(1 - slack)/1/ s/fmax(0.0, comparison.squared/fabs(comparison.squared/
  const double nearest = sqrt(fmax(0.0, comparison.squared - comparison.uncertain)) * (1 - slack);
  // bound: s/comparison.radius/0/ s/(1 - rules.widening)/1/ s/rules.underflow/0/ s/fmax(0.0, /(/
  return fmax(0.0, (nearest - comparison.radius) * (1 - rules.widening) - rules.underflow);
}

__device__ __forceinline__ double upper_bound(const Comparison& comparison, const Rules& rules) {
  // bound: s/comparison.uncertain/0/ s/comparison.radius/0/ s/fmax(0.0, /(/
  const double farthest = sqrt(fmax(0.0, comparison.squared + comparison.uncertain)) + comparison.radius;
  // bound: s/slack + // s/slack + rules.widening/slack/ s/rules.underflow/0/
  return farthest * (1 + slack + rules.widening) + rules.underflow;
}

// The terms of a row or a query in float32, for tiles: they compare so many pairs that float64 would take as long as
// their products.
//
// With u = 2^-24, the roundoff of float32, what is computed of D^2 is wrong by less than
//     20 u m M + 9 u (|R|^2 + |Q|^2),     m = |R| + s |z| sqrt(columns), and M the same of the query:
// none of I, z V, y U and C, times s t, is more than m M, and each is rounded a few times. 2 m M is at most m^2 + M^2,
// and m^2 at most 2 (|R|^2 + (s z)^2 columns). So 64 u of that sum is taken off |R|^2, and the same off |Q|^2; with 2^-100,
// more than what is lost below the range of float32. What is above that range is given up.
// Residuals and radii are rounded by less than 9 u of what is within reach: 16 u are added to the square of the reach.
struct RoughTerms {
  float norm;   // |R|^2 less what may be lost; -infinity: always in doubt
  float scale;  // of a query: twice
  float zero;
  float sum;     // of c - z; of a query: of c
  float radius;  // of a query: with the reach of its threshold
  float residual_low;
  float residual_high;
};

__device__ __forceinline__ RoughTerms rough(const Terms& terms, const Rules& rules) {
  const double zeros = static_cast<double>(terms.scale) * static_cast<double>(terms.zero);
  // bound: s/ + zeros * zeros * rules.columns//
  const double size = terms.norm + zeros * zeros * rules.columns;
  // bound: s/0x1p-18/0/ s/ + 0x1p-100//
  const double lost = size * 0x1p-18 + 0x1p-100;
  RoughTerms result;
  // bound: s/size < 0x1p100/true/
  result.norm = size < 0x1p100 ? __double2float_rd(terms.norm - lost) : -INFINITY;
  result.scale = terms.scale;
  result.zero = terms.zero;
  result.sum = static_cast<float>(terms.sum);
  result.radius = terms.radius;
  result.residual_low = terms.residual_low;
  result.residual_high = terms.residual_high;
  return result;
}

__device__ __forceinline__ RoughTerms rough_query(const Terms& terms, double reach, const Rules& rules) {
  RoughTerms result = rough(terms, rules);
  result.scale = 2 * terms.scale;
  result.sum = static_cast<float>(terms.total);
  // bound: s/static_cast<double>(terms.radius)/0/
  result.radius = static_cast<float>(reach + static_cast<double>(terms.radius));
  return result;
}

// Whether a row is farther than the reach that went into the query.
__device__ __forceinline__ bool is_beyond(const RoughTerms& row, const RoughTerms& query, int product, bool projected) {
  const float integer = static_cast<float>(product) - row.zero * query.sum - query.zero * row.sum;
  float nearest = row.norm + query.norm - row.scale * query.scale * integer;
  if (projected) {
    // bound: s/row.residual_low/row.residual_high/ s/query.residual_high/query.residual_low/
    const float above = row.residual_low - query.residual_high;
    // bound: s/query.residual_low/query.residual_high/ s/row.residual_high/row.residual_low/
    const float below = query.residual_low - row.residual_high;
    // bound: s/fmaxf(0.0F, fmaxf(above, below))/fmaxf(above, below)/
    const float apart = fmaxf(0.0F, fmaxf(above, below));
    nearest += apart * apart;
  }
  // bound: s/row.radius/0/
  const float far = row.radius + query.radius;
  // bound: s/(1 + 0x1p-20F)/1/
  return nearest > far * far * (1 + 0x1p-20F);
}

}  // namespace onnxviz::cuda
