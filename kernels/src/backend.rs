//! Back ends: what this CPU can run, and the one that the process runs.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use crate::table::{self, Kernels};

/// The environment variable that forces a back end, for tests and comparisons.
const FORCE: &str = "MUSTER_KERNELS";

/// Instruction sets that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// Whatever the build's target has (SSE2, NEON, …), through the crate `wide`.
    Wide,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// The same, and AMX with bf16 for large row-major products and those of bytes.
    Amx,
}

/// Why no table of kernels could be chosen.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The name is none of a back end's.
    #[error("unknown kernels \"{name}\": this CPU has {}", available())]
    Unknown {
        /// The name as it was given.
        name: String,
    },
    /// The back end needs instructions that this CPU or its operating system lacks.
    #[error("kernels \"{backend}\" do not run here: {missing}; this CPU has {}", available())]
    Unsupported {
        /// The back end that was asked for.
        backend: Backend,
        /// What it needs and is not there.
        missing: String,
    },
}

impl Backend {
    /// Every back end, slowest first.
    pub const ALL: [Backend; 4] = [Backend::Wide, Backend::Avx2, Backend::Avx512, Backend::Amx];

    /// The name that `MUSTER_KERNELS` and reports use.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Wide => "wide",
            Backend::Avx2 => "avx2",
            Backend::Avx512 => "avx512",
            Backend::Amx => "amx",
        }
    }

    /// Whether it is taken where nobody asks for it: `amx`, which has an arithmetic of its own, only `for_bytes`, for a training whose first layer of
    /// bytes pays by tiles and whose ranks agree on their kernels.
    pub fn is_automatic(self, for_bytes: bool) -> bool {
        for_bytes || self != Backend::Amx
    }

    /// Whether this CPU, operating system and build can run it.
    pub fn is_available(self) -> bool {
        Kernels::of(self).is_some()
    }

    /// What fixes the bits of a result: `chain-fma`, or `chain-mul-add` where products are rounded on their own. Of `amx` it holds for all but
    /// what is computed by tiles: large products of [`Kernels::matmul`], which a training does not use, and those of [`crate::ByteTiles`].
    pub fn arithmetic(self) -> &'static str {
        let fused = cfg!(any(target_feature = "fma", target_arch = "aarch64"));
        if self == Backend::Wide && !fused { "chain-mul-add" } else { "chain-fma" }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Backend {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let known = Backend::ALL.into_iter().find(|backend| backend.name() == name);
        known.ok_or_else(|| Error::Unknown { name: name.to_owned() })
    }
}

impl Kernels {
    /// The process's kernels, chosen at the first call: the fastest back end that runs here and is [automatic](Backend::is_automatic) for
    /// whatever is computed, or the one that the environment variable `MUSTER_KERNELS` (`wide`, `avx2`, `avx512`, `amx`) names.
    ///
    /// # Errors
    /// If `MUSTER_KERNELS` is no back end's name or names one that this CPU lacks.
    pub fn select() -> Result<&'static Kernels, Error> {
        static SELECTED: OnceLock<Result<&'static Kernels, Error>> = OnceLock::new();
        SELECTED.get_or_init(|| forced(std::env::var_os(FORCE), false)).clone()
    }

    /// The same for a training whose first layer of bytes pays by tiles.
    ///
    /// # Errors
    /// As of [`Kernels::select`].
    pub fn select_for_bytes() -> Result<&'static Kernels, Error> {
        forced(std::env::var_os(FORCE), true)
    }

    /// The kernels of one back end; `None` where it does not run.
    pub fn of(backend: Backend) -> Option<&'static Kernels> {
        table::of(backend).ok()
    }
}

/// The fastest kernels of this machine without tiles, with a model of tiles: for tests of what is built on them. Not among those that are chosen.
/// Their back end is called `amx`, whatever they are made of.
#[doc(hidden)]
pub fn with_modelled_tiles() -> &'static Kernels {
    static MODELLED: OnceLock<Kernels> = OnceLock::new();
    MODELLED.get_or_init(|| table::modelled(best(false).table))
}

/// The fastest kernels that run here and are automatic.
fn best(bytes: bool) -> &'static Kernels {
    let best = Backend::ALL.into_iter().rev().filter(|b| b.is_automatic(bytes)).find_map(Kernels::of);
    best.expect("wide runs everywhere")
}

/// The table that `name` asks for; without one the best.
fn forced(name: Option<std::ffi::OsString>, bytes: bool) -> Result<&'static Kernels, Error> {
    let Some(name) = name else { return Ok(best(bytes)) };
    let backend: Backend = name.to_string_lossy().parse()?;
    table::of(backend).map_err(|missing| Error::Unsupported { backend, missing })
}

/// The names of the back ends that run here, for messages.
fn available() -> String {
    let names: Vec<_> = Backend::ALL.into_iter().filter(|b| b.is_available()).map(Backend::name).collect();
    format!("{} (set {FORCE} to one of them, or unset it for the fastest)", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_carries_the_back_end_it_was_asked_for() {
        for backend in Backend::ALL {
            if let Some(kernels) = Kernels::of(backend) {
                assert_eq!(kernels.backend(), backend);
                assert_eq!(forced(Some(backend.name().into()), true).unwrap().backend(), backend);
            }
        }
        assert!(Backend::Wide.is_available());
    }

    #[test]
    fn the_fastest_available_is_the_default() {
        let mut fastest_first = Backend::ALL.into_iter().rev().filter(|b| b.is_available());
        assert_eq!(forced(None, true).unwrap().backend(), fastest_first.clone().next().unwrap());
        let without_tiles = fastest_first.find(|&b| b != Backend::Amx).unwrap();
        assert_eq!(forced(None, false).unwrap().backend(), without_tiles);
    }

    #[test]
    fn an_unknown_name_is_answered_with_what_this_cpu_has() {
        let message = forced(Some("mmx".into()), false).err().unwrap().to_string();
        assert!(
            message.contains("\"mmx\"") && message.contains("wide") && message.contains(FORCE),
            "{message}"
        );
    }

    #[test]
    fn whoever_forces_what_is_not_there_is_told_what_is_missing() {
        for backend in Backend::ALL.into_iter().filter(|backend| !backend.is_available()) {
            let message = forced(Some(backend.name().into()), false).err().unwrap().to_string();
            let begin = format!("kernels \"{backend}\" do not run here: ");
            let missing = message.strip_prefix(&begin).unwrap_or_else(|| panic!("{message}"));
            assert!(
                ["the CPU", "the operating system", "Linux"].iter().any(|who| missing.starts_with(who)),
                "{message}"
            );
            assert!(missing.contains("; this CPU has wide"), "{message}");
        }
    }
}
