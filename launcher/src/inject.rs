//! Faults that are executed on purpose, at a fixed rank and step: `kill:rank=2,step=100`.

use crate::error::Error;
use std::fmt;
use std::str::FromStr;

/// What happens to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It kills itself with SIGKILL.
    Kill,
    /// It stops itself with SIGSTOP: it is there, but does nothing any more.
    Stop,
    /// It cuts its connection to the driver.
    Drop,
}

/// A fault, executed in the first attempt of a job only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happens.
    pub kind: Kind,
    /// To the process of which rank.
    pub rank: usize,
    /// When the rank has done this many steps.
    pub step: u64,
}

const KINDS: [(&str, Kind); 3] = [("kill", Kind::Kill), ("stop", Kind::Stop), ("drop", Kind::Drop)];

impl FromStr for Fault {
    type Err = Error;

    fn from_str(text: &str) -> Result<Fault, Error> {
        let parse = || {
            let (kind, place) = text.split_once(':')?;
            let (_, kind) = KINDS.into_iter().find(|(name, _)| *name == kind)?;
            let (rank, step) = place.split_once(',')?;
            let rank = rank.strip_prefix("rank=")?.parse().ok()?;
            let step = step.strip_prefix("step=")?.parse().ok()?;
            Some(Fault { kind, rank, step })
        };
        parse().ok_or_else(|| Error::Usage {
            what: format!("`{text}` is no fault"),
            mend: "write kill:rank=2,step=100, or stop or drop in place of kill",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, _) = KINDS.iter().find(|(_, kind)| *kind == self.kind).expect("every kind has a name");
        write!(f, "{name}:rank={},step={}", self.rank, self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_survive_their_text() {
        for text in ["kill:rank=2,step=100", "stop:rank=0,step=1", "drop:rank=31,step=18446744073709551615"] {
            assert_eq!(text.parse::<Fault>().unwrap().to_string(), text);
        }
        for text in
            ["", "kill", "kill:rank=2", "hang:rank=2,step=1", "kill:step=1,rank=2", "kill:rank=-1,step=1"]
        {
            assert!(
                text.parse::<Fault>().unwrap_err().to_string().contains("kill:rank=2,step=100"),
                "{text}"
            );
        }
    }
}
