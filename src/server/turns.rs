//! Who computes the next step: all ranks, or rank 0 by itself, where what passes between the ranks takes longer than what they spare it.
//!
//! It changes no bit. Steps are timed as they are taken, by all ranks at first; now and then the other way is tried for a few steps, the
//! more seldom the longer the answer has been the same, and rank 0 by itself only where its share of a step lets it hope to win.

use crate::cluster::Computing;
use std::time::{Duration, Instant};

/// Who computes a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Turn {
    /// All ranks, each its share.
    #[default]
    All,
    /// Rank 0, all of it.
    Alone,
}

/// Steps of a trial that are timed, after some that are not: caches have to follow.
const TIMED: usize = 16;
const UNTIMED: usize = 4;
/// Steps from one trial to the next one, the first time and at most. The first ones are hardly more than are timed: over TCP 600 steps of 784-128-10 take
/// a fifth less time than with 64.
const INTERVAL: u64 = 24;
const INTERVAL_MAX: u64 = 16_384;
/// Seconds from one trial to the next one at most, but for the first ones.
const INTERVAL_SECONDS: f64 = 600.0;
/// How many times as many they become each time, and where the answer was clear.
const GROWTH: u64 = 2;
const GROWTH_IF_CLEAR: u64 = 4;
/// A way that takes less than this share of the other's time is taken instead.
const BETTER: f64 = 0.97;
/// A trial ends early when its steps take so many times what those of the present way take; or when the first ones, untimed, take so many times that.
const HOPELESS: f64 = 1.5;
const HOPELESS_AT_ONCE: f64 = 3.0;
const FIRST: usize = 2;
/// A way that takes less than this share of the other's time is clearly better: so many timed steps tell it, and the first trial comes early.
const CLEARLY: f64 = 0.5;
const ENOUGH: usize = 4;
/// A step of rank 0 alone takes this share of what its own share would let one expect at the least: the fewer rows, the more each takes.
const OPTIMISM: f64 = 0.7;

/// The leader's account of the two ways.
pub struct Turns {
    computing: Computing,
    /// A worker that says nothing for so long is stuck.
    limit: Duration,
    /// Steps so far.
    taken: u64,
    present: Turn,
    /// The last steps, in seconds, of the way that is being taken; `begun` of them altogether.
    steps: [f64; TIMED],
    begun: usize,
    /// Whether this is a trial of the other way than `present`, whose steps took so long.
    trial: Option<f64>,
    /// Steps until the next trial, and what that counts from.
    left: u64,
    interval: u64,
    last: Option<Instant>,
    /// When the workers last had a step, or were last to get one.
    heard: Instant,
}

impl Turns {
    /// As `computing` has it; no worker waits for much longer than `limit` for a step.
    pub fn new(computing: Computing, limit: Duration) -> Turns {
        Turns {
            computing,
            limit,
            taken: 0,
            present: Turn::All,
            steps: [0.0; TIMED],
            begun: 0,
            trial: None,
            left: INTERVAL,
            interval: INTERVAL,
            last: None,
            heard: Instant::now(),
        }
    }

    /// Who computes the step after the one that is over `now`. Of that rank 0 took `own` to compute its share, `share` of the batch, where all
    /// ranks computed it.
    pub fn next(&mut self, now: Instant, own: Option<(Duration, f64)>) -> Turn {
        let took = self.last.replace(now).map(|last| (now - last).as_secs_f64());
        self.taken += 1;
        if self.now() == Turn::All {
            self.heard = now;
        } else if now - self.heard > self.limit {
            // Whether they are still there shows when they are asked.
            (self.heard, self.left) = (now, self.left.min(1));
        }
        match self.computing {
            Computing::Auto => self.decide(took, own.map(|(took, share)| self.expected(took, share))),
            Computing::InTurns(steps) if self.taken / steps.max(1) % 2 == 1 => Turn::Alone,
            Computing::InTurns(_) | Computing::All => Turn::All,
        }
    }

    /// Seconds that rank 0 may need for a step of which a share took it so long. Too long a step is none to try: the workers hear nothing
    /// meanwhile.
    fn expected(&self, took: Duration, share: f64) -> f64 {
        let seconds = took.as_secs_f64() / share;
        if seconds < 0.5 * self.limit.as_secs_f64() { seconds } else { f64::INFINITY }
    }

    /// The time until the next call is no step.
    pub fn pause(&mut self) {
        self.last = None;
    }

    /// The same of a step that `took` so many seconds, where rank 0 may need `expected` for all of it.
    fn decide(&mut self, took: Option<f64>, expected: Option<f64>) -> Turn {
        if let Some(took) = took {
            self.steps[self.begun % TIMED] = took;
            self.begun += 1;
        }
        let timed = self.begun.saturating_sub(UNTIMED);
        match self.trial {
            None => {
                self.left = self.left.saturating_sub(1);
                let is_clear = |usual: f64| expected.is_some_and(|expected| expected < CLEARLY * usual);
                if self.interval == INTERVAL && timed == ENOUGH && is_clear(self.least(timed)) {
                    (self.trial, self.begun) = (Some(self.least(timed)), 0);
                } else if self.left == 0 && timed >= TIMED {
                    let usual = self.median();
                    let has_hope = expected.is_none_or(|expected| OPTIMISM * expected < usual);
                    if has_hope {
                        (self.trial, self.begun) = (Some(usual), 0);
                    } else {
                        self.keep(GROWTH, usual);
                    }
                }
            }
            Some(usual) => {
                let is_hopeless = match timed {
                    0 => self.begun >= FIRST && self.least(self.begun) > HOPELESS_AT_ONCE * usual,
                    ENOUGH..TIMED => self.least(timed) > HOPELESS * usual,
                    _ => false,
                };
                if is_hopeless {
                    self.keep(GROWTH, usual);
                } else if timed >= TIMED {
                    let took = self.median();
                    if took < BETTER * usual {
                        self.present = self.now();
                        self.interval = INTERVAL;
                    }
                    self.keep(if took < CLEARLY * usual { GROWTH_IF_CLEAR } else { GROWTH }, took.min(usual));
                }
            }
        }
        self.now()
    }

    /// Whose turn it is.
    fn now(&self) -> Turn {
        match (self.present, self.trial) {
            (Turn::All, None) | (Turn::Alone, Some(_)) => Turn::All,
            (Turn::Alone, None) | (Turn::All, Some(_)) => Turn::Alone,
        }
    }

    /// Goes on in the present way, whose steps take so many seconds, for so many times as long as before.
    fn keep(&mut self, growth: u64, step: f64) {
        self.trial = None;
        self.begun = 0;
        let most = ((INTERVAL_SECONDS / step) as u64).clamp(INTERVAL, INTERVAL_MAX);
        self.interval = (growth * self.interval).min(most);
        self.left = self.interval;
    }

    fn median(&self) -> f64 {
        let mut steps = self.steps;
        steps.sort_unstable_by(f64::total_cmp);
        steps[TIMED / 2]
    }

    /// The least of the last `timed` steps.
    fn least(&self, timed: usize) -> f64 {
        let last = (self.begun - timed..self.begun).map(|step| self.steps[step % TIMED]);
        last.fold(f64::INFINITY, f64::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns() -> Turns {
        Turns::new(Computing::Auto, Duration::from_secs(60))
    }

    /// Seconds that `steps` steps take where each takes `all` or `alone`, and how many of them rank 0 computed by itself.
    fn train(turns: &mut Turns, steps: usize, (all, alone): (f64, f64), expected: f64) -> (f64, usize) {
        let (mut by_itself, mut seconds) = (0, 0.0);
        for _ in 0..steps {
            let is_alone = turns.now() == Turn::Alone;
            let (took, expected) = if is_alone { (alone, None) } else { (all, Some(expected)) };
            seconds += took;
            by_itself += usize::from(is_alone);
            turns.decide(Some(took), expected);
        }
        (seconds, by_itself)
    }

    #[test]
    fn the_faster_way_is_found_and_little_is_lost_by_looking() {
        for (all, alone) in [(0.01, 0.005), (0.01, 0.03), (0.01, 0.012), (0.01, 0.009)] {
            let mut turns = turns();
            let (seconds, _) = train(&mut turns, 20_000, (all, alone), 0.01);
            assert!(seconds < 20_000.0 * f64::min(all, alone) * 1.02 + 1.0, "{all} {alone}: {seconds}");
        }
    }

    #[test]
    fn it_follows_what_changes() {
        let mut turns = turns();
        train(&mut turns, 5_000, (1.0, 0.5), 1.0);
        assert_eq!(turns.present, Turn::Alone);
        train(&mut turns, 20_000, (0.3, 0.5), 1.0);
        assert_eq!(turns.present, Turn::All);
    }

    #[test]
    fn where_there_is_no_hope_nothing_is_tried() {
        let mut turns = turns();
        assert_eq!(train(&mut turns, 50_000, (1.0, 8.0), 8.0).1, 0);
    }

    #[test]
    fn one_slow_step_decides_nothing() {
        let mut turns = turns();
        for step in 0..5_000 {
            let took = if step % 7 == 0 { 20.0 } else { 1.0 };
            turns.decide(Some(if turns.now() == Turn::All { took } else { 1.2 * took }), Some(1.0));
        }
        assert_eq!(turns.present, Turn::All);
    }

    #[test]
    fn workers_are_asked_whether_they_are_still_there() {
        let mut turns = turns();
        train(&mut turns, 5_000, (1.0, 0.5), 1.0);
        let begin = turns.heard;
        let asked = (0..1_000).find(|&second| {
            turns.next(begin + Duration::from_secs(second), None);
            turns.now() == Turn::All
        });
        assert!(asked.is_some_and(|second| (60..100).contains(&second)), "{asked:?}");
    }

    #[test]
    fn a_step_that_takes_long_is_not_tried() {
        let turns = turns();
        assert_eq!(turns.expected(Duration::from_secs(1), 0.5), 2.0);
        assert_eq!(turns.expected(Duration::from_secs(16), 0.5), f64::INFINITY);
    }

    #[test]
    fn where_rank_0_is_clearly_faster_it_is_alone_after_a_few_steps_and_stays_so() {
        let mut turns = turns();
        let (seconds, by_itself) = train(&mut turns, 600, (4.0, 1.0), 1.2);
        assert!(by_itself > 580 && seconds < 600.0 * 1.1, "{by_itself} by itself, {seconds}");
    }

    #[test]
    fn a_hope_that_was_wrong_is_tried_seldom() {
        let mut turns = turns();
        let (seconds, by_itself) = train(&mut turns, 5_000, (0.01, 0.012), 0.004);
        assert!((1..200).contains(&by_itself) && seconds < 50.5, "{by_itself} by itself, {seconds}");
    }

    #[test]
    fn long_steps_are_tried_every_ten_minutes() {
        let mut turns = turns();
        train(&mut turns, 20_000, (1.0, 1.2), 1.0);
        assert_eq!(turns.present, Turn::All);
        train(&mut turns, 700, (1.0, 0.5), 1.0);
        assert_eq!(turns.present, Turn::Alone);
    }

    #[test]
    fn short_jobs_are_computed_by_all() {
        let mut turns = turns();
        assert_eq!(train(&mut turns, 20, (1.0, 0.6), 0.6).1, 0);
    }
}
