//! Axes: where a value lies between two ends, which values are worth a label, and how numbers are written.

/// An axis from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    low: f64,
    high: f64,
    is_log: bool,
}

impl Scale {
    /// From `low` to `high`, by powers of ten if `is_log`; ends that are equal are moved apart.
    pub fn new(low: f64, high: f64, is_log: bool) -> Scale {
        let room = if high > low { 0.0 } else { (low.abs() / 2.0).max(1e-9) };
        Scale { low: low - room, high: high + room, is_log: is_log && low > 0.0 && high > low }
    }

    /// Where a value lies.
    pub fn at(&self, value: f64) -> f64 {
        let Scale { low, high, is_log } = *self;
        let at = match is_log {
            true => (value.max(low) / low).ln() / (high / low).ln(),
            false => (value - low) / (high - low),
        };
        at.clamp(0.0, 1.0)
    }

    /// Values that are worth a label, at least two and not many more than five.
    pub fn ticks(&self) -> Vec<f64> {
        if self.is_log {
            let decades = (self.high / self.low).log10();
            let of_decade: &[f64] = if decades > 3.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
            let first = self.low.log10().floor() as i32;
            let every = (decades / 6.0).ceil().max(1.0) as usize;
            let ticks = (first..=self.high.log10().ceil() as i32)
                .step_by(every)
                .flat_map(|power| of_decade.iter().map(move |digit| digit * 10f64.powi(power)));
            let within: Vec<f64> = ticks.filter(|tick| (self.low..=self.high).contains(tick)).collect();
            if within.len() >= 2 {
                return within;
            }
        }
        let rough = (self.high - self.low) / 4.0;
        let magnitude = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|digit| digit * magnitude);
        let step = step.into_iter().find(|&step| step >= rough * 0.999).unwrap_or(rough);
        let (first, last) =
            ((self.low / step - 1e-9).ceil() as i64, (self.high / step + 1e-9).floor() as i64);
        (first..=last).map(|at| at as f64 * step).collect()
    }
}

/// A number as short as it may be: three significant digits, thousands as k.
pub fn short(value: f64) -> String {
    let (value, suffix) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    if value == 0.0 {
        return "0".to_owned();
    }
    let decimals = (2 - value.abs().log10().floor() as i32).clamp(0, 9) as usize;
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ticks_lie_on_the_axis(low in -1e9f64..1e9, length in 1e-6f64..1e9, is_log: bool) {
            let scale = Scale::new(low, low + length, is_log);
            let ticks = scale.ticks();
            prop_assert!((2..=13).contains(&ticks.len()), "{ticks:?}");
            prop_assert!(ticks.windows(2).all(|pair| pair[0] < pair[1]));
            let tolerance = 1e-6 * length.max(low.abs());
            prop_assert!(ticks.iter().all(|&tick| tick >= low - tolerance && tick <= low + length + tolerance));
        }
    }

    #[test]
    fn values_have_places() {
        assert_eq!(Scale::new(0.0, 10.0, false).at(2.5), 0.25);
        assert_eq!(Scale::new(0.01, 100.0, true).at(1.0), 0.5);
        assert_eq!(Scale::new(0.0, 10.0, true).at(5.0), 0.5, "no logarithm of 0");
        assert_eq!(Scale::new(3.0, 3.0, true).at(3.0), 0.5);
        assert_eq!(Scale::new(0.0, 1.0, false).ticks(), [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(Scale::new(1e-4, 1.0, true).ticks(), [1e-4, 1e-3, 1e-2, 1e-1, 1.0]);
        assert!(Scale::new(1e-40, 1e38, true).ticks().len() <= 7);
    }

    #[test]
    fn numbers_are_short() {
        for (number, text) in [
            (0.0, "0"),
            (0.25, "0.25"),
            (0.0123456, "0.0123"),
            (9600.0, "9600"),
            (123456.0, "123k"),
            (-1.0, "-1"),
            (2.5e6, "2.5M"),
            (100.0, "100"),
        ] {
            assert_eq!(short(number), text);
        }
    }
}
