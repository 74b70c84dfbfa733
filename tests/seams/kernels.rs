//! `MUSTER_KERNELS` chooses the kernels; AVX2 and AVX-512 round alike.

use muster_tests::machine::absent;
use muster_tests::program::{Sandbox, run};
use serde_json::Value;

/// The report of a training with the kernels of this name; none where this CPU lacks them.
fn report(sandbox: &Sandbox, name: &str, options: &str) -> Option<Value> {
    let arguments = format!("train --data data --no-resume -e 2 -m {name} --report {name}.json {options}");
    let outcome = run(sandbox.mnist(&arguments).env("MUSTER_KERNELS", name));
    if outcome.stderr.contains("do not run here") {
        assert_ne!(name, "wide", "{outcome:?}");
        outcome.refuses(&[name, "MUSTER_KERNELS"]);
        absent(&format!("kernels {name}"));
        return None;
    }
    outcome.succeeds();
    let report = sandbox.json(&format!("{name}.json"));
    assert_eq!(report["kernels"]["back_end"], name);
    Some(report)
}

#[test]
fn avx2_and_avx512_give_the_same_bits() {
    let sandbox = Sandbox::new();
    for options in ["--hidden 100,50", "--hidden none --optimizer adam", "--hidden 128 -n 3"] {
        let (avx2, avx512) = (report(&sandbox, "avx2", options), report(&sandbox, "avx512", options));
        if let (Some(avx2), Some(avx512)) = (avx2, avx512) {
            assert_eq!(avx2["weights_sha256"], avx512["weights_sha256"], "{options}");
        }
    }
}

#[test]
fn portable_kernels_learn_as_well() {
    let sandbox = Sandbox::new();
    let wide = report(&sandbox, "wide", "--hidden 64 -e 8").unwrap();
    assert!(wide["test_accuracy"].as_f64().unwrap() > 0.9, "{wide}");
}

#[test]
fn an_unknown_name_is_refused() {
    let sandbox = Sandbox::new();
    run(sandbox.mnist("train --data data").env("MUSTER_KERNELS", "mmx")).refuses(&[
        "mmx",
        "wide",
        "MUSTER_KERNELS",
    ]);
}

#[test]
fn another_arithmetic_warns_and_is_an_error_on_request() {
    let sandbox = Sandbox::new();
    let fast = sandbox.report("--hidden 32 -s 3");
    let other = |options: &str| {
        run(sandbox.mnist(&format!("train --data data --hidden 32 {options}")).env("MUSTER_KERNELS", "wide"))
    };
    if fast["kernels"]["arithmetic"] == "chain-mul-add" {
        absent("kernels of two arithmetics");
        return;
    }
    other("-s 5 --require-same-bits").refuses(&["chain-fma", "chain-mul-add", "MUSTER_KERNELS"]);
    let outcome = other("-s 5").succeeds();
    assert!(outcome.stderr.contains("warning") && outcome.stderr.contains("chain-fma"), "{outcome:?}");
}
