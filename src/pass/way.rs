//! How a first layer reads features.

use crate::dataset::Kind;
use crate::model::Model;
use muster_kernels::Kernels;

/// How a first layer reads features.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    /// All of them, as floats.
    Dense,
    /// Bytes that are not 0, with the bits of [`Way::Dense`].
    Sparse {
        /// What a byte is multiplied with.
        scale: f32,
    },
    /// All bytes, by AMX's tiles, which add in an order of their own.
    Tiles {
        /// What a byte is multiplied with.
        scale: f32,
    },
}

impl Way {
    /// The way of features of some kind. That of tiles depends on nothing that ranks might see differently, since the bits do.
    pub fn of((model, kernels): (&Model, &Kernels), kind: Kind) -> Way {
        let takes_tiles = kernels.multiplies_bytes_by_tiles() && !model.hidden().is_empty();
        match kind {
            Kind::U8 { scale, .. } if takes_tiles => Way::Tiles { scale },
            Kind::U8 { scale, is_sparse: true } => Way::Sparse { scale },
            _ => Way::Dense,
        }
    }

    /// The name that reports use.
    pub fn name(self) -> &'static str {
        match self {
            Way::Dense => "dense",
            Way::Sparse { .. } => "sparse",
            Way::Tiles { .. } => "tiles",
        }
    }

    /// What fixes the bits of a training; see [`muster_kernels::Backend::arithmetic`].
    pub fn arithmetic(self, kernels: &Kernels) -> &'static str {
        match self {
            Way::Tiles { .. } => "tiles-bf16x3",
            _ => kernels.backend().arithmetic(),
        }
    }
}
