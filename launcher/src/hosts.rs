//! Hosts and how many ranks each of them takes.

use crate::error::Error;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

/// A host and its slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Name or address.
    pub name: String,
    /// Ranks it may run.
    pub slots: usize,
}

/// The name of this host.
pub fn this_host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

impl Host {
    /// Whether it is this one.
    pub fn is_local(&self) -> bool {
        let addresses = || (self.name.as_str(), 0).to_socket_addrs();
        let loopback = |mut all: std::vec::IntoIter<std::net::SocketAddr>| all.all(|a| a.ip().is_loopback());
        self.name == this_host() || self.name == "localhost" || addresses().is_ok_and(loopback)
    }

    /// The address of this machine that the host reaches it by, as far as the routes say.
    pub fn way_back(&self) -> Option<IpAddr> {
        let target = (self.name.as_str(), 9).to_socket_addrs().ok()?.next()?;
        let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        // Connecting a UDP socket sends nothing: it only looks up the route.
        let socket = std::net::UdpSocket::bind(any).ok()?;
        socket.connect(target).ok()?;
        Some(socket.local_addr().ok()?.ip())
    }
}

/// Those that `--hosts` or `--hostfile` names; none if neither is given.
///
/// # Errors
/// If the file cannot be read, and as [`from_list`].
pub fn given(list: Option<&str>, file: Option<&Path>) -> Result<Vec<Host>, Error> {
    match (list, file) {
        (Some(list), _) => from_list(list),
        (None, None) => Ok(Vec::new()),
        (None, Some(file)) => {
            from_file(&std::fs::read_to_string(file).map_err(Error::io("read", file.display()))?)
        }
    }
}

/// `a:2,b` as hosts; one slot where none are named.
///
/// # Errors
/// If a name is empty or a number of slots is none.
pub fn from_list(text: &str) -> Result<Vec<Host>, Error> {
    text.split(',').map(|word| host(word.trim(), word)).collect()
}

/// The content of a hostfile as Open MPI and MPICH have them: a line `a`, `a:2` or `a slots=2` for each host; `#` begins a comment.
///
/// # Errors
/// As [`from_list`].
pub fn from_file(content: &str) -> Result<Vec<Host>, Error> {
    let lines = content.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines
        .filter(|line| !line.is_empty())
        .map(|line| {
            let mut words = line.split_whitespace();
            let mut host = host(words.next().unwrap_or_default(), line)?;
            for word in words {
                if let Some(slots) = word.strip_prefix("slots=") {
                    host.slots = slots.parse().ok().filter(|&slots| slots > 0).ok_or_else(|| bad(line))?;
                }
            }
            Ok(host)
        })
        .collect()
}

fn host(word: &str, whole: &str) -> Result<Host, Error> {
    let (name, slots) = match word.rsplit_once(':') {
        Some((name, slots)) => (name, slots.parse().ok().filter(|&slots| slots > 0)),
        None => (word, Some(1)),
    };
    let slots = slots.filter(|_| !name.is_empty()).ok_or_else(|| bad(whole))?;
    Ok(Host { name: name.to_owned(), slots })
}

fn bad(text: &str) -> Error {
    Error::Usage {
        what: format!("`{text}` is no host with slots"),
        mend: "write a:2,b:2 with --hosts, or a line `a slots=2` for each host with --hostfile",
    }
}

/// The host of each rank: the first host's slots first.
///
/// # Errors
/// If there are fewer slots than ranks.
pub fn place(hosts: &[Host], ranks: usize) -> Result<Vec<&Host>, Error> {
    let slots: Vec<&Host> = hosts.iter().flat_map(|host| std::iter::repeat_n(host, host.slots)).collect();
    if slots.len() >= ranks {
        return Ok(slots[..ranks].to_vec());
    }
    let list: Vec<String> = hosts.iter().map(|host| format!("{}:{}", host.name, host.slots)).collect();
    Err(Error::Usage {
        what: format!("{ranks} ranks, but {} slots ({})", slots.len(), list.join(", ")),
        mend: "name more hosts or slots, or ask for fewer ranks with -n",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(list: &[(&str, usize)]) -> Vec<Host> {
        list.iter().map(|&(name, slots)| Host { name: name.to_owned(), slots }).collect()
    }

    #[test]
    fn lists_and_files_say_the_same() {
        let expected = hosts(&[("a", 2), ("b", 1), ("10.0.0.3", 4)]);
        assert_eq!(from_list("a:2,b, 10.0.0.3:4").unwrap(), expected);
        let file = "# ours\na slots=2 max_slots=4\n\nb   # spare\n10.0.0.3:4\n";
        assert_eq!(from_file(file).unwrap(), expected);
        for bad in ["", "a:0", "a:x", ":2", "a,,b", "a:-1"] {
            assert!(from_list(bad).is_err(), "{bad}");
        }
        assert!(from_file("a slots=0").is_err());
    }

    #[test]
    fn hosts_fill_in_order_and_fewer_slots_than_ranks_are_an_error() {
        let hosts = hosts(&[("a", 2), ("b", 3)]);
        let names: Vec<&str> = place(&hosts, 4).unwrap().iter().map(|host| host.name.as_str()).collect();
        assert_eq!(names, ["a", "a", "b", "b"]);
        let error = place(&hosts, 6).unwrap_err().to_string();
        assert!(error.contains("6 ranks, but 5 slots (a:2, b:3)"), "{error}");
    }

    #[test]
    fn this_machine_is_local() {
        for name in ["localhost", "127.0.0.1", &this_host()] {
            assert!(Host { name: name.to_owned(), slots: 1 }.is_local(), "{name}");
        }
        assert!(!Host { name: "192.0.2.1".to_owned(), slots: 1 }.is_local());
    }
}
