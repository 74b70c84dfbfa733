use super::*;
use crate::channel::{self, Receiver, Side};
use crate::key::JobKey;
use crate::message::{MESSAGE_MAX, Program};
use std::net::{TcpListener, TcpStream};

const SILENCE: Duration = Duration::from_secs(10);

/// The driver's sender and the rank's receiver.
fn line() -> (Sender, Receiver) {
    let (key, listener) = (JobKey::random(), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        let rank = scope.spawn(|| {
            channel::open(TcpStream::connect(address).unwrap(), &key, Side::Connector, MESSAGE_MAX).unwrap()
        });
        let driver = channel::open(listener.accept().unwrap().0, &key, Side::Acceptor, MESSAGE_MAX).unwrap();
        (driver.0, rank.join().unwrap().1)
    })
}

fn registration(ranks: &[usize]) -> Registration {
    Registration {
        ranks: ranks.to_vec(),
        attempt: 0,
        host: "a".to_owned(),
        pid: 100 + ranks.first().map_or(0, |&rank| rank as u32),
        program: Program {
            name: "mnist".to_owned(),
            version: "1.0.0".to_owned(),
            kernels: "wide".to_owned(),
            task: Task::Train,
            evaluates: false,
            feed: None,
        },
        cpu_features: Vec::new(),
        cores: 2,
        data_listeners: Vec::new(),
    }
}

fn roster(size: usize) -> Roster {
    Roster::new(vec!["a".to_owned(); size], 0, false)
}

/// All ranks registered, each on a connection of its number.
fn full(size: usize) -> Roster {
    let mut roster = roster(size);
    for rank in 0..size {
        roster.register(rank as u64, line().0, registration(&[rank]), SILENCE).unwrap();
    }
    roster
}

fn at(step: u64) -> Progress {
    Progress { phase: Phase::Training, step }
}

#[test]
fn the_missing_are_named_with_their_hosts_until_all_are_there() {
    let mut roster = Roster::new(["a", "a", "b"].map(str::to_owned).to_vec(), 0, false);
    assert_eq!(roster.missing().unwrap(), "rank 0 on a, rank 1 on a, rank 2 on b");
    roster.register(0, line().0, registration(&[0, 1]), SILENCE).unwrap();
    assert_eq!(roster.waits(), "all wait for rank 2 on b to register");
    roster.register(1, line().0, registration(&[2]), SILENCE).unwrap();
    assert_eq!(roster.missing(), None);
    let roles: Vec<Role> = roster.spec().nodes.iter().map(|node| node.role).collect();
    assert_eq!(roles, [Role::Ps, Role::Chief, Role::Worker]);
}

#[test]
fn whoever_is_not_waited_for_is_refused_and_told_why() {
    let mut roster = roster(3);
    roster.register(0, line().0, registration(&[0]), SILENCE).unwrap();
    let old = Registration { attempt: 1, ..registration(&[1]) };
    let mut other = registration(&[1]);
    other.program.version = "1.0.1".to_owned();
    let mut inferring = registration(&[1]);
    inferring.program.task = Task::Inference;
    let cases = [
        (registration(&[0]), "rank 0 is registered already, by process 100 on a"),
        (registration(&[3]), "rank 3 is outside of a world of 3"),
        (registration(&[1, 1]), "names rank 1 twice"),
        (registration(&[]), "names no rank"),
        (old, "belongs to attempt 1"),
        (other, "runs mnist 1.0.1, rank 0 runs mnist 1.0.0"),
        (inferring, "not about to do what the others do"),
    ];
    for (registration, expected) in cases {
        let (sender, mut receiver) = line();
        let reason = roster.register(9, sender, registration, SILENCE).unwrap_err();
        assert!(reason.contains(expected), "{reason}");
        match message::receive(&mut receiver).unwrap() {
            Some(ToRank::Refused(told)) => assert!(told.contains(expected), "{told}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(roster.missing().unwrap(), "rank 1 on a, rank 2 on a");
}

#[test]
fn a_lost_connection_is_a_failure_unless_its_turn_to_end_has_come() {
    let mut roster = full(3);
    roster.beat(1, &[at(7)]);
    let failure = roster.closed(1, None, 0).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "rank 1 on a (process 101): gone without a word, last heard of at step 7"
    );
    assert!(roster.closed(1, None, 0).is_ok(), "nobody dies twice");
    assert!(roster.closed(2, None, Role::Worker.order() + 1).is_ok());
    assert!(roster.closed(0, Some("reset".to_owned()), Role::Worker.order() + 1).is_err());
}

#[test]
fn all_are_done_when_each_has_said_so_itself() {
    let mut roster = full(2);
    roster.done(0, 0, Ok(())).unwrap();
    // Another process cannot speak for rank 1.
    roster.done(0, 1, Ok(())).unwrap();
    roster.done(0, 99, Ok(())).unwrap();
    assert!(!roster.all_done());
    let failure = roster.done(1, 1, Err("the disk is full".to_owned())).unwrap_err();
    assert_eq!(failure.to_string(), "rank 1 on a (process 101): the disk is full");
    assert!(roster.all_done());
}

#[test]
fn silence_and_standstill_are_found_and_blamed_on_the_right_rank() {
    let mut roster = full(3);
    let now = Instant::now();
    assert_eq!(roster.overdue(now, SILENCE), None);
    assert!(roster.overdue(now + 2 * SILENCE, SILENCE).unwrap().reason.contains("no sign of life"));
    for (connection, step) in [(0, 5), (1, 5), (2, 4)] {
        roster.beat(connection, &[at(step)]);
    }
    assert_eq!(roster.waits(), "ranks at step 5 wait for rank 2 at step 4");
    std::thread::sleep(Duration::from_millis(20));
    (0..3).for_each(|connection| roster.beat(connection, &[at(if connection == 2 { 4 } else { 5 })]));
    let stuck = roster.overdue(Instant::now(), Duration::from_millis(15)).unwrap();
    assert!(stuck.rank == 2 && stuck.reason.contains("stuck after step 4"), "{stuck}");
}

#[test]
fn the_rate_is_steps_in_a_second() {
    let mut roster = full(1);
    for step in 1..=10 {
        std::thread::sleep(Duration::from_millis(20));
        roster.beat(0, &[at(step * 10)]);
    }
    let rate = roster.status()[0].rate;
    assert!((50.0..=500.0).contains(&rate), "{rate}");
}

#[test]
fn processes_are_released_in_turn_and_once() {
    let mut roster = Roster::new(vec!["a".to_owned(); 4], 0, true);
    let mut receivers: Vec<Receiver> = (0..4)
        .map(|rank| {
            let (sender, receiver) = line();
            receiver.set_timeout(Some(Duration::from_millis(20))).unwrap();
            roster.register(rank as u64, sender, registration(&[rank]), SILENCE).unwrap();
            receiver
        })
        .collect();
    let mut released = |roster: &mut Roster, order| {
        roster.tell(order, &ToRank::Release);
        let told = |receiver: &mut Receiver| matches!(message::receive(receiver), Ok(Some(ToRank::Release)));
        receivers.iter_mut().map(told).collect::<Vec<bool>>()
    };
    assert_eq!(released(&mut roster, 0), [false, true, true, false]);
    assert_eq!(released(&mut roster, 1), [false, false, false, true]);
    assert_eq!(released(&mut roster, 2), [true, false, false, false]);
    assert!(roster.holds(1));
    roster.closed(3, None, 2).unwrap();
    assert!(!roster.holds(1));
}
