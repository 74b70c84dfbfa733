//! The tables of functions: every kernel compiled once for every back end.
#![allow(unsafe_code)] // A function compiled for more than the build's target may only run where `of` has found it.

use crate::backend::Backend;
use crate::layout::{self, Panels};
use crate::matmul;
use crate::nonzeros::{self, Nonzeros};
use crate::panel::{self, Finish, Start};
use crate::simd;
use crate::softmax;
use crate::sparse::{self, Product};
use crate::sparse_tn::{self, ByColumns, ByRows};
use crate::sums;
use crate::{panel_tn, update};

/// The kernels of one back end. Get it from [`Kernels::select`]; its methods are the operations.
#[derive(Debug)]
pub struct Kernels {
    backend: Backend,
    pub(crate) table: Table,
}

impl Kernels {
    /// The back end that these functions are compiled for.
    pub fn backend(&self) -> Backend {
        self.backend
    }
}

/// The table of `backend`, if this CPU and its operating system run it.
pub(crate) fn of(backend: Backend) -> Option<&'static Kernels> {
    match backend {
        Backend::Wide => Some(&wide::KERNELS),
        #[cfg(target_arch = "x86_64")]
        Backend::Avx2 => has_avx2().then_some(&avx2::KERNELS),
        #[cfg(target_arch = "x86_64")]
        Backend::Avx512 => (has_avx2()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl"))
        .then_some(&avx512::KERNELS),
        #[cfg(not(target_arch = "x86_64"))]
        Backend::Avx2 | Backend::Avx512 => None,
    }
}

/// AVX2 with what came to every x86-64 CPU together with it.
#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt")
}

/// Declares [`Table`] with one field a function, and stamps for every back end the entry points that compile the
/// generic bodies for its instructions. `#[target_feature]` and `#[inline(always)]` exclude each other, so an entry
/// point calls its body.
macro_rules! table {
    ($(fn $module:ident::$name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)?;)*) => {
        /// Addresses of the entry points of one back end.
        #[derive(Debug)]
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
        pub(super) static KERNELS: Kernels =
            Kernels { backend: Backend::$backend, table: Table { $($name),* } };

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
    fn nonzeros::push_bytes(row: &[u8], matrix: &mut Nonzeros);
    fn sparse::matmul_sparse(product: &Product<'_>, c: &mut [f32]);
    fn sparse_tn::matmul_tn_by_columns(product: &ByColumns<'_>, c: &mut [f32]);
    fn sparse_tn::matmul_tn_by_rows(product: &ByRows<'_>, width: usize, partial: &mut [f32]);
    fn matmul::tile_width() -> usize;
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
    fn update::add_assign(dst: &mut [f32], src: &[f32]);
}
