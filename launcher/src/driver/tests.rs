//! The lifecycle with a recording executor: its ranks are threads that play a part over real connections.

use super::*;
use crate::agent::Agent;
use crate::channel::{self, Side};
use crate::control::Ports;
use crate::engine::Engine;
use crate::job::Limits;
use crate::message::{self, Hello, MESSAGE_MAX, Phase, Program, Registration};
use crate::process::{Exit, Running};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    NeverRegisters,
    Dies(At),
    Hangs(At),
    Fails,
    /// Every rank knows an evaluator.
    Evaluates,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Reserve,
    Start,
    Train,
    Shutdown,
}

type Record = Arc<Mutex<Vec<String>>>;

/// Plays `fault` at the last rank in the first attempt.
struct Recorder {
    fault: Fault,
    record: Record,
}

struct Troupe {
    ranks: Vec<JoinHandle<bool>>,
    killed: Arc<AtomicBool>,
    record: Record,
}

impl Executor for Recorder {
    fn spawn(&mut self, job: &Job, environment: &Environment) -> Result<Box<dyn Running>, Error> {
        self.record.lock().unwrap().push(format!("spawn {}", environment.attempt));
        let killed = Arc::new(AtomicBool::new(false));
        let part = |rank| {
            let fault = if environment.attempt == 0 { self.fault } else { Fault::None };
            // A fault while ranks register needs one that still is to come.
            let reserving = matches!(fault, Fault::Dies(At::Reserve) | Fault::Hangs(At::Reserve));
            let late = Duration::from_millis(if rank == 1 && reserving { 550 } else { 0 });
            let is_faulty = rank + 1 == job.ranks || fault == Fault::Evaluates;
            let fault = if is_faulty { fault } else { Fault::None };
            let (environment, killed, record) = (environment.clone(), killed.clone(), self.record.clone());
            std::thread::spawn(move || {
                std::thread::sleep(late);
                play(environment, rank, fault, (&killed, &record)).is_ok()
            })
        };
        let ranks = (0..job.ranks).map(part).collect();
        Ok(Box::new(Troupe { ranks, killed, record: self.record.clone() }))
    }
}

impl Running for Troupe {
    fn try_wait(&mut self) -> Option<Exit> {
        if !self.ranks.iter().all(JoinHandle::is_finished) {
            return None;
        }
        let success = self.ranks.drain(..).all(|rank| rank.join().unwrap());
        Some(Exit { success, status: "the play is over".to_owned() })
    }

    fn terminate(&mut self) {
        self.record.lock().unwrap().push("terminate".to_owned());
    }

    fn kill(&mut self) {
        self.record.lock().unwrap().push("kill".to_owned());
        self.killed.store(true, Ordering::Release);
    }

    fn last_words(&self, _: Option<usize>) -> Option<String> {
        None
    }
}

fn program(evaluates: bool) -> Program {
    Program {
        name: "play".into(),
        version: "1".into(),
        kernels: "none".into(),
        task: Task::Train,
        evaluates,
        feed: None,
    }
}

fn hang(killed: &AtomicBool) -> Result<(), Error> {
    while !killed.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(2));
    }
    Err(Error::Refused("killed".to_owned()))
}

fn play(
    environment: Environment,
    rank: usize,
    fault: Fault,
    (killed, record): (&AtomicBool, &Record),
) -> Result<(), Error> {
    let evaluates = environment.evaluator || fault == Fault::Evaluates;
    let is_evaluator = environment.evaluator && rank == environment.trainers();
    match fault {
        Fault::NeverRegisters => return hang(killed),
        Fault::Dies(At::Reserve) | Fault::Hangs(At::Reserve) => {
            let stream = TcpStream::connect(&environment.drivers[0]).unwrap();
            let (mut sender, _receiver) =
                channel::open(stream, &environment.key, Side::Connector, MESSAGE_MAX)?;
            message::send(&mut sender, &Hello::Register(Box::new(registration(rank, evaluates)))).unwrap();
            return if fault == Fault::Hangs(At::Reserve) { hang(killed) } else { Ok(()) };
        }
        _ => {}
    }
    let mut agent = Agent::register(environment, vec![rank], program(evaluates), Box::new(|_| {}))?;
    for at in [At::Start, At::Train, At::Shutdown] {
        match at {
            At::Start => {}
            At::Train => agent.wait_for_start()?,
            At::Shutdown if is_evaluator => {
                while !agent.training_ends_within(Duration::from_millis(5))? {}
                record.lock().unwrap().push("the last checkpoint is evaluated".to_owned());
                agent.evaluated(10);
            }
            At::Shutdown => work(&agent, rank),
            At::Reserve => unreachable!("it was played above"),
        }
        if fault == Fault::Dies(at) {
            agent.die();
            return Ok(());
        }
        if fault == Fault::Hangs(at) {
            agent.fall_silent();
            return hang(killed);
        }
    }
    agent.finish(if fault == Fault::Fails { Err("the disk is full".to_owned()) } else { Ok(()) })
}

/// Ten steps, or as many as it takes until somebody says stop if the job has no faults but is to be stopped.
fn work(agent: &Agent, rank: usize) {
    for step in 1..=10 {
        std::thread::sleep(Duration::from_millis(5));
        agent.step(rank, step);
    }
    agent.phase(rank, Phase::Saving);
}

fn registration(rank: usize, evaluates: bool) -> Registration {
    Registration {
        ranks: vec![rank],
        attempt: 0,
        host: "elsewhere".to_owned(),
        pid: 1,
        program: program(evaluates),
        cpu_features: Vec::new(),
        cores: 1,
        data_listeners: Vec::new(),
    }
}

/// Three ranks, and perhaps an evaluator.
fn job(restarts: u32, evaluator: bool) -> Job {
    Job {
        program: vec!["play".into()],
        ranks: 3 + usize::from(evaluator),
        hosts: Vec::new(),
        engine: Engine::Mpirun,
        bind: Some([127, 0, 0, 1].into()),
        ports: Ports(0, 0),
        evaluator,
        input: Default::default(),
        faults: Vec::new(),
        log_dir: None,
        limits: Limits {
            reservation: Duration::from_millis(600),
            heartbeat: Duration::from_millis(400),
            grace: Duration::from_millis(600),
            job: None,
            restarts,
            ..Limits::default()
        },
    }
}

/// The end of a job, and what happened in which order.
fn perform(fault: Fault, restarts: u32, signal: usize) -> (Result<Outcome, Error>, Vec<String>) {
    perform_job(&job(restarts, false), fault, signal)
}

fn perform_job(job: &Job, fault: Fault, signal: usize) -> (Result<Outcome, Error>, Vec<String>) {
    let record = Record::default();
    let interrupt = AtomicUsize::new(0);
    let noted = record.clone();
    let mut watch = |notice: &Notice| {
        if *notice == Notice::Started {
            interrupt.store(signal, Ordering::Relaxed);
        }
        noted.lock().unwrap().push(match notice {
            Notice::Listening(_) | Notice::Registered(..) => return,
            notice => notice.to_string(),
        });
    };
    let mut executor = Recorder { fault, record: record.clone() };
    let mut driver = Driver::listen(job, &interrupt, &mut watch).unwrap();
    let end = crate::run::attempts(&mut driver, &mut executor);
    drop(driver);
    let record = record.lock().unwrap().clone();
    (end, record)
}

#[test]
fn the_phases_follow_each_other() {
    let (end, record) = perform(Fault::None, 0, 0);
    assert_eq!(end.unwrap(), Outcome::Finished);
    assert_eq!(
        record,
        [
            "reserve",
            "spawn 0",
            "processes started",
            "reserved 3 ranks: 1 ps, 2 workers",
            "start",
            "all ranks are done",
            "worker released",
            "ps released",
            "shut down"
        ]
    );
}

#[test]
fn workers_end_before_the_evaluator_and_the_evaluator_before_the_server() {
    let (end, record) = perform_job(&job(0, true), Fault::None, 0);
    assert_eq!(end.unwrap(), Outcome::Finished);
    assert_eq!(
        record[3..],
        [
            "reserved 4 ranks: 1 ps, 2 workers, 1 evaluator",
            "start",
            "all ranks are done",
            "worker released",
            "the last checkpoint is evaluated",
            "evaluator released",
            "ps released",
            "shut down"
        ]
    );
}

/// Where the record of a failed attempt ends, and what its error says.
fn fails(fault: Fault, last: &[&str], said: &str) {
    fails_in(&job(0, false), fault, last, said);
}

fn fails_in(job: &Job, fault: Fault, last: &[&str], said: &str) {
    let (end, record) = perform_job(job, fault, 0);
    let error = end.unwrap_err().to_string();
    let rank = format!("rank {} on", job.ranks - 1);
    assert!(error.contains(&rank) && error.contains(said), "{fault:?}: {error}");
    let end = record.iter().position(|event| event == "terminate").expect("its processes are ended");
    assert!(last.contains(&&*record[end - 1]), "{fault:?}: {record:?}");
    let hangs = matches!(fault, Fault::Hangs(_) | Fault::NeverRegisters);
    assert_eq!(record[end + 1..], if hangs { vec!["kill"] } else { vec![] }, "{fault:?}");
}

#[test]
fn a_rank_that_never_registers_is_named() {
    fails(Fault::NeverRegisters, &["processes started"], "did not register: not within 0.6 s");
}

#[test]
fn a_rank_that_dies_in_any_phase_ends_the_job() {
    fails(Fault::Dies(At::Reserve), &["processes started"], "gone without a word");
    fails(Fault::Dies(At::Start), &["reserved 3 ranks: 1 ps, 2 workers", "start"], "gone without a word");
    fails(Fault::Dies(At::Train), &["start"], "gone without a word");
    fails(Fault::Dies(At::Shutdown), &["start"], "gone without a word, last heard of at step");
}

#[test]
fn a_rank_that_hangs_in_any_phase_ends_the_job() {
    fails(Fault::Hangs(At::Reserve), &["processes started"], "no sign of life for 0.4 s");
    fails(Fault::Hangs(At::Start), &["start"], "no sign of life");
    fails(Fault::Hangs(At::Train), &["start"], "no sign of life");
    fails(Fault::Hangs(At::Shutdown), &["start"], "no sign of life");
}

#[test]
fn an_evaluator_that_dies_or_hangs_in_any_phase_ends_the_job() {
    let (job, reserved) = (job(0, true), "reserved 4 ranks: 1 ps, 2 workers, 1 evaluator");
    let fails = |fault, last: &[&str], said| fails_in(&job, fault, last, said);
    fails(Fault::NeverRegisters, &["processes started"], "did not register: not within 0.6 s");
    fails(Fault::Dies(At::Reserve), &["processes started"], "gone without a word");
    fails(Fault::Dies(At::Start), &[reserved, "start"], "gone without a word");
    fails(Fault::Dies(At::Train), &["start"], "gone without a word");
    fails(Fault::Dies(At::Shutdown), &["the last checkpoint is evaluated"], "gone without a word");
    fails(Fault::Hangs(At::Reserve), &["processes started"], "no sign of life for 0.4 s");
    fails(Fault::Hangs(At::Train), &["worker released"], "no sign of life");
    fails(Fault::Hangs(At::Shutdown), &["the last checkpoint is evaluated"], "no sign of life");
    fails(Fault::Fails, &["the last checkpoint is evaluated"], "the disk is full");
}

#[test]
fn an_evaluator_that_the_program_does_not_know_is_refused() {
    let (record, mut watch, interrupt) = (Record::default(), |_: &Notice| {}, AtomicUsize::new(0));
    let job = job(0, false);
    let mut driver = Driver::listen(&job, &interrupt, &mut watch).unwrap();
    let mut executor = Recorder { fault: Fault::Evaluates, record };
    let error = driver.reserve(&mut executor, 0).err().unwrap().to_string();
    assert!(error.contains("the program has an evaluator, but the job has none"), "{error}");
}

#[test]
fn what_a_rank_says_of_its_failure_is_the_job_s_error() {
    fails(Fault::Fails, &["start"], "the disk is full");
}

#[test]
fn a_lost_rank_is_restarted_as_often_as_allowed() {
    let (end, record) = perform(Fault::Dies(At::Train), 1, 0);
    assert_eq!(end.unwrap(), Outcome::Finished);
    let spawns: Vec<&String> = record.iter().filter(|event| event.starts_with("spawn")).collect();
    assert_eq!(spawns, ["spawn 0", "spawn 1"]);
    let restart = record.iter().position(|event| event.starts_with("restarting: rank 2")).unwrap();
    assert_eq!(
        record[restart - 1],
        "terminate",
        "the first attempt's processes end before the second begins"
    );
    assert_eq!(record[restart + 1], "reserve (restart 1)");
}

#[test]
fn a_signal_stops_in_order() {
    let (end, record) = perform(Fault::None, 0, 2);
    assert_eq!(end.unwrap(), Outcome::Stopped(2));
    assert!(record.contains(&"stopping: signal 2".to_owned()));
    assert!(!record.contains(&"terminate".to_owned()));
}

#[test]
fn a_signal_before_the_start_ends_at_once() {
    let (job, interrupt) = (job(0, false), AtomicUsize::new(15));
    let (record, mut watch) = (Record::default(), |_: &Notice| {});
    let mut driver = Driver::listen(&job, &interrupt, &mut watch).unwrap();
    let mut executor = Recorder { fault: Fault::NeverRegisters, record: record.clone() };
    let end = driver.reserve(&mut executor, 0).err().unwrap();
    assert!(matches!(end, Error::Interrupted { signal: 15 }), "{end}");
    assert_eq!(record.lock().unwrap()[..], ["spawn 0", "terminate", "kill"]);
}

/// A driver that is gone, in whatever way, ends its connections: that is all that its ranks can see.
#[test]
fn ranks_notice_that_their_driver_is_gone() {
    let (key, listener) = (JobKey::random(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let (job, interrupt, mut watch) = (job(0, false), AtomicUsize::new(0), |_: &Notice| {});
    let mut environment = Driver::listen(&job, &interrupt, &mut watch).unwrap().environment(0);
    environment.drivers = vec![listener.local_addr().unwrap().to_string()];
    environment.key = key.clone();
    let (lost, told) = std::sync::mpsc::channel();
    let rank = std::thread::spawn(move || {
        let on_lost =
            Box::new(move |error: Option<Error>| lost.send(error.map(|error| error.to_string())).unwrap());
        let agent = Agent::register(environment, vec![0], program(false), on_lost).unwrap();
        agent.wait_for_start().unwrap_err()
    });
    let (mut sender, mut receiver) =
        channel::open(listener.accept().unwrap().0, &key, Side::Acceptor, MESSAGE_MAX).unwrap();
    assert!(matches!(message::receive(&mut receiver).unwrap(), Some(Hello::Register(_))));
    message::send(&mut sender, &ToRank::Reserved(ClusterSpec::default())).unwrap();
    drop((sender, receiver));
    let reason = told.recv_timeout(Duration::from_secs(5)).unwrap().unwrap();
    assert!(reason.contains("is gone: its connection has ended"), "{reason}");
    assert!(matches!(rank.join().unwrap(), Error::DriverLost { .. }));
}

/// It listened before it started them, and is not waited for.
#[test]
fn a_rank_that_comes_when_its_driver_is_gone_ends_at_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (job, interrupt, mut watch) = (job(0, false), AtomicUsize::new(0), |_: &Notice| {});
    let mut environment = Driver::listen(&job, &interrupt, &mut watch).unwrap().environment(0);
    environment.drivers = vec![listener.local_addr().unwrap().to_string()];
    environment.heartbeat_timeout = Duration::from_secs(60);
    drop(listener);
    let began = Instant::now();
    let registered = Agent::register(environment, vec![0], program(false), Box::new(|_| ()));
    assert!(matches!(registered.err(), Some(Error::DriverLost { .. })));
    assert!(began.elapsed() < Duration::from_secs(10));
}
