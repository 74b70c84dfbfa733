//! The seams between the crates, seen from outside: whole programs, their exit codes, what they say and what they leave behind.

mod absurd_options;
mod bad_data;
mod bench;
mod checkpoints;
mod console;
mod damage;
mod default_run;
mod disks;
mod documents;
mod formats;
mod inference;
mod interruptions;
mod kernels;
mod manuals;
mod model_directory;
mod parts;
mod python;
mod report;
mod same_bits;
mod spellings;
