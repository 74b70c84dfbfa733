//! The smallest program that the launcher can run: it takes steps, and can be told to fail.
//!
//! `steps COUNT [MILLISECONDS] [fail:RANK | panic:RANK | exit:RANK | hang:RANK | silent]`: each of `COUNT` steps takes so many
//! milliseconds (default 1). At half of them a rank says that it failed, panics, ends without a word, or hangs; a silent program
//! never registers.

use muster_launcher::agent::Agent;
use muster_launcher::message::{Program, Task};
use std::sync::atomic::Ordering;
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let count: u64 = arguments.next().ok_or("how many steps?")?.parse()?;
    let pause = Duration::from_millis(arguments.next().map_or(Ok(1), |text| text.parse())?);
    let fault = arguments.next().unwrap_or_default();
    if fault == "silent" {
        std::thread::sleep(Duration::from_secs(60));
    }
    let program = Program {
        name: "steps".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernels: "none".to_owned(),
        task: Task::Train,
        evaluates: false,
        feed: None,
    };
    let Some(agent) = Agent::of_this_process(program)? else {
        return Err("start it with `muster run`".into());
    };
    println!("ranks {:?} of {}", agent.ranks(), agent.spec().nodes.len());
    agent.wait_for_start()?;
    let faulty = fault.split_once(':').and_then(|(kind, rank)| Some((kind, rank.parse::<usize>().ok()?)));
    for step in 1..=count {
        std::thread::sleep(pause);
        for &rank in agent.ranks() {
            agent.step(rank, step);
            match faulty {
                Some((kind, faulty)) if faulty == rank && step == count.div_ceil(2) => match kind {
                    "fail" => return Ok(agent.finish(Err("the disk is full".to_owned()))?),
                    "panic" => panic!("on purpose"),
                    "exit" => std::process::exit(7),
                    _ => std::thread::sleep(Duration::from_secs(60)),
                },
                _ => {}
            }
        }
        if agent.stop().load(Ordering::Relaxed) != 0 {
            println!("stopped after step {step}");
            break;
        }
    }
    agent.finish(Ok(()))?;
    Ok(())
}
