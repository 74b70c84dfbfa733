//! `seeds DIRECTORY` writes the corpus that each target begins with to `DIRECTORY/TARGET/` and prints the targets' names.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(env::args_os().nth(1).ok_or("name the directory of the corpora")?);
    for target in muster_fuzz::targets() {
        let corpus = directory.join(target.name);
        fs::create_dir_all(&corpus)?;
        for (number, seed) in (target.seeds)().iter().enumerate() {
            fs::write(corpus.join(format!("seed-{number:02}")), seed)?;
        }
        println!("{}", target.name);
    }
    Ok(())
}
