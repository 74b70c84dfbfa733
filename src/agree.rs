//! What the processes of a world make sure of before they train: all of them are ready, want the same, and compute in the same way.

use crate::checkpoint::Identity;
use crate::error::Error;
use muster_collective::{Roster, World};
use muster_kernels::{Backend, Kernels};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The environment variable that forces a back end of the kernels.
const FORCE: &str = "MUSTER_KERNELS";

/// What one rank brings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Facts {
    /// Names and values that have to be the same on all ranks.
    options: Vec<(String, String)>,
    /// The kernels' back ends that run there, slowest first.
    back_ends: Vec<String>,
    /// The one that `MUSTER_KERNELS` names there.
    forced: Option<String>,
    /// Whether the training pays by tiles; see [`crate::pass::Way::pays_by_tiles`].
    by_tiles: bool,
}

impl Facts {
    /// Those of this process: what it would train, of which its arithmetic is still open, whether that [pays by
    /// tiles](crate::pass::Way::pays_by_tiles), and whatever else has to be the same.
    ///
    /// # Errors
    /// If `MUSTER_KERNELS` names kernels that do not run here.
    pub fn here(
        identity: &Identity,
        by_tiles: bool,
        others: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Facts, muster_kernels::Error> {
        let forced = std::env::var_os(FORCE).is_some();
        let selected = Kernels::select()?.backend().name().to_owned();
        let back_ends = Backend::ALL.into_iter().filter(|b| b.is_available()).map(|b| b.name().to_owned());
        let options = others.into_iter().map(|(name, value)| (name.to_owned(), value));
        Ok(Facts {
            options: options.chain(identity.fields()).collect(),
            back_ends: back_ends.collect(),
            forced: forced.then_some(selected),
            by_tiles,
        })
    }
}

/// Tells all ranks what this one brings, or why it cannot take part, and returns the kernels that all of them are to use.
///
/// # Errors
/// If a rank cannot take part, if ranks want different things, or have no kernels in common. All ranks get the same error.
pub fn agree(world: &World, own: Result<Facts, String>) -> Result<&'static Kernels, Error> {
    let facts = gather(world, own)?;
    same(&facts.iter().map(|facts| &facts.options[..]).collect::<Vec<_>>())?;
    let name = kernels(&facts)?;
    let backend: Backend = name.parse().expect("the name of a back end");
    Ok(Kernels::of(backend).expect("this rank has what all have"))
}

/// Gives every rank what all of them have done, by rank.
///
/// # Errors
/// What has kept a rank from doing it. All ranks get the same error.
pub fn gather<T: Serialize + DeserializeOwned>(
    world: &World,
    own: Result<T, String>,
) -> Result<Vec<T>, Error> {
    let json = serde_json::to_string(&own).expect("plain data becomes JSON");
    let another = "it is another program, or another version of this one";
    let all: Vec<Result<T, String>> = world
        .exchange_after_work(&json)?
        .iter()
        .map(|json| serde_json::from_str(json).unwrap_or_else(|_| Err(another.to_owned())))
        .collect();
    ready(world.roster(), all)
}

/// Names and values that have to be the same on all ranks.
///
/// # Errors
/// The first that differs, with its values and their ranks.
pub fn same(options: &[&[(String, String)]]) -> Result<(), Error> {
    differences(options).map_or(Ok(()), |text| Err(Error::RanksDiffer { text }))
}

/// What all ranks have, or what keeps some of them from taking part.
fn ready<T>(roster: &Roster, all: Vec<Result<T, String>>) -> Result<Vec<T>, Error> {
    let failed: Vec<(usize, &String)> =
        all.iter().enumerate().filter_map(|(rank, facts)| Some((rank, facts.as_ref().err()?))).collect();
    let Some(&(first, message)) = failed.first() else { return Ok(all.into_iter().flatten().collect()) };
    let same = failed.iter().filter(|(_, other)| *other == message).count();
    let who = if same == all.len() { String::new() } else { format!("{}: ", roster.name(first)) };
    Err(Error::NotReady { text: format!("{who}{message}") })
}

/// Where the ranks' options differ, if they do: the name, and who has which value.
fn differences(facts: &[&[(String, String)]]) -> Option<String> {
    let value = |rank: usize, at: usize| facts[rank].get(at).map_or("", |option| &option.1);
    let (at, (name, first)) = facts[0]
        .iter()
        .enumerate()
        .find(|(at, option)| (0..facts.len()).any(|rank| value(rank, *at) != option.1))?;
    let (others, with): (Vec<usize>, Vec<usize>) =
        (0..facts.len()).partition(|&rank| value(rank, at) != first);
    let other = value(others[0], at);
    let others: Vec<usize> = others.into_iter().filter(|&rank| value(rank, at) == other).collect();
    Some(format!("{name} is {first} on {}, but {other} on {}", ranks(&with), ranks(&others)))
}

/// The back end to use: the one that is forced somewhere, otherwise the fastest that all have and that is taken unasked.
fn kernels(facts: &[Facts]) -> Result<&str, Error> {
    let forced: Vec<(usize, &String)> =
        facts.iter().enumerate().filter_map(|(rank, facts)| Some((rank, facts.forced.as_ref()?))).collect();
    let Some(&(first, name)) = forced.first() else {
        let by_tiles = facts.iter().all(|facts| facts.by_tiles);
        let is_automatic =
            |name: &str| name.parse().is_ok_and(|backend: Backend| backend.is_automatic(by_tiles));
        let mut fastest_first = facts[0].back_ends.iter().rev().filter(|name| is_automatic(name));
        let best = fastest_first.find(|name| lacking(facts, name).is_empty());
        return Ok(best.expect("one of them is portable"));
    };
    let missing = lacking(facts, name);
    let text = if let Some((other, another)) = forced.iter().find(|(_, another)| *another != name) {
        format!("{FORCE} is {name} on rank {first}, but {another} on rank {other}")
    } else if !missing.is_empty() {
        format!("{FORCE} is {name} on rank {first}, but these kernels do not run on {}", ranks(&missing))
    } else {
        return Ok(name);
    };
    Err(Error::RanksDiffer { text })
}

fn lacking(facts: &[Facts], name: &String) -> Vec<usize> {
    (0..facts.len()).filter(|&rank| !facts[rank].back_ends.contains(name)).collect()
}

/// `rank 1`, or `ranks 1, 2`.
fn ranks(ranks: &[usize]) -> String {
    let names: Vec<String> = ranks.iter().map(usize::to_string).collect();
    format!("rank{} {}", if ranks.len() == 1 { "" } else { "s" }, names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(rate: &str, back_ends: &[&str], forced: Option<&str>) -> Facts {
        Facts {
            options: vec![("seed".into(), "1".into()), ("learning_rate".into(), rate.into())],
            back_ends: back_ends.iter().map(|&name| name.into()).collect(),
            forced: forced.map(Into::into),
            by_tiles: false,
        }
    }

    #[test]
    fn a_differing_option_and_its_ranks_are_named() {
        let all = [facts("0.5", &[], None), facts("0.1", &[], None), facts("0.5", &[], None)];
        let options: Vec<_> = all.iter().map(|facts| &facts.options[..]).collect();
        assert_eq!(
            differences(&options).as_deref(),
            Some("learning_rate is 0.5 on ranks 0, 2, but 0.1 on rank 1")
        );
        assert_eq!(differences(&options[..1]), None);
    }

    #[test]
    fn the_best_kernels_that_all_have_are_used() {
        let all = [facts("", &["wide", "avx2", "avx512"], None), facts("", &["wide", "avx2"], None)];
        assert_eq!(kernels(&all).unwrap(), "avx2");
    }

    #[test]
    fn kernels_that_are_not_automatic_are_used_where_they_are_forced_and_all_have_them() {
        let every = ["wide", "avx2", "avx512", "amx"];
        assert_eq!(kernels(&[facts("", &every, None), facts("", &every, None)]).unwrap(), "avx512");
        assert_eq!(kernels(&[facts("", &every, None), facts("", &every, Some("amx"))]).unwrap(), "amx");
        let error = kernels(&[facts("", &every, Some("amx")), facts("", &every[..3], None)]).unwrap_err();
        let expected = "MUSTER_KERNELS is amx on rank 0, but these kernels do not run on rank 1";
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn tiles_are_taken_unasked_where_they_pay_and_all_have_them() {
        let every = ["wide", "avx2", "avx512", "amx"];
        let paying = |back_ends| Facts { by_tiles: true, ..facts("", back_ends, None) };
        assert_eq!(kernels(&[paying(&every), paying(&every)]).unwrap(), "amx");
        assert_eq!(kernels(&[paying(&every), paying(&every[..3])]).unwrap(), "avx512");
        let forced = Facts { by_tiles: true, ..facts("", &every, Some("avx2")) };
        assert_eq!(kernels(&[paying(&every), forced]).unwrap(), "avx2");
    }

    #[test]
    fn the_rank_that_lacks_forced_kernels_is_named() {
        let all = [facts("", &["wide", "avx512"], Some("avx512")), facts("", &["wide"], None)];
        let error = kernels(&all).unwrap_err().to_string();
        assert!(
            error.contains("MUSTER_KERNELS is avx512 on rank 0, but these kernels do not run on rank 1"),
            "{error}"
        );
        let all = [facts("", &["wide", "avx2"], None), facts("", &["wide", "avx2"], Some("wide"))];
        assert_eq!(kernels(&all).unwrap(), "wide");
    }

    #[test]
    fn what_keeps_one_rank_away_is_said_with_its_name() {
        let roster = Roster::of_threads(2);
        let error = |all| ready(&roster, all).unwrap_err().to_string();
        let missing = || Err("no such file".to_owned());
        assert_eq!(error(vec![Ok(facts("", &[], None)), missing()]), "rank 1: no such file");
        assert_eq!(error(vec![missing(), missing()]), "no such file");
    }
}
