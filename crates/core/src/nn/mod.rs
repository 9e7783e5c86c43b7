//! Layers with PyTorch's initialisation and state-dict names.
