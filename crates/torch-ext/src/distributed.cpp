// Collective operations by libtorch's own c10d: a TCPStore to meet at, Gloo to exchange tensors. Conventions as in ext.cpp.

#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "ext.h"

using ext::List;
using ext::attempt;
using c10d::ProcessGroupGloo;

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

int ext_group_average_grads(Group* group, const List* params) {
  return attempt([&] {
    at::NoGradGuard no_grad;
    List grads = ext::gradients(*params);
    if (grads.empty()) return;
    // One exchange of everything: its latency counts once, however many parameters there are.
    List flat_grads;
    flat_grads.reserve(grads.size());
    for (const at::Tensor& grad : grads) {
      TORCH_CHECK(grad.scalar_type() == grads[0].scalar_type(), "gradients of one call must share a kind");
      flat_grads.push_back(grad.reshape(-1));
    }
    List flat{at::cat(flat_grads)};
    group->gloo->allreduce(flat)->wait();
    flat[0].div_(group->gloo->getSize());
    int64_t start = 0;
    for (at::Tensor& grad : grads) {
      grad.copy_(flat[0].narrow(0, start, grad.numel()).view(grad.sizes()));
      start += grad.numel();
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
