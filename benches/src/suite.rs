//! All probes in turns, round after round: each figure's rounds are spread over the whole run, so that its quartiles show the noise
//! of the machine, and each share is taken within a round, where that noise hits figure and limit alike.

use std::time::{Duration, Instant, SystemTime};

use muster_collective::World;
use muster_kernels::{Backend, Kernels};

use crate::Error;
use crate::machine::Machine;
use crate::measure::{Limit, Probe, quartiles};
use crate::report::{Bound, Figure, LeftOut, Report, VERSION};
use crate::training::counted;
use crate::{exchange, kernels, launch, limits, lines, reading, training, world};

/// The rate at which one core reads what another has written.
pub const BETWEEN_CORES: &str = "between cores";

/// Fewest rounds whose quartiles say something, and most that are worth their time; the first one warms up and is not counted.
const ROUNDS: (usize, usize) = (4, 26);
/// Rounds for which samples are made short enough.
const ROUNDS_WANTED: u32 = 10;
/// About as many probes as there are, with what they do besides sampling.
const PROBES: u32 = 90;
/// A sample is long enough for its clock, and short enough for many rounds.
const SAMPLE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// What all probes need to know.
pub struct Bench {
    /// The kernels that are measured.
    pub kernels: &'static Kernels,
    /// Where.
    pub machine: Machine,
    /// How long a sample is to take.
    pub sample: Duration,
}

impl Bench {
    /// A suite that is to take about `time`.
    ///
    /// # Errors
    /// If `MUSTER_KERNELS` names kernels that do not run here.
    pub fn new(time: Duration) -> Result<Bench, Error> {
        let kernels = Kernels::select()?;
        let sample = (time / ROUNDS_WANTED / PROBES).clamp(SAMPLE.0, SAMPLE.1);
        Ok(Bench { kernels, machine: Machine::here(kernels), sample })
    }

    /// One thread, and all cores where there are more.
    pub fn thread_counts(&self) -> impl Iterator<Item = usize> + use<> {
        let all = self.machine.cores;
        std::iter::once(1).chain((all > 1).then_some(all))
    }

    /// The figure of a back end's multiply-adds.
    pub fn peak_of(backend: Backend, threads: usize) -> String {
        format!("FMA {backend}, {}", counted(threads, "thread"))
    }

    /// The figure of the multiply-adds of the kernels that are measured.
    pub fn peak_name(&self, threads: usize) -> String {
        Bench::peak_of(self.kernels.backend(), threads)
    }

    /// The figure of a cache's bandwidth.
    pub fn level_name(level: usize) -> String {
        format!("read L{level}")
    }

    /// The figure of the memory's bandwidth.
    pub fn memory_name(threads: usize) -> String {
        format!("read memory, {}", counted(threads, "thread"))
    }

    /// The figure of the bandwidth at which a working set of so many bytes comes: that of the nearest level that holds half of it, since
    /// what is a little larger than a cache still comes from there for the most part.
    pub fn bandwidth_name(&self, set: usize) -> String {
        let level = self.machine.caches.iter().position(|&size| set / 2 <= size);
        level.map_or_else(|| Bench::memory_name(1), |level| Bench::level_name(level + 1))
    }

    /// The limit of this work, whose operands lie where they fit.
    pub fn roofline(&self, work: &Work) -> Limit {
        let (peak, bandwidth) = (self.peak_name(1), self.bandwidth_name(work.set));
        if self.machine.caches.is_empty() {
            // What the caches can do is not known, and the memory's rate would be no limit.
            return Limit::Times(peak, 1.0);
        }
        Limit::Roofline { peak, bandwidth, intensity: work.intensity() }
    }
}

/// What a run of a kernel does.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Floating-point operations.
    pub flops: usize,
    /// Bytes that it must read. What it writes goes the other way at the same time, and is never more.
    pub read: usize,
    /// Bytes of all that it reads and writes.
    pub set: usize,
}

impl Work {
    /// Operations a byte.
    pub fn intensity(&self) -> f64 {
        self.flops as f64 / self.read as f64
    }
}

/// Measures for about `time`: everything in a process alone, and what goes between ranks in a world of several. Rank 0 gets the
/// report, the others none.
///
/// # Errors
/// If the kernels do not run here, or a rank has failed.
pub fn run(time: Duration, world: Option<&World>) -> Result<Option<Report>, Error> {
    let start = Instant::now();
    let bench = Bench::new(time)?;
    let mut left_out = Vec::new();
    let mut probes = limits::probes(&bench);
    match world {
        Some(world) if world.rank() > 0 => {
            drop(probes);
            world::follow(&bench, world)?;
            return Ok(None);
        }
        Some(world) => probes.extend(world::probes(&bench, world)?),
        None => probes.extend(alone(&bench, &mut left_out)),
    }
    let until = start + time;
    let figures = rounds(probes, until, &mut left_out);
    if let Some(world) = world {
        world::end(world)?;
    }
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(Some(Report {
        version: VERSION,
        muster: env!("CARGO_PKG_VERSION").to_owned(),
        build: if cfg!(debug_assertions) { "dev" } else { "release" }.to_owned(),
        machine: bench.machine,
        ranks: world.map_or(1, |world| world.roster().len()),
        unix_seconds: since_1970.as_secs(),
        seconds: start.elapsed().as_secs_f64(),
        figures,
        left_out,
    }))
}

/// What a process alone can measure.
fn alone(bench: &Bench, left_out: &mut Vec<LeftOut>) -> Vec<Probe<'static>> {
    let mut probes = kernels::probes(bench);
    let mut add = |what: &str, found: Result<Vec<Probe<'static>>, Error>| match found {
        Ok(found) => probes.extend(found),
        Err(error) => left_out.push(LeftOut { what: what.to_owned(), why: error.to_string() }),
    };
    add("training", training::probes(bench));
    add("metrics", lines::probes(bench));
    add("push and pull", Ok(exchange::probes(bench)));
    add("reading", reading::local(bench));
    add("reading from HDFS", reading::hdfs(bench));
    add("a job from start to end", launch::probes());
    probes
}

/// A probe and what it has given so far.
struct Series<'a> {
    probe: Probe<'a>,
    values: Vec<f64>,
    limits: Vec<f64>,
    shares: Vec<f64>,
    /// What limits it, by the last round.
    of: String,
    /// Why it is left out from some round on.
    failure: Option<Error>,
}

/// Takes samples of all probes in turns until the time is over. A probe that fails is left out.
fn rounds(probes: Vec<Probe<'_>>, until: Instant, left_out: &mut Vec<LeftOut>) -> Vec<Figure> {
    let mut all: Vec<Series> = probes.into_iter().map(Series::new).collect();
    for round in 0..ROUNDS.1 {
        let start = Instant::now();
        let values: Vec<Option<f64>> = all.iter_mut().map(Series::sample).collect();
        if round > 0 {
            let names: Vec<String> = all.iter().map(|series| series.probe.name.clone()).collect();
            let of = |name: &str| values[names.iter().position(|other| other == name)?];
            all.iter_mut().zip(&values).for_each(|(series, &value)| series.note(value, of));
        }
        if round + 1 >= ROUNDS.0 && Instant::now() + start.elapsed() > until {
            break;
        }
    }
    let mut figures = Vec::new();
    for series in all {
        match &series.failure {
            Some(error) => left_out.push(LeftOut { what: series.probe.name, why: error.to_string() }),
            None => figures.push(series.figure()),
        }
    }
    figures
}

impl<'a> Series<'a> {
    fn new(probe: Probe<'a>) -> Series<'a> {
        let (values, limits, shares) = Default::default();
        Series { probe, values, limits, shares, of: String::new(), failure: None }
    }

    /// This round's sample, if it can still be taken.
    fn sample(&mut self) -> Option<f64> {
        if self.failure.is_some() {
            return None;
        }
        (self.probe.sample)().map_err(|error| self.failure = Some(error)).ok()
    }

    /// Keeps a sample, beside its limit in the same round.
    fn note(&mut self, value: Option<f64>, of: impl Fn(&str) -> Option<f64> + Copy) {
        let Some(value) = value else { return };
        self.values.push(value);
        let Some(limit) = &self.probe.limit else { return };
        let Some(bound) = limit.value(of) else { return };
        self.limits.push(bound);
        self.shares.push(if self.probe.unit.is_rate() { value / bound } else { bound / value });
        self.of = limit.describe(of);
    }

    /// What came out.
    fn figure(self) -> Figure {
        let Series { probe, values, limits, shares, of, .. } = self;
        let [low, value, high] = quartiles(&values);
        let median = |values: &[f64]| quartiles(values)[1];
        let bound = || Bound { of, value: median(&limits), share: median(&shares) };
        let limit = (!limits.is_empty()).then(bound);
        let Probe { group, name, unit, intensity, .. } = probe;
        Figure { group, name, unit, value, low, high, rounds: values.len(), limit, intensity }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Group, Unit};

    fn probe<'a>(
        name: &str,
        unit: Unit,
        limit: Option<Limit>,
        sample: impl FnMut() -> f64 + 'a,
    ) -> Probe<'a> {
        let mut sample = sample;
        let sample = Box::new(move || match sample() {
            value if value > 0.0 => Ok(value),
            _ => Err(Error::Usage("it broke".to_owned())),
        });
        Probe { group: Group::Kernels, name: name.to_owned(), unit, limit, intensity: None, sample }
    }

    /// The machine gets slower and slower, and what runs on it too: shares do not change.
    #[test]
    fn shares_are_taken_within_a_round() {
        let (mut speed, mut also) = (200.0, 200.0);
        let peak = probe("peak", Unit::Gflops, None, move || {
            speed /= 2.0;
            speed
        });
        let half = probe("half", Unit::Gflops, Some(Limit::Times("peak".into(), 1.0)), move || {
            also /= 2.0;
            also / 2.0
        });
        let time = probe("time", Unit::Micros, Some(Limit::Over("peak".into(), 100.0)), || 8.0);
        let figures = rounds(vec![peak, half, time], Instant::now(), &mut Vec::new());
        assert_eq!(figures[0].rounds, ROUNDS.0 - 1, "the first round warms up");
        assert_eq!((figures[0].value, figures[0].limit.as_ref()), (25.0, None));
        assert_eq!(figures[1].limit, Some(Bound { of: "peak".into(), value: 25.0, share: 0.5 }));
        assert_eq!(figures[2].limit, Some(Bound { of: "peak".into(), value: 4.0, share: 0.5 }));
    }

    #[test]
    fn a_working_set_comes_from_the_level_that_holds_most_of_it() {
        let mut bench = Bench::new(Duration::from_secs(1)).unwrap();
        bench.machine.caches = vec![1 << 15, 1 << 20];
        let names = [1 << 10, 1 << 16, (1 << 16) + 2, 1 << 21, 1 << 22].map(|set| bench.bandwidth_name(set));
        assert_eq!(names, ["read L1", "read L1", "read L2", "read L2", "read memory, 1 thread"]);
        bench.machine.caches.clear();
        let limit = bench.roofline(&Work { flops: 1, read: 8, set: 8 });
        assert_eq!(limit, Limit::Times(bench.peak_name(1), 1.0));
    }

    #[test]
    fn what_fails_is_left_out_and_the_rest_goes_on() {
        let mut left = 3.0;
        let breaks = probe("breaks", Unit::Gflops, None, move || {
            left -= 1.0;
            left
        });
        let good = probe("good", Unit::Gflops, Some(Limit::Times("breaks".into(), 1.0)), || 1.0);
        let mut left_out = Vec::new();
        let figures = rounds(vec![breaks, good], Instant::now(), &mut left_out);
        assert_eq!(figures.iter().map(|figure| figure.name.as_str()).collect::<Vec<_>>(), ["good"]);
        assert_eq!(left_out, [LeftOut { what: "breaks".into(), why: "it broke".into() }]);
    }
}
