//! What got slower since another report, beyond the noise that both have measured.

use crate::report::{Figure, Report};

/// Changes below this are never marked: a clock that drifts between two runs makes them.
const NOISE_MIN: f64 = 0.02;

/// How a figure has changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// Speed now over speed then: below 1 is slower.
    pub ratio: f64,
    /// What it says.
    pub verdict: Verdict,
}

/// What a change says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Slower beyond the noise.
    Slower,
    /// Faster beyond the noise.
    Faster,
    /// Slower or faster beyond the noise, and so is its limit: the machine has changed, or who else uses it.
    WithLimit,
    /// Within the noise.
    Same,
    /// Another machine or build: nothing follows from it.
    Elsewhere,
}

/// A report beside an older one.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// How machine and build differ, a clause each; then nothing is marked.
    pub differences: Vec<String>,
    /// For each figure of the newer report how it has changed; none where the older one lacks it.
    pub changes: Vec<Option<Change>>,
    /// Names of figures that only the older report has.
    pub gone: Vec<String>,
}

impl Comparison {
    /// Compares `new` with `old`.
    pub fn of(new: &Report, old: &Report) -> Comparison {
        let mut differences = new.machine.differences(&old.machine);
        if new.build != old.build {
            differences.push(format!("build {} instead of {}", old.build, new.build));
        }
        if new.ranks != old.ranks {
            differences.push(format!("ranks {} instead of {}", old.ranks, new.ranks));
        }
        let change = |figure: &Figure| {
            let old = old.figure(&figure.name).filter(|old| old.unit == figure.unit)?;
            let change = change(figure, old);
            Some(if differences.is_empty() {
                change
            } else {
                Change { verdict: Verdict::Elsewhere, ..change }
            })
        };
        let changes = new.figures.iter().map(change).collect();
        let gone = old.figures.iter().filter(|old| new.figure(&old.name).is_none());
        let gone = gone.map(|figure| figure.name.clone()).collect();
        Comparison { differences, changes, gone }
    }

    /// How many figures have this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.changes.iter().flatten().filter(|change| change.verdict == verdict).count()
    }
}

/// Two medians differ beyond the noise if they do by more than both distances of quartiles together. A median of seven rounds varies by
/// a third of that distance, so that chance alone hardly ever marks one of fifty figures. Where there is a limit, its share must
/// differ, too: what keeps its share goes with the machine.
fn change(new: &Figure, old: &Figure) -> Change {
    let ratio = if new.unit.is_rate() { new.value / old.value } else { old.value / new.value };
    let noise = (new.spread() + old.spread()).max(NOISE_MIN);
    // The same distance in both directions: half as fast is as far as twice as fast.
    let verdict_of = |ratio: f64| match ratio {
        _ if ratio < 1.0 / (1.0 + noise) => Verdict::Slower,
        _ if ratio > 1.0 + noise => Verdict::Faster,
        _ => Verdict::Same,
    };
    let share = new.limit.as_ref().zip(old.limit.as_ref()).map(|(new, old)| new.share / old.share);
    let verdict = match verdict_of(ratio) {
        verdict @ (Verdict::Slower | Verdict::Faster)
            if share.is_some_and(|share| verdict_of(share) != verdict) =>
        {
            Verdict::WithLimit
        }
        verdict => verdict,
    };
    Change { ratio, verdict }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    /// The report, with figure `at` scaled, and its share of an unchanged limit.
    fn scaled(at: usize, by: f64) -> Report {
        let mut report = report();
        let figure = &mut report.figures[at];
        (figure.low, figure.value, figure.high) = (figure.low * by, figure.value * by, figure.high * by);
        figure.limit.iter_mut().for_each(|limit| limit.share *= by);
        report
    }

    fn verdicts(new: &Report, old: &Report) -> Vec<Verdict> {
        Comparison::of(new, old).changes.into_iter().map(|change| change.unwrap().verdict).collect()
    }

    #[test]
    fn only_what_is_beyond_the_noise_is_marked() {
        use Verdict::{Faster, Same, Slower};
        // Quartiles are 2 % apart in each report, so 4 % is noise.
        assert_eq!(verdicts(&report(), &report()), [Same; 4]);
        assert_eq!(verdicts(&scaled(2, 0.97), &report()), [Same; 4]);
        assert_eq!(verdicts(&scaled(2, 0.95), &report()), [Same, Same, Slower, Same]);
        assert_eq!(verdicts(&scaled(2, 1.05), &report()), [Same, Same, Faster, Same]);
    }

    #[test]
    fn more_time_is_slower() {
        let comparison = Comparison::of(&scaled(3, 2.0), &report());
        assert_eq!(comparison.changes[3], Some(Change { ratio: 0.5, verdict: Verdict::Slower }));
        assert_eq!(comparison.count(Verdict::Slower), 1);
    }

    #[test]
    fn a_wide_spread_excuses_and_no_spread_at_all_does_not_blame_trifles() {
        let (mut wide, mut still) = (scaled(2, 0.8), [report(), scaled(2, 0.99)]);
        wide.figures[2].low *= 0.7;
        assert_eq!(verdicts(&wide, &report())[2], Verdict::Same);
        for report in &mut still {
            let figure = &mut report.figures[2];
            (figure.low, figure.high) = (figure.value, figure.value);
        }
        assert_eq!(verdicts(&still[1], &still[0])[2], Verdict::Same);
    }

    #[test]
    fn what_keeps_its_share_of_a_slower_machine_is_not_blamed() {
        let mut busy = scaled(2, 0.5);
        busy.figures[2].limit = report().figures[2].limit.clone();
        assert_eq!(verdicts(&busy, &report())[2], Verdict::WithLimit);
        assert_eq!(verdicts(&report(), &busy)[2], Verdict::WithLimit);
    }

    #[test]
    fn another_machine_or_build_is_told_and_nothing_is_marked() {
        let mut other = scaled(2, 3.0);
        other.machine.cores = 64;
        other.build = "dev".into();
        let comparison = Comparison::of(&report(), &other);
        assert_eq!(comparison.differences, ["cores 64 instead of 2", "build dev instead of release"]);
        assert_eq!(comparison.count(Verdict::Elsewhere), 4);
        assert!((comparison.changes[2].unwrap().ratio - 1.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn figures_that_one_side_lacks_are_told() {
        let (mut new, mut old) = (report(), report());
        new.figures.remove(0);
        old.figures.remove(2);
        let comparison = Comparison::of(&new, &old);
        assert_eq!(comparison.gone, ["FMA avx2"]);
        assert!(comparison.changes[0].is_some() && comparison.changes[1].is_none());
    }
}
