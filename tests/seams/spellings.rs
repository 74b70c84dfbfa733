//! Every option of TensorFlowOnSpark's scripts is taken as spelled there.

use muster_tests::program::{Sandbox, run};
use serde_json::Value;

#[test]
fn short_long_and_with_underscores() {
    let sandbox = Sandbox::new();
    let mut number = 0;
    let mut report = |options: &str| -> Value {
        number += 1;
        sandbox.report(&format!("--hidden none -m m{number} {options}"))
    };
    for options in [
        "-b 30 -e 2 -n 2",
        "--batch-size 30 --epochs 2 --cluster-size 2",
        "--batch_size=30 --epochs=2 --cluster_size=2",
    ] {
        let report = report(options);
        assert_eq!(
            (&report["batch_size"], &report["world_size"], &report["steps"]),
            (&30.into(), &2.into(), &22.into())
        );
    }
    for options in [
        "-s 7",
        "--steps 7",
        "-s 7 -e 9",
        "-s 7 -c False",
        "-s 7 --rdma FALSE",
        "-s 7 -X train",
        "-s 7 --mode train",
        "-s 7 -o p",
    ] {
        assert_eq!(report(options)["steps"], 7, "{options}");
    }
    assert_eq!(report("-s 700 -e 1")["steps"], 4, "whichever is reached first");
}

#[test]
fn the_mode_stands_for_the_subcommand() {
    let sandbox = Sandbox::new();
    run(&mut sandbox.mnist("-X train --data data --hidden none -e 1")).succeeds();
    run(&mut sandbox.mnist("--data data --mode inference")).succeeds();
    run(&mut sandbox.mnist("train --data data -X inference")).refuses(&["--mode inference", "train"]);
}

#[test]
fn the_seed_s_inference_takes_the_options_of_training() {
    let sandbox = Sandbox::new();
    sandbox.train("--hidden none -e 1").succeeds();
    run(&mut sandbox.mnist("inference --data data -n 1 -b 100 -e 1 -s 1000 -m mnist_model -o p")).succeeds();
    run(&mut sandbox.mnist("inference --data data -n 4 -o q")).succeeds();
    assert_eq!(
        sandbox.files("p").into_values().collect::<Vec<_>>(),
        sandbox.files("q").into_values().collect::<Vec<_>>()
    );
}

#[test]
fn what_is_not_built_yet_says_so() {
    let sandbox = Sandbox::new();
    for options in ["-tb", "--tensorboard"] {
        for mode in ["train", "inference"] {
            run(&mut sandbox.mnist(&format!("{mode} --data data {options}")))
                .refuses(&["--tensorboard", "not built yet"]);
        }
    }
}

#[test]
fn rdma_between_threads_is_an_error_and_not_wanting_it_is_none() {
    let sandbox = Sandbox::new();
    sandbox.train("--hidden none -e 1 --rdma False --fabric auto").succeeds();
    for options in
        ["-c", "-c TRUE", "--rdma True", "--rdma", "--fabric require=rdma", "--fabric require=mlx5_0"]
    {
        for mode in ["train", "inference"] {
            let wanted = if options.contains("mlx5") { "mlx5_0 is required" } else { "rdma is required" };
            run(&mut sandbox.mnist(&format!("{mode} --data data {options}"))).refuses(&[
                wanted,
                "threads of one process",
                "mpirun",
            ]);
        }
    }
}

#[test]
fn a_launcher_s_processes_without_mpi_do_not_work_on_their_own() {
    let sandbox = Sandbox::new();
    let launchers: [&[(&str, &str)]; 4] = [
        &[("OMPI_COMM_WORLD_SIZE", "4"), ("OMPI_COMM_WORLD_RANK", "0")],
        &[("PMI_SIZE", "4"), ("PMI_RANK", "0")],
        &[("SLURM_STEP_NUM_TASKS", "4"), ("SLURM_PROCID", "0"), ("SLURM_STEP_ID", "0")],
        &[("PMIX_RANK", "0")],
    ];
    for launcher in launchers {
        for mode in ["train", "inference"] {
            let mut command = sandbox.mnist(&format!("{mode} --data data"));
            run(command.envs(launcher.iter().copied())).refuses(&[
                "built without MPI",
                "or build it with the cargo feature `mpi`: cargo build --release -p mnist --features mpi",
            ]);
        }
    }
}

#[test]
fn the_plan_counts_what_is_going_to_be_done() {
    let sandbox = Sandbox::new();
    let plan = |options: &str, parts: &[&str]| {
        let outcome = sandbox.train(options).succeeds();
        let line = outcome.stdout.lines().find(|line| line.starts_with("plan: ")).expect("a plan");
        for part in parts {
            assert!(line.contains(part), "{options}: no {part:?} in {line:?}");
        }
    };
    plan(
        "--hidden 20,30 -e 2 --threads 1",
        &[
            "144-20-30-10",
            "330 records of custom",
            "1 ranks, 1 threads",
            "8 steps = 2.00 epochs = 660 records",
        ],
    );
    plan(
        "--hidden 20,30 -s 10 --threads 1",
        &["2 steps = 0.50 epochs = 200 records", "going on from step 8"],
    );
    plan(
        "--hidden 20,30 -e 3 --threads 1",
        &["2 steps = 0.50 epochs = 130 records", "going on from step 10"],
    );
    plan(
        "--recipe tfos2017 -m seed -n 3",
        &["144-128-10", "3 ranks", "1000 steps = 250.00 epochs = 82500 records"],
    );
    plan(
        "--hidden none -s 1 -b 100 --micro-batch 40 -n 6 -m idle",
        &["2 workers idle: a batch has 3 micro-batches"],
    );
}

#[test]
fn start_and_stop_frame_a_run() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.train("--recipe tfos2017 -s 200 --report r.json").succeeds();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    for (line, word) in [(lines[0], "Start"), (lines[lines.len() - 1], "Stop")] {
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!(rest, format!("===== {word}"));
        let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert!(shape.starts_with("0000-00-00T00:00:00"), "{time}");
    }
    let accuracies: Vec<&&str> = lines.iter().filter(|line| line.contains(" step: ")).collect();
    assert_eq!(accuracies.len(), 2, "{lines:?}");
    assert!(
        accuracies[0].contains(" step: 100 accuracy: 0.") || accuracies[0].contains(" step: 100 accuracy: 1")
    );
    let report = sandbox.json("r.json");
    assert_eq!(report["optimizer"]["name"], "adagrad");
    assert_eq!(report["model"], serde_json::json!([144, 128, 10]));
}
