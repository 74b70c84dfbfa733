//! The link between threads.

use super::*;

fn shape(workers: usize, copies: bool) -> Shape<'static> {
    let step_timeout = Duration::from_millis(300);
    let ranks = &[1, 2, 3][..workers];
    Shape {
        ranks,
        lengths: &[16, 32],
        nodes: 1,
        nodes_of_leader: 1,
        leaves: 1,
        copies,
        optimizer_slots: 0,
        step_timeout,
    }
}

fn add_slots(server: &Server, workers: std::ops::Range<usize>) {
    let mut weights = server.weights().write_all();
    for slot in &server.slots()[workers] {
        weights.iter_mut().zip(slot.read_all().iter()).for_each(|(w, g)| *w += g);
    }
}

/// Each worker adds its number to every weight, step by step.
#[test]
fn what_is_pushed_is_what_is_pulled() {
    const STEPS: u64 = 200;
    let (server, workers) = threads(&shape(3, false));
    std::thread::scope(|scope| {
        for worker in &workers {
            scope.spawn(move || {
                while let Order::Compute(step) = worker.pull().unwrap() {
                    assert_eq!(worker.weights().read_all()[20], step as f32 * 6.0);
                    worker.slot().write_all().fill(worker.ranks[0] as f32);
                    worker
                        .push(&Push { hits: vec![step as u32], losses: vec![0.5], ..Push::default() })
                        .unwrap();
                }
            });
        }
        let mut push = Push::default();
        for step in 0..STEPS {
            server.publish(Order::Compute(step)).unwrap();
            for &worker in server.others() {
                server.collect(worker, &mut push).unwrap();
                assert_eq!((&push.hits[..], &push.losses[..]), (&[step as u32][..], &[0.5][..]));
            }
            add_slots(&server, 0..3);
        }
        server.publish(Order::Stop).unwrap();
    });
    assert!(server.weights().read_all().iter().all(|&w| w == STEPS as f32 * 6.0));
    assert!(workers.iter().all(|worker| worker.times().waiting[0] > 0.0));
}

#[test]
fn workers_with_copies_go_on_one_by_one() {
    let (server, workers) = threads(&shape(2, true));
    server.weights().write_all().fill(1.0);
    for &worker in server.others() {
        server.copies()[worker].write_all().copy_from_slice(&server.weights().read_all());
        server.give(worker, Order::Compute(worker as u64)).unwrap();
    }
    assert_eq!(workers[1].pull().unwrap(), Order::Compute(1));
    workers[1].slot().write_all().fill(2.0);
    workers[1].push(&Push::default()).unwrap();
    assert_eq!(server.collect_any(&[0, 1], &mut Push::default()).unwrap(), 1);
    add_slots(&server, 1..2);
    assert_eq!(workers[0].weights().read_all()[0], 1.0, "a copy does not change under its worker");
    assert_eq!(server.collect_now(&[0], &mut Push::default()).unwrap(), None);
}

#[test]
fn a_failure_reaches_everybody_and_names_the_first_cause() {
    let (server, workers) = threads(&shape(2, false));
    server.publish(Order::Compute(0)).unwrap();
    workers[1].fail("the disk is gone");
    workers[0].fail("rank 2 is gone");
    let error = server.collect(0, &mut Push::default()).unwrap_err();
    assert_eq!(error.to_string(), "rank 2: the disk is gone");
    workers[0].pull().unwrap();
    workers[0].push(&Push::default()).unwrap();
    assert!(workers[0].pull().is_err());
}

#[test]
fn a_rank_that_does_not_go_on_is_named() {
    let (server, workers) = threads(&shape(2, false));
    server.publish(Order::Compute(0)).unwrap();
    workers[0].pull().unwrap();
    workers[0].push(&Push::default()).unwrap();
    server.collect(0, &mut Push::default()).unwrap();
    let error = server.collect(1, &mut Push::default()).unwrap_err();
    assert!(error.to_string().starts_with("rank 2 has sent nothing for 300ms"), "{error}");
    let error = workers[0].pull().unwrap_err();
    assert!(error.to_string().starts_with("rank 0 has sent nothing"), "{error}");
}

#[test]
fn a_server_in_a_pause_is_waited_for() {
    let (server, workers) = threads(&shape(1, false));
    std::thread::scope(|scope| {
        let pulled = scope.spawn(|| workers[0].pull());
        // The worker's limit is 875 ms.
        assert_eq!(server.pausing(|| std::thread::sleep(Duration::from_millis(2500))), ());
        server.publish(Order::Compute(0)).unwrap();
        assert_eq!(pulled.join().unwrap(), Ok(Order::Compute(0)));
    });
    assert!(catch_unwind(AssertUnwindSafe(|| server.pausing(|| panic!("it ends")))).is_err());
}
