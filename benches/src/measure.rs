//! Contenders in turns: noise of the machine hits all of them alike, and medians drop what hits one.

use std::time::{Duration, Instant};

/// Shortest time that a sample is taken over; the clock and a call are lost in it.
const SAMPLE: Duration = Duration::from_millis(2);

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

/// Runs all contenders in turns, `rounds` times.
pub fn compare(rounds: usize, mut contenders: Vec<Contender<'_>>) -> Vec<Timing> {
    let repeats: Vec<u32> = contenders.iter_mut().map(|c| calibrate(&mut c.run)).collect();
    let mut seconds = vec![Vec::with_capacity(rounds); contenders.len()];
    for _ in 0..rounds {
        for ((contender, &repeats), seconds) in contenders.iter_mut().zip(&repeats).zip(&mut seconds) {
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

/// How many runs fill a sample.
fn calibrate(run: &mut dyn FnMut()) -> u32 {
    run();
    let mut repeats = 1;
    while sample(run, repeats) * f64::from(repeats) < SAMPLE.as_secs_f64() {
        repeats *= 2;
    }
    repeats
}

/// Seconds of one of `repeats` runs.
fn sample(run: &mut dyn FnMut(), repeats: u32) -> f64 {
    let start = Instant::now();
    for _ in 0..repeats {
        run();
    }
    start.elapsed().as_secs_f64() / f64::from(repeats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_contender_has_the_smaller_ratio() {
        let sleep = |ms| move || std::thread::sleep(Duration::from_millis(ms));
        let timings = compare(3, vec![Contender::new("a", sleep(2)), Contender::new("b", sleep(8))]);
        assert_eq!(timings[0].ratio, 1.0);
        assert!(timings[1].ratio < 0.6 && timings[1].seconds > timings[0].seconds, "{timings:?}");
    }
}
