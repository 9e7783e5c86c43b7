// What the C++ files share: lists of tensors, and the border at which exceptions become messages.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <string>
#include <vector>

namespace ext {

using List = std::vector<at::Tensor>;

inline thread_local std::string last_error;

// Keeps the first line for ext_error.
inline void keep(const char* message) {
  last_error = message;
  last_error.resize(std::min(last_error.find('\n'), last_error.size()));
}

// Runs the body; 0 for success, 1 if it threw.
template <typename F>
int attempt(F&& body) noexcept {
  try {
    body();
    return 0;
  } catch (const c10::Error& error) {
    keep(error.what_without_backtrace());
  } catch (const std::exception& error) {
    keep(error.what());
  } catch (...) {
    keep("unknown C++ exception");
  }
  return 1;
}

// The gradients of those that have one.
inline List gradients(const List& params) {
  List grads;
  grads.reserve(params.size());
  for (const at::Tensor& param : params)
    if (param.grad().defined()) grads.push_back(param.grad());
  return grads;
}

} // namespace ext
