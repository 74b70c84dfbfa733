//! Which file system a path means, and what it is called there.

use std::io;
use std::path::{Path, PathBuf};

/// A place on one of the file systems.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A path of this machine, absolute or relative to the working directory.
    Local(PathBuf),
    /// A path of HDFS.
    Hdfs {
        /// Scheme and authority, such as `hdfs://namenode:8020`, `hdfs://nameservice` or `viewfs://cluster`.
        filesystem: String,
        /// The path there; when relative, to the user's home directory.
        path: String,
    },
}

/// Follows the rules of the Hadoop tools: a path with a scheme (`hdfs://`, `viewfs://`, `file://`) is taken as given, any
/// other belongs to `default_fs`, the value of `fs.defaultFS`. Empty and `.` components are dropped and `..` is resolved,
/// as a NameNode refuses them.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] for another scheme, and for `hdfs:///…` when `default_fs` names no host.
pub fn locate(path: &Path, default_fs: &str) -> io::Result<Location> {
    let text = path.to_str().ok_or_else(|| invalid("it is not UTF-8"))?;
    let (scheme, rest) = match text.split_once(':') {
        Some((scheme, rest)) if rest.starts_with('/') && !scheme.contains('/') => (scheme, rest),
        _ => return under_default(text, default_fs),
    };
    let (authority, path) = match rest.strip_prefix("//") {
        None => ("", rest),
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
    };
    match scheme {
        "file" => Ok(Location::Local(PathBuf::from(if path.is_empty() { "/" } else { path }))),
        "hdfs" | "viewfs" if authority.is_empty() => {
            let filesystem = default_fs.trim_end_matches('/');
            if filesystem.starts_with(&format!("{scheme}://")) {
                Ok(Location::Hdfs { filesystem: filesystem.to_owned(), path: normal(path, true) })
            } else {
                Err(invalid("it names no host; write hdfs://HOST:PORT/PATH, or set fs.defaultFS"))
            }
        }
        "hdfs" | "viewfs" => {
            Ok(Location::Hdfs { filesystem: format!("{scheme}://{authority}"), path: normal(path, true) })
        }
        _ => Err(invalid("its scheme is not one of file://, hdfs:// and viewfs://")),
    }
}

fn under_default(path: &str, default_fs: &str) -> io::Result<Location> {
    let filesystem = default_fs.trim_end_matches('/');
    match filesystem.split_once("://") {
        Some(("hdfs" | "viewfs", authority)) if !authority.is_empty() => Ok(Location::Hdfs {
            filesystem: filesystem.to_owned(),
            path: normal(path, path.starts_with('/')),
        }),
        _ if filesystem.starts_with("file:") => Ok(Location::Local(PathBuf::from(path))),
        _ => Err(invalid(
            "fs.defaultFS of the Hadoop configuration is not one of file:///, hdfs://… and viewfs://…",
        )),
    }
}

fn normal(path: &str, absolute: bool) -> String {
    let mut components = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            // `..` of the root is the root; a home directory can be left upwards only by an absolute path.
            ".." => drop(components.pop()),
            component => components.push(component),
        }
    }
    format!("{}{}", if absolute { "/" } else { "" }, components.join("/"))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hdfs(filesystem: &str, path: &str) -> Location {
        Location::Hdfs { filesystem: filesystem.to_owned(), path: path.to_owned() }
    }

    #[test]
    fn a_scheme_decides() {
        for default_fs in ["file:///", "hdfs://nn:8020"] {
            let locate = |path| locate(Path::new(path), default_fs).unwrap();
            assert_eq!(locate("hdfs://a:1/x/y"), hdfs("hdfs://a:1", "/x/y"));
            assert_eq!(locate("hdfs://service"), hdfs("hdfs://service", "/"));
            assert_eq!(locate("viewfs://c/x//./y/../z/"), hdfs("viewfs://c", "/x/z"));
            assert_eq!(locate("hdfs://a/../x"), hdfs("hdfs://a", "/x"));
            assert_eq!(locate("file:///x/y"), Location::Local("/x/y".into()));
            assert_eq!(locate("file:/x"), Location::Local("/x".into()));
        }
    }

    #[test]
    fn without_a_scheme_the_default_decides() {
        let on_hdfs = |path| locate(Path::new(path), "hdfs://nn:8020/").unwrap();
        assert_eq!(on_hdfs("/x"), hdfs("hdfs://nn:8020", "/x"));
        assert_eq!(on_hdfs("x/y"), hdfs("hdfs://nn:8020", "x/y"));
        assert_eq!(on_hdfs("hdfs:///x"), hdfs("hdfs://nn:8020", "/x"));
        assert_eq!(on_hdfs("/a:b/x"), hdfs("hdfs://nn:8020", "/a:b/x"));
        let local = |path| locate(Path::new(path), "file:///").unwrap();
        assert_eq!(local("/x"), Location::Local("/x".into()));
        assert_eq!(local("x/../y"), Location::Local("x/../y".into()));
    }

    #[test]
    fn what_cannot_be_located_says_why() {
        let why = |path, default_fs| locate(Path::new(path), default_fs).unwrap_err().to_string();
        assert!(why("s3://bucket/x", "file:///").contains("scheme"));
        assert!(why("hdfs:///x", "file:///").contains("names no host"));
        assert!(why("viewfs:///x", "hdfs://nn").contains("names no host"));
        assert!(why("/x", "s3://bucket").contains("fs.defaultFS"));
    }
}
