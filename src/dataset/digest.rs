//! What a data set holds, as SHA-256 of the IDX files that would hold it: whatever its format, whole or block by block.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Dataset, Features};
use crate::format::idx;

/// The digests of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// SHA-256 of the features as an IDX file `[records, shape…]`.
    pub features_sha256: [u8; 32],
    /// SHA-256 of the labels as an IDX file, of bytes where 256 classes suffice, else of `i32`.
    pub labels_sha256: Option<[u8; 32]>,
}

impl Content {
    /// One digest of all: hexadecimal SHA-256 of that of the features, followed by that of the labels.
    pub fn sha256(&self) -> String {
        let labels = self.labels_sha256.as_ref().map_or(&[][..], |digest| digest);
        hex(&Sha256::new().chain_update(self.features_sha256).chain_update(labels).finalize())
    }
}

/// Finds the digests of records that are added one run after another.
pub(crate) struct Hasher {
    features: Sha256,
    labels: Sha256,
    label_element: idx::Element,
    is_labelled: bool,
}

impl Hasher {
    /// For `records` records of `shape`, whose features are of type `element`.
    pub fn new(element: idx::Element, records: usize, shape: &[usize], classes: usize) -> Hasher {
        let label_element = if classes <= 256 { idx::Element::U8 } else { idx::Element::I32 };
        let dims: Vec<usize> = [records].into_iter().chain(shape.iter().copied()).collect();
        Hasher {
            features: Sha256::new_with_prefix(idx::header(element, &dims)),
            labels: Sha256::new_with_prefix(idx::header(label_element, &dims[..1])),
            label_element,
            is_labelled: false,
        }
    }

    /// Adds records, whose features are of the type that was said.
    pub fn add(&mut self, records: &Dataset) {
        match records.features() {
            Features::U8 { bytes, .. } => self.features.update(bytes),
            Features::F32(numbers) => {
                let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
                self.features.update(bytes);
            }
        }
        let labels = records.labels().unwrap_or_default();
        self.is_labelled |= !labels.is_empty();
        let bytes: Vec<u8> = match self.label_element {
            idx::Element::U8 => labels.iter().map(|&label| label as u8).collect(),
            _ => labels.iter().flat_map(|label| label.to_be_bytes()).collect(),
        };
        self.labels.update(bytes);
    }

    /// The digests, once all records were added.
    pub fn finish(self) -> Content {
        Content {
            features_sha256: self.features.finalize().into(),
            labels_sha256: self.is_labelled.then(|| self.labels.finalize().into()),
        }
    }
}

/// The bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
