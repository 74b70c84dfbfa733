//! SIMD kernels for dense models: slices and shapes only.
