//! What a training says on the terminal.

use super::Run;
use crate::cli::RecipeName;
use crate::console::{self, Console};
use crate::recipe::follows;
use muster::cluster::RankTimes;
use muster::conductor::{Event, Step};
use muster::report::Report;

impl Run<'_> {
    /// Before it begins.
    pub(super) fn plan(&self) -> String {
        let (job, schedule) = (&self.job, self.job.schedule());
        let steps = self.last_step.saturating_sub(self.start.progress.steps);
        let from = match self.start.progress.steps {
            0 => String::new(),
            done => format!(", going on from step {done}"),
        };
        let (workers, leaves) =
            ((job.world_size - 1).max(1), job.recipe.batch_size.div_ceil(job.recipe.micro_batch));
        let idle = match workers.saturating_sub(leaves) {
            0 => String::new(),
            idle => format!(", {idle} workers idle: a batch has {leaves} micro-batches"),
        };
        let shape: Vec<String> = job.model.widths().iter().map(usize::to_string).collect();
        let (shape, ranks, threads) = (shape.join("-"), self.ranks(), job.threads);
        let how = format!("({ranks}, {threads} threads each, kernels {})", job.kernels.backend().name());
        if follows(job) {
            let path = job.train.path().display();
            return format!("plan: {shape} on records as they appear in {path} {how}{from}{idle}");
        }
        let records = schedule.records_until(self.last_step)
            - schedule.records_until(self.start.progress.steps.min(self.last_step));
        format!(
            "plan: {shape} on {} records of {} {how}: {steps} steps = {:.2} epochs = {records} records{from}{idle}",
            schedule.records,
            self.dataset,
            steps as f64 / schedule.steps_per_epoch() as f64,
        )
    }

    /// The ranks and what lies between them.
    fn ranks(&self) -> String {
        let size = self.job.world_size;
        let Some((world, transport)) = self.job.cluster.world else { return format!("{size} ranks") };
        let nodes = world.roster().nodes();
        let s = if nodes == 1 { "" } else { "s" };
        let fabric = self.found.name.as_deref().unwrap_or_default();
        format!(
            "{size} ranks on {nodes} node{s}, transport {}, {}, fabric {fabric}",
            transport.name(),
            world.library()
        )
    }

    /// While it runs, from step `first` on.
    pub(super) fn show(&self, console: &Console, event: Event, first: u64) {
        match event {
            Event::Step(Step { steps, rows, score, .. }) => {
                console.progress(steps - first, || format!("loss {:.4}", score.loss / rows as f64));
                if self.options.recipe.recipe == Some(RecipeName::Tfos2017) && steps.is_multiple_of(100) {
                    let accuracy = f64::from(score.hits) / rows as f64;
                    console.line(format_args!("{} step: {steps} accuracy: {accuracy}", console::now()));
                }
            }
            Event::Epoch(epoch) => {
                let test = epoch
                    .test_accuracy
                    .map_or(String::new(), |accuracy| format!(", test accuracy {:.2} %", 100.0 * accuracy));
                console.line(format_args!(
                    "epoch {}: loss {:.4}, accuracy {:.2} %{test}, {:.3} s",
                    epoch.epoch,
                    epoch.loss,
                    100.0 * epoch.train_accuracy,
                    epoch.seconds
                ));
            }
            Event::Saved(_) | Event::Layers(_) => {}
            Event::NotSaved(error) => {
                console.remark(format_args!(
                    "warning: no checkpoint: {error}; training goes on and tries again"
                ));
            }
        }
    }

    /// When it is done.
    pub(super) fn summarize(&self, console: &Console, report: &Report, first: u64) {
        let results = &report.results;
        if results.steps == first {
            console.line(
                "nothing to train: the model has these steps already; a larger --epochs or --steps goes on",
            );
        }
        if let Some(accuracy) = results.test_accuracy {
            console.line(format_args!("test accuracy    {:.2} %", 100.0 * accuracy));
        }
        console.line(format_args!("images/s         {:.0}", results.images_per_second));
        console.line(format_args!("seconds          {:.3}", results.train_seconds));
        console.line(format_args!("steps            {}", results.steps));
        console.line(format_args!("weights sha256   {}", results.weights_sha256));
        if !results.staleness.is_empty() {
            let entries: Vec<String> = results
                .staleness
                .iter()
                .map(|(missed, gradients)| format!("{missed}: {gradients}"))
                .collect();
            console.line(format_args!("staleness        {}", entries.join(", ")));
        }
        for (counter, grown) in &report.fabric_counters {
            console.line(format_args!("fabric           {counter}: {grown}"));
        }
        if results.ranks.len() > 1 {
            results.ranks.iter().for_each(|times| console.line(account(times)));
        }
        console.line(format_args!("model            {}", self.options.model.display()));
    }
}

/// Where a rank's time went, as a line.
fn account(times: &RankTimes) -> String {
    let RankTimes { rank, compute, communication, reading, .. } = times;
    let waiting: f64 = times.waiting.iter().sum();
    let longest = times.longest_wait().map_or(String::new(), |(rank, _)| format!(", most for rank {rank}"));
    let alone = match times.alone {
        0 => String::new(),
        steps => format!("; {steps} steps by itself"),
    };
    format!(
        "rank {rank:<11} compute {compute:.3} s, communication {communication:.3} s, waiting {waiting:.3} s{longest}, reading {reading:.3} s{alone}"
    )
}
