use super::*;
use crate::control::Ports;
use crate::engine::Engine;
use crate::job::Limits;

const MACHINE: Machine = Machine { cores: 8, free_bytes: Some(1 << 30) };

fn job(ranks: usize, hosts: &str, program: &[&str]) -> Job {
    let hosts = if hosts.is_empty() { Vec::new() } else { crate::hosts::from_list(hosts).unwrap() };
    Job {
        program: program.iter().map(Into::into).collect(),
        ranks,
        engine: if hosts.is_empty() { Engine::Threads } else { Engine::Mpirun },
        hosts,
        bind: None,
        ports: Ports(0, 0),
        evaluator: false,
        input: Default::default(),
        faults: Vec::new(),
        log_dir: None,
        limits: Limits::default(),
    }
}

fn program(world_size: usize) -> ProgramPlan {
    ProgramPlan {
        program: "mnist 0.1.0".to_owned(),
        task: Task::Train,
        world_size,
        threads: 2,
        data: DataSpec { name: "digits".to_owned(), records: 60_000, features: 784, classes: 10 },
        batch_size: 100,
        micro_batches: 4,
        steps_per_epoch: 600,
        steps: 3000,
        parameters: 101_770,
        bytes_per_step: 1_628_320,
        server_bytes: 800_000,
        worker_bytes: 1_200_000,
        evaluator_bytes: 900_000,
        process_bytes: 47_000_000,
    }
}

#[test]
fn roles_hosts_steps_and_bytes_are_told() {
    let plan = plan(&job(3, "", &["mnist"]), &program(3), MACHINE);
    let text = plan.lines.join("\n");
    for expected in [
        "3000 of 100 records, 600 an epoch: 5.00 epochs",
        "101770 parameters, 407.1 kB",
        "bytes per step   1628.3 kB",
        "rank 0    ps ",
        "rank 1    chief ",
        "rank 2    worker ",
        "50.2 MB on this machine, 47.0 MB of it for the data of 1 processes",
    ] {
        assert!(text.contains(expected), "{expected} is missing in\n{text}");
    }
    assert_eq!((plan.remarks.len(), plan.misfits.len()), (0, 0));
}

#[test]
fn an_evaluator_is_no_worker() {
    let job = Job { evaluator: true, ..job(4, "", &["mnist"]) };
    let plan = plan(&job, &program(3), MACHINE);
    let text = plan.lines.join("\n");
    assert!(text.contains("rank 2    worker ") && text.contains("rank 3    evaluator "), "{text}");
    assert!(text.lines().any(|line| line.contains("evaluator") && line.ends_with("900.0 kB")), "{text}");
    assert_eq!(plan.misfits, [""; 0]);
}

#[test]
fn idle_workers_and_shared_cores_are_remarks() {
    let plan = plan(&job(8, "", &["mnist"]), &program(8), MACHINE);
    assert_eq!(plan.misfits.len(), 0);
    assert!(plan.remarks[0].starts_with("3 of 7 workers have nothing to do"), "{plan:?}");
    assert!(plan.remarks[1].starts_with("16 threads of 8 ranks share the 8 cores"), "{plan:?}");
}

#[test]
fn too_few_slots_or_too_little_memory_does_not_fit() {
    let few = plan(&job(4, "192.0.2.1:2,192.0.2.2:1", &["mnist"]), &program(4), MACHINE);
    assert!(few.misfits[0].contains("4 ranks, but 3 slots"), "{few:?}");
    let small = Machine { free_bytes: Some(100_000_000), ..MACHINE };
    // Three processes here hold the data three times; ranks elsewhere do not count.
    let full = plan(&job(4, "localhost:3,192.0.2.1:1", &["mnist"]), &program(4), small);
    assert!(full.misfits[0].contains("144.2 MB are needed on this machine, 100.0 MB are free"), "{full:?}");
    assert_eq!(plan(&job(4, "", &["mnist"]), &program(4), small).misfits.len(), 0);
    let other = plan(&job(4, "", &["mnist"]), &program(2), MACHINE);
    assert!(other.misfits[0].contains("plans for 2 ranks, -n says 4"), "{other:?}");
}

#[test]
fn a_program_is_asked_with_the_world_s_size() {
    let json = serde_json::to_string(&program(9999)).unwrap().replace("9999", "$MUSTER_WORLD_SIZE");
    let script = format!("test \"$1\" = --plan-json && cat <<END\n{json}\nEND");
    let answer = ask(&job(5, "", &["sh", "-c", &script, "sh"])).unwrap();
    assert_eq!(answer, program(5));
}

#[test]
fn a_program_without_a_plan_is_an_error_that_says_so() {
    let error = |program: &[&str]| ask(&job(2, "", program)).unwrap_err().to_string();
    assert!(error(&["echo"]).contains("printed something else"));
    let refused = error(&["sh", "-c", "echo unknown option >&2; exit 2"]);
    assert!(refused.contains("ended with exit code 2: unknown option"), "{refused}");
    assert!(error(&["/nowhere/x"]).contains("/nowhere/x"));
}
