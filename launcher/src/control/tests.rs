use super::*;
use crate::message::{Progress, Status};
use std::io::{Read, Write};
use std::time::Instant;

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const WAIT: Duration = Duration::from_secs(5);

fn connect(control: &Control, key: &JobKey) -> (Sender, channel::Receiver) {
    let stream = TcpStream::connect(control.address()).unwrap();
    channel::open(stream, key, Side::Connector, MESSAGE_MAX).unwrap()
}

#[test]
fn ports_are_one_or_a_range() {
    assert_eq!("8888".parse::<Ports>().unwrap(), Ports(8888, 8888));
    assert_eq!("9997-9999".parse::<Ports>().unwrap().to_string(), "9997-9999");
    for bad in ["", "x", "9999-9997", "1-2-3", "70000", "-1"] {
        assert!(bad.parse::<Ports>().unwrap_err().to_string().contains("MUSTER_SERVER_PORT"), "{bad}");
    }
}

#[test]
fn a_taken_port_is_an_error_and_the_next_of_a_range_is_used() {
    // Two free ports in a row; others may take them meanwhile, so several tries.
    let found = (20_000..30_000).step_by(7).find_map(|port| {
        let taken = TcpListener::bind((LOOPBACK, port)).ok()?;
        let range = Control::listen(LOOPBACK, Ports(port, port + 1), JobKey::random()).ok()?;
        Some((taken, port, range))
    });
    let (_taken, port, range) = found.unwrap();
    assert_eq!(range.address().port(), port + 1);
    let error = Control::listen(LOOPBACK, Ports(port, port), JobKey::random()).err().unwrap().to_string();
    assert!(error.contains(&format!("no free port in {port}")) && error.contains("--port"), "{error}");
}

#[test]
fn strangers_and_garbage_neither_crash_nor_block() {
    let key = JobKey::random();
    let control = Control::listen(LOOPBACK, Ports(0, 0), key.clone()).unwrap();
    // Half-open connections, and more of them than are kept.
    let half_open: Vec<_> = (0..50).map(|_| TcpStream::connect(control.address()).unwrap()).collect();
    let mut garbage = TcpStream::connect(control.address()).unwrap();
    garbage.write_all(&[0xff; 4096]).unwrap();
    let mut wrong = TcpStream::connect(control.address()).unwrap();
    wrong.write_all(b"muster\x00\x01").unwrap();
    wrong.write_all(&[7; 32 + 32]).unwrap();
    let began = Instant::now();
    let (mut sender, _receiver) = connect(&control, &key);
    message::send(&mut sender, &Hello::Status).unwrap();
    let mut strangers = 0;
    loop {
        match control.next(WAIT).unwrap() {
            Event::Opened(_, _, Hello::Status) => break,
            Event::Stranger(_) => strangers += 1,
            _ => panic!("nobody has registered"),
        }
    }
    assert!(began.elapsed() < Duration::from_secs(2), "half-open connections hold others up");
    while strangers < 2 {
        assert!(matches!(control.next(WAIT).unwrap(), Event::Stranger(_) | Event::Closed(..)));
        strangers += 1;
    }
    // Whoever is refused learns nothing but the acceptor's nonce and its proof.
    let mut answer = Vec::new();
    let _ = garbage.read_to_end(&mut answer);
    assert!(answer.len() <= 40);
    drop(half_open);
}

#[test]
fn what_is_said_comes_as_events_until_the_end() {
    let key = JobKey::random();
    let control = Control::listen(LOOPBACK, Ports(0, 0), key.clone()).unwrap();
    let (mut sender, mut receiver) = connect(&control, &key);
    message::send(&mut sender, &Hello::Status).unwrap();
    let Some(Event::Opened(connection, mut answering, Hello::Status)) = control.next(WAIT) else { panic!() };
    let status =
        Status { phase: "x".to_owned(), attempt: 0, seconds: 1.0, ranks: vec![], waits: String::new() };
    message::send(&mut answering, &status).unwrap();
    assert_eq!(message::receive::<Status, _>(&mut receiver).unwrap(), Some(status));
    let beat = ToDriver::Beat(vec![Progress::default()]);
    message::send(&mut sender, &beat).unwrap();
    match control.next(WAIT) {
        Some(Event::Heard(heard, message)) => assert_eq!((heard, message), (connection, beat)),
        _ => panic!("the beat is lost"),
    }
    // An authenticated peer of another version is no reason to crash, either.
    sender.send(&[b"{\"Sing\": 1}"]).unwrap();
    match control.next(WAIT) {
        Some(Event::Closed(closed, Some(reason))) => {
            assert!(closed == connection && reason.contains("same version"), "{reason}");
        }
        _ => panic!("nonsense was taken"),
    }
}

#[test]
fn those_who_hang_up_are_known_in_the_order_in_which_they_did() {
    let key = JobKey::random();
    let mut control = Control::listen(LOOPBACK, Ports(0, 0), key.clone()).unwrap();
    let mut connections = Vec::new();
    for _ in 0..20 {
        let mut ends = connect(&control, &key);
        message::send(&mut ends.0, &Hello::Status).unwrap();
        let Event::Opened(connection, sender, _) = control.next(WAIT).unwrap() else {
            panic!("nobody else is there")
        };
        connections.push((connection, sender, ends));
    }
    assert!(control.hung_up().is_empty());
    let expected: Vec<Connection> = (0..20).map(|i| connections[i * 7 % 20].0).collect();
    for i in 0..20 {
        connections[i * 7 % 20].2.0.close();
    }
    assert_eq!(control.hung_up(), expected);
}
