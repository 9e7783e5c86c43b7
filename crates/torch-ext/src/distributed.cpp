// Collective operations by libtorch's own c10d: a TCPStore to meet at, Gloo to exchange tensors. Conventions as in ext.cpp.

#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "ext.h"

using ext::List;
using ext::attempt;
using c10d::ProcessGroupGloo;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

struct Group {
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<ProcessGroupGloo> gloo;
};

// The network address that the other processes are told.
std::shared_ptr<::gloo::transport::Device> device(const std::string& host) {
  if (const char* name = std::getenv("GLOO_SOCKET_IFNAME")) return ProcessGroupGloo::createDeviceForInterface(name);
  if (host == "localhost" || host == "127.0.0.1") return ProcessGroupGloo::createDeviceForHostname("127.0.0.1");
  return ProcessGroupGloo::createDefaultDevice();
}

// Refuses an exchange for which the processes have brought tensors of different number, shapes or kinds. Gloo ends the process
// (std::terminate) where the sizes differ, and mixes what does not belong together where only their sum is the same. So each first
// tells a hash (FNV-1a) of what it has, which is of one size whatever comes.
void check_alike(ProcessGroupGloo& gloo, at::TensorList tensors, const char* what) {
  uint64_t hash = 0xcbf29ce484222325;
  auto add = [&](int64_t number) {
    for (int k = 0; k < 8; ++k) hash = (hash ^ ((static_cast<uint64_t>(number) >> 8 * k) & 0xff)) * 0x100000001b3;
  };
  for (const at::Tensor& tensor : tensors) {
    add(static_cast<int64_t>(tensor.scalar_type()));
    add(tensor.dim());
    for (int64_t size : tensor.sizes()) add(size);
  }
  List mine{at::full({1}, static_cast<int64_t>(hash), at::kLong)};
  std::vector<List> all{at::empty({gloo.getSize(), 1}, at::kLong).unbind(0)};
  gloo.allgather(all, mine)->wait();
  for (const at::Tensor& other : all[0])
    TORCH_CHECK(other.equal(mine[0]), what, " differ in number, shape or kind from those of another process; start all alike");
}

// The rows of all processes, one behind the other. Backward: the gradients of all processes' losses by this process's rows.
struct Gather : torch::autograd::Function<Gather> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& rows, c10::intrusive_ptr<ProcessGroupGloo> gloo) {
    std::vector<int64_t> sizes = rows.sizes().vec();
    sizes[0] *= gloo->getSize();
    at::Tensor all = at::empty(sizes, rows.options());
    std::vector<List> outputs{all.split(rows.size(0))};
    List inputs{rows.contiguous()};
    gloo->allgather(outputs, inputs)->wait();
    ctx->saved_data["gloo"] = c10::IValue::make_capsule(gloo);
    return all;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto gloo = c10::static_intrusive_pointer_cast<ProcessGroupGloo>(ctx->saved_data["gloo"].toCapsule());
    List sum{grads[0].clone(at::MemoryFormat::Contiguous)};
    gloo->allreduce(sum)->wait();
    int64_t n = sum[0].size(0) / gloo->getSize();
    return {sum[0].narrow(0, n * gloo->getRank(), n), at::Tensor()};
  }
};

} // namespace

extern "C" {

// `prefix` is null if rank 0 serves the store; else torchrun's agent does, and keys of this attempt start with it.
Group* ext_group_new(const char* host, uint16_t port, int rank, int world, const char* prefix, int64_t timeout_seconds) {
  Group* group = nullptr;
  attempt([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = !prefix && rank == 0;
    options.numWorkers = static_cast<size_t>(world);
    options.timeout = std::chrono::seconds(timeout_seconds);
    c10::intrusive_ptr<c10d::Store> store = c10::make_intrusive<c10d::TCPStore>(host, options);
    if (prefix) store = c10::make_intrusive<c10d::PrefixStore>(prefix, store);
    auto gloo_options = ProcessGroupGloo::Options::create(std::chrono::seconds(timeout_seconds));
    gloo_options->devices.push_back(device(host));
    auto gloo = c10::make_intrusive<ProcessGroupGloo>(store, rank, world, gloo_options);
    group = new Group{std::move(store), std::move(gloo)};
  });
  return group;
}

void ext_group_free(Group* group) {
  attempt([&] { delete group; });
}

int ext_group_average_grads(Group* group, const List* params, bool check) {
  return attempt([&] {
    at::NoGradGuard no_grad;
    if (check) check_alike(*group->gloo, *params, "parameters");
    if (params->empty()) return;
    // One exchange of everything: its latency counts once, however many parameters there are. A process whose loss did not reach a parameter
    // sends zeros; behind the gradients stands how many it had, so that one that no process has stays undefined.
    List sent;
    std::vector<float> had;
    for (const at::Tensor& param : *params) {
      const at::Tensor& grad = param.grad();
      TORCH_CHECK(param.scalar_type() == (*params)[0].scalar_type(), "parameters of one call must share a kind");
      TORCH_CHECK(!grad.defined() || grad.sizes() == param.sizes(), "a gradient is ", grad.sizes(), ", its parameter ", param.sizes());
      sent.push_back(grad.defined() ? grad.reshape(-1) : at::zeros({param.numel()}, param.options()));
      had.push_back(grad.defined() ? 1 : 0);
    }
    sent.push_back(at::tensor(had).to((*params)[0].options()));
    List flat{at::cat(sent)};
    group->gloo->allreduce(flat)->wait();
    at::Tensor counts = flat[0].narrow(0, flat[0].numel() - sent.back().numel(), sent.back().numel()).to(at::kCPU, at::kFloat);
    flat[0].div_(group->gloo->getSize());
    int64_t start = 0;
    for (size_t i = 0; i < params->size(); ++i) {
      const at::Tensor& param = (*params)[i];
      if (counts.data_ptr<float>()[i] > 0) {
        at::Tensor mean = flat[0].narrow(0, start, param.numel()).view(param.sizes());
        if (param.grad().defined()) {
          param.grad().copy_(mean);
        } else {
          param.mutable_grad() = at::empty_like(param).copy_(mean);
        }
      }
      start += param.numel();
    }
  });
}

int ext_group_broadcast(Group* group, const List* tensors) {
  return attempt([&] {
    at::NoGradGuard no_grad;
    for (const at::Tensor& tensor : *tensors) {
      // Through a plain copy, since the exchange is of memory and processes may differ in memory format.
      List plain{tensor.contiguous()};
      group->gloo->broadcast(plain)->wait();
      if (!plain[0].is_same(tensor)) tensor.copy_(plain[0]);
    }
  });
}

at::Tensor* ext_group_all_gather(Group* group, const at::Tensor* tensor) {
  at::Tensor* result = nullptr;
  attempt([&] {
    at::NoGradGuard no_grad;
    std::vector<int64_t> sizes = tensor->sizes().vec();
    sizes.insert(sizes.begin(), group->gloo->getSize());
    at::Tensor all = at::empty(sizes, tensor->options());
    std::vector<List> outputs{all.unbind(0)};
    List inputs{tensor->contiguous()};
    group->gloo->allgather(outputs, inputs)->wait();
    result = new at::Tensor(all);
  });
  return result;
}

at::Tensor* ext_group_gather(Group* group, const at::Tensor* rows, bool check) {
  at::Tensor* result = nullptr;
  attempt([&] {
    if (check) check_alike(*group->gloo, *rows, "rows to gather");
    TORCH_CHECK(rows->dim() > 0 && rows->size(0) > 0, "what is gathered has no rows");
    result = new at::Tensor(Gather::apply(*rows, group->gloo));
  });
  return result;
}

// Keys in the store and not an exchange: an exchange fails after its time-out, and one process may have much more to do than the others.
int ext_group_meet(Group* group, const char* tag) {
  return attempt([&] {
    int rank = group->gloo->getRank(), world = group->gloo->getSize();
    auto tell = [&](const std::string& what) {
      group->store->set(what + "/" + std::to_string(rank), std::vector<uint8_t>{1});
    };
    auto all_told = [&](const std::string& what) {
      std::vector<std::string> keys;
      for (int other = 0; other < world; ++other) keys.push_back(what + "/" + std::to_string(other));
      auto pause = std::chrono::milliseconds(1);
      while (!group->store->check(keys)) {
        std::this_thread::sleep_for(pause);
        pause = std::min(2 * pause, std::chrono::milliseconds(50));
      }
    };
    std::string here = tag, seen = here + "/seen";
    tell(here);
    all_told(here);
    tell(seen);
    // Rank 0 serves the store: it may end only when all have read that all are here.
    if (rank == 0) all_told(seen);
  });
}

} // extern "C"
