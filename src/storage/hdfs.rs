//! HDFS, through the hdfs-native client: a blocking [`FileSystem`] that outlasts restarts of the NameNode and the loss of
//! DataNodes.
//!
//! hdfs-native speaks the protocols of Hadoop; what it leaves to its caller is here. Its calls to the NameNode have no
//! time limit, so each gets one, and a client that was silent is replaced. Safe mode and broken connections are waited
//! out. A read goes on behind the last byte that came ([`read`]), and a write starts anew under another name ([`write`]).

mod failure;
mod read;
mod write;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use hdfs_native::client::FileStatus;
use hdfs_native::{Client, ClientBuilder, HdfsError};
use tokio::runtime::{Builder, Runtime};

use super::{Entry, FileSystem, Fill, HadoopConfig, Source};
use failure::{Patience, bounded, is_transient, to_io};

/// How long one call to a NameNode may take. A healthy one answers within milliseconds, a loaded one within seconds.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// How long a DataNode may be silent; Hadoop's default of 60 s would stall a training for as long.
const DATANODE_LIMIT_MS: u64 = 5_000;

/// Runs the client's network code. It belongs to the process, because hdfs-native keeps its connections to DataNodes for
/// the whole process and they die with the runtime that opened them.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("hdfs")
        .enable_all()
        .build()
        .expect("a process that cannot start two threads cannot read HDFS")
});

/// One HDFS: a NameNode, a name service of several, or the mount table of a viewfs.
pub(super) struct Hdfs {
    link: Arc<Link>,
}

/// The connection to a NameNode, replaced when it falls silent.
struct Link {
    /// Scheme and authority.
    url: String,
    config: HadoopConfig,
    /// The client in use and how many were replaced before it.
    client: Mutex<Option<(u64, Client)>>,
    /// Whether the NameNode ever answered: one that did is waited for longer than one that may be misspelt.
    answered: AtomicBool,
}

impl Hdfs {
    /// Nothing is connected before the first call.
    pub(super) fn new(url: &str, config: &HadoopConfig) -> Hdfs {
        let link = Link {
            url: with_port(url, config),
            config: with_defaults(config.clone()),
            client: Mutex::default(),
            answered: AtomicBool::new(false),
        };
        Hdfs { link: Arc::new(link) }
    }
}

/// Hadoop's port for a NameNode where none is given, and the name is not that of a name service; hdfs-native has no default.
fn with_port(url: &str, config: &HadoopConfig) -> String {
    match url.strip_prefix("hdfs://") {
        Some(host) if !host.contains(':') && config.get(&format!("dfs.ha.namenodes.{host}")).is_none() => {
            format!("{url}:8020")
        }
        _ => url.to_owned(),
    }
}

/// Fills in what hdfs-native should do where the configuration leaves it open.
fn with_defaults(config: HadoopConfig) -> HadoopConfig {
    let socket_limit = DATANODE_LIMIT_MS.to_string();
    let defaults = [
        ("dfs.client.socket-timeout", socket_limit.as_str()),
        // hdfs-native would try a NameNode that refuses for minutes, with pauses of up to 15 s in which one that is back
        // goes unnoticed; `Patience` decides how long.
        ("dfs.client.failover.max.attempts", "4"),
        ("dfs.client.failover.sleep.base.millis", "250"),
        ("dfs.client.failover.sleep.max.millis", "1000"),
        // With as many DataNodes as replicas there is none to put in the place of a dead one: go on with those left.
        ("dfs.client.block.write.replace-datanode-on-failure.best-effort", "true"),
    ];
    defaults.into_iter().fold(config, |config, (key, value)| match config.get(key) {
        Some(_) => config,
        None => config.with(key, value),
    })
}

impl Link {
    /// How long a read or write may make no progress: time for two DataNodes to be silent, and for a change of them.
    fn stall_limit(&self) -> Duration {
        let socket_limit = self.config.get("dfs.client.socket-timeout").and_then(|text| text.parse().ok());
        Duration::from_millis(4 * socket_limit.unwrap_or(DATANODE_LIMIT_MS))
    }

    /// The client in use, with its number.
    fn client(&self) -> Result<(u64, Client), HdfsError> {
        let mut current = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if current.is_none() {
            *current = Some((0, self.connect(0)?));
        }
        Ok(current.clone().expect("it was filled in above"))
    }

    /// Drops the client of this number, whose connection may be dead without anybody having said so.
    fn replace(&self, number: u64) -> Result<(), HdfsError> {
        let mut current = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|(at, _)| *at == number) {
            *current = Some((number + 1, self.connect(number + 1)?));
        }
        Ok(())
    }

    /// The `number`th client begins with another NameNode of a name service: hdfs-native leaves one that refuses, but
    /// would wait for one that is silent.
    fn connect(&self, number: u64) -> Result<Client, HdfsError> {
        let values = self.config.values().map(|(key, value)| match key.strip_prefix("dfs.ha.namenodes.") {
            Some(_) => (key.to_owned(), rotated(value, number)),
            None => (key.to_owned(), value.to_owned()),
        });
        let builder = ClientBuilder::new()
            .with_url(&self.url)
            .with_config(values)
            .with_io_runtime(RUNTIME.handle().clone());
        match self.config.user() {
            Some(user) => builder.with_user(user).build(),
            None => builder.build(),
        }
    }

    /// One call to the NameNode, repeated until it is answered or refused, or patience ends. `call` must do no harm when
    /// it is carried out twice.
    fn call<T, F>(&self, call: impl Fn(Client) -> F) -> io::Result<T>
    where
        F: Future<Output = Result<T, HdfsError>>,
    {
        RUNTIME.block_on(self.call_async(call)).map_err(to_io)
    }

    async fn call_async<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T, HdfsError>
    where
        F: Future<Output = Result<T, HdfsError>>,
    {
        let what = format!("asking the NameNode of {}", self.url);
        let mut patience = Patience::new(what, self.answered.load(Ordering::Relaxed));
        loop {
            let (number, client) = self.client()?;
            let error = match bounded(CALL_LIMIT, "the NameNode", call(client)).await {
                Err(error) if is_transient(&error) => error,
                answer => {
                    self.answered.store(true, Ordering::Relaxed);
                    return answer;
                }
            };
            if let HdfsError::IOError(_) = error {
                self.replace(number)?;
            }
            patience.wait_after(error).await?;
        }
    }
}

/// `"a,b,c"` begun at its `by`th name.
fn rotated(names: &str, by: u64) -> String {
    let mut names: Vec<&str> = names.split(',').collect();
    let by = (by % names.len() as u64) as usize;
    names.rotate_left(by);
    names.join(",")
}

impl FileSystem for Hdfs {
    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        let path = text(directory);
        let found = self.link.call(async |client| client.list_status(&path, false).await)?;
        // A NameNode lists a file as itself.
        if found.iter().any(|status| !status.isdir && status.path == path) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(found.into_iter().map(entry_of).collect())
    }

    fn stat(&self, path: &Path) -> io::Result<Option<Entry>> {
        let path = text(path);
        match self.link.call(async |client| client.get_file_info(&path).await) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            status => status.map(|status| Some(entry_of(status))),
        }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Source>> {
        Ok(Box::new(read::HdfsFile::open(&self.link, &text(path))?))
    }

    fn create(&self, path: &Path, fill: &Fill) -> io::Result<()> {
        write::create(&self.link, path, fill)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.link.rename(&text(from), &text(to), false)
    }

    fn delete(&self, path: &Path) -> io::Result<()> {
        let path = text(path);
        self.link.call(async |client| client.delete(&path, true).await).map(|_was_there| ())
    }
}

impl Link {
    /// A rename whose answer was lost is found done when it is tried again: the source is then gone, the target there.
    fn rename(&self, from: &str, to: &str, overwrite: bool) -> io::Result<()> {
        let attempts = std::sync::atomic::AtomicUsize::new(0);
        let renamed = self.call(async |client| {
            attempts.fetch_add(1, Ordering::Relaxed);
            client.rename(from, to, overwrite).await
        });
        match renamed {
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempts.into_inner() > 1 => {
                self.call(async |client| client.get_file_info(to).await).map(|_| ()).map_err(|_| error)
            }
            renamed => renamed,
        }
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("`locate` accepts UTF-8 only").to_owned()
}

fn entry_of(status: FileStatus) -> Entry {
    let name = status.path.rsplit('/').next().unwrap_or_default().to_owned();
    Entry { name, bytes: if status.isdir { 0 } else { status.length as u64 }, is_dir: status.isdir }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_rotate() {
        assert_eq!(
            ["a,b,c", "b,c,a", "c,a,b", "a,b,c"],
            [0, 1, 2, 3].map(|by| rotated("a,b,c", by)).each_ref()
        );
        assert_eq!(rotated("a", 7), "a");
    }

    #[test]
    fn a_namenode_has_a_port_and_a_name_service_has_none() {
        let config = HadoopConfig::default().with("dfs.ha.namenodes.service", "a,b");
        let with_port = |url| with_port(url, &config);
        assert_eq!(with_port("hdfs://host"), "hdfs://host:8020");
        assert_eq!(with_port("hdfs://host:9000"), "hdfs://host:9000");
        assert_eq!(with_port("hdfs://service"), "hdfs://service");
        assert_eq!(with_port("viewfs://cluster"), "viewfs://cluster");
    }

    #[test]
    fn a_configured_limit_is_kept() {
        let stall = |config| Hdfs::new("hdfs://nn:1", &config).link.stall_limit();
        assert_eq!(stall(HadoopConfig::default()), Duration::from_secs(20));
        assert_eq!(
            stall(HadoopConfig::default().with("dfs.client.socket-timeout", "1000")),
            Duration::from_secs(4)
        );
    }
}
