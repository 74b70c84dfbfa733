//! The target that `MUSTER_FUZZ` names, under libFuzzer: `MUSTER_FUZZ=csv2 cargo fuzz run --features libfuzzer -s none any CORPUS`.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use muster_fuzz::{Target, targets};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("MUSTER_FUZZ").unwrap_or_default();
    let found = targets().into_iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("MUSTER_FUZZ is {name:?}, which is no target; `seeds` lists them"))
});

fuzz_target!(|data: &[u8]| (TARGET.run)(data));
