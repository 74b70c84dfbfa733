//! Whole programs on an HDFS that asks for Kerberos tickets and encrypts its data: who has a ticket works as on any other, who has none
//! is told so.

use std::process::Command;

use muster_tests::hdfs::Cluster;
use muster_tests::program::{Outcome, Sandbox, run};

fn mnist(cluster: &Cluster, sandbox: &Sandbox, arguments: &str) -> Outcome {
    let mut command: Command = sandbox.mnist(arguments);
    run(cluster.client(&mut command).env_remove("HADOOP_USER_NAME"))
}

/// One test, because starting the cluster takes longest.
#[test]
fn kerberos() {
    let (cluster, sandbox) = (Cluster::start_secure(), Sandbox::new());
    let mnist = |arguments: &str| mnist(&cluster, &sandbox, arguments);

    let doctor = mnist("doctor /data");
    assert_eq!(doctor.status.code(), Some(1));
    let last = doctor.stdout.lines().last().unwrap_or_default();
    assert!(last.starts_with("WRONG") && last.contains("Kerberos: No credentials"), "{doctor:?}");
    assert!(last.contains("`kinit` gets one") && !last.contains("permissions"), "{doctor:?}");
    mnist("prepare --data data -o /data").refuses(&["/data", "Kerberos: No credentials", "`kinit`"]);

    cluster.kinit("alice");
    let doctor = mnist("doctor /data");
    assert!(doctor.stdout.contains("Kerberos ticket") && doctor.stdout.contains("user=alice"), "{doctor:?}");
    mnist("prepare --data data -o /data").refuses(&["user=alice", "check the permissions"]);

    cluster.kinit("hdfs/localhost");
    mnist("doctor /data").succeeds();
    let hash = sandbox.hash("--hidden 20 -e 2 -m direct");
    for format in ["csv2", "tfr"] {
        mnist(&format!("prepare --data data -n 3 -v -f {format} -o /{format}")).succeeds();
        let options = format!("--hidden 20 -e 2 -n 3 -f {format} -i /{format}/train -m /{format}-model");
        mnist(&format!("train {options} --report r.json")).succeeds();
        assert_eq!(sandbox.json("r.json")["weights_sha256"], hash.as_str(), "{format}");
        let out = format!("-o /{format}-out");
        mnist(&format!("inference -f {format} -i /{format}/test -m /{format}-model {out}")).succeeds();
    }
}
