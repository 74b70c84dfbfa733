//! Measuring in turns: noise of the machine hits everything alike, and medians drop what hits one round.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::Error;
use crate::report::{Group, Unit};

/// Shortest time that a contender's sample is taken over; the clock and a call are lost in it.
const SAMPLE: Duration = Duration::from_millis(2);

/// Takes one sample, in the unit of its probe.
pub type Sample<'a> = Box<dyn FnMut() -> Result<f64, Error> + 'a>;

/// Something that is measured, round after round.
pub struct Probe<'a> {
    /// Where it stands in the report.
    pub group: Group,
    /// Its name, by which limits refer to it.
    pub name: String,
    /// What a sample is counted in.
    pub unit: Unit,
    /// What it cannot pass.
    pub limit: Option<Limit>,
    /// Floating-point operations for each byte that must come from memory and go to it, for kernels.
    pub intensity: Option<f64>,
    /// Takes a sample.
    pub sample: Sample<'a>,
}

/// What a figure cannot pass, in terms of other figures of the same round.
#[derive(Clone, Debug, PartialEq)]
pub enum Limit {
    /// `factor` times the figure of this name.
    Times(String, f64),
    /// `factor` divided by the figure of this name, for times.
    Over(String, f64),
    /// The lower one of a peak (GFLOP/s) and a bandwidth (GB/s) times an intensity (Williams, Waterman, Patterson 2009).
    Roofline {
        /// The figure of the peak.
        peak: String,
        /// The figure of the bandwidth.
        bandwidth: String,
        /// Floating-point operations a byte.
        intensity: f64,
    },
}

impl Limit {
    /// Its value where the figures of a round have these values; none if it refers to one that is missing.
    pub fn value(&self, of: impl Fn(&str) -> Option<f64>) -> Option<f64> {
        Some(match self {
            Limit::Times(name, factor) => of(name)? * factor,
            Limit::Over(name, factor) => factor / of(name)?,
            Limit::Roofline { peak, bandwidth, intensity } => of(peak)?.min(of(bandwidth)? * intensity),
        })
    }

    /// As a person reads it.
    pub fn describe(&self, of: impl Fn(&str) -> Option<f64>) -> String {
        match self {
            Limit::Times(name, _) | Limit::Over(name, _) => name.clone(),
            Limit::Roofline { peak, bandwidth, intensity } => match (of(peak), of(bandwidth)) {
                (Some(peak_value), Some(rate)) if peak_value > rate * intensity => bandwidth.clone(),
                _ => peak.clone(),
            },
        }
    }
}

/// Runs `run` for about `time` a sample, and counts what it does a second in units of a billion: `per_run` of it each run.
pub fn billions<'a>(time: Duration, per_run: f64, mut run: impl FnMut() + 'a) -> Sample<'a> {
    let mut repeats = None;
    Box::new(move || {
        let repeats = *repeats.get_or_insert_with(|| calibrate(time, &mut run));
        Ok(per_run / sample(&mut run, repeats) / 1e9)
    })
}

/// Runs `run` for as many steps a sample as `fill` finds right for what it gives after `trial` steps.
pub fn steps<'a>(
    trial: u64,
    fill: impl Fn(f64) -> u64 + 'a,
    mut run: impl FnMut(u64) -> Result<f64, Error> + 'a,
) -> Sample<'a> {
    let mut count = None;
    Box::new(move || {
        let count = match count {
            Some(count) => count,
            None => *count.insert(fill(run(trial)?)),
        };
        run(count)
    })
}

/// The quartiles of `values`, which are at least one: lower, median, upper; interpolated between neighbours.
pub fn quartiles(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    [0.25, 0.5, 0.75].map(|share| {
        let at = share * (sorted.len() - 1) as f64;
        let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
        below + (above - below) * at.fract()
    })
}

/// One of those that are compared.
pub struct Contender<'a> {
    /// The name in the table.
    pub name: String,
    /// One run of what is measured.
    pub run: Box<dyn FnMut() + 'a>,
}

impl<'a> Contender<'a> {
    /// A contender that runs `run`.
    pub fn new(name: impl Into<String>, run: impl FnMut() + 'a) -> Self {
        Contender { name: name.into(), run: Box::new(run) }
    }
}

/// What a contender took.
#[derive(Debug, Clone)]
pub struct Timing {
    /// The name in the table.
    pub name: String,
    /// Median seconds of one run.
    pub seconds: f64,
    /// Median over the rounds of the first contender's time over this one's: above 1 is faster than the first.
    pub ratio: f64,
}

/// Runs all contenders in turns, `rounds` times. With a `pause`, the threads of each have so long to go to sleep before the next one, and those
/// of the next as long again to wake and spread over the cores.
pub fn compare(rounds: usize, pause: Duration, mut contenders: Vec<Contender<'_>>) -> Vec<Timing> {
    let calibrated = |contender: &mut Contender| {
        std::thread::sleep(pause);
        calibrate(SAMPLE, &mut contender.run)
    };
    let repeats: Vec<u32> = contenders.iter_mut().map(calibrated).collect();
    let mut seconds = vec![Vec::with_capacity(rounds); contenders.len()];
    for _ in 0..rounds {
        for ((contender, &repeats), seconds) in contenders.iter_mut().zip(&repeats).zip(&mut seconds) {
            std::thread::sleep(pause);
            let begin = Instant::now();
            while begin.elapsed() < pause {
                sample(&mut contender.run, repeats);
            }
            seconds.push(sample(&mut contender.run, repeats));
        }
    }
    let timing = |(contender, times): (&Contender<'_>, &Vec<f64>)| Timing {
        name: contender.name.clone(),
        seconds: median(times.clone()),
        ratio: median(seconds[0].iter().zip(times).map(|(first, time)| first / time).collect()),
    };
    contenders.iter().zip(&seconds).map(timing).collect()
}

/// The middle one of `values`, which are at least one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How many runs fill `time`; the first run, which warms up, is not counted.
fn calibrate(time: Duration, run: &mut dyn FnMut()) -> u32 {
    run();
    let mut repeats = 1;
    loop {
        let took = sample(run, repeats) * f64::from(repeats);
        if took >= time.as_secs_f64() {
            return repeats;
        }
        // From a measured run on the next guess is close; without one it grows by as much as is safe.
        let wanted = f64::from(repeats) * (1.1 * time.as_secs_f64() / took.max(1e-9)).clamp(2.0, 100.0);
        repeats = wanted.min(1e9) as u32;
    }
}

/// Seconds of one of `repeats` runs.
fn sample(run: &mut dyn FnMut(), repeats: u32) -> f64 {
    let start = Instant::now();
    for _ in 0..repeats {
        black_box(&mut *run)();
    }
    start.elapsed().as_secs_f64() / f64::from(repeats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_contender_has_the_smaller_ratio() {
        let sleep = |ms| move || std::thread::sleep(Duration::from_millis(ms));
        let timings =
            compare(3, Duration::ZERO, vec![Contender::new("a", sleep(2)), Contender::new("b", sleep(8))]);
        assert_eq!(timings[0].ratio, 1.0);
        assert!(timings[1].ratio < 0.6 && timings[1].seconds > timings[0].seconds, "{timings:?}");
    }

    #[test]
    fn quartiles_lie_between_neighbours() {
        assert_eq!(quartiles(&[4.0]), [4.0; 3]);
        assert_eq!(quartiles(&[4.0, 1.0, 3.0, 2.0, 5.0]), [2.0, 3.0, 4.0]);
        assert_eq!(quartiles(&[1.0, 2.0]), [1.25, 1.5, 1.75]);
    }

    #[test]
    fn a_sample_repeats_its_run_until_its_time_is_over() {
        let runs = std::cell::Cell::new(0u32);
        let mut rate = billions(Duration::from_millis(4), 1e9, || {
            runs.set(runs.get() + 1);
            std::thread::sleep(Duration::from_micros(200));
        });
        rate().unwrap();
        let before = runs.get();
        let per_second = rate().unwrap();
        assert!(runs.get() - before >= 5, "{before}, then {}", runs.get());
        assert!(per_second < 5000.0, "{per_second} runs a second of at least 200 µs");
    }

    #[test]
    fn a_limit_follows_the_figures_it_names() {
        let of = |name: &str| match name {
            "peak" => Some(100.0),
            "memory" => Some(20.0),
            _ => None,
        };
        let roofline =
            |intensity| Limit::Roofline { peak: "peak".into(), bandwidth: "memory".into(), intensity };
        assert_eq!(Limit::Times("memory".into(), 3.0).value(of), Some(60.0));
        assert_eq!(Limit::Over("memory".into(), 3.0).value(of), Some(0.15));
        assert_eq!(Limit::Times("absent".into(), 3.0).value(of), None);
        assert_eq!((roofline(1.0).value(of), roofline(1.0).describe(of)), (Some(20.0), "memory".into()));
        assert_eq!((roofline(9.0).value(of), roofline(9.0).describe(of)), (Some(100.0), "peak".into()));
    }
}
