// The loops of batch normalisation, without libtorch: they are compiled once for each generation of x86-64 vectors.
#pragma once

#include <cstdint>

namespace norm {

// What a call walks over: `blocks` matrices [rows, channels], each contiguous, `stride` numbers apart.
// Pictures with the channels last are one such matrix; a channel of pictures in the usual order is a block of one column for each picture.
struct Tile {
  int64_t blocks, stride, rows, channels;
};

// Where a rectifier let nothing through: nowhere, as there is none; where y ≤ 0; where scale·(x − mean) + shift ≤ 0.
enum class Mask { None, ByOutput, ByInput };

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
// y = scale·(x − mean) + shift [+ shortcut], then max(y, 0) if asked; a null shortcut is none.
void normalise(const float* x, const float* shortcut, float* y, const Tile& tile, Affine<float> by, bool relu);
void normalise(const double* x, const double* shortcut, double* y, const Tile& tile, Affine<double> by, bool relu);
// dz = dy where the mask lets through, else 0: Σ dz and Σ dz·(x − mean). Keeps dz where it is not null; y is for Mask::ByOutput.
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
