//! Empty: the benchmarks stand beside.
