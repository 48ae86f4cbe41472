// A loop whose iterations run on several threads.
#pragma once

#include <cstdint>
#include <functional>

namespace onnxviz {

// `threads`, or the number of cores that this process may use where it is not positive.
int thread_count(int threads);

// Calls body(i) for i = 0..count-1, each once, on up to `threads` threads (the caller's is one of them). Returns when all
// are done. The first exception of a body is thrown again here, after the others have stopped.
void parallel_for(std::int64_t count, int threads, const std::function<void(std::int64_t)>& body);

}  // namespace onnxviz
