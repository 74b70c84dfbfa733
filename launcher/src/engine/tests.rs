use super::*;

fn words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn hosts() -> Vec<Host> {
    crate::hosts::from_list("a:2,b:2").unwrap()
}

fn program() -> [OsString; 2] {
    ["mnist".into(), "train".into()]
}

#[test]
fn auto_looks_at_what_was_given_and_at_nothing_else() {
    assert_eq!(Engine::auto(false, false), Engine::Threads);
    assert_eq!(Engine::auto(true, false), Engine::Mpirun);
    assert_eq!(Engine::auto(false, true), Engine::Srun);
    assert_eq!(Engine::auto(true, true), Engine::Mpirun);
}

#[test]
fn each_mpi_is_known_by_its_version() {
    let open = "mpirun (Open MPI) 5.0.3\n\nReport bugs to https://www.open-mpi.org/community/help/\n";
    assert_eq!(Starter::from_version(open), Some(Starter::OpenMpi(5)));
    assert_eq!(Starter::from_version("mpirun.openmpi (OpenRTE) 4.1.4\n"), Some(Starter::OpenMpi(4)));
    assert_eq!(Starter::from_version("HYDRA build details:\n    Version: 4.0.2\n"), Some(Starter::Hydra));
    assert_eq!(
        Starter::from_version("Intel(R) MPI Library for Linux* OS, Version 2021.9"),
        Some(Starter::Hydra)
    );
    assert_eq!(Starter::from_version("mpirun 1.0"), None);
}

#[test]
fn a_missing_program_is_an_error_that_names_it() {
    let error = Starter::find(Engine::Mpirun, OsStr::new("/nowhere/mpirun")).unwrap_err().to_string();
    assert!(error.contains("/nowhere/mpirun") && error.contains("--engine threads"), "{error}");
    let error = Starter::find(Engine::Mpirun, OsStr::new("true")).unwrap_err().to_string();
    assert!(error.contains("MUSTER_MPIRUN"), "{error}");
}

#[test]
fn commands_place_ranks_on_hosts() {
    let command = |starter: Starter, hosts: &[Host]| {
        words(&starter.command(OsStr::new("mpirun"), 4, hosts, &program()))
    };
    assert_eq!(command(Starter::Direct, &[]), "mnist train");
    assert_eq!(command(Starter::Hydra, &[]), "mpirun -n 4 -prepend-rank mnist train");
    assert_eq!(command(Starter::Hydra, &hosts()), "mpirun -n 4 -prepend-rank -hosts a:2,b:2 mnist train");
    assert_eq!(
        command(Starter::Slurm, &hosts()),
        "srun -n 4 --label --kill-on-bad-exit=1 --export=ALL --nodelist a,b mnist train"
    );
    let open = command(Starter::OpenMpi(4), &hosts());
    assert!(open.starts_with("mpirun -n 4 --bind-to none --tag-output --host a:2,b:2 "), "{open}");
    assert!(
        open.ends_with("-x MUSTER_LOG_DIR mnist train") || open.contains(" -x MUSTER_LOG_DIR -x "),
        "{open}"
    );
    assert!(command(Starter::OpenMpi(5), &[]).contains("--output tag --host localhost:4 "));
}

/// The key is in the environment of the engine, never among its arguments, which everybody on a machine can read.
#[test]
fn no_value_of_the_environment_is_an_argument() {
    let open = words(&Starter::OpenMpi(4).command(OsStr::new("mpirun"), 4, &[], &program()));
    assert!(open.contains("-x MUSTER_JOB_KEY") && !open.contains('='), "{open}");
}

#[test]
fn lines_say_whose_they_are() {
    let cases = [
        (Starter::OpenMpi(4), "[1,2]<stdout>:a: b", (Some(2), "a: b")),
        (Starter::OpenMpi(4), "[1,0]<stderr>: indented", (Some(0), " indented")),
        (Starter::OpenMpi(5), "[prterun-host-7@1,12]<stdout>: a", (Some(12), "a")),
        (Starter::OpenMpi(4), "mpirun noticed that …", (None, "mpirun noticed that …")),
        (
            Starter::OpenMpi(4),
            "[host:123] *** Process received signal",
            (None, "[host:123] *** Process received signal"),
        ),
        (Starter::Hydra, "[3] [x] y", (Some(3), "[x] y")),
        (Starter::Hydra, "[mpiexec@host] error", (None, "[mpiexec@host] error")),
        (Starter::Slurm, " 7: a: b", (Some(7), "a: b")),
        (Starter::Slurm, "srun: error: x", (None, "srun: error: x")),
        (Starter::Direct, "[1] a", (None, "[1] a")),
    ];
    for (starter, line, expected) in cases {
        assert_eq!(starter.unmark(line), expected, "{starter:?} {line}");
    }
}
