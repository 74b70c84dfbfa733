//! Which process something in a storage belongs to, and whether that process is gone.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;

use super::Storage;
use crate::error::Error;

/// This process, as a line of text that is another one each time: one process may own several things, and must not take one for
/// another.
pub(crate) fn this_process() -> String {
    let pid = std::process::id();
    let random = RandomState::new().build_hasher().finish();
    format!("{pid} {} {} {random:016x}", host(), started(pid).unwrap_or_default())
}

/// The part of an owner that no other has, for names of files.
pub(crate) fn unique_name(owner: &str) -> &str {
    owner.rsplit(' ').next().unwrap_or_default()
}

/// The owner that a file names, none when it is absent.
pub(crate) fn read(storage: &Storage, path: &Path) -> Result<Option<String>, Error> {
    let Some(entry) = storage.stat(path)? else { return Ok(None) };
    let bytes = storage.file(path)?.bytes(0..entry.bytes).map_err(Error::io("read", path))?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Whether the owner was a process of this host that has ended. Of another host nobody can know.
pub(crate) fn is_gone(owner: &str) -> bool {
    let mut words = owner.split(' ');
    let pid = words.next().and_then(|pid| pid.parse().ok());
    match (pid, words.next(), words.next()) {
        (Some(pid), Some(of), Some(since)) => of == host() && started(pid).as_deref() != Some(since),
        _ => false,
    }
}

/// The host's name and the boot's identity: process ids of containers that share a name are not mistaken for each other's.
fn host() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let number: String = namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    format!("{}/{}/{number}", read("/proc/sys/kernel/hostname"), read("/proc/sys/kernel/random/boot_id"))
}

/// When a process of this host started, in ticks after the boot; none when there is no such process.
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses, which may itself hold blanks and parentheses.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_of_this_host_that_ended_is_gone() {
        let own = std::process::id();
        let since = started(own).unwrap();
        assert!(!is_gone(&this_process()));
        assert_ne!(this_process(), this_process());
        assert!(!is_gone(&format!("{own} {} {since}", host())));
        assert!(is_gone(&format!("{own} {} {since}1", host())), "another process has that number now");
        assert!(is_gone(&format!("{} {} {since}", u32::MAX, host())));
        assert!(!is_gone(&format!("{} elsewhere {since}", u32::MAX)));
        assert!(!is_gone("damaged"));
    }
}
