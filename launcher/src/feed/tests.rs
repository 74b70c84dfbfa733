use super::*;
use crate::error::Error;
use crate::key::JobKey;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PATIENCE: Duration = Duration::from_secs(5);

/// Records of eight bytes each: their own number.
fn portion(first: u64, count: u32, worker: Option<usize>) -> Portion {
    let bytes = (first..first + u64::from(count)).flat_map(u64::to_le_bytes).collect();
    Portion { first, count, worker, bytes }
}

/// Portions of the given lengths, one after the other; and the number of records.
fn portions(lengths: &[u32]) -> (Vec<Portion>, u64) {
    let mut first = 0;
    let of = |&count: &u32| {
        first += u64::from(count);
        portion(first - u64::from(count), count, None)
    };
    let portions = lengths.iter().map(of).collect();
    (portions, first)
}

fn numbers(batch: &Batch) -> Vec<u64> {
    batch.portion.bytes.chunks(8).map(|record| u64::from_le_bytes(record.try_into().unwrap())).collect()
}

type Worker = JoinHandle<Result<Vec<u64>, Error>>;

/// Workers that do with their inlet what `work` does, and give back the records they have used.
fn workers(
    key: &JobKey,
    count: usize,
    work: impl Fn(usize, &mut Inlet) -> Result<Vec<u64>, Error> + Send + Clone + 'static,
) -> (Vec<std::net::SocketAddr>, Vec<Worker>) {
    let start = |worker| {
        let mut inlet = Inlet::listen(HOST, key.clone()).unwrap();
        let (address, work) = (inlet.address(), work.clone());
        (address, std::thread::spawn(move || work(worker, &mut inlet)))
    };
    (0..count).map(start).unzip()
}

/// Uses everything.
fn use_all(_: usize, inlet: &mut Inlet) -> Result<Vec<u64>, Error> {
    let mut used = Vec::new();
    while let Some(batch) = inlet.next(PATIENCE)? {
        used.extend(numbers(&batch));
        inlet.used(&batch, 0, &[])?;
    }
    Ok(used)
}

fn join(workers: Vec<Worker>) -> Vec<u64> {
    let mut used: Vec<u64> =
        workers.into_iter().flat_map(|worker| worker.join().unwrap().unwrap_or_default()).collect();
    used.sort_unstable();
    used
}

#[test]
fn every_record_is_used_once_whatever_the_parts() {
    let key = JobKey::random();
    let (addresses, threads) = workers(&key, 3, use_all);
    let mut feeder = Feeder::connect(&key, &addresses, false, PATIENCE).unwrap();
    let (portions, records) = portions(&[5, 0, 1, 700, 0, 0, 33, 1, 1, 1, 64, 64, 64, 64, 64, 64, 0]);
    let mut expected = Tally::default();
    for portion in portions {
        if portion.count > 0 {
            expected.add(portion.count, &ledger::digest(portion.first, portion.count, &portion.bytes));
        }
        assert_eq!(feeder.push(portion).unwrap(), Progress::More);
    }
    assert_eq!(feeder.finish(records).unwrap(), expected);
    assert_eq!(join(threads), (0..records).collect::<Vec<_>>());
}

#[test]
fn portions_of_a_worker_reach_that_worker_in_order() {
    let key = JobKey::random();
    let (addresses, threads) = workers(&key, 2, use_all);
    let mut feeder = Feeder::connect(&key, &addresses, false, PATIENCE).unwrap();
    for step in 0..100 {
        feeder.push(portion(step * 3, 3, Some(step as usize % 2))).unwrap();
    }
    feeder.finish(300).unwrap();
    for (worker, thread) in threads.into_iter().enumerate() {
        let own = (0..100).filter(|step| step % 2 == worker as u64).flat_map(|step| step * 3..step * 3 + 3);
        assert_eq!(thread.join().unwrap().unwrap(), own.collect::<Vec<_>>());
    }
}

/// Worker 0 takes a few portions and dies with them.
fn die_early(worker: usize, inlet: &mut Inlet) -> Result<Vec<u64>, Error> {
    if worker > 0 {
        return use_all(worker, inlet);
    }
    let first = inlet.next(PATIENCE)?.unwrap();
    inlet.used(&first, 0, &[])?;
    let _unused = inlet.next(PATIENCE)?;
    Ok(numbers(&first))
}

#[test]
fn a_part_that_is_retried_by_another_worker_is_used_once() {
    let key = JobKey::random();
    let (addresses, threads) = workers(&key, 2, die_early);
    let mut feeder = Feeder::connect(&key, &addresses, false, PATIENCE).unwrap();
    let (portions, records) = portions(&[10; 60]);
    for portion in portions {
        feeder.push(portion).unwrap();
    }
    assert_eq!(feeder.finish(records).unwrap().records, records);
    assert_eq!(join(threads), (0..records).collect::<Vec<_>>());
}

#[test]
fn a_lost_worker_that_cannot_be_replaced_is_an_error() {
    let key = JobKey::random();
    let (addresses, threads) = workers(&key, 2, die_early);
    let mut feeder = Feeder::connect(&key, &addresses, false, PATIENCE).unwrap();
    let pushed = (0..60).try_for_each(|at| feeder.push(portion(at * 10, 10, Some(0))).map(drop));
    let error = pushed.and_then(|()| feeder.finish(600).map(drop)).unwrap_err().to_string();
    assert!(error.contains("worker 0") || error.contains("all are lost"), "{error}");
    drop(feeder);
    threads.into_iter().for_each(|worker| drop(worker.join()));
}

#[test]
fn enough_ends_the_feeding_at_once() {
    let key = JobKey::random();
    let (addresses, threads) = workers(&key, 2, |_, inlet| {
        // The other one may have had enough before this one begins.
        let Some(batch) = inlet.next(PATIENCE)? else { return Ok(Vec::new()) };
        inlet.used(&batch, 0, &[])?;
        inlet.enough(PATIENCE)?;
        while inlet.next(PATIENCE)?.is_some() {}
        Ok(numbers(&batch))
    });
    let mut feeder = Feeder::connect(&key, &addresses, false, PATIENCE).unwrap();
    let pushed = (0..1_000_000)
        .take_while(|&at| feeder.push(portion(at * 10, 10, None)).unwrap() == Progress::More)
        .count();
    assert!(pushed <= 4 * WINDOW, "{pushed}");
    let tally = feeder.finish(10_000_000).unwrap();
    assert_eq!(join(threads).len() as u64, tally.records);
}

#[test]
fn results_come_in_the_order_of_the_records_one_for_each() {
    let key = JobKey::random();
    let (addresses, threads) = workers(&key, 3, |worker, inlet| {
        while let Some(batch) = inlet.next(PATIENCE)? {
            std::thread::sleep(Duration::from_millis(worker as u64));
            let lines: String = numbers(&batch).iter().map(|number| format!("{number}\n")).collect();
            inlet.used(&batch, batch.portion.count, lines.as_bytes())?;
        }
        Ok(Vec::new())
    });
    let mut feeder = Feeder::connect(&key, &addresses, true, PATIENCE).unwrap();
    let (portions, records) = portions(&[7, 1, 0, 30, 2, 2, 2, 90, 4, 4, 4, 4]);
    let mut lines = Vec::new();
    for portion in portions {
        feeder.push(portion).unwrap();
        lines.extend(feeder.results().flat_map(|(_, bytes)| bytes));
    }
    feeder.finish(records).unwrap();
    lines.extend(feeder.results().flat_map(|(_, bytes)| bytes));
    let expected: String = (0..records).map(|number| format!("{number}\n")).collect();
    assert_eq!(String::from_utf8(lines).unwrap(), expected);
    join(threads);
}

#[test]
fn fewer_results_than_records_are_an_error() {
    for results in [0, 4] {
        let key = JobKey::random();
        let (addresses, _threads) = workers(&key, 1, move |_, inlet| {
            let batch = inlet.next(PATIENCE)?.unwrap();
            inlet.used(&batch, results, b"1\n2\n3\n4\n")?;
            Ok(Vec::new())
        });
        let mut feeder = Feeder::connect(&key, &addresses, true, PATIENCE).unwrap();
        let pushed = feeder.push(portion(0, 5, None));
        let error = pushed.and_then(|_| feeder.finish(5)).unwrap_err().to_string();
        assert!(
            error.contains(&format!("worker 0 sent {results} results for the 5 records 0..5")),
            "{error}"
        );
    }
}

#[test]
fn the_timeout_counts_time_without_progress() {
    let (key, timeout) = (JobKey::random(), Duration::from_millis(300));
    let (addresses, threads) = workers(&key, 1, |_, inlet| {
        let mut used = Vec::new();
        while let Some(batch) = inlet.next(PATIENCE)? {
            std::thread::sleep(Duration::from_millis(100));
            used.extend(numbers(&batch));
            inlet.used(&batch, 0, &[])?;
        }
        Ok(used)
    });
    let mut feeder = Feeder::connect(&key, &addresses, false, timeout).unwrap();
    let began = Instant::now();
    (0..8).for_each(|at| assert_eq!(feeder.push(portion(at, 1, None)).unwrap(), Progress::More));
    feeder.finish(8).unwrap();
    assert!(began.elapsed() > 2 * timeout, "slow, but steady");
    join(threads);
    let (addresses, threads) = workers(&key, 1, |_, inlet| {
        let batch = inlet.next(PATIENCE)?;
        std::thread::sleep(Duration::from_secs(1));
        drop(batch);
        Ok(Vec::new())
    });
    let mut feeder = Feeder::connect(&key, &addresses, false, timeout).unwrap();
    let pushed = (0..100).take_while(|&at| feeder.push(portion(at, 1, None)).is_ok()).count();
    assert_eq!(pushed, WINDOW, "a worker gets no more than it can hold");
    let error = feeder.finish(100).unwrap_err().to_string();
    assert!(error.contains("waits for worker 0") && error.contains("--feed-timeout"), "{error}");
    join(threads);
}

#[test]
fn strangers_neither_feed_nor_hold_up_a_worker() {
    let key = JobKey::random();
    let (addresses, threads) = workers(&key, 1, use_all);
    let _half_open: Vec<TcpStream> = (0..10).map(|_| TcpStream::connect(addresses[0]).unwrap()).collect();
    assert!(Feeder::connect(&JobKey::random(), &addresses, false, PATIENCE).is_err());
    let began = Instant::now();
    let mut feeder = Feeder::connect(&key, &addresses, false, PATIENCE).unwrap();
    feeder.push(portion(0, 3, None)).unwrap();
    feeder.finish(3).unwrap();
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(join(threads), [0, 1, 2]);
}

#[test]
fn the_ledger_refuses_what_does_not_add_up() {
    let mut ledger = Ledger::default();
    let digest = ledger::digest(0, 2, b"ab");
    let lease = ledger.lend(0, 0, 2, b"ab");
    let refused = |result: Result<u64, Error>, part: &str| {
        let text = result.unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    };
    refused(ledger.used(0, 99, &digest, None), "lease 99, which it does not hold");
    ledger.used(0, lease, &digest, None).unwrap();
    refused(ledger.used(0, lease, &digest, None), "which it does not hold");
    let again = ledger.lend(1, 1, 2, b"bc");
    refused(ledger.used(1, again, &ledger::digest(1, 2, b"bc"), None), "used before");
    let other = ledger.lend(1, 2, 2, b"cd");
    refused(ledger.used(1, other, &ledger::digest(2, 2, b"cx"), None), "other records");
    let foreign = ledger.lend(1, 2, 2, b"cd");
    refused(ledger.used(0, foreign, &ledger::digest(2, 2, b"cd"), None), "does not hold");
    assert!(ledger.close(Some(4)).unwrap_err().to_string().contains("2 of 4 records"));
    assert_eq!(ledger.close(Some(2)).unwrap(), Tally { records: 2, digest });
    assert!(ledger.compare(0, &Tally { records: 2, digest }).is_ok());
    assert!(ledger.compare(0, &Tally { records: 1, digest }).is_err());
    assert!(ledger.compare(1, &Tally { records: 2, digest }).is_err());
}

proptest::proptest! {
    /// Whatever is lent, used and lost in whatever order: what the ledger counts is what a set of records says.
    #[test]
    fn the_ledger_knows_which_records_are_used(events in proptest::collection::vec((0_u8..4, 0_usize..3, 1_u32..6), 0..80)) {
        let (mut ledger, mut used) = (Ledger::default(), BTreeSet::new());
        let (mut next, mut waiting, mut held) = (0, Vec::new(), Vec::new());
        for (event, worker, count) in events {
            match event {
                0 => {
                    let (first, count) = waiting.pop().unwrap_or_else(|| {
                        next += u64::from(count);
                        (next - u64::from(count), count)
                    });
                    held.push((worker, ledger.lend(worker, first, count, &[]), first, count));
                }
                1 | 2 if !held.is_empty() => {
                    let (worker, lease, first, count) = held.swap_remove(worker % held.len());
                    ledger.used(worker, lease, &ledger::digest(first, count, &[]), None).unwrap();
                    used.extend(first..first + u64::from(count));
                }
                _ => {
                    let lost: BTreeSet<u64> = ledger.lost(worker).into_iter().collect();
                    let (gone, kept): (Vec<_>, Vec<_>) = held.into_iter().partition(|&(by, ..)| by == worker);
                    proptest::prop_assert_eq!(gone.iter().map(|&(_, lease, ..)| lease).collect::<BTreeSet<_>>(), lost);
                    waiting.extend(gone.into_iter().map(|(.., first, count)| (first, count)));
                    held = kept;
                }
            }
            proptest::prop_assert_eq!(ledger.is_settled(), held.is_empty());
        }
        proptest::prop_assert_eq!(ledger.close(None).unwrap().records, used.len() as u64);
        proptest::prop_assert_eq!(ledger.close(Some(next)).is_ok(), used.len() as u64 == next);
    }
}

/// What a worker is fed with in an epoch of numbers: bytes of features and labels.
fn epoch_of(parts: &std::path::Path, cache_bytes: u64) -> Vec<u8> {
    let recipe = muster::train::Recipe {
        batch_size: 100,
        ..muster::train::Recipe::of(muster::optimizer::Optimizer::Sgd)
    };
    let spec = spec::FeedSpec { cache_bytes, ..spec::FeedSpec::training("csv2", parts, &[20], 3, &recipe) };
    let supply = Supply::prepare(&spec, &AtomicBool::new(false)).unwrap();
    let key = JobKey::random();
    let mut inlet = Inlet::listen(HOST, key.clone()).unwrap();
    let address = inlet.address();
    let worker = std::thread::spawn(move || {
        inlet.want(0, PATIENCE).unwrap();
        let mut bytes = Vec::new();
        for _ in 0..30 {
            let batch = inlet.next(PATIENCE).unwrap().unwrap();
            bytes.extend_from_slice(&batch.portion.bytes);
            inlet.used(&batch, 0, &[]).unwrap();
        }
        inlet.enough(PATIENCE).unwrap();
        while inlet.next(PATIENCE).unwrap().is_some() {}
        bytes
    });
    let mut feeder = Feeder::connect(&key, &[address], false, PATIENCE).unwrap();
    let tally = supply.feed(&mut feeder, &AtomicBool::new(false)).unwrap();
    assert_eq!(tally.records, 3000);
    worker.join().unwrap()
}

#[test]
fn numbers_that_do_not_fit_into_the_driver_s_memory_are_fed_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let line = |record: usize| {
        let measures: Vec<String> =
            (0..20).map(|i| ((record * 31 + i * 7) as f32 / 64.0).to_string()).collect();
        format!("{}|{}\n", record % 3, measures.join(","))
    };
    for part in 0..3 {
        let text: String = (1000 * part..1000 * (part + 1)).map(line).collect();
        std::fs::write(directory.path().join(format!("part-{part:05}")), text).unwrap();
    }
    let fed = epoch_of(directory.path(), 0);
    assert_eq!(fed.len(), 3000 * (20 * 4 + 4));
    assert!(fed == epoch_of(directory.path(), u64::MAX), "other records, or another order");
}
