//! When a team is better off smaller.

use super::Member;
use std::time::{Duration, Instant};

/// A step that takes so much longer than usual is late: less than a scheduler lets another process run, more than it takes to serve an
/// interrupt.
const LATE: Duration = Duration::from_micros(300);
/// Late steps that take a larger share of the time than one of so many cost more than a second thread gains.
const SHARE_OF_LATE: u32 = 4;
/// How long a member rests, as a multiple of what was lost: then the next try costs about a thirtieth of the time at most.
const REST: u32 = 32;
/// The longest rest.
const REST_MAX: Duration = Duration::from_secs(1);
/// By how much what is usual grows with every step, so that it follows what changes slowly.
const GROWTH: f64 = 1.01;

/// The leader's clock. It looks at the time between its steps alone, so that a member with more work than the others is not taken for late.
pub struct Pace {
    last: Option<Instant>,
    /// What a step takes when nothing comes between.
    usual: Duration,
    /// When the last late step ended, or the team's size changed.
    since: Instant,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { last: None, usual: Duration::MAX, since: Instant::now() }
    }
}

impl Pace {
    /// Plans the step after `step`; see [`Member::plan`]. The leader calls it in every step.
    pub fn plan(&mut self, team: &Member, step: u64) {
        let (members, rest) = self.members(team.count(), team.may_grow(), Instant::now());
        team.plan(step, members, rest);
    }

    /// The time until the next call is no step.
    pub fn pause(&mut self) {
        self.last = None;
    }

    /// How many of `count` members take the next step, one more of them only if it `may_grow`, and how long another one rests.
    fn members(&mut self, count: usize, may_grow: bool, now: Instant) -> (usize, Duration) {
        let lost = match self.last.replace(now) {
            Some(last) => self.lost(now - last),
            None => Duration::ZERO,
        };
        let mut members = count;
        if lost > LATE {
            let is_much = lost * SHARE_OF_LATE > now - self.since;
            members -= usize::from(is_much && count > 1);
            self.since = now;
        } else if may_grow {
            members += 1;
        }
        if members != count {
            *self = Pace { since: now, ..Pace::default() };
        }
        (members, (lost * REST).min(REST_MAX))
    }

    /// How much longer than usual a step took.
    fn lost(&mut self, took: Duration) -> Duration {
        if self.usual != Duration::MAX {
            self.usual = self.usual.mul_f64(GROWTH);
        }
        self.usual = self.usual.min(took);
        took - self.usual
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_micros(70);
    const QUANTUM: Duration = Duration::from_millis(3);

    /// The sizes that are planned for steps of the given lengths, of a team of `count` that never grows.
    fn sizes(count: usize, steps: impl IntoIterator<Item = Duration>) -> Vec<usize> {
        let (mut pace, mut now, mut size) = (Pace::default(), Instant::now(), count);
        let mut plan = |took| {
            now += took;
            size = pace.members(size, false, now).0;
            size
        };
        plan(Duration::ZERO);
        steps.into_iter().map(plan).collect()
    }

    #[test]
    fn a_member_that_is_away_half_of_the_time_rests() {
        let away = |steps| std::iter::repeat_n(STEP, steps).chain([QUANTUM]);
        let sizes = sizes(2, away(1000).chain(away(40)));
        assert_eq!(sizes[..1041], [2; 1041], "once is not much");
        assert_eq!(sizes[1041], 1);
    }

    #[test]
    fn rare_interruptions_and_steps_that_are_long_by_nature_are_borne() {
        let rare = || [STEP; 400].into_iter().chain([QUANTUM]);
        assert_eq!(sizes(2, (0..5).flat_map(|_| rare())), [2; 5 * 401]);
        assert_eq!(sizes(3, [20 * QUANTUM; 50]), [3; 50]);
        assert_eq!(sizes(1, (0..50).flat_map(|_| [STEP, QUANTUM])), [1; 100]);
    }

    #[test]
    fn who_has_rested_comes_back() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert_eq!(pace.members(1, false, now).0, 1);
        assert_eq!(pace.members(1, true, now + STEP).0, 2);
    }
}
