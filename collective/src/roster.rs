//! The ranks of a job by name, node and core.

/// One process of a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The host's name.
    pub host: String,
    /// Which start of the host's kernel it is.
    pub boot: String,
    /// The lowest rank whose memory it can map: of those with the same host, boot and process namespace.
    pub node: usize,
    /// Process id on its host.
    pub pid: u32,
    /// The process namespace that this id belongs to.
    pub pid_namespace: String,
    /// The cores that it may run on.
    pub cores: Vec<usize>,
    /// How many of them it may use at once: fewer where a quota of processor time limits it.
    pub usable: usize,
}

/// All ranks of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    ranks: usize,
    /// Where each of them runs; empty for threads of one process.
    places: Vec<Place>,
}

impl Place {
    /// That of this process, whose node is not known yet.
    pub fn here() -> Place {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or("");
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        Place {
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            boot: boot.trim().to_owned(),
            node: 0,
            pid: std::process::id(),
            pid_namespace: namespace.to_string_lossy().into_owned(),
            cores: cores_of(cores.trim()),
            usable: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// The share of its cores that it may use at once. Where it is less than all, a quota of a group of processes is the reason, to which all
    /// ranks of the node may belong.
    fn quota(&self) -> f64 {
        (self.usable as f64 / self.cores.len().max(1) as f64).min(1.0)
    }

    /// As one line.
    pub fn line(&self) -> String {
        let cores: Vec<String> = self.cores.iter().map(usize::to_string).collect();
        let Place { host, boot, pid, pid_namespace, usable, .. } = self;
        format!("{host}\t{boot}\t{pid}\t{pid_namespace}\t{}\t{usable}", cores.join(","))
    }

    /// Of such a line; its node is not known yet.
    pub fn of(line: &str) -> Option<Place> {
        let mut fields = line.split('\t');
        let mut next = || fields.next();
        Some(Place {
            host: next()?.to_owned(),
            boot: next()?.to_owned(),
            node: 0,
            pid: next()?.parse().ok()?,
            pid_namespace: next()?.to_owned(),
            cores: cores_of(next()?),
            usable: next()?.parse().ok()?,
        })
    }
}

/// `0-2,5` is 0, 1, 2 and 5.
fn cores_of(list: &str) -> Vec<usize> {
    let range = |part: &str| -> Option<std::ops::RangeInclusive<usize>> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

impl Roster {
    /// Threads of one process.
    pub fn of_threads(ranks: usize) -> Roster {
        Roster { ranks, places: Vec::new() }
    }

    /// Processes, by rank. Finds out which of them are on one node.
    pub fn of_processes(mut places: Vec<Place>) -> Roster {
        for rank in 0..places.len() {
            let own = &places[rank];
            let is_near = |place: &Place| {
                (&place.host, &place.boot, &place.pid_namespace) == (&own.host, &own.boot, &own.pid_namespace)
            };
            places[rank].node = places.iter().position(is_near).unwrap_or(rank);
        }
        Roster { ranks: places.len(), places }
    }

    /// Number of ranks.
    pub fn len(&self) -> usize {
        self.ranks
    }

    /// Whether there are no ranks at all.
    pub fn is_empty(&self) -> bool {
        self.ranks == 0
    }

    /// Where each rank runs; empty for threads of one process.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Cores that the ranks of rank 0's node may use at once, all of them together.
    pub fn cores(&self) -> usize {
        let near = self.places.iter().filter(|place| place.node == 0);
        let cores = near.clone().flat_map(|place| &place.cores).collect::<std::collections::BTreeSet<_>>();
        let quota = near.map(Place::quota).fold(1.0, f64::min);
        (cores.len() as f64 * quota + 1e-9) as usize
    }

    /// How messages name a rank.
    pub fn name(&self, rank: usize) -> String {
        match self.places.get(rank) {
            Some(place) => format!("rank {rank} (process {} on {})", place.pid, place.host),
            None => format!("rank {rank}"),
        }
    }

    /// The node of a rank: the lowest rank on it.
    pub fn node(&self, rank: usize) -> usize {
        self.places.get(rank).map_or(0, |place| place.node)
    }

    /// The ranks from `first` on, those of one node together.
    pub fn by_node(&self, first: usize) -> Vec<usize> {
        let mut ranks: Vec<usize> = (first..self.ranks).collect();
        ranks.sort_by_key(|&rank| (self.node(rank), rank));
        ranks
    }

    /// The other ranks whose processes can be seen from that of `rank`, and their process ids.
    pub fn neighbours(&self, rank: usize) -> impl Iterator<Item = (usize, u32)> {
        let here = self.places.get(rank);
        let is_near = move |(other, there): &(usize, &Place)| {
            *other != rank && here.is_some_and(|here| there.node == here.node)
        };
        self.places.iter().enumerate().filter(is_near).map(|(other, there)| (other, there.pid))
    }

    /// Number of nodes.
    pub fn nodes(&self) -> usize {
        self.places.iter().enumerate().filter(|(rank, place)| place.node == *rank).count().max(1)
    }

    /// Cores for the threads of `rank`, when it may use `usable` at once and the ranks that compute at the same time are
    /// `busy`: those of its own, and its share of those that others may run on too. Workers leave a core to a server that does not compute,
    /// for it works when they wait, and they when it does: with one thread too many, every step waits for a core.
    pub fn share_of_cores(&self, rank: usize, usable: usize, busy: impl Fn(usize) -> bool) -> usize {
        let Some(own) = self.places.get(rank) else { return usable };
        let rivals = |core: &usize| {
            let is_rival = |(other, place): (usize, &Place)| {
                place.node == own.node && (other == rank || busy(other)) && place.cores.contains(core)
            };
            self.places.iter().enumerate().filter(|&pair| is_rival(pair)).count()
        };
        let cores: f64 = own.cores.iter().map(|core| 1.0 / rivals(core) as f64).sum();
        let has_server = rank != 0
            && !busy(0)
            && self.places[0].node == own.node
            && own.cores.iter().any(|core| self.places[0].cores.contains(core));
        let left = if has_server { 1.0 - 1.0 / own.cores.len() as f64 } else { 1.0 };
        // A quota allows fewer threads than the process's cores; all ranks of the node share it.
        let quota = usable as f64 / own.cores.len().max(1) as f64;
        ((cores * left * quota.min(1.0) + 1e-9) as usize).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(host: usize, cores: &str) -> Place {
        let (host, boot, pid_namespace) = (format!("n{host}"), "1-2".to_owned(), "pid:[1]".to_owned());
        let cores = cores_of(cores);
        Place { host, boot, node: 0, pid: 7, pid_namespace, usable: cores.len(), cores }
    }

    #[test]
    fn a_place_is_a_line() {
        let here = Place::here();
        assert_eq!(Place::of(&here.line()), Some(here.clone()));
        assert!(!here.cores.is_empty() && here.pid > 0 && !here.host.is_empty());
        assert_eq!(cores_of("0-2,5"), [0, 1, 2, 5]);
    }

    #[test]
    fn ranks_of_one_node_are_neighbours_whatever_their_numbers() {
        let roster = Roster::of_processes([0, 1, 0, 1, 0].map(|node| place(node, "0")).into());
        assert_eq!(roster.by_node(0), [0, 2, 4, 1, 3]);
        assert_eq!(roster.by_node(1), [2, 4, 1, 3]);
        assert_eq!(Roster::of_threads(4).by_node(1), [1, 2, 3]);
    }

    #[test]
    fn a_node_is_a_host_since_its_start_with_processes_that_see_each_other() {
        let restarted = Place { boot: "3-4".to_owned(), ..place(0, "0") };
        let contained = Place { pid_namespace: "pid:[2]".to_owned(), ..place(0, "0") };
        let places =
            vec![place(0, "0"), restarted, contained.clone(), place(7, "0"), contained, place(0, "0")];
        let roster = Roster::of_processes(places);
        assert_eq!((0..6).map(|rank| roster.node(rank)).collect::<Vec<_>>(), [0, 1, 2, 3, 2, 0]);
        assert_eq!(roster.nodes(), 4);
        assert_eq!(roster.neighbours(4).map(|(rank, _)| rank).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn cores_of_a_node_are_those_of_its_ranks_within_their_quota() {
        let cores = |places: Vec<Place>| Roster::of_processes(places).cores();
        assert_eq!(cores(vec![place(0, "0"), place(0, "1"), place(1, "2-7")]), 2, "each bound to one");
        assert_eq!(cores(vec![place(0, "0-7"), place(0, "0-7")]), 8);
        let limited = Place { usable: 2, ..place(0, "0-7") };
        assert_eq!(cores(vec![limited.clone(), limited]), 2, "a quota of two for both");
    }

    #[test]
    fn cores_are_divided_among_those_who_may_use_them() {
        let roster =
            Roster::of_processes(vec![place(0, "0-7"), place(0, "0-7"), place(0, "0-7"), place(3, "0-7")]);
        let workers = |rank: usize| rank > 0;
        assert_eq!(roster.nodes(), 2);
        assert_eq!(roster.share_of_cores(1, 8, workers), 3, "two workers and a server on eight cores");
        assert_eq!(roster.share_of_cores(1, 8, |_| true), 2, "three workers");
        assert_eq!(roster.share_of_cores(3, 8, workers), 8, "alone on its node");
        assert_eq!(roster.share_of_cores(1, 4, workers), 1, "a quota of half the cores");
        let bound = Roster::of_processes(vec![place(0, "0"), place(0, "1-3")]);
        assert_eq!((bound.share_of_cores(0, 1, workers), bound.share_of_cores(1, 3, workers)), (1, 3));
        assert_eq!(Roster::of_threads(4).share_of_cores(2, 8, workers), 8);
    }
}
