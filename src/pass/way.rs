//! How a first layer reads features.

use crate::dataset::Kind;
use crate::model::Model;
use muster_kernels::Kernels;

/// Per cent of bytes that are not 0 up to which it is faster to leave zeros out than to multiply by them.
const SPARSE_MAX: u8 = 50;
/// From this share on, rounded up, AMX's tiles are taken where they can be had. Prototypes of a training step, not these kernels, were as fast as others that
/// leave zeros out at 15 to 20 %, on a Xeon.
const TILES_MIN: u8 = 25;

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
    /// The way of features of some kind. Kernels that have tiles take them for all bytes, whatever part of a data set these are of: the bits
    /// depend on it.
    pub fn of((model, kernels): (&Model, &Kernels), kind: Kind) -> Way {
        let takes_tiles = kernels.multiplies_bytes_by_tiles() && !model.hidden().is_empty();
        match kind {
            Kind::U8 { scale, .. } if takes_tiles => Way::Tiles { scale },
            Kind::U8 { scale, density: ..=SPARSE_MAX } => Way::Sparse { scale },
            _ => Way::Dense,
        }
    }

    /// Whether it pays to train a model on such features with kernels that have tiles, where they can be had.
    pub fn pays_by_tiles(model: &Model, kind: Kind) -> bool {
        matches!(kind, Kind::U8 { density: TILES_MIN.., .. }) && !model.hidden().is_empty()
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

#[cfg(test)]
mod tests {
    use super::*;
    use muster_kernels::{Backend, with_modelled_tiles};

    const SCALE: f32 = 1.0 / 255.0;

    fn bytes(density: u8) -> Kind {
        Kind::U8 { scale: SCALE, density }
    }

    #[test]
    fn zeros_are_left_out_where_they_are_half_of_the_bytes() {
        let (model, kernels) = (Model::new(&[20, 8, 3]), Kernels::of(Backend::Wide).unwrap());
        let way = |kind| Way::of((&model, kernels), kind);
        assert_eq!(way(bytes(50)), Way::Sparse { scale: SCALE });
        assert_eq!([way(bytes(51)), way(Kind::F32)], [Way::Dense; 2]);
    }

    #[test]
    fn tiles_are_for_bytes_of_a_hidden_layer_and_pay_from_a_quarter_that_is_not_zero_on() {
        let (deep, flat) = (Model::new(&[20, 8, 3]), Model::new(&[20, 3]));
        for (model, kind, pay, way) in [
            (&deep, bytes(25), true, Way::Tiles { scale: SCALE }),
            (&deep, bytes(24), false, Way::Tiles { scale: SCALE }),
            (&deep, Kind::F32, false, Way::Dense),
            (&flat, bytes(100), false, Way::Dense),
        ] {
            assert_eq!(Way::pays_by_tiles(model, kind), pay);
            assert_eq!(Way::of((model, with_modelled_tiles()), kind), way);
        }
    }
}
