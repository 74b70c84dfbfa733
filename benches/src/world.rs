//! What goes between the ranks of a world under mpirun: push and pull, and training, by each transport. Rank 0 says what comes next,
//! and the others do their part of it.

use std::rc::Rc;

use muster_collective::{Transport, World};

use crate::Error;
use crate::exchange::{
    SIZES, TRIAL, Work, follow as follow_exchange, kilobytes, loads, probe, serve, shape, steps_of,
};
use crate::kernels::DENSITY;
use crate::measure::{Limit, Probe, steps};
use crate::report::{Group, Unit};
use crate::suite::Bench;
use crate::trainer::{Trainer, random_images};
use crate::training::{self, IMAGES, SHAPE, counted, model};

/// The hidden layer of what is trained.
const HIDDEN: &[usize] = &[128];
/// Steps of a training at least: several ranks find out in the first ones who computes them fastest.
const STEPS_MIN: u64 = 2000;
/// What a rank alone reaches.
const ALONE: &str = "784-128-10, 1 rank";

/// What rank 0 calls training, and whether it takes part.
const TRAINING: [(&str, bool); 2] = [("train", false), ("train-too", true)];

/// What is measured where it can be had. Leaders are memory within a node and messages between nodes, which are here as such.
const TRANSPORTS: [Transport; 3] = [Transport::Shared, Transport::Messages, Transport::Rma];
/// What rank 0 calls push and pull, by what the workers do between; the number of floats follows.
const EXCHANGE: [(&str, Work); 2] = [("exchange-", Work::Nothing), ("touch-", Work::Touch)];
/// What rank 0 calls a message there and back; the number of floats follows.
const BARE: &str = "bare-";

/// Rank 0's probes.
///
/// # Errors
/// If a model cannot be trained.
pub fn probes<'a>(bench: &Bench, world: &'a World) -> Result<Vec<Probe<'a>>, Error> {
    let workers = world.roster().len() - 1;
    let trainer = Rc::new(trainer(bench)?);
    // Between nodes, not every MPI has windows that memory is got from.
    let is_there = |&transport: &Transport| match transport {
        Transport::Rma => world.roster().nodes() == 1,
        _ => world.transport(Some(transport), true).is_ok(),
    };
    let transports = || TRANSPORTS.into_iter().filter(is_there);
    let mut probes = Vec::new();
    // Of one worker, what its messages cannot beat; large ones can, a little, as their pieces go both ways at once.
    let bare = |floats: usize| format!("MPI itself, a message there and back, {:.0} KB", kilobytes(floats));
    if workers == 1 {
        let time = bench.sample;
        let probe = |floats| {
            let run = move |times| {
                world.exchange_after_work(&order(&format!("{BARE}{floats}"), Transport::Messages, times))?;
                Ok(1e6 * world.round_trip(floats, times)?.as_secs_f64())
            };
            let sample = steps(TRIAL, move |micros| steps_of(time, micros), run);
            Probe {
                group: Group::Exchange,
                name: bare(floats),
                unit: Unit::Micros,
                limit: None,
                intensity: None,
                sample,
            }
        };
        probes.extend(SIZES.map(probe));
    }
    for (transport, (floats, work)) in
        transports().flat_map(|transport| loads().map(move |load| (transport, load)))
    {
        let kernels = bench.kernels;
        let run = move |steps| {
            world.exchange_after_work(&order(&name_of(floats, work), transport, steps))?;
            let ranks = world.roster().by_node(1);
            serve(&world.server(&shape(&[floats], &ranks), transport)?, kernels, steps)
        };
        let way = format!("MPI, {}, {}", transport.name(), counted(workers, "worker"));
        let time = bench.sample;
        let sample = steps(TRIAL, move |micros| steps_of(time, micros), run);
        let mut probe = probe(&way, workers, (floats, work), sample);
        if transport == Transport::Messages && workers == 1 {
            probe.limit = Some(Limit::Times(bare(floats), 1.0));
        }
        probes.push(probe);
    }
    let (alone, time) = (trainer.clone(), bench.sample);
    let fill = move |rate: f64| training::steps_of(time, rate).max(STEPS_MIN);
    let training = |name: String, limit, sample| Probe {
        group: Group::Training,
        name,
        unit: Unit::Records,
        limit,
        intensity: None,
        sample,
    };
    let sample = steps(training::TRIAL, fill, move |steps| Ok(alone.images_per_second(1, steps)?));
    probes.push(training(ALONE.to_owned(), None, sample));
    for transport in transports() {
        for (what, server_trains) in TRAINING {
            let trainer = trainer.clone();
            let sample = steps(training::TRIAL, fill, move |steps| {
                world.exchange_after_work(&order(what, transport, steps))?;
                Ok(trainer.images_per_second_of((world, transport), server_trains, steps)?)
            });
            let who = if server_trains { workers + 1 } else { workers };
            let server = if server_trains { ", the server among them" } else { "" };
            let name = format!("{}, {}, {}{server}", model(HIDDEN), transport.name(), counted(who, "worker"));
            probes.push(training(name, Some(Limit::Times(ALONE.to_owned(), who as f64)), sample));
        }
    }
    Ok(probes)
}

/// The other ranks' part, until rank 0 ends it.
///
/// # Errors
/// If a rank has failed.
pub fn follow(bench: &Bench, world: &World) -> Result<(), Error> {
    let (trainer, ranks) = (trainer(bench)?, world.roster().by_node(1));
    loop {
        let texts = world.exchange_after_work("")?;
        let Some((what, transport, steps)) = parse(&texts[0]) else { return Ok(()) };
        match TRAINING.into_iter().find(|(name, _)| *name == what) {
            Some((_, server_trains)) => {
                trainer.images_per_second_of((world, transport), server_trains, steps)?;
            }
            None => match what.strip_prefix(BARE) {
                Some(floats) => {
                    world.round_trip(floats.parse().expect("the same program gave the order"), steps)?;
                }
                None => {
                    let (floats, work) = load_of(what).expect("the same program gave the order");
                    follow_exchange(&world.worker(&shape(&[floats], &ranks), transport)?, work)?;
                }
            },
        }
    }
}

/// Lets the other ranks go.
///
/// # Errors
/// If one of them has failed.
pub fn end(world: &World) -> Result<(), Error> {
    world.exchange_after_work("end")?;
    Ok(())
}

fn trainer(bench: &Bench) -> Result<Trainer, Error> {
    let (images, labels) = random_images(IMAGES, SHAPE.0, SHAPE.1, DENSITY);
    Ok(Trainer::new(bench.kernels, HIDDEN, SHAPE.1, &images, &labels)?)
}

/// What push and pull of so many floats is called.
fn name_of(floats: usize, work: Work) -> String {
    let names = EXCHANGE.into_iter().filter(|(_, with)| *with == work);
    names.map(|(name, _)| format!("{name}{floats}")).collect()
}

/// The same backwards.
fn load_of(what: &str) -> Option<(usize, Work)> {
    EXCHANGE.into_iter().find_map(|(name, work)| Some((what.strip_prefix(name)?.parse().ok()?, work)))
}

/// What rank 0 tells the others.
fn order(what: &str, transport: Transport, steps: u64) -> String {
    format!("{what} {} {steps}", transport.name())
}

/// What rank 0 has told; none if it was the end.
fn parse(order: &str) -> Option<(&str, Transport, u64)> {
    let mut words = order.split(' ');
    let (what, name, steps) = (words.next()?, words.next()?, words.next()?);
    let transport = TRANSPORTS.into_iter().find(|transport| transport.name() == name)?;
    Some((what, transport, steps.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_understood() {
        for transport in TRANSPORTS {
            assert_eq!(parse(&order("train", transport, 70)), Some(("train", transport, 70)));
        }
        assert_eq!(parse("end"), None);
        for load in loads() {
            assert_eq!(load_of(&name_of(load.0, load.1)), Some(load));
        }
    }
}
