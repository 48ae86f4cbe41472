#include "onnxviz/cuda/neighbors.h"

#include <stdexcept>

#include "onnxviz/cuda/device.h"

namespace onnxviz::cuda {
namespace {

[[noreturn]] void refuse() { throw std::runtime_error(status()); }

}  // namespace

class NeighborIndex::Implementation {};

NeighborIndex::NeighborIndex(MatrixView<float>, const IndexSetup&, StreamView, SearchSizes) { refuse(); }
NeighborIndex::NeighborIndex(MatrixView<double>, const IndexSetup&, StreamView, SearchSizes) { refuse(); }
NeighborIndex::~NeighborIndex() = default;
NeighborIndex::NeighborIndex(NeighborIndex&&) noexcept = default;
NeighborIndex& NeighborIndex::operator=(NeighborIndex&&) noexcept = default;

std::int64_t NeighborIndex::rows() const { refuse(); }
std::int64_t NeighborIndex::columns() const { refuse(); }
std::int64_t NeighborIndex::directions() const { refuse(); }
ProjectedStart NeighborIndex::start() const { refuse(); }
void NeighborIndex::set_start(ProjectedStart) { refuse(); }
void NeighborIndex::query(MatrixView<float>, std::int64_t, double*, std::int64_t*, StreamView) const { refuse(); }
void NeighborIndex::query(MatrixView<double>, std::int64_t, double*, std::int64_t*, StreamView) const { refuse(); }
void NeighborIndex::query_all_rows(std::int64_t, double*, std::int64_t*, StreamView, const Progress&) const {
  refuse();
}
std::size_t NeighborIndex::index_bytes(std::int64_t, std::int64_t, std::int64_t, Metric) { refuse(); }
std::size_t NeighborIndex::search_bytes(std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                                        SearchSizes) {
  refuse();
}

}  // namespace onnxviz::cuda
