#include "norm_kernels.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

// A compiler for x86-64 makes a copy of a function for each of these and picks one when the program starts.
#if defined(__x86_64__) && defined(__GNUC__) && defined(__linux__)
#define COPIES __attribute__((target_clones("avx512f", "arch=haswell", "default")))
#else
#define COPIES
#endif
// A copy holds what it calls, or that would be compiled for the oldest processor.
#define INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

namespace norm {
namespace {

// Numbers side by side for which a loop has an accumulator each: four vectors of AVX-512 in float32, so that additions overlap.
constexpr int kWide = 64;
// One such vector, and half of one, for what is left over.
constexpr int kMiddle = 16;
constexpr int kNarrow = 8;

template <int n>
using Lanes = std::integral_constant<int, n>;

// What of a tile is not yet covered: the rows from `row`, the columns from `column`.
struct Rest {
  int64_t row = 0, column = 0;
};

// Strips of n numbers: several narrow rows at a time, or columns of wide ones. A strip is for the numbers first + i·step + [0, n),
// i < steps, of each block, which belong to the channels (column + [0, n)) mod channels.
template <int n, typename Strip>
INLINE void cover(const Tile& tile, Rest& rest, Strip&& strip) {
  int64_t width = tile.channels, folded = width < n ? n / width : 1, steps = (tile.rows - rest.row) / folded;
  // Narrow rows that do not fill n exactly are left to the shorter strips.
  if (folded * width < n || steps == 0) return;
  for (; rest.column + n <= folded * width; rest.column += n)
    strip(Lanes<n>(), rest.row * width + rest.column, steps, folded * width, rest.column);
  if (folded > 1) rest = {rest.row + steps * folded, 0};
}

template <typename Strip>
INLINE void strips(const Tile& tile, Strip&& strip) {
  Rest rest;
  cover<kWide>(tile, rest, strip);
  cover<kMiddle>(tile, rest, strip);
  cover<kNarrow>(tile, rest, strip);
  cover<1>(tile, rest, strip);
}

// visit(i) for the first number i of each n side by side.
template <typename Visit>
INLINE void walk(const Tile& tile, int64_t first, int64_t steps, int64_t step, Visit&& visit) {
  for (int64_t block = 0; block < tile.blocks; ++block) {
    int64_t i = block * tile.stride + first;
    for (int64_t k = 0; k < steps; ++k, i += step) visit(i);
  }
}

// Channels that repeat within a strip. Not part of the copies: that would make them twice as large.
template <typename T>
__attribute__((noinline)) void repeat(const T* channels, int64_t count, int n, T* lanes) {
  for (int lane = 0, channel = 0; lane < n; ++lane, channel = channel + 1 == count ? 0 : channel + 1)
    lanes[lane] = channels[channel];
}

template <typename T>
__attribute__((noinline)) void fold(const T* lanes, int64_t count, int n, double* channels) {
  for (int lane = 0, channel = 0; lane < n; ++lane, channel = channel + 1 == count ? 0 : channel + 1)
    channels[channel] += lanes[lane];
}

// The channels' numbers, laid out for the lanes of a strip. What a loop uses is not handed to a function, to stay in registers.
template <int n, typename T>
INLINE void spread(const T* channels, int64_t column, int64_t count, T* lanes) {
  T repeated[n];
  bool wide = column + n <= count;
  if (!wide) repeat(channels, count, n, repeated);
  const T* from = wide ? channels + column : repeated;
  for (int lane = 0; lane < n; ++lane) lanes[lane] = from[lane];
}

// Adds the lanes' numbers to their channels'.
template <int n, typename T>
INLINE void gather(const T* lanes, int64_t column, int64_t count, double* channels) {
  if (column + n <= count) {
    for (int lane = 0; lane < n; ++lane) channels[column + lane] += lanes[lane];
    return;
  }
  T copy[n];
  for (int lane = 0; lane < n; ++lane) copy[lane] = lanes[lane];
  fold(copy, count, n, channels);
}

// exp(x) to the last bits in what vectors can do: 2^k exp(r), k an integer and |r| ≤ ln 2 / 2, where Taylor's polynomial suffices.
INLINE float exponential(float x) {
  constexpr float kLargest = 88.0f, kInteger = 12582912.0f; // 1.5 · 2^23: numbers of this size are integers.
  x = x > kLargest ? kLargest : x < -kLargest ? -kLargest : x;
  float shifted = x * 1.44269504f + kInteger, k = shifted - kInteger;
  // ln 2 in two parts, the first with so few digits that its product with k is exact.
  float r = x - k * 0.693359375f + k * 2.12194440e-4f;
  float series = 1 + r * (1 + r * (1.0f / 2 + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720))))));
  uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  // Behind the leading digits of 1.5 · 2^23 stands k; it is added to an exponent of 0.
  bits = (bits << 23) + (127u << 23);
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return series * power;
}

INLINE double exponential(double x) {
  return std::exp(x);
}

// 1/(1 + exp(−z))
template <typename T>
INLINE T logistic(T z) {
  return 1 / (1 + exponential(-z));
}

template <typename T>
INLINE void sum_(const T* __restrict x, const Tile& tile, double* sums) {
  strips(tile, [&](auto lanes, int64_t first, int64_t steps, int64_t step, int64_t column) INLINE_LAMBDA {
    constexpr int n = lanes;
    T total[n] = {};
    walk(tile, first, steps, step, [&](int64_t i) INLINE_LAMBDA {
      for (int lane = 0; lane < n; ++lane) total[lane] += x[i + lane];
    });
    gather<n>(total, column, tile.channels, sums);
  });
}

template <typename T>
INLINE void deviations_(const T* __restrict x, const Tile& tile, const T* mean, double* sums, double* squares) {
  strips(tile, [&](auto lanes, int64_t first, int64_t steps, int64_t step, int64_t column) INLINE_LAMBDA {
    constexpr int n = lanes;
    T centre[n], total[n] = {}, square[n] = {};
    spread<n>(mean, column, tile.channels, centre);
    walk(tile, first, steps, step, [&](int64_t i) INLINE_LAMBDA {
      for (int lane = 0; lane < n; ++lane) {
        T deviation = x[i + lane] - centre[lane];
        total[lane] += deviation;
        square[lane] += deviation * deviation;
      }
    });
    gather<n>(total, column, tile.channels, sums);
    gather<n>(square, column, tile.channels, squares);
  });
}

template <bool add, Act act, typename T>
INLINE void normalise_(const T* __restrict x, const T* __restrict shortcut, T* __restrict y, const Tile& tile, Affine<T> by) {
  strips(tile, [&](auto lanes, int64_t first, int64_t steps, int64_t step, int64_t column) INLINE_LAMBDA {
    constexpr int n = lanes;
    T mean[n], scale[n], shift[n];
    spread<n>(by.mean, column, tile.channels, mean);
    spread<n>(by.scale, column, tile.channels, scale);
    spread<n>(by.shift, column, tile.channels, shift);
    walk(tile, first, steps, step, [&](int64_t i) INLINE_LAMBDA {
      for (int lane = 0; lane < n; ++lane) {
        T value = (x[i + lane] - mean[lane]) * scale[lane] + shift[lane];
        if (add) value += shortcut[i + lane];
        // This way round a NaN stays one.
        if (act == Act::Relu) value = value <= 0 ? 0 : value;
        if (act == Act::Silu) value *= logistic(value);
        y[i + lane] = value;
      }
    });
  });
}

template <Mask mask, typename T>
INLINE T masked(T dy, T deviation, T scale, T shift, const T* y, int64_t i) {
  if (mask == Mask::ByOutput) return y[i] <= 0 ? 0 : dy;
  if (mask == Mask::ByInput) return deviation * scale + shift <= 0 ? 0 : dy;
  if (mask == Mask::Silu) {
    T z = deviation * scale + shift, gate = logistic(z);
    return dy * gate * (1 + z * (1 - gate));
  }
  return dy;
}

template <Mask mask, bool keep, typename T>
INLINE void reduce_(
    const T* __restrict x, const T* __restrict y, const T* __restrict dy, T* __restrict dz, const Tile& tile, Affine<T> by,
    double* sums, double* products) {
  strips(tile, [&](auto lanes, int64_t first, int64_t steps, int64_t step, int64_t column) INLINE_LAMBDA {
    constexpr int n = lanes;
    T mean[n], scale[n], shift[n], total[n] = {}, product[n] = {};
    spread<n>(by.mean, column, tile.channels, mean);
    spread<n>(by.scale, column, tile.channels, scale);
    spread<n>(by.shift, column, tile.channels, shift);
    walk(tile, first, steps, step, [&](int64_t i) INLINE_LAMBDA {
      for (int lane = 0; lane < n; ++lane) {
        T deviation = x[i + lane] - mean[lane];
        T grad = masked<mask>(dy[i + lane], deviation, scale[lane], shift[lane], y, i + lane);
        if (keep) dz[i + lane] = grad;
        total[lane] += grad;
        product[lane] += grad * deviation;
      }
    });
    gather<n>(total, column, tile.channels, sums);
    gather<n>(product, column, tile.channels, products);
  });
}

template <Mask mask, typename T>
INLINE void differentiate_(
    const T* __restrict x, const T* __restrict y, const T* __restrict dy, T* __restrict dx, const Tile& tile, Affine<T> by,
    const T* slope, const T* offset) {
  strips(tile, [&](auto lanes, int64_t first, int64_t steps, int64_t step, int64_t column) INLINE_LAMBDA {
    constexpr int n = lanes;
    T mean[n], scale[n], shift[n], slopes[n], offsets[n];
    spread<n>(by.mean, column, tile.channels, mean);
    spread<n>(by.scale, column, tile.channels, scale);
    spread<n>(by.shift, column, tile.channels, shift);
    spread<n>(slope, column, tile.channels, slopes);
    spread<n>(offset, column, tile.channels, offsets);
    walk(tile, first, steps, step, [&](int64_t i) INLINE_LAMBDA {
      for (int lane = 0; lane < n; ++lane) {
        T deviation = x[i + lane] - mean[lane];
        T grad = masked<mask>(dy[i + lane], deviation, scale[lane], shift[lane], y, i + lane);
        dx[i + lane] = grad * scale[lane] - deviation * slopes[lane] - offsets[lane];
      }
    });
  });
}

} // namespace

#define KERNELS(T)                                                                                                      \
  COPIES void sum(const T* x, const Tile& tile, double* sums) {                                                         \
    sum_(x, tile, sums);                                                                                                \
  }                                                                                                                     \
  COPIES void deviations(const T* x, const Tile& tile, const T* mean, double* sums, double* squares) {                  \
    deviations_(x, tile, mean, sums, squares);                                                                          \
  }                                                                                                                     \
  COPIES void normalise(const T* x, const T* shortcut, T* y, const Tile& tile, Affine<T> by, Act act) {                 \
    if (act == Act::Silu) normalise_<false, Act::Silu>(x, shortcut, y, tile, by);                                       \
    else if (shortcut && act == Act::Relu) normalise_<true, Act::Relu>(x, shortcut, y, tile, by);                       \
    else if (shortcut) normalise_<true, Act::None>(x, shortcut, y, tile, by);                                           \
    else if (act == Act::Relu) normalise_<false, Act::Relu>(x, shortcut, y, tile, by);                                  \
    else normalise_<false, Act::None>(x, shortcut, y, tile, by);                                                        \
  }                                                                                                                     \
  COPIES void reduce(                                                                                                   \
      const T* x, const T* y, const T* dy, T* dz, const Tile& tile, Affine<T> by, Mask mask, double* sums,              \
      double* products) {                                                                                               \
    if (mask == Mask::ByOutput && dz) reduce_<Mask::ByOutput, true>(x, y, dy, dz, tile, by, sums, products);            \
    else if (mask == Mask::ByOutput) reduce_<Mask::ByOutput, false>(x, y, dy, dz, tile, by, sums, products);            \
    else if (mask == Mask::ByInput) reduce_<Mask::ByInput, false>(x, y, dy, dz, tile, by, sums, products);              \
    else if (mask == Mask::Silu) reduce_<Mask::Silu, false>(x, y, dy, dz, tile, by, sums, products);                    \
    else reduce_<Mask::None, false>(x, y, dy, dz, tile, by, sums, products);                                            \
  }                                                                                                                     \
  COPIES void differentiate(                                                                                            \
      const T* x, const T* y, const T* dy, T* dx, const Tile& tile, Affine<T> by, const T* slope, const T* offset,      \
      Mask mask) {                                                                                                      \
    if (mask == Mask::ByOutput) differentiate_<Mask::ByOutput>(x, y, dy, dx, tile, by, slope, offset);                  \
    else if (mask == Mask::ByInput) differentiate_<Mask::ByInput>(x, y, dy, dx, tile, by, slope, offset);               \
    else if (mask == Mask::Silu) differentiate_<Mask::Silu>(x, y, dy, dx, tile, by, slope, offset);                     \
    else differentiate_<Mask::None>(x, y, dy, dx, tile, by, slope, offset);                                             \
  }

KERNELS(float)
KERNELS(double)

} // namespace norm
