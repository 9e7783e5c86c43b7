// The loops of batch and group normalisation, without libtorch: they are compiled once for each generation of x86-64 vectors.
#pragma once

#include <cstdint>

namespace norm {

// What a call walks over: `blocks` matrices [rows, channels], each contiguous, `stride` numbers apart.
// Pictures with the channels last are one such matrix; a channel of pictures in the usual order is a block of one column for each picture.
struct Tile {
  int64_t blocks, stride, rows, channels;
};

// What follows z = scale·(x − mean) + shift [+ shortcut]: nothing, max(z, 0), or z/(1 + exp(−z)).
enum class Act { None, Relu, Silu };

// How dz follows from dy: dz = dy; 0 where y ≤ 0; 0 where scale·(x − mean) + shift ≤ 0; dy times the slope of SiLU there.
enum class Mask { None, ByOutput, ByInput, Silu };

// For each channel; a block's columns are its channels.
template <typename T>
struct Affine {
  const T *mean, *scale, *shift;
};

// Each for float and double; sums are added to for each channel.

// Σ x
void sum(const float* x, const Tile& tile, double* sums);
void sum(const double* x, const Tile& tile, double* sums);
// Σ x − mean and Σ (x − mean)²
void deviations(const float* x, const Tile& tile, const float* mean, double* sums, double* squares);
void deviations(const double* x, const Tile& tile, const double* mean, double* sums, double* squares);
// y = act(scale·(x − mean) + shift [+ shortcut]); a null shortcut is none, and there is none in front of SiLU.
void normalise(const float* x, const float* shortcut, float* y, const Tile& tile, Affine<float> by, Act act);
void normalise(const double* x, const double* shortcut, double* y, const Tile& tile, Affine<double> by, Act act);
// Σ dz and Σ dz·(x − mean). Keeps dz where it is not null; y is for Mask::ByOutput.
void reduce(
    const float* x, const float* y, const float* dy, float* dz, const Tile& tile, Affine<float> by, Mask mask,
    double* sums, double* products);
void reduce(
    const double* x, const double* y, const double* dy, double* dz, const Tile& tile, Affine<double> by, Mask mask,
    double* sums, double* products);
// dx = scale·dz − slope·(x − mean) − offset
void differentiate(
    const float* x, const float* y, const float* dy, float* dx, const Tile& tile, Affine<float> by, const float* slope,
    const float* offset, Mask mask);
void differentiate(
    const double* x, const double* y, const double* dy, double* dx, const Tile& tile, Affine<double> by,
    const double* slope, const double* offset, Mask mask);

} // namespace norm
