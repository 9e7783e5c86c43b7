// Gradient checkpointing: what a part of a network keeps for its gradient is computed again when that is wanted. Conventions as in ext.cpp.

#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include <memory>

#include "ext.h"

using ext::attempt;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// Takes x over, which was made with `new`, and gives a tensor away likewise; null if it failed, and then ext_fail has said why.
using Call = at::Tensor* (*)(void* closure, at::Tensor* x);

// The part of the network, and under what it ran: autocast and the state of the generator that it drew from.
struct Part : torch::CustomClassHolder {
  void* closure;
  Call call;
  void (*drop)(void* closure);
  bool autocast;
  at::ScalarType kind;
  at::Generator generator;
  at::Tensor state;

  Part(void* closure, Call call, void (*drop)(void*), const at::Tensor& x)
      : closure(closure),
        call(call),
        drop(drop),
        autocast(at::autocast::is_autocast_enabled(x.device().type())),
        kind(at::autocast::get_autocast_dtype(x.device().type())),
        generator(at::globalContext().defaultGenerator(x.device())),
        state(generator.get_state()) {}
  ~Part() override { drop(closure); }

  at::Tensor run(const at::Tensor& x) const {
    std::unique_ptr<at::Tensor> y(call(closure, new at::Tensor(x)));
    TORCH_CHECK(y && y->defined(), ext::last_error);
    return std::move(*y);
  }
};

// While it lives, this thread runs as the part ran at first.
struct Again {
  const Part& part;
  c10::DeviceType device;
  bool was_enabled;
  at::ScalarType old_kind;
  at::Tensor old_state;

  Again(const Part& part, c10::DeviceType device)
      : part(part),
        device(device),
        was_enabled(at::autocast::is_autocast_enabled(device)),
        old_kind(at::autocast::get_autocast_dtype(device)) {
    at::Generator generator = part.generator;
    old_state = generator.get_state();
    generator.set_state(part.state);
    at::autocast::set_autocast_enabled(device, part.autocast);
    at::autocast::set_autocast_dtype(device, part.kind);
    at::autocast::increment_nesting();
  }
  ~Again() {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device, was_enabled);
    at::autocast::set_autocast_dtype(device, old_kind);
    at::Generator generator = part.generator;
    generator.set_state(old_state);
  }
};

struct Checkpoint : torch::autograd::Function<Checkpoint> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, c10::intrusive_ptr<Part> part) {
    ctx->save_for_backward({x});
    ctx->saved_data["part"] = c10::IValue::make_capsule(part);
    at::Tensor y = part->run(x);
    // A view of x would not be one of what is saved.
    return y.is_same(x) ? y.clone() : y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "a part that is computed again has no second derivative");
    auto part = c10::static_intrusive_pointer_cast<Part>(ctx->saved_data["part"].toCapsule());
    at::AutoGradMode with_graph(true);
    at::Tensor x = ctx->get_saved_variables()[0].detach().requires_grad_();
    at::Tensor y;
    {
      Again again(*part, x.device().type());
      y = part->run(x);
    }
    // Parameters gather their gradients here.
    torch::autograd::backward({y}, {grads[0]});
    return {x.grad(), at::Tensor()};
  }
};

} // namespace

extern "C" {

void ext_fail(const char* message) {
  ext::keep(message);
}

// The closure is dropped with the graph, or here if there is none. Where x takes no gradient, there is nothing to be spared.
at::Tensor* ext_checkpoint(const at::Tensor* x, void* closure, Call call, void (*drop)(void*)) {
  at::Tensor* y = nullptr;
  attempt([&] {
    auto part = c10::make_intrusive<Part>(closure, call, drop, *x);
    bool spares = at::GradMode::is_enabled() && x->requires_grad();
    y = new at::Tensor(spares ? Checkpoint::apply(*x, part) : part->run(*x));
  });
  return y;
}

} // extern "C"
