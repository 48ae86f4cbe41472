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

}  // namespace onnxviz::cuda
