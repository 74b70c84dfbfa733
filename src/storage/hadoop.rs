//! The Hadoop configuration: where it is found and what of it matters here.

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The files of a configuration, later ones overrule earlier ones.
const FILES: [&str; 2] = ["core-site.xml", "hdfs-site.xml"];

/// The values of `core-site.xml` and `hdfs-site.xml`, and the user.
#[derive(Clone, Debug, Default)]
pub struct HadoopConfig {
    files: Vec<PathBuf>,
    values: BTreeMap<String, String>,
    user: Option<String>,
}

impl HadoopConfig {
    /// Reads the directory that `HADOOP_CONF_DIR` names, else `$HADOOP_HOME/etc/hadoop`, else nothing; the user is
    /// `HADOOP_USER_NAME` where that is set.
    ///
    /// # Errors
    /// [`Error::Io`] when a file there cannot be read or is not a configuration.
    pub fn from_environment() -> Result<HadoopConfig, Error> {
        let directory = match (env::var_os("HADOOP_CONF_DIR"), env::var_os("HADOOP_HOME")) {
            (Some(directory), _) => Some(PathBuf::from(directory)),
            (None, Some(home)) => Some(Path::new(&home).join("etc/hadoop")),
            (None, None) => None,
        };
        let mut config = match directory {
            Some(directory) => HadoopConfig::from_directory(&directory)?,
            None => HadoopConfig::default(),
        };
        config.user = env::var("HADOOP_USER_NAME").ok().filter(|user| !user.is_empty());
        Ok(config)
    }

    /// Reads `core-site.xml` and `hdfs-site.xml` in `directory`, those that are there.
    ///
    /// # Errors
    /// [`Error::Io`] when a file there cannot be read or is not a configuration.
    pub fn from_directory(directory: &Path) -> Result<HadoopConfig, Error> {
        let mut config = HadoopConfig::default();
        for path in FILES.map(|name| directory.join(name)).into_iter().filter(|path| path.exists()) {
            let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
            config.values.extend(properties(&text).map_err(Error::io("read", &path))?);
            config.files.push(path);
        }
        Ok(config)
    }

    /// The same configuration with `key` set to `value`.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> HadoopConfig {
        self.values.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The same configuration for another user. A secured cluster takes the user from its Kerberos ticket.
    #[must_use]
    pub fn with_user(mut self, user: &str) -> HadoopConfig {
        self.user = Some(user.to_owned());
        self
    }

    /// The files that were read.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// All values, sorted by key.
    pub fn values(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// `fs.defaultFS`, which Hadoop lets default to the local file system.
    #[must_use]
    pub fn default_fs(&self) -> &str {
        self.get("fs.defaultFS").unwrap_or("file:///")
    }

    /// The user that was named; without one, HDFS sees the user of the operating system or of the Kerberos ticket.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The permission bits that `fs.permissions.umask-mode` (octal, 022 where unset) leaves of `mode`.
    #[must_use]
    pub fn masked(&self, mode: u32) -> u32 {
        let umask = self.get("fs.permissions.umask-mode").and_then(|text| u32::from_str_radix(text, 8).ok());
        mode & !umask.unwrap_or(0o022)
    }
}

/// The `<property>` elements of a configuration file as (name, value).
fn properties(xml: &str) -> io::Result<Vec<(String, String)>> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(xml, options)
        .map_err(|error| invalid(format!("it is not well-formed XML: {error}")))?;
    let root = document.root_element();
    if root.tag_name().name() != "configuration" {
        return Err(invalid(format!(
            "its root element is <{}>, expected <configuration>",
            root.tag_name().name()
        )));
    }
    let text = |property: roxmltree::Node, tag: &str| {
        let element = property.children().find(|child| child.has_tag_name(tag))?;
        Some(element.text().unwrap_or("").trim().to_owned())
    };
    let properties = root.children().filter(|child| child.has_tag_name("property"));
    Ok(properties.filter_map(|property| Some((text(property, "name")?, text(property, "value")?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_directory_add_up() {
        let directory = tempfile::tempdir().unwrap();
        let site = |properties: &str| {
            format!("<?xml version=\"1.0\"?>\n<configuration>{properties}</configuration>")
        };
        let property = |name: &str, value: &str| {
            format!("<property>\n<name>{name}</name>\n<value>{value}</value>\n<final>true</final></property>")
        };
        let core = site(&(property("fs.defaultFS", " hdfs://nn:8020\n") + &property("a", "1")));
        std::fs::write(directory.path().join("core-site.xml"), core).unwrap();
        let hdfs = site(&(property("a", "2") + "<property><name>b</name><value/></property>"));
        std::fs::write(directory.path().join("hdfs-site.xml"), hdfs).unwrap();

        let config = HadoopConfig::from_directory(directory.path()).unwrap();
        assert_eq!(config.files().len(), 2);
        assert_eq!(config.default_fs(), "hdfs://nn:8020");
        assert_eq!((config.get("a"), config.get("b"), config.get("c")), (Some("2"), Some(""), None));
    }

    #[test]
    fn a_directory_without_files_means_local() {
        let directory = tempfile::tempdir().unwrap();
        let config = HadoopConfig::from_directory(directory.path()).unwrap();
        assert_eq!(config.default_fs(), "file:///");
        assert!(config.files().is_empty());
    }

    #[test]
    fn a_damaged_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        for (content, why) in [("<configuration><prop", "well-formed"), ("<html/>", "<html>")] {
            std::fs::write(directory.path().join("core-site.xml"), content).unwrap();
            let message = HadoopConfig::from_directory(directory.path()).unwrap_err().to_string();
            assert!(message.contains("core-site.xml") && message.contains(why), "{message}");
        }
    }

    #[test]
    fn the_umask_takes_bits_away() {
        assert_eq!(HadoopConfig::default().masked(0o666), 0o644);
        assert_eq!(HadoopConfig::default().with("fs.permissions.umask-mode", "027").masked(0o777), 0o750);
    }
}
