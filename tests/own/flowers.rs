//! A program of one's own: flowers of 20 measures in 3 kinds, and a network with two hidden layers. It runs alone (`flowers FILE`), on
//! ranks (`mpirun -n 3 flowers FILE`), and fed by a driver that reads csv2 (`muster run -n 3 --feed -- flowers PARTS`).

use muster::checkpoint::{Checkpoint, sha256};
use muster::cluster::Cluster;
use muster::conductor::{Conductor, Event};
use muster::dataset::{Dataset, Features};
use muster::feed::Feed;
use muster::model::Model;
use muster::optimizer::Optimizer;
use muster::records::Records;
use muster::train::{Job, Recipe, train, work};
use muster_collective::World;
use muster_kernels::Kernels;
use muster_launcher::agent::{Agent, wants_feed};
use muster_launcher::feed::spec::FeedSpec;
use muster_launcher::message::Program;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A format that muster does not know: a line for each flower, its measures and its kind with blanks between.
fn read(path: &Path) -> Result<Dataset, Box<dyn Error>> {
    let (mut measures, mut kinds) = (Vec::new(), Vec::new());
    for line in std::fs::read_to_string(path)?.lines() {
        let (numbers, kind) = line.rsplit_once(' ').ok_or("a line of numbers is needed")?;
        kinds.push(kind.parse()?);
        numbers.split(' ').try_for_each(|number| number.parse().map(|number| measures.push(number)))?;
    }
    Ok(Dataset::from_features(path, Features::F32(measures), &[20], 3)?.with_labels(path, kinds)?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: flowers FILE|PARTS")?);
    let (model, recipe) = (Model::new(&[20, 32, 16, 3]), Recipe::of(Optimizer::ADAM));
    let kernels = Kernels::select()?;
    let world = World::join(Duration::from_secs(60), |reason| eprintln!("{reason}"))?;
    let feed = wants_feed()?.then(|| FeedSpec::training("csv2", &path, &[20], 3, &recipe));
    let agent = Agent::of_this_process(Program::training("flowers", "1", kernels.backend().name(), feed))?;
    agent.as_ref().map_or(Ok(()), Agent::wait_for_start)?;
    let fed = agent.as_ref().and_then(|agent| agent.fed(1.0));
    let data = fed.as_ref().map_or_else(|| read(&path).map(Records::from), |fed| Ok(fed.records()))?;
    let ranks_here = agent.as_ref().map_or(1, |agent| agent.ranks().len());
    let watch = |rank, steps| agent.iter().for_each(|agent| agent.step(rank, steps));
    let feed = fed.as_ref().map(|fed| fed as &dyn Feed);
    let cluster = Cluster { feed, watch: Some(&watch), ..Cluster::of(world.as_ref())? };
    let world_size = world.as_ref().map_or(ranks_here, |world| world.roster().len());
    let job = Job { world_size, cluster, ..Job::of(&model, kernels, &data, &recipe) };
    if let Some(among) = job.cluster.world.filter(|(world, _)| world.rank() > 0) {
        work(&job, among)?;
    } else {
        let (start, mut quiet) = (Checkpoint::start(job.identity()), |_: Event| ());
        let stop = agent.as_ref().map(|agent| agent.stop().clone()).unwrap_or_default();
        let end = (start.progress.clone(), job.schedule(), 20 * job.schedule().steps_per_epoch());
        let mut conductor = Conductor::new(end, None, Duration::MAX, &stop, &mut quiet);
        println!("weights {}", sha256(&train(&job, &start, &mut conductor)?.weights));
    }
    agent.map_or(Ok(()), |agent| agent.finish(Ok(())))?;
    Ok(world.map_or(Ok(()), World::leave)?)
}
