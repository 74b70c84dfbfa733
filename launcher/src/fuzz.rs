//! Fuzz targets: plain functions of bytes, for any fuzzer. Whatever the bytes are, they return; and what they accept means the same
//! after it has been written and read again.

use crate::channel::Receiver;
use crate::feed::Tally;
use crate::feed::protocol::{ToFeeder, ToWorker};
use crate::key::JobKey;
use crate::message::{
    self, ClusterSpec, Hello, MESSAGE_MAX, Node, Phase, Progress, Role, Score, Status, ToDriver, ToRank,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// A frame's payload on the control channel, as each side would read it. Returns how many of the messages it is.
pub fn control(payload: &[u8]) -> usize {
    let all =
        [same::<Hello>(payload), same::<ToDriver>(payload), same::<ToRank>(payload), same::<Status>(payload)];
    all.into_iter().filter(|&accepted| accepted).count()
}

fn same<M: Serialize + DeserializeOwned + PartialEq + Debug>(payload: &[u8]) -> bool {
    let Ok(message) = message::decode::<M>(payload) else { return false };
    assert_eq!(message::decode::<M>(&json(&message)).expect("what was written can be read"), message);
    true
}

/// A frame's payload on the data channel, as each side would read it. Returns how many of the two it is.
pub fn data(payload: &[u8]) -> usize {
    let to_worker = ToWorker::decode(payload).is_ok_and(|message| {
        let (head, records) = message.encode();
        assert_eq!([&head, records].concat(), payload);
        true
    });
    let to_feeder = ToFeeder::decode(payload).is_ok_and(|message| {
        let (head, results) = message.encode();
        assert_eq!([&head, results].concat(), payload);
        true
    });
    usize::from(to_worker) + usize::from(to_feeder)
}

/// Bytes of a connection after its handshake, from somebody who does not know the key. Returns how many frames were taken: none.
pub fn connection(bytes: &[u8]) -> usize {
    let mut receiver = Receiver::over(bytes, JobKey::random(), MESSAGE_MAX);
    let mut payload = Vec::new();
    let mut frames = 0;
    while let Ok(true) = receiver.receive(&mut payload) {
        frames += 1;
    }
    frames
}

fn json(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("messages have a JSON form")
}

/// One of each kind of message, for [`control`].
pub fn control_seeds() -> Vec<Vec<u8>> {
    let node = Node {
        rank: 1,
        role: Role::Chief,
        host: "a".to_owned(),
        pid: 7,
        data_listener: "[::1]:9".parse().ok(),
    };
    let registration = r#"{"Register":{"ranks":[1,2],"attempt":0,"host":"a","pid":7,"program":{"name":"mnist",
        "version":"1.0.0","kernels":"wide","task":"train"},"cpu_features":["avx2"],"cores":2,"data_listeners":["10.0.0.1:9",null]}}"#;
    let progress = Progress { phase: Phase::Training, step: u64::MAX };
    vec![
        registration.as_bytes().to_vec(),
        json(&Hello::Status),
        json(&ToDriver::Beat(vec![progress; 3])),
        json(&ToDriver::Done {
            rank: 2,
            result: Err("the disk is full \u{1f4be}".to_owned()),
            score: Score { labelled: 9, right: 7 },
        }),
        json(&ToRank::Reserved(ClusterSpec { nodes: vec![node; 2] })),
        json(&Status {
            phase: "x".to_owned(),
            attempt: 1,
            seconds: 1.5,
            ranks: vec![],
            waits: String::new(),
        }),
    ]
}

/// One of each kind of frame, for [`data`].
pub fn data_seeds() -> Vec<Vec<u8>> {
    let whole = |(head, rest): (Vec<u8>, &[u8])| [&head, rest].concat();
    let tally = Tally { records: 9, digest: [7; 32] };
    vec![
        whole(ToWorker::Portion { lease: 1, first: 2, count: 3, records: b"abc" }.encode()),
        whole(ToWorker::End.encode()),
        whole(ToFeeder::Used { lease: 1, digest: [9; 32], count: 2, results: b"1\n2\n" }.encode()),
        whole(ToFeeder::Total(tally).encode()),
        whole(ToFeeder::Want(7).encode()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    const ROUNDS: usize = 20_000;

    /// Flips bits, cuts, repeats and inserts.
    fn mutate(bytes: &mut Vec<u8>, noise: &mut ChaCha8Rng) {
        for _ in 0..1 + noise.next_u32() % 4 {
            let at = noise.next_u32() as usize % (bytes.len() + 1);
            match noise.next_u32() % 5 {
                0 if at < bytes.len() => bytes[at] ^= 1 << (noise.next_u32() % 8),
                1 => bytes.truncate(at),
                2 => bytes.insert(at, noise.next_u32() as u8),
                3 => bytes.extend_from_within(at..),
                _ if at < bytes.len() => drop(bytes.remove(at)),
                _ => {}
            }
        }
    }

    fn fuzz(seeds: &[Vec<u8>], seed: u64, target: impl Fn(&[u8]) -> usize) -> usize {
        assert!(seeds.iter().all(|seed| target(seed) > 0), "every seed is a message");
        let mut noise = ChaCha8Rng::seed_from_u64(seed);
        (0..ROUNDS)
            .map(|round| {
                let mut bytes = seeds[round % seeds.len()].clone();
                mutate(&mut bytes, &mut noise);
                target(&bytes).min(1)
            })
            .sum()
    }

    #[test]
    fn no_control_message_crashes() {
        let accepted = fuzz(&control_seeds(), 1, control);
        // Mutations that are all refused, or all accepted, would test nothing.
        assert!((ROUNDS / 100..ROUNDS / 2).contains(&accepted), "{accepted}");
    }

    #[test]
    fn no_data_frame_crashes() {
        let accepted = fuzz(&data_seeds(), 2, data);
        assert!((ROUNDS / 10..ROUNDS).contains(&accepted), "{accepted}");
    }

    #[test]
    fn nobody_without_the_key_gets_a_frame_in() {
        let mut noise = ChaCha8Rng::seed_from_u64(3);
        for round in 0..ROUNDS / 10 {
            let mut bytes = vec![0; noise.next_u32() as usize % 300];
            noise.fill_bytes(&mut bytes);
            // Lengths that are plausible reach the tag's check.
            if let Some(length) = bytes.first_chunk_mut::<4>().filter(|_| round % 2 == 0) {
                *length = (noise.next_u32() % 200).to_le_bytes();
            }
            assert_eq!(connection(&bytes), 0);
        }
    }
}
