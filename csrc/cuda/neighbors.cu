#include "onnxviz/cuda/neighbors.h"

#include <algorithm>
#include <exception>
#include <limits>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "index_codes.h"
#include "launch.h"
#include "neighbor_search.h"

namespace onnxviz::cuda {

class NeighborIndex::Implementation {
 public:
  virtual ~Implementation() = default;
  virtual std::int64_t rows() const = 0;
  virtual std::int64_t columns() const = 0;
  virtual std::int64_t directions() const = 0;
  virtual ProjectedStart start() const = 0;
  virtual void set_start(ProjectedStart start) = 0;
  virtual void query(MatrixView<float> queries, std::int64_t k, double* distances, std::int64_t* indices,
                     StreamView stream) const = 0;
  virtual void query(MatrixView<double> queries, std::int64_t k, double* distances, std::int64_t* indices,
                     StreamView stream) const = 0;
  virtual void query_all_rows(std::int64_t k, double* distances, std::int64_t* indices, StreamView stream,
                              const Progress& progress) const = 0;
};

namespace {

constexpr unsigned long long none_unfit = std::numeric_limits<unsigned long long>::max();
constexpr std::int64_t projected_at_once = std::int64_t{1} << 14;
constexpr std::int64_t sampled_queries = 24;
constexpr std::int64_t sampled_neighbors = 10;
// What a row in doubt costs beside one that tensor cores, or one that a few queries, meet: estimates, not measured.
constexpr double lone_cost_of_many = 16;
constexpr double lone_cost_of_few = 2;

constexpr auto product_bytes = static_cast<std::int64_t>(sizeof(std::int32_t));

// Beside its lists, what a query needs: its elements, codes and terms of both levels, direction, squares, products.
std::int64_t bytes_per_query(std::int64_t columns, std::int64_t directions) {
  const auto of_columns = columns * static_cast<std::int64_t>(sizeof(double)) + code_bytes(columns);
  const auto of_directions = directions == 0 ? 0
                                             : bytes_of_a_direction * directions * product_bytes +
                                                   code_bytes(directions) + static_cast<std::int64_t>(sizeof(Terms));
  return of_columns + of_directions +
         static_cast<std::int64_t>(sizeof(Terms) + sizeof(Direction) + sizeof(double));
}

// Memory that one search works in; kept from one to the next, because allocation would cost more than a small search.
struct Workspace {
  std::int64_t queries = 0;
  Codes bytes;
  Codes projected;
  Array<double> elements;
  Array<double> squares;
  Array<Direction> directions;
  Array<std::int32_t> products;
  Array<unsigned long long> first_unfit;
  ListMemory lists;

  void reserve(const SearchPlan& plan, const Encoder& encoder, int device) {
    if (first_unfit.size() == 0) first_unfit = Array<unsigned long long>(1, device);
    if (queries < plan.queries_at_once) {
      queries = 0;  // in case that one of these fails
      const std::int64_t count = plan.queries_at_once;
      const auto size = static_cast<std::size_t>(count);
      bytes = Codes(count, encoder.row_bytes(), device);
      elements = Array<double>(size * static_cast<std::size_t>(encoder.columns()), device);
      squares = Array<double>(size, device);
      if (encoder.cosine()) directions = Array<Direction>(size, device);
      if (encoder.directions() > 0) {
        projected = Codes(count, encoder.projected_bytes(), device);
        const std::int64_t vectors = bytes_of_a_direction * encoder.directions();
        products = Array<std::int32_t>(size * static_cast<std::size_t>(vectors), device);
      }
      queries = count;
    }
    lists.reserve(plan, device);
  }
};

template <class T>
class BankIndex final : public NeighborIndex::Implementation {
 public:
  BankIndex(MatrixView<T> bank, const IndexSetup& setup, StreamView stream, SearchSizes sizes)
      : bank_(checked(bank, stream)),
        device_(stream.device),
        sizes_(sizes),
        encoder_(setup, bank.columns, stream),
        bytes_(bank.rows, encoder_.row_bytes(), device_) {
    const CurrentDevice current(device_);
    if (encoder_.cosine()) row_directions_ = Array<Direction>(static_cast<std::size_t>(rows()), device_);
    encode(stream);
    choose_start(stream);
  }

  std::int64_t rows() const override { return bank_.rows; }
  std::int64_t columns() const override { return bank_.columns; }
  std::int64_t directions() const override { return encoder_.directions(); }
  ProjectedStart start() const override { return start_; }

  void set_start(ProjectedStart start) override {
    if ((start.few || start.many) && directions() == 0) {
      throw std::invalid_argument("there are no projections to start at");
    }
    start_ = start;
  }

  void query(MatrixView<float> queries, std::int64_t k, double* distances, std::int64_t* indices,
             StreamView stream) const override {
    nearest(queries, k, distances, indices, stream);
  }

  void query(MatrixView<double> queries, std::int64_t k, double* distances, std::int64_t* indices,
             StreamView stream) const override {
    nearest(queries, k, distances, indices, stream);
  }

  void query_all_rows(std::int64_t k, double* distances, std::int64_t* indices, StreamView stream,
                      const NeighborIndex::Progress& progress) const override {
    check_k(k);
    check_place(distances, stream, "distances");
    check_place(indices, stream, "indices");
    const CurrentDevice current(device_);
    const Workplace place(*this);
    const SearchPlan plan = this->plan(k, rows());
    place->reserve(plan, encoder_, device_);
    const bool projected = start_of(plan, rows());
    for (std::int64_t first = 0; first < rows(); first += plan.queries_at_once) {
      const std::int64_t count = std::min(plan.queries_at_once, rows() - first);
      if (progress) progress(first, rows());
      // The rows' own codes serve; their elements are read as a query's are. What that writes beside them is not used.
      encode_queries(bank_.data + first * columns(), count, *place, stream);
      const SearchedQueries queries{exact(*place), bytes_.view(first),
                                    projected ? projected_.view(first) : LevelView{nullptr, nullptr, 0}, count};
      search(searched(), queries, plan, place->lists.lists(), projected,
             Answers{distances + first * k, indices + first * k, encoder_.cosine()}, stream);
      synchronize(stream);
    }
  }

 private:
  // A workspace for as long as it lives.
  class Workplace {
   public:
    explicit Workplace(const BankIndex& index) : index_(index) {
      const std::lock_guard<std::mutex> lock(index_.mutex_);
      if (index_.free_.empty()) {
        workspace_ = std::make_unique<Workspace>();
      } else {
        workspace_ = std::move(index_.free_.back());
        index_.free_.pop_back();
      }
    }
    ~Workplace() {
      // What failed may have left work behind that uses it still: freed, it waits for that.
      if (std::uncaught_exceptions() != exceptions_) return;
      const std::lock_guard<std::mutex> lock(index_.mutex_);
      index_.free_.push_back(std::move(workspace_));
    }
    Workplace(const Workplace&) = delete;
    Workplace& operator=(const Workplace&) = delete;
    Workspace* operator->() const { return workspace_.get(); }
    Workspace& operator*() const { return *workspace_; }

   private:
    const BankIndex& index_;
    int exceptions_ = std::uncaught_exceptions();
    std::unique_ptr<Workspace> workspace_;
  };

  static void check_place(const void* pointer, StreamView stream, const char* what) {
    const int device = device_of(pointer);
    if (device == stream.device) return;
    throw std::invalid_argument(std::string("the ") + what + (device < 0 ? " are in the host's memory" :
                                " are on device " + std::to_string(device)) + "; needed: device " +
                                std::to_string(stream.device));
  }

  static MatrixView<T> checked(MatrixView<T> bank, StreamView stream) {
    if (bank.rows < 1 || bank.columns < 1) throw std::invalid_argument("the bank has no rows or no columns");
    if (bank.rows > std::numeric_limits<std::int32_t>::max()) {
      throw std::invalid_argument("the bank has " + std::to_string(bank.rows) + " rows; allowed on a device: " +
                                  std::to_string(std::numeric_limits<std::int32_t>::max()));
    }
    // Tiles count 16 bytes of codes at a time, in 32 bits.
    const std::int64_t most_rows = (std::int64_t{1} << 36) / code_bytes(bank.columns);
    if (bank.rows > most_rows) {
      throw std::invalid_argument("the bank has " + std::to_string(bank.rows) + " rows; allowed on a device with " +
                                  std::to_string(bank.columns) + " columns: " + std::to_string(most_rows));
    }
    check_place(bank.data, stream, "rows");
    return bank;
  }

  void check_k(std::int64_t k) const {
    if (k < 1 || k > rows()) {
      throw std::invalid_argument("k is " + std::to_string(k) + "; allowed: 1 to " + std::to_string(rows()) +
                                  ", the number of rows in the bank");
    }
  }

  static std::string unfit(unsigned long long row, const char* what) {
    return "row " + std::to_string(row) + " of the " + what + " holds NaN, infinity or a number beyond 1e150";
  }

  SearchPlan plan(std::int64_t k, std::int64_t queries) const {
    return {rows(), k, queries, bytes_per_query(columns(), directions()), sizes_};
  }

  bool start_of(const SearchPlan& plan, std::int64_t queries) const {
    return std::min(queries, plan.queries_at_once) <= plan.few_queries ? start_.few : start_.many;
  }

  SearchedBank<T> searched() const {
    return {{bank_.data, row_directions_.data(), columns()},
            bytes_.view(),
            directions() > 0 ? projected_.view() : LevelView{nullptr, nullptr, 0},
            encoder_.rules(false),
            encoder_.rules(true)};
  }

  static ExactQueries exact(const Workspace& workspace) {
    return {workspace.elements.data(), workspace.directions.data()};
  }

  void encode(StreamView stream) {
    const Array<unsigned long long> first_unfit(1, device_);
    check(cudaMemsetAsync(first_unfit.data(), 0xff, sizeof none_unfit, queue(stream)), "cudaMemsetAsync");
    Array<double> squares;
    if (directions() > 0) squares = Array<double>(static_cast<std::size_t>(rows()), device_);
    const EncodedRows out{bytes_.codes.data(), bytes_.terms.data(), squares.data(), row_directions_.data(), nullptr};
    encoder_.encode(bank_.data, rows(), out, first_unfit.data(), stream);
    unsigned long long row = none_unfit;
    copy_to_host(&row, first_unfit.data(), sizeof row, stream);
    if (row != none_unfit) throw std::invalid_argument(unfit(row, "bank"));
    if (directions() == 0) return;
    projected_ = Codes(rows(), encoder_.projected_bytes(), device_);
    const std::int64_t at_once = std::min(rows(), projected_at_once);
    const std::int64_t vectors = bytes_of_a_direction * directions();
    const Array<std::int32_t> products(static_cast<std::size_t>(at_once * vectors), device_);
    for (std::int64_t first = 0; first < rows(); first += at_once) {
      const std::int64_t count = std::min(at_once, rows() - first);
      encoder_.project(bytes_.view(first), squares.data() + first, count, products.data(), projected_, first, stream);
    }
    synchronize(stream);
  }

  // Some of the rows as queries, once with the projections first: how many rows these leave in doubt decides.
  void choose_start(StreamView stream) {
    if (directions() == 0) return;
    const std::int64_t count = std::min(sampled_queries, rows());
    const std::int64_t k = std::min(sampled_neighbors + 1, rows());
    const auto row_size = static_cast<std::size_t>(columns()) * sizeof(T);
    const Array<T> sample(static_cast<std::size_t>(count * columns()), device_);
    const Array<double> distances(static_cast<std::size_t>(count * k), device_);
    const Array<std::int64_t> indices(static_cast<std::size_t>(count * k), device_);
    check(cudaMemcpy2DAsync(sample.data(), row_size, bank_.data, row_size * static_cast<std::size_t>(rows() / count),
                            row_size, static_cast<std::size_t>(count), cudaMemcpyDeviceToDevice, queue(stream)),
          "cudaMemcpy2DAsync");
    const Workplace place(*this);
    const SearchPlan plan = this->plan(k, count);
    place->reserve(plan, encoder_, device_);
    unsigned long long* const in_doubt = place->lists.in_doubt();
    check(cudaMemsetAsync(in_doubt, 0, sizeof *in_doubt, queue(stream)), "cudaMemsetAsync");
    start_ = {true, true};
    run(MatrixView<T>{sample.data(), count, columns()}, plan, distances.data(), indices.data(), *place, stream,
        in_doubt);
    unsigned long long left = 0;
    copy_to_host(&left, in_doubt, sizeof left, stream);
    const double share = static_cast<double>(left) / (static_cast<double>(rows()) * static_cast<double>(count));
    const auto projected = static_cast<double>(encoder_.projected_bytes());
    const auto all = static_cast<double>(encoder_.row_bytes());
    start_.few = projected + share * lone_cost_of_few * all < all;
    start_.many = projected + share * lone_cost_of_many * all < all;
  }

  template <class U>
  void encode_queries(const U* elements, std::int64_t count, const Workspace& workspace, StreamView stream) const {
    encoder_.encode(elements, count,
                    EncodedRows{workspace.bytes.codes.data(), workspace.bytes.terms.data(), workspace.squares.data(),
                                workspace.directions.data(), workspace.elements.data()},
                    workspace.first_unfit.data(), stream);
  }

  template <class U>
  void nearest(MatrixView<U> queries, std::int64_t k, double* distances, std::int64_t* indices,
               StreamView stream) const {
    if (queries.columns != columns()) {
      throw std::invalid_argument("the queries have " + std::to_string(queries.columns) + " columns, the bank has " +
                                  std::to_string(columns()));
    }
    check_k(k);
    if (queries.rows == 0) return;
    check_place(queries.data, stream, "queries");
    check_place(distances, stream, "distances");
    check_place(indices, stream, "indices");
    const CurrentDevice current(device_);
    const Workplace place(*this);
    const SearchPlan plan = this->plan(k, queries.rows);
    place->reserve(plan, encoder_, device_);
    run(queries, plan, distances, indices, *place, stream);
  }

  template <class U>
  void run(MatrixView<U> queries, const SearchPlan& plan, double* distances, std::int64_t* indices,
           const Workspace& workspace, StreamView stream, unsigned long long* in_doubt = nullptr) const {
    const bool projected = start_of(plan, queries.rows);
    Lists lists = workspace.lists.lists();
    lists.in_doubt = in_doubt;
    for (std::int64_t first = 0; first < queries.rows; first += plan.queries_at_once) {
      const std::int64_t count = std::min(plan.queries_at_once, queries.rows - first);
      unsigned long long* const first_unfit = workspace.first_unfit.data();
      check(cudaMemsetAsync(first_unfit, 0xff, sizeof none_unfit, queue(stream)), "cudaMemsetAsync");
      encode_queries(queries.row(first), count, workspace, stream);
      if (projected) {
        encoder_.project(workspace.bytes.view(), workspace.squares.data(), count, workspace.products.data(),
                         workspace.projected, 0, stream);
      }
      const SearchedQueries ready{exact(workspace), workspace.bytes.view(),
                                  projected ? workspace.projected.view() : LevelView{nullptr, nullptr, 0}, count};
      search(searched(), ready, plan, lists, projected,
             Answers{distances + first * plan.k, indices + first * plan.k, encoder_.cosine()}, stream);
      // The one time that the host waits for so many queries.
      unsigned long long row = none_unfit;
      copy_to_host(&row, first_unfit, sizeof row, stream);
      if (row == none_unfit) continue;
      throw std::invalid_argument(unfit(static_cast<unsigned long long>(first) + row, "queries"));
    }
  }

  MatrixView<T> bank_;
  int device_;
  SearchSizes sizes_;
  Encoder encoder_;
  Codes bytes_;
  Codes projected_;
  Array<Direction> row_directions_;
  ProjectedStart start_;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Workspace>> free_;
};

}  // namespace

NeighborIndex::NeighborIndex(MatrixView<float> bank, const IndexSetup& setup, StreamView stream, SearchSizes sizes)
    : implementation_(std::make_unique<BankIndex<float>>(bank, setup, stream, sizes)) {}

NeighborIndex::NeighborIndex(MatrixView<double> bank, const IndexSetup& setup, StreamView stream, SearchSizes sizes)
    : implementation_(std::make_unique<BankIndex<double>>(bank, setup, stream, sizes)) {}

NeighborIndex::~NeighborIndex() = default;
NeighborIndex::NeighborIndex(NeighborIndex&&) noexcept = default;
NeighborIndex& NeighborIndex::operator=(NeighborIndex&&) noexcept = default;

std::int64_t NeighborIndex::rows() const { return implementation_->rows(); }
std::int64_t NeighborIndex::columns() const { return implementation_->columns(); }
std::int64_t NeighborIndex::directions() const { return implementation_->directions(); }
ProjectedStart NeighborIndex::start() const { return implementation_->start(); }
void NeighborIndex::set_start(ProjectedStart start) { implementation_->set_start(start); }

void NeighborIndex::query(MatrixView<float> queries, std::int64_t k, double* distances, std::int64_t* indices,
                          StreamView stream) const {
  implementation_->query(queries, k, distances, indices, stream);
}

void NeighborIndex::query(MatrixView<double> queries, std::int64_t k, double* distances, std::int64_t* indices,
                          StreamView stream) const {
  implementation_->query(queries, k, distances, indices, stream);
}

void NeighborIndex::query_all_rows(std::int64_t k, double* distances, std::int64_t* indices, StreamView stream,
                                   const Progress& progress) const {
  implementation_->query_all_rows(k, distances, indices, stream, progress);
}

std::size_t NeighborIndex::index_bytes(std::int64_t rows, std::int64_t columns, std::int64_t directions,
                                       Metric metric) {
  // Codes and terms of each row, for cosine a direction; the same of the basis; once, while it is made, squares of all
  // rows and products of some.
  const auto terms = static_cast<std::int64_t>(sizeof(Terms));
  const auto number = static_cast<std::int64_t>(sizeof(double));
  std::int64_t bytes = rows * (code_bytes(columns) + terms) + columns * number;
  if (metric == Metric::cosine) bytes += rows * static_cast<std::int64_t>(sizeof(Direction));
  if (directions > 0) {
    bytes += rows * (code_bytes(directions) + terms + number) +
             directions * (bytes_of_a_direction * code_bytes(columns) + 3 * number) +
             std::min(rows, projected_at_once) * bytes_of_a_direction * directions * product_bytes;
  }
  return static_cast<std::size_t>(bytes);
}

std::size_t NeighborIndex::search_bytes(std::int64_t rows, std::int64_t columns, std::int64_t directions,
                                        std::int64_t queries, std::int64_t k, SearchSizes sizes) {
  const std::int64_t of_query = bytes_per_query(columns, directions);
  const SearchPlan plan(rows, k, queries, of_query, sizes);
  return plan.list_bytes() + static_cast<std::size_t>(plan.queries_at_once * of_query) + sizeof(unsigned long long);
}

}  // namespace onnxviz::cuda
