// The few parts of libtorch that tch leaves out. Every function catches all exceptions, keeps the first line of the
// message for ext_error, and returns 0 for success; those that return a pointer return null for failure.

#include <ATen/autocast_mode.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <initializer_list>
#include <memory>

#include "ext.h"

using ext::List;
using ext::attempt;
using ext::gradients;

namespace {

// The strides of dimensions of size 1 say nothing about where the numbers lie.
bool same_layout(const at::Tensor& a, const at::Tensor& b) {
  auto size = a.sizes();
  auto left = a.strides(), right = b.strides();
  for (size_t i = 0; i < size.size(); ++i)
    if (size[i] != 1 && left[i] != right[i]) return false;
  return true;
}

void check_like(const at::Tensor& param, const at::Tensor& other, const char* what) {
  TORCH_CHECK(
      other.sizes() == param.sizes() && other.scalar_type() == param.scalar_type() && other.device() == param.device(),
      what, " is ", other.scalar_type(), other.sizes(), " on ", other.device(), ", its parameter is ",
      param.scalar_type(), param.sizes(), " on ", param.device());
}

// The parameters that have a gradient, with their gradients and their entries of the state lists.
// The fused kernels walk all of these with one flat index and check nothing: shapes and strides are checked here.
struct Live {
  List params, grads;
  std::vector<List> states;

  Live(const List& all, std::initializer_list<const List*> state_lists) : states(state_lists.size()) {
    params.reserve(all.size());
    grads.reserve(all.size());
    for (auto& state : states) state.reserve(all.size());
    for (const List* list : state_lists)
      TORCH_CHECK(list->size() == all.size(), "state for ", list->size(), " tensors, but there are ", all.size(), " parameters");
    for (size_t i = 0; i < all.size(); ++i) {
      const at::Tensor& param = all[i];
      const at::Tensor& grad = param.grad();
      if (!grad.defined()) continue;
      TORCH_CHECK(param.is_non_overlapping_and_dense(), "a parameter is a view with gaps or overlaps");
      TORCH_CHECK(
          params.empty() || (param.scalar_type() == params[0].scalar_type() && param.device() == params[0].device()),
          "parameters of one call must share kind and device");
      check_like(param, grad, "gradient");
      params.push_back(param);
      grads.push_back(same_layout(param, grad) ? grad : at::empty_like(param).copy_(grad));
      size_t k = 0;
      for (const List* list : state_lists) states[k++].push_back((*list)[i]);
    }
  }

  void check_state(size_t k, const char* what) const {
    for (size_t i = 0; i < params.size(); ++i) {
      check_like(params[i], states[k][i], what);
      TORCH_CHECK(same_layout(params[i], states[k][i]), what, " has another memory format than its parameter");
    }
  }
};

} // namespace

extern "C" {

const char* ext_error() {
  return ext::last_error.c_str();
}

List* ext_list_new(const at::Tensor* const* tensors, size_t count) {
  List* list = nullptr;
  attempt([&] {
    auto fresh = std::make_unique<List>();
    fresh->reserve(count);
    for (size_t i = 0; i < count; ++i) fresh->push_back(*tensors[i]);
    list = fresh.release();
  });
  return list;
}

void ext_list_free(List* list) {
  delete list;
}

void ext_clear_grads(const List* params) {
  // Only frees, so there is no failure to report.
  attempt([&] {
    for (const at::Tensor& param : *params)
      if (param.grad().defined()) param.mutable_grad().reset();
  });
}

int ext_fused_sgd(
    const List* params, const List* buffers, const at::Tensor* lr, double momentum, double weight_decay, bool nesterov) {
  return attempt([&] {
    at::NoGradGuard no_grad;
    Live live = buffers ? Live(*params, {buffers}) : Live(*params, {});
    if (live.params.empty()) return;
    if (buffers) live.check_state(0, "momentum buffer");
    // Buffers start at zero, so the first step needs no special case: 0 * momentum + grad = grad.
    at::_fused_sgd_(
        live.params, live.grads, buffers ? live.states[0] : List(), weight_decay, momentum, *lr, /*dampening=*/0.0,
        nesterov, /*maximize=*/false, /*is_first_step=*/false);
  });
}

int ext_fused_adamw(
    const List* params, const List* exp_avgs, const List* exp_avg_sqs, const List* steps, const at::Tensor* lr,
    double beta1, double beta2, double eps, double weight_decay) {
  return attempt([&] {
    at::NoGradGuard no_grad;
    Live live(*params, {exp_avgs, exp_avg_sqs, steps});
    if (live.params.empty()) return;
    live.check_state(0, "first moment");
    live.check_state(1, "second moment");
    for (const at::Tensor& step : live.states[2])
      TORCH_CHECK(
          step.numel() == 1 && step.scalar_type() == at::kFloat && step.device() == live.params[0].device(),
          "step count must be one float32 on the parameters' device");
    at::_foreach_add_(live.states[2], 1);
    at::_fused_adamw_(
        live.params, live.grads, live.states[0], live.states[1], /*max_exp_avg_sqs=*/List(), live.states[2], *lr, beta1,
        beta2, weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false);
  });
}

int ext_foreach_lerp(const List* targets, const List* sources, double weight) {
  return attempt([&] {
    at::NoGradGuard no_grad;
    TORCH_CHECK(
        targets->size() == sources->size(), sources->size(), " sources for ", targets->size(), " targets");
    for (size_t i = 0; i < targets->size(); ++i) check_like((*targets)[i], (*sources)[i], "source");
    if (!targets->empty()) at::_foreach_lerp_(*targets, *sources, weight);
  });
}

int ext_foreach_addcmul_grads(const List* params, const List* factors, double value) {
  return attempt([&] {
    at::NoGradGuard no_grad;
    Live live(*params, {factors});
    for (size_t i = 0; i < live.params.size(); ++i) check_like(live.params[i], live.states[0][i], "factor");
    if (!live.params.empty()) at::_foreach_addcmul_(live.params, live.grads, live.states[0], value);
  });
}

at::Tensor* ext_grad_norm(const List* params) {
  at::Tensor* norm = nullptr;
  attempt([&] {
    at::NoGradGuard no_grad;
    List grads = gradients(*params);
    norm = new at::Tensor(grads.empty() ? at::zeros({}) : at::linalg_vector_norm(at::stack(at::_foreach_norm(grads)), 2));
  });
  return norm;
}

int ext_scale_grads(const List* params, const at::Tensor* factor) {
  return attempt([&] {
    at::NoGradGuard no_grad;
    List grads = gradients(*params);
    if (!grads.empty()) at::_foreach_mul_(grads, *factor);
  });
}

at::Tensor* ext_channels_last(const at::Tensor* tensor) {
  at::Tensor* result = nullptr;
  attempt([&] { result = new at::Tensor(tensor->contiguous(at::MemoryFormat::ChannelsLast)); });
  return result;
}

at::Tensor* ext_leaky_relu(const at::Tensor* tensor, double slope) {
  at::Tensor* result = nullptr;
  attempt([&] { result = new at::Tensor(at::leaky_relu(*tensor, slope)); });
  return result;
}

int ext_is_channels_last(const at::Tensor* tensor, bool* answer) {
  return attempt([&] { *answer = tensor->is_contiguous(at::MemoryFormat::ChannelsLast); });
}

// Kinds are c10::ScalarType numbers.
int ext_autocast_enter(bool cuda, int kind, bool* was_enabled, int* old_kind) {
  return attempt([&] {
    auto device = cuda ? at::kCUDA : at::kCPU;
    *was_enabled = at::autocast::is_autocast_enabled(device);
    *old_kind = static_cast<int>(at::autocast::get_autocast_dtype(device));
    at::autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(kind));
    at::autocast::set_autocast_enabled(device, true);
    at::autocast::increment_nesting();
  });
}

int ext_autocast_leave(bool cuda, bool was_enabled, int old_kind) {
  return attempt([&] {
    auto device = cuda ? at::kCUDA : at::kCPU;
    // The cache holds low-precision copies of the weights; the optimizer is about to change these.
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device, was_enabled);
    at::autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(old_kind));
  });
}

int ext_cuda_peak_memory(int index, uint64_t* bytes) {
  return attempt([&] {
    TORCH_CHECK(at::hasCUDA(), "CUDA is not loaded");
    auto stats = c10::getDeviceAllocator(at::kCUDA)->getDeviceStats(static_cast<c10::DeviceIndex>(index));
    constexpr auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    *bytes = static_cast<uint64_t>(stats.allocated_bytes[all].peak);
  });
}

int ext_cuda_reset_peak_memory(int index) {
  return attempt([&] {
    TORCH_CHECK(at::hasCUDA(), "CUDA is not loaded");
    c10::getDeviceAllocator(at::kCUDA)->resetPeakStats(static_cast<c10::DeviceIndex>(index));
  });
}

} // extern "C"
