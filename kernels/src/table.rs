//! The tables of functions: every kernel compiled once for every back end.
#![allow(unsafe_code)] // A function compiled for more than the build's target may only run where `of` has found it.

use crate::amx;
use crate::backend::Backend;
use crate::byte_tiles::{self, ByteTiles};
use crate::layout::{self, Panels};
use crate::matmul::{self, Buffers, Product};
use crate::nonzeros::{self, Nonzeros};
use crate::panel::{self, Finish, Start};
use crate::simd;
use crate::softmax;
use crate::sparse;
use crate::sparse_tn::{self, ByColumns, ByRows};
use crate::sums;
use crate::{panel_tn, update};

/// The kernels of one back end. Get it from [`Kernels::select`]; its methods are the operations.
#[derive(Debug)]
pub struct Kernels {
    pub(crate) backend: Backend,
    pub(crate) table: Table,
    pub(crate) tiled: Option<Tiled>,
}

impl Kernels {
    /// The back end that these functions are compiled for.
    pub fn backend(&self) -> Backend {
        self.backend
    }
}

/// What goes by tiles on a CPU that has them: large row-major products, and those of bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiled {
    pub(crate) multiply: unsafe fn(&Table, &Product<'_>, &mut Buffers),
    pub(crate) forward: unsafe fn(&Table, &byte_tiles::Forward<'_>, &mut [f32]),
    pub(crate) gradient: unsafe fn(&Table, &byte_tiles::Gradient<'_>, &mut [f32]),
    /// Columns of C from which on it is taken, if the chain is long enough; how many rows there are decides nothing.
    pub(crate) columns: usize,
    /// Steps of the chain from which on it is.
    pub(crate) steps: usize,
}

impl Tiled {
    pub(crate) fn multiply(&self, table: &Table, product: &Product<'_>, buffers: &mut Buffers) {
        // SAFETY: `of` hands kernels out only where their back end runs.
        unsafe { (self.multiply)(table, product, buffers) }
    }

    pub(crate) fn forward(&self, table: &Table, product: &byte_tiles::Forward<'_>, c: &mut [f32]) {
        // SAFETY: as above.
        unsafe { (self.forward)(table, product, c) }
    }

    pub(crate) fn gradient(&self, table: &Table, product: &byte_tiles::Gradient<'_>, c: &mut [f32]) {
        // SAFETY: as above.
        unsafe { (self.gradient)(table, product, c) }
    }
}

/// The kernels of `backend`, or what this machine lacks for them.
#[cfg(target_arch = "x86_64")]
pub(crate) fn of(backend: Backend) -> Result<&'static Kernels, String> {
    /// Those of the named instruction sets that are not here.
    macro_rules! lacking {
        ($($name:tt)*) => {
            [$(($name, is_x86_feature_detected!($name))),*].into_iter().filter(|(_, is_here)| !is_here).map(|(name, _)| name)
        };
    }
    // AVX2 with what came to every x86-64 CPU together with it.
    let avx2 = lacking!("avx2" "fma" "bmi1" "bmi2" "lzcnt" "popcnt");
    let avx512 = lacking!("avx512f" "avx512bw" "avx512dq" "avx512vl");
    let (lacking, kernels): (Vec<&str>, _) = match backend {
        Backend::Wide => (Vec::new(), &wide::KERNELS),
        Backend::Avx2 => (avx2.collect(), &avx2::KERNELS),
        Backend::Avx512 => (avx2.chain(avx512).collect(), &avx512::KERNELS),
        Backend::Amx => (avx2.chain(avx512).collect(), &by_tiles::KERNELS),
    };
    if !lacking.is_empty() {
        return Err(format!("the CPU lacks {}", lacking.join(", ")));
    }
    if backend == Backend::Amx {
        // SAFETY: the CPU has AVX-512.
        unsafe { amx::missing() }.map_or(Ok(()), Err)?;
    }
    Ok(kernels)
}

/// The kernels of `backend`, or what this machine lacks for them.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn of(backend: Backend) -> Result<&'static Kernels, String> {
    if backend == Backend::Wide { Ok(&wide::KERNELS) } else { Err("the CPU is no x86-64".to_owned()) }
}

/// Declares [`Table`] with one field a function, and stamps for every back end the entry points that compile the
/// generic bodies for its instructions. `#[target_feature]` and `#[inline(always)]` exclude each other, so an entry
/// point calls its body.
macro_rules! table {
    ($(fn $module:ident::$name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)?;)*) => {
        /// Addresses of the entry points of one back end.
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct Table {
            $($name: unsafe fn($($type),*) $(-> $result)?,)*
        }

        #[expect(clippy::too_many_arguments, reason = "the signatures are those of the operations")]
        impl Table {
            $(
                #[inline]
                pub(crate) fn $name(&self, $($arg: $type),*) $(-> $result)? {
                    // SAFETY: `of` hands a table out only where its back end runs.
                    unsafe { (self.$name)($($arg),*) }
                }
            )*
        }

        table!(@stamp wide Wide, simd::wide::Wide, [],
            $(fn $module::$name($($arg: $type),*) $(-> $result)?;)*);
        table!(@stamp avx2 Avx2, simd::avx2::Avx2,
            [#[cfg(target_arch = "x86_64")], #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]],
            $(fn $module::$name($($arg: $type),*) $(-> $result)?;)*);
        table!(@stamp avx512 Avx512, simd::avx512::Avx512,
            [#[cfg(target_arch = "x86_64")], #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma,bmi1,bmi2,lzcnt,popcnt")]],
            $(fn $module::$name($($arg: $type),*) $(-> $result)?;)*);
    };
    (@stamp $mod:ident $backend:ident, $simd:ty, [$(#[$cfg:meta], #[$feature:meta])?],
        $($functions:tt)*) => {
        $(#[$cfg])?
        mod $mod {
            use super::*;

            table!(@entries $backend, $simd, [$(#[$feature])?], $($functions)*);
        }
    };
    (@entries $backend:ident, $simd:ty, $feature:tt,
        $(fn $module:ident::$name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        pub(super) const TABLE: Table = Table { $($name),* };
        pub(super) static KERNELS: Kernels = Kernels { backend: Backend::$backend, table: TABLE, tiled: None };

        $(table!(@entry $simd, $feature, fn $module::$name($($arg: $type),*) $(-> $result)?);)*
    };
    (@entry $simd:ty, [$(#[$feature:meta])?],
        fn $module:ident::$name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?) => {
        $(#[$feature])?
        #[allow(clippy::too_many_arguments)]
        unsafe fn $name($($arg: $type),*) $(-> $result)? {
            // SAFETY: this function is compiled for the back end and runs only where the CPU has it.
            let s = unsafe { <$simd>::new() };
            $module::$name(s, $($arg),*)
        }
    };
}

/// Stamps the functions of [`Tiled`] for a vector and tiles.
macro_rules! tiled {
    ($s:expr, $tiles:expr, [$(#[$feature:meta])?]) => {
        pub(super) const TILED: Tiled =
            Tiled { multiply, forward, gradient, columns: matmul::COLUMNS, steps: matmul::STEPS };

        $(#[$feature])?
        unsafe fn multiply(table: &Table, product: &Product<'_>, buffers: &mut Buffers) {
            // SAFETY: this function runs only where the CPU has what it is compiled for.
            let (s, mut tiles) = unsafe { ($s, $tiles) };
            matmul::multiply_by_tiles(s, &mut tiles, table, product, buffers);
        }

        $(#[$feature])?
        unsafe fn forward(table: &Table, product: &byte_tiles::Forward<'_>, c: &mut [f32]) {
            // SAFETY: as above.
            let (s, mut tiles) = unsafe { ($s, $tiles) };
            byte_tiles::forward(s, &mut tiles, table, product, c);
        }

        $(#[$feature])?
        unsafe fn gradient(table: &Table, product: &byte_tiles::Gradient<'_>, c: &mut [f32]) {
            // SAFETY: as above.
            let (s, mut tiles) = unsafe { ($s, $tiles) };
            byte_tiles::gradient(s, &mut tiles, table, product, c);
        }
    };
}

/// The kernels of AVX-512 with tiles.
#[cfg(target_arch = "x86_64")]
mod by_tiles {
    use super::*;

    pub(super) static KERNELS: Kernels =
        Kernels { backend: Backend::Amx, table: avx512::TABLE, tiled: Some(TILED) };

    // What works on tiles needs no feature: its instructions are written out.
    tiled!(
        simd::avx512::Avx512::new(),
        amx::Amx::new(),
        [#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma,bmi1,bmi2,lzcnt,popcnt")]]
    );
}

/// What goes by tiles, by a model of them.
mod by_model {
    use super::*;

    tiled!(simd::wide::Wide::new(), amx::Model::new(), []);
}

/// The kernels `table` with a model of tiles.
pub(crate) fn modelled(table: Table) -> Kernels {
    Kernels { backend: Backend::Amx, table, tiled: Some(by_model::TILED) }
}

table! {
    fn layout::pixels_to_panels(row: &[u8], scale: f32, x: &mut [f32], m: usize, i: usize);
    fn layout::transpose_block(
        w: &[f32], rows: usize, cols: usize, w_width: usize, q: usize, out: &mut [f32], width: usize,
    );
    fn panel::matmul_panel(
        a: Panels<'_>, b: &[f32], width: usize, start: Start, finish: Finish<'_>, c: &mut [f32], ldc: usize,
    );
    fn panel_tn::matmul_tn_panel(
        a: Panels<'_>, leaves: &[usize], d: &[f32], width: usize, start: Start, c: &mut [f32], ldc: usize,
    );
    fn byte_tiles::tile_rows(a: &mut ByteTiles);
    fn byte_tiles::tile_columns(a: &mut ByteTiles, leaves: &[usize]);
    fn nonzeros::push_bytes(row: &[u8], matrix: &mut Nonzeros);
    fn sparse::matmul_sparse(product: &sparse::Product<'_>, c: &mut [f32]);
    fn sparse_tn::matmul_tn_by_columns(product: &ByColumns<'_>, c: &mut [f32]);
    fn sparse_tn::matmul_tn_by_rows(product: &ByRows<'_>, width: usize, partial: &mut [f32]);
    fn matmul::tile_width() -> usize;
    fn matmul::tile_height() -> usize;
    fn matmul::pack_panel(view: matmul::View, n: usize, k: usize, width: usize, to: &mut [f32]);
    fn matmul::multiply_panel(panel: &matmul::Panel<'_>, rows: usize);
    fn sums::bias_gradient(d: &[f32], leaves: &[usize], width: usize, db: &mut [f32]);
    fn sums::sum_slices(parts: &[f32], out: &mut [f32]);
    fn sums::sum_of_squares(x: &[f32]) -> f64;
    fn softmax::softmax_cross_entropy(
        logits: &mut [f32], m: usize, classes: usize, labels: &[u32], scale: f32, floor: f32, loss: &mut [f32],
        predicted: &mut [u32],
    );
    fn softmax::softmax(logits: &mut [f32], m: usize, classes: usize);
    fn softmax::argmax(logits: &[f32], m: usize, classes: usize, predicted: &mut [u32]);
    fn update::sgd(lr: f32, g: &[f32], w: &mut [f32]);
    fn update::momentum(lr: f32, mu: f32, g: &[f32], v: &mut [f32], w: &mut [f32]);
    fn update::adagrad(lr: f32, g: &[f32], acc: &mut [f32], w: &mut [f32]);
    fn update::adam(
        lr_t: f32, beta1: f32, beta2: f32, eps: f32, g: &[f32], m: &mut [f32], v: &mut [f32], w: &mut [f32],
    );
    fn update::add(dst: &mut [f32], a: &[f32], b: &[f32]);
    fn update::add_assign(dst: &mut [f32], src: &[f32]);
}
