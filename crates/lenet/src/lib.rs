//! LeNet.
