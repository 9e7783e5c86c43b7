// Loops in libtorch's threads.
#pragma once

#include <ATen/ATen.h>
#include <ATen/TensorIterator.h>

namespace ext {

// Numbers below which a thread costs more than it brings.
constexpr int64_t kGrain = 32768;

// Calls body(i) for i < count in libtorch's threads, each of which takes `grain` at least.
template <typename F>
void parallel(int64_t count, int64_t grain, F&& body) {
  // at::parallel_for is a plain loop unless OpenMP is on where it is included; libtorch's own iterator brings its threads along.
  // It wants something to iterate over: a byte for each i, whose address tells i.
  at::Tensor bytes = at::empty({count}, at::kByte);
  auto base = static_cast<const char*>(bytes.const_data_ptr());
  at::TensorIteratorConfig().check_all_same_dtype(false).add_output(bytes).resize_outputs(false).build().for_each(
      [&](char** data, const int64_t*, int64_t n) {
        for (int64_t i = data[0] - base, end = i + n; i < end; ++i) body(i);
      },
      grain);
}

} // namespace ext
