//! SIMD kernels for dense models: slices and shapes only; no model, no input or output, no ranks.
//!
//! ```
//! use muster_kernels::{Finish, Kernels, Panels, Start, panels_len};
//!
//! let kernels = Kernels::select()?;
//! // x = [[1, 2]], w = [[3], [4]]: both fit one panel of 16 columns.
//! let (mut x, mut w) = (vec![0.0; panels_len(1, 2)], vec![0.0; panels_len(2, 1)]);
//! kernels.row_to_panels(&[1.0, 2.0], &mut x, 1, 0);
//! kernels.row_to_panels(&[3.0], &mut w, 2, 0);
//! kernels.row_to_panels(&[4.0], &mut w, 2, 1);
//! let mut y = vec![0.0; 16];
//! kernels.matmul_panel(Panels::new(&x, 1, 2, 16), &w, 16, Start::Zero, Finish::None, &mut y);
//! assert_eq!(y[0], 11.0);
//! # Ok::<(), muster_kernels::Error>(())
//! ```
//!
//! # Layout
//!
//! - [`Kernels`]: the table of functions of one [`Backend`], chosen once a process (`backend`, `table`)
//! - [`Panels`]: how every matrix lies in memory (`layout`)
//! - products of panels: forward and input gradient (`panel`), weight gradient (`panel_tn`) over the tree of
//!   micro-batches (`tree`); both where the left operand is a list of
//!   [`Nonzeros`] (`nonzeros`, `sparse`, `sparse_tn`), or bytes as AMX's tiles (`byte_tiles`); row-major products with strides
//!   (`matmul`), large ones by tiles of bf16 (`amx`)
//! - sums: bias gradient, slices, norm (`sums`); softmax, cross-entropy, argmax (`softmax`) over `math`
//! - optimizer updates (`update`); a hint to the cache (`prefetch`)
//! - `simd`: the vector of 16 floats that all of them are written in, and its three implementations
//!
//! # Same bits
//!
//! Every output is a fixed expression of its inputs: it does not depend on the number of rows, on the tile or the
//! thread that computed it, or on its neighbours. A vector is 16 floats on every machine, so sums over lanes come
//! out alike too, and the AVX2 and AVX-512 back ends give equal bits for every function.

// What is built on AMX's tiles is tested everywhere and runs on x86-64 alone.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code, unused_imports))]

mod aligned;
mod amx;
mod backend;
mod byte_tiles;
#[cfg(test)]
#[path = "../tests/fences/mod.rs"]
mod fences;
mod layout;
mod math;
mod matmul;
#[cfg(test)]
mod naive;
mod nonzeros;
mod panel;
mod panel_tn;
mod prefetch;
mod simd;
mod softmax;
mod sparse;
mod sparse_tn;
mod sums;
mod table;
#[cfg(test)]
mod testing;
mod tile;
mod tree;
mod update;

pub use aligned::Aligned;
#[doc(hidden)]
pub use backend::with_modelled_tiles;
pub use backend::{Backend, Error};
pub use byte_tiles::ByteTiles;
pub use layout::{Panels, panel_count, panel_width, panels_len};
pub use matmul::{Form, Workspace};
pub use nonzeros::Nonzeros;
pub use panel::{Finish, Start};
pub use prefetch::prefetch;
pub use sparse_tn::partial_sums;
pub use table::Kernels;
