//! What a model gets wrong: the confusion matrix of labelled records, and the records whose label it finds least likely.

use crate::dataset::{Dataset, FeatureRow};
use crate::error::Error;
use crate::evaluate::{CHUNK, chunk_records, forward_share};
use crate::inference::Confusion;
use crate::model::Model;
use crate::pass::Pass;
use crate::records::Records;
use crate::team;
use muster_collective::Shared;
use muster_kernels::Kernels;
use serde::{Deserialize, Serialize};

/// Mistakes that are kept.
pub const KEPT: usize = 24;

/// A record that is classified wrongly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mistake {
    /// Which one, counted from 0.
    pub record: usize,
    /// What it is.
    pub label: u32,
    /// What the model says.
    pub prediction: u32,
    /// The probability that the model gives to that.
    pub probability: f32,
    /// The probability that it gives to the label.
    pub label_probability: f32,
    /// The shape of the features, such as `[28, 28]`.
    pub shape: Vec<usize>,
    /// The features as bytes, row-major, in hexadecimal digits; numbers are spread over 0 to 255.
    pub pixels: String,
}

/// The mistakes in a data set.
pub struct Mistakes {
    /// How often records of each class were given each class.
    pub confusion: Confusion,
    /// The worst ones, at most [`KEPT`]: those whose label is the least likely, first.
    pub worst: Vec<Mistake>,
}

/// A mistake, and how bad it is.
struct Wrong {
    mistake: Mistake,
    /// Of the label: its probability is `exp(-loss)`.
    loss: f32,
    features: Vec<u8>,
}

/// Finds them with a team of threads.
///
/// # Errors
/// If the records cannot be read.
///
/// # Panics
/// If they have no labels.
pub fn find(of: (&Model, &Kernels, &Shared), records: &Records, threads: usize) -> Result<Mistakes, Error> {
    let found = team::run(threads, |team| {
        let (mut confusion, mut wrong) = (Confusion::new(records.classes()), Vec::new());
        forward_share(of, records, team, |dataset, chunk, first, pass| {
            let labels = dataset.labels().expect("the records have labels");
            let rows = chunk_records(dataset.len(), chunk);
            pass.loss(1.0, 0.0);
            confusion.add(&labels[rows.clone()], pass.predicted());
            for (row, record) in rows.enumerate() {
                if labels[record] != pass.predicted()[row] {
                    wrong.push(Wrong::of(dataset, (record, first * CHUNK), row, pass));
                }
            }
            // What is kept is bounded, however wrong the model is.
            if wrong.len() > 4 * CHUNK {
                keep_worst(&mut wrong);
            }
        })?;
        Ok::<_, Error>((confusion, wrong))
    });
    let mut confusion = Confusion::new(records.classes());
    let mut wrong = Vec::new();
    for part in found {
        let (part, more) = part?;
        confusion.merge(&part);
        wrong.extend(more);
    }
    keep_worst(&mut wrong);
    Ok(Mistakes { confusion, worst: wrong.into_iter().map(Wrong::with_features).collect() })
}

fn keep_worst(wrong: &mut Vec<Wrong>) {
    wrong.sort_by(|a, b| b.loss.total_cmp(&a.loss).then(a.mistake.record.cmp(&b.mistake.record)));
    wrong.truncate(KEPT);
}

impl Wrong {
    /// Record `record` of a data set that begins at record `first` of all, which is row `row` of a pass.
    fn of(dataset: &Dataset, (record, first): (usize, usize), row: usize, pass: &Pass) -> Wrong {
        let (prediction, loss) = (pass.predicted()[row], pass.losses()[row]);
        let mistake = Mistake {
            record: first + record,
            label: dataset.label(record).expect("the records have labels"),
            prediction,
            probability: pass.probability_of_other(row, prediction),
            label_probability: libm::expf(-loss),
            shape: dataset.shape().to_vec(),
            pixels: String::new(),
        };
        Wrong { mistake, loss, features: bytes(dataset.feature_row(record)) }
    }

    fn with_features(self) -> Mistake {
        Mistake { pixels: crate::dataset::hex(&self.features), ..self.mistake }
    }
}

impl Mistake {
    /// The features as bytes; none if they are not hexadecimal digits, or not as many as the shape says.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let digit = |digit: u8| char::from(digit).to_digit(16).map(|digit| digit as u8);
        let pair = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?);
        let bytes: Vec<u8> = self.pixels.as_bytes().chunks(2).map(pair).collect::<Option<_>>()?;
        let wanted = self.shape.iter().try_fold(1usize, |product, &length| product.checked_mul(length));
        (wanted == Some(bytes.len())).then_some(bytes)
    }

    /// Rows and columns, where the features are a picture; one row where they are not.
    pub fn rows_and_columns(&self) -> (usize, usize) {
        match self.shape[..] {
            [rows, columns] | [rows, columns, 1] => (rows, columns),
            _ => (1, self.shape.iter().product()),
        }
    }
}

fn bytes(row: FeatureRow) -> Vec<u8> {
    let numbers = match row {
        FeatureRow::U8 { bytes, .. } => return bytes.to_vec(),
        FeatureRow::F32(numbers) => numbers,
    };
    let least = numbers.iter().copied().fold(f32::INFINITY, f32::min);
    let greatest = numbers.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let range = (greatest - least).max(f32::MIN_POSITIVE);
    numbers.iter().map(|number| (255.0 * (number - least) / range).round() as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Features;
    use crate::model::Tensors;
    use std::path::Path;

    /// Records of one feature x; a softmax regression whose logits are (0, x).
    fn mistakes(features: &[f32], labels: &[u32], threads: usize) -> Mistakes {
        let data = Dataset::from_features(Path::new("x"), Features::F32(features.to_vec()), &[1], 2).unwrap();
        let data = data.with_labels(Path::new("x"), labels.to_vec()).unwrap();
        let model = Model::new(&[1, 2]);
        let weights = model.buffer();
        model.import(&[Tensors { weight: vec![0.0, 1.0], bias: vec![0.0, 0.0] }], &weights);
        find((&model, Kernels::select().unwrap(), &weights), &data.into(), threads).unwrap()
    }

    #[test]
    fn the_worst_come_first_with_their_probabilities() {
        let found = mistakes(&[1.0, -2.0, 3.0, -0.5, 2.0], &[1, 1, 0, 0, 0], 2);
        let rows: Vec<Vec<u64>> = found.confusion.rows().map(<[u64]>::to_vec).collect();
        assert_eq!(rows, [[1, 2], [1, 1]]);
        let worst: Vec<_> = found.worst.iter().map(|m| (m.record, m.label, m.prediction)).collect();
        assert_eq!(worst, [(2, 0, 1), (1, 1, 0), (4, 0, 1)]);
        let sigmoid = |x: f64| 1.0 / (1.0 + libm::exp(-x));
        approx::assert_relative_eq!(f64::from(found.worst[0].probability), sigmoid(3.0), max_relative = 1e-5);
        approx::assert_relative_eq!(
            f64::from(found.worst[0].label_probability),
            sigmoid(-3.0),
            max_relative = 1e-5
        );
    }

    #[test]
    fn the_same_are_kept_by_any_number_of_threads() {
        let features: Vec<f32> = (0..3000).map(|i| ((i * 37) % 100) as f32 / 10.0).collect();
        let labels = vec![0; 3000];
        let (one, three) = (mistakes(&features, &labels, 1), mistakes(&features, &labels, 3));
        assert_eq!(one.worst, three.worst);
        assert_eq!(one.worst.len(), KEPT);
        let records: Vec<usize> = one.worst.iter().map(|mistake| mistake.record).collect();
        assert!(records.is_sorted() && features[records[0]] == 9.9, "{records:?}");
        assert!(one.confusion.rows().eq(three.confusion.rows()));
    }

    #[test]
    fn features_become_bytes_and_digits_and_bytes_again() {
        assert_eq!(bytes(FeatureRow::F32(&[-1.0, 0.0, 1.0])), [0, 128, 255]);
        assert_eq!(bytes(FeatureRow::F32(&[7.0, 7.0])), [0, 0]);
        let mut mistake = Mistake {
            record: 0,
            label: 0,
            prediction: 1,
            probability: 1.0,
            label_probability: 0.0,
            shape: vec![1, 3],
            pixels: crate::dataset::hex(&[0, 171, 255]),
        };
        assert_eq!(mistake.bytes(), Some(vec![0, 171, 255]));
        for damaged in ["", "00ab", "00abf", "00abfg", "00abff00"] {
            mistake.pixels = damaged.to_owned();
            assert_eq!(mistake.bytes(), None, "{damaged}");
        }
    }
}
