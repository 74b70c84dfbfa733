//! Values of options, and what is said of those that are none.

use muster::parts::Format;

/// What has to carry messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FabricName {
    /// Whatever MPI has selected.
    Auto,
    /// Something that goes by this name.
    Require(String),
}

/// Units of the hidden layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden(pub Vec<usize>);

/// `none`, or units of each layer with commas between them.
pub fn hidden(text: &str) -> Result<Hidden, String> {
    if text == "none" {
        return Ok(Hidden(Vec::new()));
    }
    let units = |word: &str| match word.trim().parse() {
        Ok(units @ 1..=1_000_000) => Ok(units),
        _ => Err(format!("`{word}` is no number of units from 1 to 1000000; write 128, or 512,512, or none")),
    };
    text.split(',').map(units).collect::<Result<_, _>>().map(Hidden)
}

/// `auto` or `require=NAME`.
pub fn fabric(text: &str) -> Result<FabricName, String> {
    match text.strip_prefix("require=").map(str::trim) {
        None if text == "auto" => Ok(FabricName::Auto),
        Some(name) if !name.is_empty() => Ok(FabricName::Require(name.to_ascii_lowercase())),
        _ => Err("auto or require=NAME is needed".to_owned()),
    }
}

/// The name of a format.
pub fn format(text: &str) -> Result<Format, String> {
    text.parse().map_err(|error: muster::Error| error.to_string())
}

/// A whole number from 1 on.
pub fn positive<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let number = text.parse::<u64>().ok().filter(|&number| number > 0 && number <= u64::from(u32::MAX));
    number
        .and_then(|number| number.try_into().ok())
        .ok_or(format!("a whole number from 1 to {} is needed", u32::MAX))
}

fn number(text: &str, fits: impl Fn(f64) -> bool, what: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|&number: &f64| number.is_finite() && fits(number))
        .ok_or(format!("{what} is needed"))
}

/// A number above 0.
pub fn rate(text: &str) -> Result<f32, String> {
    number(text, |rate| rate > 0.0 && rate <= 1e6, "a number above 0").map(|rate| rate as f32)
}

/// A number from 0 up to but not including 1.
pub fn below_one(text: &str) -> Result<f32, String> {
    number(text, |momentum| (0.0..1.0).contains(&momentum), "a number from 0 up to but not including 1")
        .map(|m| m as f32)
}

/// A time that is not nothing.
pub fn seconds(text: &str) -> Result<f64, String> {
    number(text, |seconds| seconds > 0.0 && seconds <= 1e9, "a number of seconds above 0")
}

/// `True` and `False`, as Python writes them, in any case.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("true or false is needed".to_owned()),
    }
}
