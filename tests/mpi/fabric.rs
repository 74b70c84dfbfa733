//! What carries the messages is named, required and proved.

use crate::{Mpi, mpi};
use muster_tests::program::run;

/// A training by messages, made to use TCP by the environment of each MPI.
fn by_tcp(mpi: &Mpi, options: &str) -> std::process::Command {
    let always = "--steps 3 --no-resume --transport messages --step-timeout 5";
    let mut command = mpi.command(&[(2, &format!("{always} {options}"))]);
    command.env("OMPI_MCA_pml", "ob1").env("OMPI_MCA_btl", "tcp,self").env("UCX_TLS", "tcp,self");
    command
}

#[test]
fn the_start_line_and_the_report_name_what_mpi_has_selected() {
    let Some(mpi) = mpi() else { return };
    let outcome = run(&mut by_tcp(&mpi, "--report r --fabric require=tcp")).succeeds();
    let fabric = mpi.sandbox.json("r")["fabric"].as_str().unwrap().to_owned();
    assert!(fabric.contains("over tcp") && fabric.contains("no RDMA device open"), "{fabric}");
    let plan = outcome.stdout.lines().find(|line| line.starts_with("plan:")).unwrap();
    assert!(plan.contains(&format!("fabric {fabric}")), "{plan}");
    let near = mpi.report(2, "--steps 3 --transport messages")["fabric"].as_str().unwrap().to_owned();
    assert!(!near.contains("tcp") && near.contains(" over "), "within a node: {near}");
}

#[test]
fn what_is_required_and_not_there_is_an_error_with_what_was_found() {
    let Some(mpi) = mpi() else { return };
    for required in ["--rdma True", "-c", "--fabric require=rdma", "--fabric require=mlx5_0"] {
        let name = if required.contains("mlx5_0") { "mlx5_0" } else { "rdma" };
        let outcome = run(&mut by_tcp(&mpi, required));
        assert!(!outcome.status.success() && !outcome.stdout.contains("Start"), "{outcome:?}");
        let parts = [&format!("{name} is required"), "over tcp", "no RDMA device open"];
        assert!(crate::said(&outcome, &parts), "{outcome:?}");
    }
    mpi.fails(&[(2, "--steps 3 -c")], &["rdma is required", "memory that the ranks of one node share"]);
    run(&mut by_tcp(&mpi, "--rdma False")).succeeds();
}

/// MPICH's end over TCP hung wherever a rank was late for it: in about one of six jobs whose ranks share cores.
#[test]
fn every_job_over_tcp_ends() {
    let Some(mpi) = mpi() else { return };
    for _ in 0..8 {
        run(&mut by_tcp(&mpi, "")).succeeds();
    }
    let more = "--steps 3 --no-resume --step-timeout 5 --transport";
    for transport in ["rma", "messages"] {
        let mut command = mpi.command(&[(4, &format!("{more} {transport}"))]);
        command.env("UCX_TLS", "tcp,self");
        run(&mut command).succeeds();
    }
}
