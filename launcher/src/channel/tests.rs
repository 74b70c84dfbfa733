use super::*;
use proptest::prelude::*;
use std::net::TcpListener;

type Ends = (Result<(Sender, Receiver), Error>, Result<(Sender, Receiver), Error>);

/// Both ends of a connection: connector and acceptor.
fn ends(connector: &JobKey, acceptor: &JobKey, limit: usize) -> Ends {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        let accepted = scope.spawn(|| open(listener.accept().unwrap().0, acceptor, Side::Acceptor, limit));
        let connected = open(TcpStream::connect(address).unwrap(), connector, Side::Connector, limit);
        (connected, accepted.join().unwrap())
    })
}

fn pair(limit: usize) -> ((Sender, Receiver), (Sender, Receiver)) {
    let key = JobKey::random();
    let (connector, acceptor) = ends(&key, &key, limit);
    (connector.unwrap(), acceptor.unwrap())
}

#[test]
fn frames_arrive_whole_and_in_order_both_ways() {
    let ((mut sender, mut answers), (mut answering, mut receiver)) = pair(1 << 20);
    let sending = std::thread::spawn(move || {
        for length in [0, 1, 100, 1 << 20] {
            sender.send(&[&vec![7; length / 2], &vec![8; length - length / 2]]).unwrap();
        }
        sender.close();
    });
    let mut payload = Vec::new();
    for length in [0, 1, 100, 1 << 20] {
        assert!(receiver.receive(&mut payload).unwrap());
        assert_eq!(payload.len(), length);
        assert!(payload.iter().enumerate().all(|(i, &byte)| byte == if i < length / 2 { 7 } else { 8 }));
    }
    assert!(!receiver.receive(&mut payload).unwrap());
    sending.join().unwrap();
    let _ = answering.send(&[b"late"]);
    assert!(!answers.receive(&mut payload).unwrap_or(false));
}

#[test]
fn a_key_of_another_job_is_refused_on_both_sides() {
    let (connector, acceptor) = ends(&JobKey::random(), &JobKey::random(), 100);
    assert!(connector.err().unwrap().to_string().contains("does not have the job's key"));
    assert!(acceptor.is_err());
}

#[test]
fn another_protocol_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut stranger = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\nHost: a.example.org\r\nAccept: */*\r\n\r\n").unwrap();
    let refused = open(listener.accept().unwrap().0, &JobKey::random(), Side::Acceptor, 100);
    assert!(refused.err().unwrap().to_string().contains("does not speak"));
}

/// Sends `frames` as raw bytes over an opened connection and gives what the receiver makes of them.
fn receive_raw(limit: usize, frames: impl FnOnce(&mut Seal) -> Vec<u8>) -> Vec<io::Result<bool>> {
    let key = JobKey::random();
    let bytes = frames(&mut Seal::new(key.clone()));
    let mut receiver = Receiver::over(&bytes[..], key, limit);
    let mut payload = Vec::new();
    let mut results = Vec::new();
    loop {
        results.push(receiver.receive(&mut payload));
        assert!(payload.capacity() <= 2 * limit);
        if !matches!(results.last(), Some(Ok(true))) {
            return results;
        }
    }
}

fn frame(seal: &mut Seal, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_le_bytes();
    let tag = seal.next(length, payload);
    [&length[..], payload, tag.as_bytes()].concat()
}

#[test]
fn a_frame_that_is_too_long_is_refused_before_memory_is_taken() {
    let results = receive_raw(100, |_| [&u32::MAX.to_le_bytes()[..], &[0; 200]].concat());
    assert!(results[0].as_ref().unwrap_err().to_string().contains("at most 100"));
}

#[test]
fn repeated_swapped_and_cut_frames_are_refused() {
    let good =
        |results: &[io::Result<bool>]| results.iter().filter(|result| matches!(result, Ok(true))).count();
    let repeated = receive_raw(100, |seal| frame(seal, b"a").repeat(2));
    assert_eq!((good(&repeated), repeated.last().unwrap().is_err()), (1, true));
    let swapped = receive_raw(100, |seal| {
        let (first, second) = (frame(seal, b"a"), frame(seal, b"b"));
        [second, first].concat()
    });
    assert_eq!((good(&swapped), swapped.last().unwrap().is_err()), (0, true));
    for cut in 1..40 {
        let results = receive_raw(100, |seal| {
            let mut bytes = frame(seal, b"abcd");
            bytes.truncate(40 - cut);
            bytes
        });
        assert!(results[0].is_err(), "{cut}");
    }
}

/// Gives out its bytes in pieces of random lengths.
struct Trickle<'a>(&'a [u8], Vec<usize>);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.1.pop().unwrap_or(usize::MAX).clamp(1, buffer.len().max(1));
        {
            let length = piece.min(buffer.len());
            self.0.read(&mut buffer[..length])
        }
    }
}

proptest! {
    #[test]
    fn frames_survive_any_splitting(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..10),
        pieces in prop::collection::vec(1_usize..20, 0..100),
    ) {
        let key = JobKey::random();
        let mut seal = Seal::new(key.clone());
        let bytes: Vec<u8> = payloads.iter().flat_map(|payload| frame(&mut seal, payload)).collect();
        let mut receiver = Receiver::over(Trickle(&bytes, pieces), key, 50);
        let mut payload = Vec::new();
        for expected in &payloads {
            prop_assert!(receiver.receive(&mut payload).unwrap());
            prop_assert_eq!(&payload, expected);
        }
        prop_assert!(!receiver.receive(&mut payload).unwrap());
    }

    #[test]
    fn any_changed_bit_is_found(payload in prop::collection::vec(any::<u8>(), 0..50), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let results = receive_raw(100, |seal| {
            let mut bytes = frame(seal, &payload);
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            bytes
        });
        prop_assert!(results[0].is_err());
    }
}

#[test]
fn a_slow_handshake_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _half_open = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let began = Instant::now();
    let result = read_by(&stream, &mut [0; 4], began + Duration::from_millis(100));
    assert!(matches!(result.unwrap_err().kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock));
    assert!(began.elapsed() < Duration::from_secs(2));
}
