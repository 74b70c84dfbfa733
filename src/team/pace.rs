//! When a team is better off smaller, and when it may grow again.

use super::Member;
use std::time::{Duration, Instant};

/// Time that is lost counts from here on: less than a scheduler lets another process run, more than it takes to serve an interrupt.
pub(super) const LATE: Duration = Duration::from_micros(300);
/// Losing a larger share of the time than one of so many costs more than a second thread gains.
const SHARE_OF_LOST: u32 = 4;
/// By how much what is usual grows with every step, so that it follows what changes slowly.
const GROWTH: f64 = 1.01;
/// The longest sleep of a member that rests: little is lost by looking for a core once a second.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// The leader's clock. It looks at the time between its steps alone, so that a member with more work than the others is not taken for late.
pub struct Pace {
    last: Option<Instant>,
    /// What a step takes when nothing comes between.
    usual: Duration,
    /// Lost since `since`, while that is little.
    lost: Duration,
    /// When what was lost was weighed last, or the team's size changed.
    since: Instant,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { last: None, usual: Duration::MAX, lost: Duration::ZERO, since: Instant::now() }
    }
}

impl Pace {
    /// Plans the step after `step`; see [`Member::plan`]. The leader calls it in every step.
    pub fn plan(&mut self, team: &Member, step: u64) {
        let members = self.members(team.count(), team.may_grow(), team.take_yielded(), Instant::now());
        team.plan(step, members);
    }

    /// The time until the next call is no step.
    pub fn pause(&mut self) {
        self.last = None;
    }

    /// How many of `count` members take the next step, one more of them only if it `may_grow`. In the last one others ran on the
    /// leader's core for a time that it has `yielded`.
    fn members(&mut self, count: usize, may_grow: bool, yielded: Duration, now: Instant) -> usize {
        if let Some(last) = self.last.replace(now) {
            let late = self.late(now - last);
            self.lost += late.max(yielded);
        }
        let mut members = count;
        if self.lost > LATE {
            let is_much = self.lost * SHARE_OF_LOST > now - self.since;
            members -= usize::from(is_much && count > 1);
            (self.since, self.lost) = (now, Duration::ZERO);
        } else if may_grow {
            members += 1;
        }
        if members != count {
            *self = Pace { since: now, ..Pace::default() };
        }
        members
    }

    /// How much longer than usual a step took, if that is much.
    fn late(&mut self, took: Duration) -> Duration {
        if self.usual != Duration::MAX {
            self.usual = self.usual.mul_f64(GROWTH);
        }
        self.usual = self.usual.min(took);
        Some(took - self.usual).filter(|&late| late > LATE).unwrap_or_default()
    }
}

/// How a member rests that is one too many.
#[derive(Clone, Copy)]
pub struct Rest {
    /// How long it sleeps before the team's scout looks for a core.
    pub sleep: Duration,
    /// How long nobody else may want that core. With none it takes any.
    pub look: Duration,
}

impl Rest {
    /// The scout looks for longer than a scheduler lets it run where others want to.
    pub const USUAL: Rest = Rest { sleep: Duration::from_millis(100), look: Duration::from_millis(12) };
    /// It takes any core for its own.
    #[cfg(test)]
    pub const SHORT: Rest = Rest { sleep: Duration::from_micros(10), look: Duration::ZERO };

    /// There was no core: the next sleep is twice as long.
    pub(super) fn lengthen(&mut self) {
        self.sleep = (2 * self.sleep).min(SLEEP_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_micros(70);
    const QUANTUM: Duration = Duration::from_millis(3);

    /// The sizes that are planned for steps of the given lengths, of a team of `count` that never grows, whose leader yields its core in each
    /// step for so long.
    fn sizes(count: usize, yielded: Duration, steps: impl IntoIterator<Item = Duration>) -> Vec<usize> {
        let (mut pace, mut now, mut size) = (Pace::default(), Instant::now(), count);
        let mut plan = |took| {
            now += took;
            size = pace.members(size, false, yielded, now);
            size
        };
        plan(Duration::ZERO);
        steps.into_iter().map(plan).collect()
    }

    #[test]
    fn a_member_that_is_away_half_of_the_time_rests() {
        let away = |steps| std::iter::repeat_n(STEP, steps).chain([QUANTUM]);
        let sizes = sizes(2, Duration::ZERO, away(1000).chain(away(40)));
        assert_eq!(sizes[..1041], [2; 1041], "once is not much");
        assert_eq!(sizes[1041], 1);
    }

    #[test]
    fn of_members_that_share_a_core_one_rests() {
        assert_eq!(sizes(2, STEP / 2, [STEP; 20])[9..], [1; 11]);
        assert_eq!(sizes(2, STEP / 8, [STEP; 2000]), [2; 2000], "a little is borne");
    }

    #[test]
    fn rare_interruptions_and_steps_that_are_long_by_nature_are_borne() {
        let rare = || [STEP; 400].into_iter().chain([QUANTUM]);
        let yielded = Duration::ZERO;
        assert_eq!(sizes(2, yielded, (0..5).flat_map(|_| rare())), [2; 5 * 401]);
        assert_eq!(sizes(3, yielded, [20 * QUANTUM; 50]), [3; 50]);
        assert_eq!(sizes(1, yielded, (0..50).flat_map(|_| [STEP, QUANTUM])), [1; 100]);
    }

    #[test]
    fn who_finds_no_core_sleeps_longer() {
        let mut rest = Rest::USUAL;
        (0..9).for_each(|_| rest.lengthen());
        assert_eq!(rest.sleep, SLEEP_MAX);
    }

    #[test]
    fn who_has_rested_comes_back() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert_eq!(pace.members(1, false, Duration::ZERO, now), 1);
        assert_eq!(pace.members(1, true, Duration::ZERO, now + STEP), 2);
    }
}
