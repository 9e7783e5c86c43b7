// libtorch ships ProcessGroupGloo.hpp and the compiled Gloo, but not Gloo's headers. These declare what that header names, no more.
// Only the constructor and virtual functions of c10d's own classes are called, so no layout of a Gloo type is ever relied on.
#pragma once

#include <chrono>

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

namespace transport {
class Device;
class UnboundBuffer;
} // namespace transport

} // namespace gloo
