//! Weights in and out: strict safetensors.
