//! The back ends that the other tests run on are those that this machine has, found without the crate's own help.

use muster_kernels::{Backend, Kernels};

/// The names of the back ends that must run here, with blanks between them. An emulated CPU is not in `/proc/cpuinfo`.
const EXPECTED: &str = "MUSTER_TEST_BACKENDS";

/// What `/proc/cpuinfo` promises; none on a machine without it.
fn of_cpuinfo() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok().filter(|_| cfg!(target_arch = "x86_64"))?;
    let flags: Vec<&str> = text.lines().find(|line| line.starts_with("flags"))?.split_whitespace().collect();
    let has = |wanted: &[&str]| wanted.iter().all(|flag| flags.contains(flag));
    let avx2 = has(&["avx2", "fma", "bmi1", "bmi2"]);
    let avx512 = avx2 && has(&["avx512f", "avx512bw", "avx512dq", "avx512vl"]);
    let amx = avx512 && has(&["amx_tile", "amx_bf16"]);
    let present = [("wide", true), ("avx2", avx2), ("avx512", avx512), ("amx", amx)];
    let names: Vec<&str> =
        present.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name).collect();
    Some(names.join(" "))
}

#[test]
fn the_back_ends_that_this_machine_has_run_and_no_others() {
    let Some(expected) = std::env::var(EXPECTED).ok().or_else(of_cpuinfo) else { return };
    let expected: Vec<&str> = expected.split_whitespace().collect();
    let all = Backend::ALL.into_iter();
    let found: Vec<&str> = all.filter(|backend| backend.is_available()).map(Backend::name).collect();
    assert_eq!(found, expected);
    for name in found {
        let backend: Backend = name.parse().unwrap();
        assert_eq!(Kernels::of(backend).map(Kernels::backend), Some(backend), "the table that runs");
    }
    if std::env::var_os("MUSTER_KERNELS").is_none() {
        let automatic = expected.into_iter().rfind(|&name| name != "amx");
        assert_eq!(Some(Kernels::select().unwrap().backend().name()), automatic);
    }
}
