//! Ranks under mpirun under the launcher: each of them says how far it is, may be lost, and is fed.

use crate::namespaces::Nodes;
use crate::{Mpi, mpi};
use muster_tests::digits::Noise;
use muster_tests::program::{Outcome, eventually, kill_rounds, launcher, run, start};
use std::process::Command;
use std::time::Duration;

/// `muster run --engine mpirun -n 3 LAUNCH -- PROGRAM ARGUMENTS`, in the sandbox.
fn muster(mpi: &Mpi, launch: &str, program: &std::path::Path, arguments: &str) -> Command {
    limited(mpi, "--kill-after 5 100", launch, program, arguments)
}

/// The same with the options of `timeout`.
fn limited(mpi: &Mpi, limit: &str, launch: &str, program: &std::path::Path, arguments: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(limit.split_whitespace()).arg(launcher());
    command.args(["run", "--engine", "mpirun", "-n", "3"]).args(launch.split_whitespace()).arg("--");
    command.arg(program).args(arguments.split_whitespace()).current_dir(mpi.sandbox.path("."));
    at_home(mpi, &mut command);
    command
}

/// Sets what `muster run` finds its engine by, and where it leaves its job's file.
fn at_home(mpi: &Mpi, command: &mut Command) {
    let mpirun = match mpi.kind.as_str() {
        "openmpi" => "mpirun.openmpi",
        "openmpi5" => "mpirun",
        _ => "mpiexec.mpich",
    };
    command.env("MUSTER_MPIRUN", mpirun).env("XDG_RUNTIME_DIR", mpi.sandbox.path("."));
    command.env("TMPDIR", mpi.sandbox.path("."));
    command.env_remove("MUSTER_KERNELS");
}

/// A training without end on three ranks, of which the last is on the second node. All its processes show `mark`.
fn endless(mpi: &Mpi, nodes: &Nodes, launch: &str, mark: &str) -> Command {
    let (mut command, hosts) = nodes.enter();
    command.arg(launcher()).args(["run", "-n", "3", "--heartbeat-timeout", "2", "--hosts", &hosts]);
    command.args(launch.split_whitespace()).arg("--").arg(&mpi.mnist).args(["train", "-m", mark]);
    command.args("--hidden 32 -e 1000000 --threads 1 --data data --no-resume".split_whitespace());
    at_home(mpi, &mut command);
    command
}

const RECIPE: &str = "--hidden 32 -b 30 --micro-batch 8 -e 20 --threads 1";

fn train(mpi: &Mpi, launch: &str, arguments: &str) -> Outcome {
    let arguments = format!("train {RECIPE} --report r {arguments}");
    let outcome = run(&mut muster(mpi, launch, &mpi.mnist, &arguments)).succeeds();
    assert_eq!(
        outcome.stdout.matches("===== Start").count(),
        1 + outcome.stderr.matches("restarting").count()
    );
    outcome
}

fn hash(mpi: &Mpi) -> String {
    mpi.sandbox.json("r")["weights_sha256"].as_str().unwrap().to_owned()
}

#[test]
fn a_kill_of_any_rank_at_any_step_changes_no_bit() {
    let Some(mpi) = mpi() else { return };
    let expected = mpi.alone(&format!("{RECIPE} -n 1 --no-resume"))["weights_sha256"].clone();
    let mut noise = Noise::new(11);
    for round in 0..kill_rounds() {
        let (rank, step) = (round % 3, 1 + noise.below(219));
        let launch = format!("--max-restarts 1 --inject kill:rank={rank},step={step}");
        let model = format!("killed-{round}");
        let outcome = train(&mpi, &launch, &format!("--data data -m {model} --checkpoint-secs 0.02"));
        let restart = outcome.stderr.lines().find(|line| line.contains("restarting: "));
        assert!(restart.is_some_and(|line| line.contains(&format!("rank {rank} "))), "{launch}: {outcome:?}");
        assert_eq!(expected, hash(&mpi), "{launch}");
        std::fs::remove_dir_all(mpi.sandbox.path(&model)).unwrap();
    }
}

/// A rank that evaluates is one more process, and changes no bit; not even when it is killed.
#[test]
fn an_evaluator_has_a_rank_of_its_own_and_may_be_lost() {
    let Some(mpi) = mpi() else { return };
    let expected = mpi.alone(&format!("{RECIPE} -n 1 --no-resume"))["weights_sha256"].clone();
    let options = "--evaluator --log-dir logs --max-restarts 1 --inject kill:rank=2,step=1";
    let outcome = train(&mpi, options, "--data data -m evaluated --keep 1000 --checkpoint-secs 0.02");
    assert_eq!(expected, hash(&mpi), "{outcome:?}");
    let restart = outcome.stderr.lines().find(|line| line.contains("restarting: "));
    assert!(restart.is_some_and(|line| line.contains("rank 2 ")), "{outcome:?}");
    assert!(outcome.stderr.contains("1 ps, 1 workers, 1 evaluator"), "{outcome:?}");
    let place = |part: &str| outcome.stderr.find(part).unwrap_or_else(|| panic!("no {part}: {outcome:?}"));
    let turns = ["worker released", "evaluator released", "ps released", "shut down"].map(place);
    assert!(turns.is_sorted(), "{outcome:?}");
    assert!(outcome.stdout.lines().any(|line| line.starts_with("[2] evaluator: step ")), "{outcome:?}");
    let lines = std::fs::read_to_string(mpi.sandbox.path("logs/evaluations.jsonl")).unwrap();
    let steps: Vec<u64> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, mpi.sandbox.checkpoints("evaluated"), "each of them, and each once");
    let alone = run(mpi.launcher(&mpi.kind).args(["-n", "2"]).arg(&mpi.mnist).args([
        "train",
        "--data",
        "data",
        "--evaluator",
    ]));
    assert!(crate::said(&alone, &["--evaluator needs somebody", "muster run --evaluator"]), "{alone:?}");
}

/// Two namespaces are two hosts; the cable between them is cut.
#[test]
fn a_host_that_is_cut_off_ends_the_job_on_both_sides() {
    let Some(mpi) = mpi() else { return };
    let Some(nodes) = Nodes::new(&mpi) else { return };
    let mark = format!("cut-{}", std::process::id());
    let mut job = start(&mut endless(&mpi, &nodes, "", &mark));
    job.says("plan:");
    nodes.cut();
    let outcome = job.ends();
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    let last = outcome.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("muster: rank 2 on muster-") && last.contains("for 2 s"), "{outcome:?}");
    eventually("the end of both sides", || !is_alive(&mark));
}

/// The driver, its guard, the engine and the ranks beside them are killed at once; nobody is left who could end the others. Whatever
/// these are doing: being started, in MPI's first calls, registering, training.
#[test]
fn ranks_of_other_hosts_end_when_that_of_the_driver_is_gone() {
    let Some(mpi) = mpi() else { return };
    let Some(nodes) = Nodes::new(&mpi) else { return };
    for turn in 0..10 {
        let mark = format!("hostless-{}-{turn};", std::process::id());
        let mut job = start(&mut endless(&mpi, &nodes, "", &mark));
        std::thread::sleep(Duration::from_millis(50 + 150 * turn));
        if turn == 9 {
            job.says("plan:");
        }
        nodes.kill_first();
        eventually("the end of the other side", || !is_alive(&mark));
    }
}

/// Whether a process has this in its arguments or its environment.
fn is_alive(mark: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let files = processes.flat_map(|entry| ["cmdline", "environ"].map(|name| entry.path().join(name)));
    let mut texts = files.filter_map(|file| std::fs::read(file).ok());
    texts.any(|text| text.windows(mark.len()).any(|part| part == mark.as_bytes()))
}

/// Whatever it is that the ranks are doing: being started, in MPI's first calls, registering, training.
#[test]
fn nothing_outlives_a_driver_that_is_killed_at_any_moment() {
    let Some(mpi) = mpi() else { return };
    for turn in 0..12 {
        // Inherited by everything that is started, by whomever.
        let mark = format!("orphaned-{}-{turn};", std::process::id());
        let limit = format!("--foreground --signal KILL {}", 0.01 + 0.06 * f64::from(turn));
        let options = "train --steps 100000000 --data data -m orphaned --no-resume --threads 1";
        let outcome = run(limited(&mpi, &limit, "", &mpi.mnist, options).env("STARTED_AS", &mark));
        assert!(!outcome.status.success(), "{outcome:?}");
        eventually("the end of all that it has begun", || !is_alive(&mark));
    }
}

#[test]
fn fed_ranks_have_the_same_weights_and_predictions() {
    let Some(mpi) = mpi() else { return };
    let expected = mpi.alone(&format!("{RECIPE} -n 1 --no-resume"))["weights_sha256"].clone();
    run(&mut mpi.sandbox.mnist("prepare --data data -f csv2 -n 4 --output parts")).succeeds();
    let fed = "--feed --max-restarts 1 --inject kill:rank=2,step=77";
    let outcome = train(&mpi, fed, "-f csv2 --images parts/train -m fed --checkpoint-secs 0.02");
    assert_eq!(expected, hash(&mpi), "{outcome:?}");
    assert!(outcome.stderr.contains("muster: fed "), "{outcome:?}");
    let options = "inference -f csv2 --images parts/test -m fed";
    run(&mut mpi.sandbox.mnist(&format!("{options} -o direct"))).succeeds();
    run(&mut muster(&mpi, "--feed", &mpi.mnist, &format!("{options} -o fed-ranks"))).succeeds();
    let lines = |directory: &str| {
        let files = mpi.sandbox.files(directory);
        let text = files.values().map(|bytes| String::from_utf8(bytes.clone()).unwrap()).collect::<String>();
        text.replace("Label: ", "").replace(", Prediction:", "")
    };
    assert_eq!(lines("fed-ranks"), lines("direct"));
}

/// MPICH's launcher kills the others at once, and the connection of one of those may close first.
#[test]
fn a_rank_that_is_killed_from_outside_is_the_one_that_is_named() {
    let Some(mpi) = mpi() else { return };
    for rank in [1, 2] {
        let options = format!("train --steps 100000000 --data data -m outside-{rank} --checkpoint-secs 0.1");
        let mut running = start(&mut muster(&mpi, "", &mpi.mnist, &options));
        eventually("a checkpoint", || !mpi.sandbox.checkpoints(&format!("outside-{rank}")).is_empty());
        mpi.signal("KILL", &mpi.process(rank));
        let outcome = running.ends();
        let last = outcome.stderr.lines().last().unwrap_or_default();
        assert!(last.starts_with(&format!("muster: rank {rank} on")), "rank {rank}: {outcome:?}");
    }
}

#[test]
fn a_stopped_rank_is_found_by_its_silence() {
    let Some(mpi) = mpi() else { return };
    let launch = "--heartbeat-timeout 2 --inject stop:rank=1,step=60";
    let outcome =
        run(&mut muster(&mpi, launch, &mpi.mnist, &format!("train {RECIPE} --data data -m stopped")));
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    let last = outcome.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("muster: rank 1 on") && last.contains("no sign of life for 2 s"), "{outcome:?}");
}

#[test]
fn a_program_of_one_s_own_runs_under_mpirun() {
    let Some(mpi) = mpi() else { return };
    let flowers = std::env::var_os("MUSTER_TEST_FLOWERS").expect("MUSTER_TEST_FLOWERS names the binary");
    let line = |record: usize| {
        let measures = (0..20)
            .map(|i| ((record * 7 + i * 3) % 11) as f32 / 4.0 + f32::from(u8::from(i % 3 == record % 3)));
        let words: Vec<String> = measures.map(|number| number.to_string()).collect();
        format!("{} {}\n", words.join(" "), record % 3)
    };
    std::fs::write(mpi.sandbox.path("flowers.txt"), (0..300).map(line).collect::<String>()).unwrap();
    let mut alone = Command::new(&flowers);
    let expected = run(alone.arg("flowers.txt").current_dir(mpi.sandbox.path("."))).succeeds().stdout;
    let mut ranks = mpi.launcher(&mpi.kind);
    let bare = run(ranks.args(["-n", "3"]).arg(&flowers).arg("flowers.txt")).succeeds();
    assert_eq!(bare.stdout, expected);
    let launched = run(&mut muster(&mpi, "", flowers.as_ref(), "flowers.txt")).succeeds();
    assert!(launched.stdout.contains(expected.trim()), "{launched:?}");
}
