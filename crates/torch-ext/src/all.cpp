// All that includes libtorch as one translation unit: its headers take a compiler 15 s, and would do so for each file by itself.
#include "checkpoint.cpp"
#include "distributed.cpp"
#include "ext.cpp"
#include "group_norm.cpp"
#include "norm.cpp"
#include "pool.cpp"
