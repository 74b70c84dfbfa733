//! The documents name what is there: every file, every file with unsafe code, both commands.

use muster_tests::program::root;
use std::fs;
use std::path::{Path, PathBuf};

fn document(name: &str) -> String {
    fs::read_to_string(root().join(name)).expect("the document is there")
}

/// Rust files below a folder; tests that stand beside the code they test are left out.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] });
    files
        .filter(|path| path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs"))
        .collect()
}

/// The source files of all packages, relative to the root.
fn sources() -> Vec<String> {
    let folders = [
        "src",
        "kernels/src",
        "collective/src",
        "launcher/src",
        "examples/mnist/src",
        "tests/src",
        "benches/src",
        "benches/peers/src",
        "fuzz/src",
    ];
    let files = folders.iter().flat_map(|folder| rust_files(&root().join(folder)));
    files.map(|path| path.strip_prefix(root()).unwrap().display().to_string()).collect()
}

#[test]
fn every_file_is_on_the_map() {
    let map = document("ARCHITECTURE.md");
    let missing: Vec<String> =
        sources().into_iter().filter(|file| !map.contains(&format!("| `{file}` |"))).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md's code map needs a line for each of {missing:#?}");
}

/// `make picture` draws it.
#[test]
fn the_picture_in_the_readme_is_there_and_small() {
    let picture = "docs/report.webp";
    assert!(document("README.md").contains(&format!("]({picture})")));
    let picture = fs::read(root().join(picture)).unwrap();
    assert!(picture.len() < 150_000 && picture.starts_with(b"RIFF") && &picture[8..12] == b"WEBP");
}

#[test]
fn nothing_on_the_map_is_gone() {
    let map = document("ARCHITECTURE.md");
    let named = map.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let gone: Vec<&str> = named.filter(|file| !root().join(file).exists()).collect();
    assert!(gone.is_empty(), "ARCHITECTURE.md names {gone:#?}");
}

#[test]
fn every_file_with_unsafe_code_is_listed() {
    let map = document("ARCHITECTURE.md");
    let (_, section) = map.split_once("\n## Unsafe code\n").expect("a section on unsafe code");
    let (section, _) = section.split_once("\n## ").expect("a section after it");
    for file in sources() {
        let allows = fs::read_to_string(root().join(&file)).unwrap().contains("allow(unsafe_code)");
        assert_eq!(
            section.contains(&format!("| `{file}` |")),
            allows,
            "{file} under `Unsafe code` of ARCHITECTURE.md"
        );
    }
}

#[test]
fn the_readme_has_both_commands() {
    let readme = document("README.md");
    for command in ["cargo run --release -p mnist -- train", "make test"] {
        assert!(readme.contains(&format!("```sh\n{command}\n```")), "{command}");
    }
}

/// Words in quotation marks that look like variables of the environment: of one of these families, or `HOME` or `PATH`.
fn variables(source: &str) -> Vec<&str> {
    let families = [
        "MUSTER_",
        "HADOOP_",
        "XDG_",
        "SLURM_",
        "OMPI_",
        "PMI_",
        "PMIX_",
        "TENSORBOARD_",
        "UCX_",
        "FI_",
        "MPIR_",
    ];
    let capital =
        |word: &&str| word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    let whole = |word: &&str| !word.ends_with('_') && families.iter().any(|family| word.starts_with(family));
    source.split('"').filter(capital).filter(|word| whole(word) || ["HOME", "PATH"].contains(word)).collect()
}

#[test]
fn every_variable_that_is_read_has_its_line() {
    let page = document("docs/environment.md");
    for file in sources() {
        let source = fs::read_to_string(root().join(&file)).unwrap();
        let (source, _tests) = source.split_once("#[cfg(test)]").unwrap_or((&source, ""));
        for variable in variables(source) {
            assert!(page.contains(&format!("`{variable}`")), "{variable} of {file} in docs/environment.md");
        }
    }
    let found = variables("env::var(\"MUSTER_KERNELS\"), \"HADOOP_\", \"HOME\", \"Open MPI\"");
    assert_eq!(found, ["MUSTER_KERNELS", "HOME"]);
}

#[test]
fn what_the_documents_link_to_is_there() {
    let pages = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    for page in
        pages.filter(|path| path.extension().is_some_and(|end| end == "md")).chain([root().join("README.md")])
    {
        let text = fs::read_to_string(&page).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with("http")) {
            let target = page.parent().unwrap().join(link.split('#').next().unwrap());
            assert!(target.exists(), "{link} of {}", page.display());
        }
    }
}
