//! Many points become few: what lies at the same place of a screen is drawn once, as its mean and its range.

/// A point of a curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// From the left.
    pub x: f64,
    /// From below.
    pub y: f64,
}

/// Neighbouring points as one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    /// Mean of their x.
    pub x: f64,
    /// Mean of their y.
    pub y: f64,
    /// The least y.
    pub low: f64,
    /// The greatest y.
    pub high: f64,
}

/// At most `columns` points, of those of `points` that are finite; they are sorted by x.
pub fn thinned(points: &[Point], columns: usize) -> Vec<Drawn> {
    let finite = || points.iter().filter(|point| point.x.is_finite() && point.y.is_finite());
    let (Some(first), Some(last)) = (finite().next(), finite().next_back()) else { return Vec::new() };
    let width = (last.x - first.x) / columns as f64;
    let column = |x: f64| if width > 0.0 { (((x - first.x) / width) as usize).min(columns - 1) } else { 0 };
    let mut drawn: Vec<Drawn> = Vec::new();
    let (mut current, mut count) = (usize::MAX, 0.0);
    for point in finite() {
        if column(point.x) != current {
            (current, count) = (column(point.x), 0.0);
            drawn.push(Drawn { x: 0.0, y: 0.0, low: point.y, high: point.y });
        }
        count += 1.0;
        let into = drawn.last_mut().expect("one was just added");
        into.x += (point.x - into.x) / count;
        into.y += (point.y - into.y) / count;
        (into.low, into.high) = (into.low.min(point.y), into.high.max(point.y));
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_is_lost_but_detail(values in prop::collection::vec(-1e6f64..1e6, 1..400), columns in 1usize..50) {
            let points: Vec<Point> = values.iter().enumerate().map(|(x, &y)| Point { x: x as f64, y }).collect();
            let drawn = thinned(&points, columns);
            prop_assert!(drawn.len() <= columns);
            prop_assert!(drawn.windows(2).all(|pair| pair[0].x < pair[1].x));
            let fold = |pick: fn(f64, f64) -> f64, of: &mut dyn Iterator<Item = f64>| of.reduce(pick).unwrap();
            prop_assert_eq!(fold(f64::min, &mut drawn.iter().map(|d| d.low)), fold(f64::min, &mut values.iter().copied()));
            prop_assert_eq!(fold(f64::max, &mut drawn.iter().map(|d| d.high)), fold(f64::max, &mut values.iter().copied()));
            prop_assert!(drawn.iter().all(|d| d.low <= d.y + 1e-6 && d.y <= d.high + 1e-6));
        }
    }

    #[test]
    fn few_points_stay_as_they_are_and_odd_ones_are_left_out() {
        let points = [(1.0, 2.0), (2.0, f64::NAN), (3.0, 5.0)].map(|(x, y)| Point { x, y });
        let drawn = thinned(&points, 100);
        assert_eq!(
            drawn.iter().map(|d| (d.x, d.y, d.low, d.high)).collect::<Vec<_>>(),
            [(1.0, 2.0, 2.0, 2.0), (3.0, 5.0, 5.0, 5.0)]
        );
        assert_eq!(thinned(&points[1..2], 100), []);
        assert_eq!(thinned(&[points[0]; 3], 100).len(), 1);
    }
}
