// The kernels of the instruction set in use.
#pragma once

#include "kernels/kernels.h"

namespace onnxviz {

const DistanceKernels& distance_kernels_in_use();
const ProductKernels& product_kernels_in_use();
const BoundKernels& bound_kernels_in_use();
const EncodingKernels& encoding_kernels_in_use();

}  // namespace onnxviz
