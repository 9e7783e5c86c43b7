// y = silu(group_norm(x)) as one operation, for pictures whose channels lie side by side. libtorch's kernels for those take a group's few
// channels of one pixel at a time, which no vector holds: in a small U-Net they took half of a training step.

#include <ATen/Dispatch.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <vector>

#include "ext.h"
#include "norm_kernels.h"
#include "parallel.h"

namespace {
namespace group_norm {

using norm::Act;
using norm::Affine;
using norm::Mask;
using norm::Tile;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Numbers of a part, the unit of work of a thread.
constexpr int64_t kPart = 65536;

// How a batch [N, C, H, W] is cut: each example into parts of its pixels. The cut depends on the shape alone, and so do the sums.
struct Plan {
  int64_t examples, channels, pixels, groups, pixels_per_part, parts;

  Plan(const at::Tensor& x, int64_t groups) : examples(x.size(0)), channels(x.size(1)), pixels(x.size(2) * x.size(3)), groups(groups) {
    pixels_per_part = std::min(pixels, std::max<int64_t>(1, kPart / channels));
    parts = (pixels + pixels_per_part - 1) / pixels_per_part;
  }

  int64_t channels_of_group() const {
    return channels / groups;
  }

  // Values of each group.
  int64_t count() const {
    return pixels * channels_of_group();
  }

  Tile tile(int64_t part) const {
    return {1, 0, std::min(pixels_per_part, pixels - part * pixels_per_part), channels};
  }

  int64_t start(int64_t example, int64_t part) const {
    return (example * pixels + part * pixels_per_part) * channels;
  }

  // reduce(example, part) for all parts of an example, then finish(example), then apply(example, part) for all parts.
  template <typename Reduce, typename Finish, typename Apply>
  void run(Reduce&& reduce, Finish&& finish, Apply&& apply) const {
    int64_t grain = std::max<int64_t>(1, ext::kGrain / (pixels_per_part * channels));
    if (parts == 1) {
      // A thread keeps its example in its cache.
      ext::parallel(examples, grain, [&](int64_t example) {
        reduce(example, 0);
        finish(example);
        apply(example, 0);
      });
      return;
    }
    ext::parallel(examples * parts, grain, [&](int64_t i) { reduce(i / parts, i % parts); });
    for (int64_t example = 0; example < examples; ++example) finish(example);
    ext::parallel(examples * parts, grain, [&](int64_t i) { apply(i / parts, i % parts); });
  }
};

// Mean and sum of squared deviations from it of a group's values in a part.
struct Moments {
  double mean, squares;
};

// What both directions need, for each channel of each example: a tensor [3, N, C], whose rows these are.
template <typename T>
struct Stats {
  T *mean, *invstd, *scale;

  explicit Stats(const at::Tensor& stats) {
    mean = stats.mutable_data_ptr<T>();
    invstd = mean + stats[0].numel();
    scale = invstd + stats[0].numel();
  }
};

template <typename T>
void moments(const Plan& plan, const T* x, const Tile& tile, Moments* of_groups) {
  int64_t each = plan.channels_of_group();
  double count = tile.rows * each;
  std::vector<double> sums(plan.channels), squares(plan.channels);
  std::vector<T> centre(plan.channels);
  norm::sum(x, tile, sums.data());
  for (int64_t group = 0; group < plan.groups; ++group) {
    double sum = 0;
    for (int64_t c = group * each; c < (group + 1) * each; ++c) sum += sums[c];
    for (int64_t c = group * each; c < (group + 1) * each; ++c) centre[c] = static_cast<T>(sum / count);
  }
  std::fill(sums.begin(), sums.end(), 0);
  norm::deviations(x, tile, centre.data(), sums.data(), squares.data());
  for (int64_t group = 0; group < plan.groups; ++group) {
    double sum = 0, square = 0;
    for (int64_t c = group * each; c < (group + 1) * each; ++c) sum += sums[c], square += squares[c];
    // The centre is the mean but for rounding, which the sum of deviations tells.
    double rounding = sum / count;
    of_groups[group] = {centre[group * each] + rounding, std::max(0.0, square - sum * rounding)};
  }
}

template <typename T>
void forward(
    const Plan& plan, const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias, double eps, bool silu,
    const at::Tensor& stats, const at::Tensor& output) {
  Stats<T> stat(stats);
  const T *x = input.const_data_ptr<T>(), *w = weight.const_data_ptr<T>(), *b = bias.const_data_ptr<T>();
  T* y = output.mutable_data_ptr<T>();
  std::vector<Moments> found(plan.examples * plan.parts * plan.groups);
  plan.run(
      [&](int64_t example, int64_t part) {
        moments(plan, x + plan.start(example, part), plan.tile(part), &found[(example * plan.parts + part) * plan.groups]);
      },
      [&](int64_t example) {
        for (int64_t group = 0; group < plan.groups; ++group) {
          double pixels = 0, mean = 0, squares = 0, each = plan.channels_of_group();
          for (int64_t part = 0; part < plan.parts; ++part) {
            // The squares are sums of squared deviations throughout, never differences of large numbers.
            const Moments& more = found[(example * plan.parts + part) * plan.groups + group];
            double rows = plan.tile(part).rows, share = rows / (pixels + rows), apart = more.mean - mean;
            squares += more.squares + apart * apart * share * pixels * each;
            mean += apart * share;
            pixels += rows;
          }
          double invstd = 1 / std::sqrt(squares / plan.count() + eps);
          for (int64_t c = group * each; c < (group + 1) * each; ++c) {
            int64_t i = example * plan.channels + c;
            stat.mean[i] = static_cast<T>(mean);
            stat.invstd[i] = static_cast<T>(invstd);
            stat.scale[i] = static_cast<T>(w[c] * invstd);
          }
        }
      },
      [&](int64_t example, int64_t part) {
        int64_t start = plan.start(example, part), c = example * plan.channels;
        Affine<T> by{stat.mean + c, stat.scale + c, b};
        norm::normalise(x + start, static_cast<const T*>(nullptr), y + start, plan.tile(part), by, silu ? Act::Silu : Act::None);
      });
}

// The gradients of x, weight and bias; the first is undefined if nobody asked for it.
template <typename T>
void backward(
    const Plan& plan, const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& stats, bool silu,
    const at::Tensor& grad, const at::Tensor& of_x, const at::Tensor& of_weight, const at::Tensor& of_bias) {
  Stats<T> stat(stats);
  const T *x = input.const_data_ptr<T>(), *w = weight.const_data_ptr<T>(), *b = bias.const_data_ptr<T>();
  const T* dy = grad.const_data_ptr<T>();
  T* dx = of_x.defined() ? of_x.mutable_data_ptr<T>() : nullptr;
  Mask mask = silu ? Mask::Silu : Mask::None;

  int64_t channels = plan.channels;
  // Σ dz and Σ dz·(x − mean) of each part, then of each example.
  std::vector<double> sums(plan.examples * plan.parts * channels), products(sums.size());
  std::vector<T> slope(plan.examples * channels), offset(slope.size());
  auto affine = [&](int64_t example) { return Affine<T>{stat.mean + example * channels, stat.scale + example * channels, b}; };
  plan.run(
      [&](int64_t example, int64_t part) {
        int64_t start = plan.start(example, part), at = (example * plan.parts + part) * channels;
        norm::reduce(
            x + start, static_cast<const T*>(nullptr), dy + start, static_cast<T*>(nullptr), plan.tile(part), affine(example), mask,
            &sums[at], &products[at]);
      },
      [&](int64_t example) {
        double *sum = &sums[example * plan.parts * channels], *product = &products[example * plan.parts * channels];
        for (int64_t i = channels; i < plan.parts * channels; ++i) sum[i % channels] += sum[i], product[i % channels] += product[i];
        int64_t each = plan.channels_of_group();
        for (int64_t group = 0; group < plan.groups; ++group) {
          double whole = 0, along = 0;
          for (int64_t c = group * each; c < (group + 1) * each; ++c) whole += w[c] * sum[c], along += w[c] * product[c];
          double invstd = stat.invstd[example * channels + group * each];
          for (int64_t i = example * channels + group * each, end = i + each; i < end; ++i) {
            slope[i] = static_cast<T>(invstd * invstd * invstd * along / plan.count());
            offset[i] = static_cast<T>(invstd * whole / plan.count());
          }
        }
      },
      [&](int64_t example, int64_t part) {
        if (!dx) return;
        int64_t start = plan.start(example, part), c = example * channels;
        norm::differentiate(
            x + start, static_cast<const T*>(nullptr), dy + start, dx + start, plan.tile(part), affine(example), &slope[c], &offset[c],
            mask);
      });
  T *dw = of_weight.mutable_data_ptr<T>(), *db = of_bias.mutable_data_ptr<T>();
  for (int64_t c = 0; c < channels; ++c) {
    double along = 0, whole = 0;
    for (int64_t example = 0; example < plan.examples; ++example) {
      int64_t at = example * plan.parts * channels + c;
      along += products[at] * stat.invstd[example * channels + c];
      whole += sums[at];
    }
    dw[c] = static_cast<T>(along);
    db[c] = static_cast<T>(whole);
  }
}

// The same in libtorch's own operations.
at::Tensor plain(const at::Tensor& x, int64_t groups, const at::Tensor& weight, const at::Tensor& bias, double eps, bool silu) {
  at::Tensor y = at::group_norm(x, groups, weight, bias, eps);
  return silu ? at::silu(y) : y;
}

struct GroupNormAct : torch::autograd::Function<GroupNormAct> {
  static at::Tensor forward(
      AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, int64_t groups, double eps,
      bool silu) {
    at::Tensor y = at::empty_like(x), stats = at::empty({3, x.size(0), x.size(1)}, x.options().memory_format(c10::nullopt));
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "group_norm_act", [&] {
      group_norm::forward<scalar_t>(Plan(x, groups), x, weight, bias, eps, silu, stats, y);
    });
    ctx->save_for_backward({x, weight, bias, stats});
    ctx->saved_data["groups"] = groups;
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["silu"] = silu;
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &bias = saved[2], &stats = saved[3];
    int64_t groups = ctx->saved_data["groups"].toInt();
    bool silu = ctx->saved_data["silu"].toBool();
    double eps = ctx->saved_data["eps"].toDouble();
    if (at::GradMode::is_enabled()) {
      // By operations of libtorch, which have second derivatives.
      variable_list inputs, found(6);
      std::vector<size_t> places;
      for (size_t place : {0, 1, 2})
        if (ctx->needs_input_grad(place)) inputs.push_back(saved[place]), places.push_back(place);
      at::Tensor y = plain(x, groups, weight, bias, eps, silu);
      variable_list all = torch::autograd::grad({y}, inputs, {grads[0]}, /*retain_graph=*/true, /*create_graph=*/true);
      for (size_t i = 0; i < places.size(); ++i) found[places[i]] = all[i];
      return found;
    }
    at::Tensor dy = grads[0].contiguous(at::MemoryFormat::ChannelsLast);
    at::Tensor dx = ctx->needs_input_grad(0) ? at::empty_like(x) : at::Tensor();
    at::Tensor dweight = at::empty_like(weight), dbias = at::empty_like(bias);
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "group_norm_act", [&] {
      group_norm::backward<scalar_t>(Plan(x, groups), x, weight, bias, stats, silu, dy, dx, dweight, dbias);
    });
    return {dx, dweight, dbias, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

bool ours(const at::Tensor& x, int64_t groups, const at::Tensor& weight, const at::Tensor& bias) {
  auto of_channels = [&](const at::Tensor& tensor) {
    return tensor.is_cpu() && tensor.scalar_type() == x.scalar_type() && tensor.sizes() == x.sizes().slice(1, 1) &&
        tensor.is_contiguous();
  };
  return x.is_cpu() && x.dim() == 4 && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble) && x.numel() > 0 &&
      groups > 0 && x.size(1) % groups == 0 && x.is_contiguous(at::MemoryFormat::ChannelsLast) && of_channels(weight) &&
      of_channels(bias);
}

} // namespace group_norm
} // namespace

extern "C" at::Tensor* ext_group_norm_act(
    const at::Tensor* x, int64_t groups, const at::Tensor* weight, const at::Tensor* bias, double eps, bool silu) {
  at::Tensor* result = nullptr;
  ext::attempt([&] {
    // Half precision under autocast: the parameters stay in float32, and so do the sums.
    bool half = x->is_cpu() && at::isReducedFloatingType(x->scalar_type()) && weight->scalar_type() == at::kFloat;
    at::Tensor wide = half ? x->to(at::kFloat) : *x;
    bool fused = group_norm::ours(wide, groups, *weight, *bias);
    at::Tensor y = fused ? group_norm::GroupNormAct::apply(wide, *weight, *bias, groups, eps, silu)
                         : group_norm::plain(wide, groups, *weight, *bias, eps, silu);
    result = new at::Tensor(half ? y.to(x->scalar_type()) : y);
  });
  return result;
}
