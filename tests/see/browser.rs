//! A real browser shows each kind of report without a word of complaint: at desk and phone width, light and dark, with nothing loaded.

use crate::report::report;
use muster_tests::program::{Sandbox, launcher, root, run};
use serde_json::Value;
use std::fs;
use std::process::Command;

/// What a page around it finds out about a page that is shown that wide, and what the browser complains of.
fn verdict(sandbox: &Sandbox, (page, width): (&str, usize), is_dark: bool) -> Option<(Value, Vec<String>)> {
    let Ok(browser) = std::env::var("MUSTER_CHROMIUM") else {
        eprintln!("left to `make test-see`, which gets a browser");
        return None;
    };
    let harness = fs::read_to_string(root().join("tests/see/browser.html")).unwrap();
    let harness = harness.replace("WIDTH", &width.to_string()).replace("PAGE", page);
    fs::write(sandbox.path("harness.html"), harness).unwrap();
    let profile = tempfile::tempdir().unwrap();
    let mut command = Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    command.args([
        "--hide-scrollbars",
        "--allow-file-access-from-files",
        "--enable-logging=stderr",
        "--window-size=1400,900",
    ]);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    command.arg(format!("--blink-settings=preferredColorScheme={}", if is_dark { 0 } else { 1 }));
    command.arg("--dump-dom").arg(format!("file://{}", sandbox.path("harness.html").display()));
    let outcome = run(&mut command).succeeds();
    let complaints = outcome.stderr.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned);
    let (_, verdict) = outcome.stdout.split_once(r#"<pre id="verdict">"#).expect("a verdict");
    let (verdict, _) = verdict.split_once("</pre>").unwrap();
    let verdict = serde_json::from_str(verdict).unwrap_or_else(|error| panic!("{error}: {verdict:?}"));
    Some((verdict, complaints.collect()))
}

/// Shows a page on a desk and on a phone, by day and by night, and demands that nothing is wrong with it and that it has so many pictures
/// and tables at least.
fn is_whole(sandbox: &Sandbox, page: &str, (pictures, tables): (u64, u64)) {
    let mut papers = Vec::new();
    for (width, is_dark) in [(390, false), (390, true), (1280, false), (1280, true)] {
        let Some((found, complaints)) = verdict(sandbox, (page, width), is_dark) else { return };
        assert!(complaints.is_empty(), "{complaints:?}");
        assert_eq!(found["width"], width, "{found}");
        assert_eq!(found["scroll_width"], width, "nothing lies beside the page: {found}");
        assert_eq!(found["unnamed"], 0, "every drawing has a name: {found}");
        assert_eq!(found["unlabelled"], 0, "every picture and every bar has a name: {found}");
        assert_eq!(found["twice"], Value::Array(Vec::new()), "identifiers are unique: {found}");
        let count = |what: &str| found[what].as_u64().unwrap();
        assert!(count("pictures") >= pictures && count("tables") >= tables, "{found}");
        assert_eq!(found["flat"], 0, "every chart has a height: {found}");
        papers.push(found["paper"].clone());
    }
    assert!(papers[0] == papers[2] && papers[1] == papers[3], "{papers:?}");
    assert_ne!(papers[0], papers[1], "dark is not light");
}

#[test]
fn reports_of_runs_are_whole_at_every_width_in_every_light() {
    let sandbox = Sandbox::new();
    sandbox.train("--hidden 16 -e 2 --log-dir a -m a/m --metrics-every 1").succeeds();
    sandbox.train("--hidden 16 -e 3 --log-dir b -m b/m -n 3 --async --metrics-every 1").succeeds();
    report(&sandbox, "a b").succeeds();
    is_whole(&sandbox, "report.html", (11, 6));
}

#[test]
fn reports_of_benchmarks_are_too() {
    let sandbox = Sandbox::new();
    let mut command = Command::new(launcher());
    command.args(["bench", "--seconds", "1"]).env_remove("HADOOP_CONF_DIR").env_remove("HADOOP_HOME");
    run(command.current_dir(sandbox.path(""))).succeeds();
    is_whole(&sandbox, "bench.html", (1, 6));
}

/// The page's own policy forbids it to load anything, and the browser complains of what it has kept from being loaded.
#[test]
fn what_would_be_wrong_is_noticed() {
    let sandbox = Sandbox::new();
    sandbox.train("--hidden 16 -e 1 --log-dir a").succeeds();
    report(&sandbox, "a").succeeds();
    let good = fs::read_to_string(sandbox.path("report.html")).unwrap();
    let wrong =
        r#"<div style="width:500px">wide</div><svg id="a"></svg><p id="a"></p><meter value="1"></meter>"#;
    for load in [r#"<img src="http://127.0.0.1:9/x.png">"#, r#"<script>let x = 1</script>"#] {
        fs::write(sandbox.path("report.html"), good.replace("</main>", &format!("{wrong}{load}</main>")))
            .unwrap();
        let Some((found, complaints)) = verdict(&sandbox, ("report.html", 390), false) else { return };
        assert!(
            complaints.iter().any(|line| line.contains("Content Security Policy")),
            "{load}: {complaints:?}"
        );
        assert!(found["scroll_width"].as_u64() > Some(390), "{found}");
        assert_eq!((&found["unnamed"], &found["twice"][0]), (&1.into(), &"a".into()), "{found}");
        assert!(found["unlabelled"].as_u64() >= Some(1), "{found}");
    }
}
