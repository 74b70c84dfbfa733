//! A real browser shows a report without a word of complaint: at desk and phone width, light and dark, with nothing loaded.

use crate::report::report;
use muster_tests::program::{Sandbox, root, run};
use serde_json::Value;
use std::fs;
use std::process::Command;

/// What a page around the report finds out about it when it is shown that wide, and what the browser complains of.
fn verdict(sandbox: &Sandbox, browser: &str, width: usize, is_dark: bool) -> (Value, Vec<String>) {
    let harness = fs::read_to_string(root().join("tests/see/browser.html")).unwrap();
    fs::write(sandbox.path("harness.html"), harness.replace("WIDTH", &width.to_string())).unwrap();
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
    (verdict, complaints.collect())
}

#[test]
fn it_is_whole_at_every_width_in_every_light() {
    let Ok(browser) = std::env::var("MUSTER_CHROMIUM") else {
        eprintln!("left to `make test-see`, which gets a browser");
        return;
    };
    let sandbox = Sandbox::new();
    sandbox.train("--hidden 16 -e 2 --log-dir a -m a/m --metrics-every 1").succeeds();
    sandbox.train("--hidden 16 -e 3 --log-dir b -m b/m -n 3 --async --metrics-every 1").succeeds();
    report(&sandbox, "a b").succeeds();
    let mut papers = Vec::new();
    for (width, is_dark) in [(390, false), (390, true), (1280, false)] {
        let (found, complaints) = verdict(&sandbox, &browser, width, is_dark);
        assert!(complaints.is_empty(), "{complaints:?}");
        assert_eq!(found["width"], width, "{found}");
        assert_eq!(found["scroll_width"], width, "nothing lies beside the page: {found}");
        assert_eq!(found["unnamed"], 0, "every picture has a name: {found}");
        assert_eq!(found["twice"], Value::Array(Vec::new()), "identifiers are unique: {found}");
        assert!(found["pictures"].as_u64().unwrap() > 10 && found["tables"].as_u64().unwrap() > 5, "{found}");
        assert_eq!(found["flat"], 0, "every chart has a height: {found}");
        papers.push(found["paper"].clone());
    }
    assert_ne!(papers[0], papers[1], "dark is not light");
}

/// The page's own policy forbids it to load anything, and the browser complains of what it has kept from being loaded.
#[test]
fn what_would_be_wrong_is_noticed() {
    let Ok(browser) = std::env::var("MUSTER_CHROMIUM") else { return };
    let sandbox = Sandbox::new();
    sandbox.train("--hidden 16 -e 1 --log-dir a").succeeds();
    report(&sandbox, "a").succeeds();
    let good = fs::read_to_string(sandbox.path("report.html")).unwrap();
    let wrong = r#"<div style="width:500px">wide</div><svg id="a"></svg><p id="a"></p>"#;
    for load in [r#"<img src="http://127.0.0.1:9/x.png">"#, r#"<script>let x = 1</script>"#] {
        fs::write(sandbox.path("report.html"), good.replace("</main>", &format!("{wrong}{load}</main>")))
            .unwrap();
        let (found, complaints) = verdict(&sandbox, &browser, 390, false);
        assert!(
            complaints.iter().any(|line| line.contains("Content Security Policy")),
            "{load}: {complaints:?}"
        );
        assert!(found["scroll_width"].as_u64() > Some(390), "{found}");
        assert_eq!((&found["unnamed"], &found["twice"][0]), (&1.into(), &"a".into()), "{found}");
    }
}
