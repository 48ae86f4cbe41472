// The emulator itself: it must catch what it is there to catch.
#include <csignal>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "kernels/async_copy.cuh"
#include "kernels/tensor_core.cuh"
#include "launch.h"
#include "onnxviz/cuda/device.h"
#include "onnxviz/cuda/memory.h"

namespace onnxviz::cuda {
namespace {

using test::message_of;

struct Turned {
  int values[64];
};

// Reverses what the block was given, with or without the barrier that it needs.
void turn(int* values, bool with_barrier) {
  ONNXVIZ_SHARED(Turned, shared);
  shared.values[threadIdx.x] = values[threadIdx.x];
  if (with_barrier) __syncthreads();
  values[threadIdx.x] = shared.values[blockDim.x - 1 - threadIdx.x];
}

void leave_early() {
  if (threadIdx.x == 3) return;
  __syncthreads();
}

void part_at_barriers() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncwarp();
    __syncwarp();
    if (threadIdx.x == 40) return;
    __syncwarp();
  }
}

void add_up(int* sum) {
  int value = static_cast<int>(threadIdx.x);
  for (int by = 16; by > 0; by /= 2) value += __shfl_xor_sync(whole_warp, value, by);
  const unsigned even = __ballot_sync(whole_warp, threadIdx.x % 2 == 0);
  if (threadIdx.x % 32 == 0) atomicAdd(sum, value + (even == 0x55555555u ? 0 : 1000000));
}

void write_behind(int* values, int place) { values[place] = 1; }

void shift_pairs(unsigned low, unsigned high, unsigned* shifted) {
  shifted[threadIdx.x] = __funnelshift_r(low, high, threadIdx.x);
}

void write_behind_shared(bool dynamic) {
  ONNXVIZ_SHARED(Turned, shared);
  ONNXVIZ_DYNAMIC_SHARED(more);
  if (dynamic) {
    more[16] = 1;
  } else {
    reinterpret_cast<unsigned char*>(&shared)[sizeof(Turned)] = 1;
  }
}

void bring(const uint4* values, unsigned* found, bool wait) {
  ONNXVIZ_SHARED(uint4, shared);
  if (threadIdx.x == 0) {
    begin_copy_16(&shared, values);
    close_copy_group();
    if (wait) wait_for_copies<0>();
  }
  __syncthreads();
  if (threadIdx.x == 0) *found = shared.z;
  wait_for_copies<0>();
}

void multiply(const std::int8_t* a, const std::int8_t* b, int* products) {
  const int lane = static_cast<int>(threadIdx.x);
  const int group = lane / 4;
  const int quarter = lane % 4;
  const auto word = [](const std::int8_t* bytes) {
    unsigned value;
    std::memcpy(&value, bytes, 4);
    return value;
  };
  // a: 16 rows of 32; b: 8 columns of 32.
  const unsigned left[4] = {word(a + 32 * group + 4 * quarter), word(a + 32 * (group + 8) + 4 * quarter),
                            word(a + 32 * group + 16 + 4 * quarter), word(a + 32 * (group + 8) + 16 + 4 * quarter)};
  const unsigned right[2] = {word(b + 32 * group + 4 * quarter), word(b + 32 * group + 16 + 4 * quarter)};
  int sums[4] = {0, 0, 0, 0};
  multiply_add(sums, left, right);
  for (int i = 0; i < 4; ++i) products[8 * (group + i / 2 * 8) + 2 * quarter + i % 2] = sums[i];
}

template <class T>
std::vector<T> on_host(const Array<T>& array, const Stream& stream) {
  std::vector<T> values(array.size());
  copy_to_host(values.data(), array.data(), values.size() * sizeof(T), stream.view());
  return values;
}

cudaStream_t queue(const Stream& stream) { return static_cast<cudaStream_t>(stream.view().handle); }

// Whether a child process that does this dies of touching memory that it may not.
bool dies(const std::function<void()>& deed) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGSEGV, SIG_DFL);
    std::signal(SIGBUS, SIG_DFL);
    deed();
    std::_Exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void test_barriers() {
  const Stream stream(0);
  std::vector<int> numbers(64);
  for (int i = 0; i < 64; ++i) numbers[static_cast<std::size_t>(i)] = i;
  const Array<int> values(64, 0);
  for (const bool with_barrier : {true, false}) {
    copy_to_device(values.data(), numbers.data(), 64 * sizeof(int), stream.view());
    launch(turn, Grid{1, 64}, queue(stream), values.data(), with_barrier);
    const auto turned = on_host(values, stream);
    bool right = true;
    for (std::size_t i = 0; i < 64; ++i) right = right && turned[i] == numbers[63 - i];
    CHECK(right == with_barrier);
  }
  launch(leave_early, Grid{1, 32}, queue(stream));
  CHECK(test::contains(message_of<std::runtime_error>([&] { stream.synchronize(); }), "left before its barrier"));
  launch(part_at_barriers, Grid{1, 64}, queue(stream));
  CHECK(test::contains(message_of<std::runtime_error>([&] { stream.synchronize(); }), "barrier"));
}

void test_warps() {
  const Stream stream(0);
  const Array<int> sum(1, 0);
  check(cudaMemsetAsync(sum.data(), 0, sizeof(int), queue(stream)), "cudaMemsetAsync");
  launch(add_up, Grid{3, 64}, queue(stream), sum.data());
  CHECK(on_host(sum, stream)[0] == 3 * (63 * 64 / 2));
}

// Bytes of two words from each bit on; more than 31 begin from the first again.
void test_shifts() {
  const Stream stream(0);
  const Array<unsigned> shifted(40, 0);
  launch(shift_pairs, Grid{1, 40}, queue(stream), 0x76543210u, 0xfedcba98u, shifted.data());
  const auto found = on_host(shifted, stream);
  CHECK(found[0] == 0x76543210u && found[8] == 0x98765432u && found[28] == 0xedcba987u && found[31] == 0xfdb97530u);
  CHECK(found[32] == found[0] && found[39] == found[7]);
}

void test_memory() {
  const Stream stream(0);
  const Array<int> values(5, 0);
  CHECK(device_of(values.data()) == 0);
  int here = 0;
  CHECK(device_of(&here) == -1);
  launch(write_behind, Grid{1, 1}, queue(stream), values.data(), 4);
  CHECK(on_host(values, stream)[4] == 1);
  CHECK(dies([&] {
    launch(write_behind, Grid{1, 1}, queue(stream), values.data(), 8);
    stream.synchronize();
  }));
  CHECK(dies([&] { *static_cast<volatile int*>(values.data()) = 1; }));
  const Array<int> pages(static_cast<std::size_t>(sysconf(_SC_PAGESIZE)), 0);
  launch(write_behind, Grid{1, 1}, queue(stream), pages.data(), 0);
  CHECK(on_host(pages, stream)[0] == 1);
  CHECK(dies([&] {
    launch(write_behind, Grid{1, 1}, queue(stream), pages.data(), -1);
    stream.synchronize();
  }));
  for (const bool dynamic : {false, true}) {
    launch(write_behind_shared, Grid{1, 32, 16}, queue(stream), dynamic);
    CHECK(test::contains(message_of<std::runtime_error>([&] { stream.synchronize(); }), "end of its shared memory"));
  }
  CHECK(message_of<std::bad_alloc>([] { Memory(std::size_t{1} << 60, 0); }) != "");
  CHECK(message_of<std::runtime_error>([] { Memory(1, 99); }) != "");
}

void test_streams() {
  const Stream first(0);
  const Stream second(1);
  const Array<int> values(1, 0);
  int before = 7;
  copy_to_device(values.data(), &before, sizeof before, first.view());
  launch(write_behind, Grid{1, 1}, queue(first), values.data(), 0);
  int seen = 0;
  // Not ordered behind the other stream, so nothing has happened yet.
  copy_to_host(&seen, values.data(), sizeof seen, second.view());
  CHECK(seen == 7);
  wait_for(second.view(), first.view());
  copy_to_host(&seen, values.data(), sizeof seen, second.view());
  CHECK(seen == 1);
}

void test_copies() {
  const Stream stream(0);
  const Array<uint4> values(1, 0);
  const Array<unsigned> found(1, 0);
  const uint4 numbers{1, 2, 3, 4};
  copy_to_device(values.data(), &numbers, sizeof numbers, stream.view());
  for (const bool wait : {true, false}) {
    launch(bring, Grid{1, 32}, queue(stream), values.data(), found.data(), wait);
    CHECK((on_host(found, stream)[0] == 3) == wait);
  }
}

void test_tensor_core() {
  const Stream stream(0);
  std::mt19937 generator(1);
  std::vector<std::int8_t> a(16 * 32);
  std::vector<std::int8_t> b(8 * 32);
  for (auto* side : {&a, &b}) {
    for (auto& byte : *side) byte = static_cast<std::int8_t>(static_cast<int>(generator() % 256) - 128);
  }
  const Array<std::int8_t> left(a.size(), 0);
  const Array<std::int8_t> right(b.size(), 0);
  const Array<int> products(16 * 8, 0);
  copy_to_device(left.data(), a.data(), a.size(), stream.view());
  copy_to_device(right.data(), b.data(), b.size(), stream.view());
  launch(multiply, Grid{1, 32}, queue(stream), left.data(), right.data(), products.data());
  const auto got = on_host(products, stream);
  for (std::size_t row = 0; row < 16; ++row) {
    for (std::size_t column = 0; column < 8; ++column) {
      int sum = 0;
      for (std::size_t k = 0; k < 32; ++k) sum += a[32 * row + k] * b[32 * column + k];
      CHECK(got[8 * row + column] == sum);
    }
  }
}

void test_device() {
  CHECK(status().empty());
  CHECK(device_count() == 2);
  CHECK(devices()[1].name == "emulated device 1");
}

}  // namespace
}  // namespace onnxviz::cuda

int main() {
  return onnxviz::test::run([] {
    onnxviz::cuda::test_barriers();
    onnxviz::cuda::test_warps();
    onnxviz::cuda::test_shifts();
    onnxviz::cuda::test_memory();
    onnxviz::cuda::test_streams();
    onnxviz::cuda::test_copies();
    onnxviz::cuda::test_tensor_core();
    onnxviz::cuda::test_device();
  });
}
