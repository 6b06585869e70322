//! The client in `examples/python`, as it stands, against a real cluster on disk.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use bifrost_node::local_cluster::{LocalCluster, LocalClusterOptions};

/// Far above any healthy run; only a run that hangs meets it.
const PATIENCE: Duration = Duration::from_secs(120);

fn root() -> PathBuf {
    // At run time: with a shared target directory the binary may have been linked from another clone.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let manifest = manifest.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    manifest.parent().expect("not the root of the file system").to_owned()
}

/// Runs a program with this standard input; ends it if it takes too long.
async fn run(program: &str, arguments: &[&str], address: &str, input: &'static str) -> anyhow::Result<Output> {
    let mut child = Command::new(root().join("scripts/python"))
        .arg(root().join("examples/python").join(program))
        .args(arguments)
        .env("BIFROST_ADDRESS", address)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let id = child.id();
    let mut stdin = child.stdin.take().expect("it was piped");
    let ended = tokio::task::spawn_blocking(move || {
        stdin.write_all(input.as_bytes())?;
        drop(stdin);
        child.wait_with_output()
    });
    match tokio::time::timeout(PATIENCE, ended).await {
        Ok(output) => Ok(output??),
        Err(_) => {
            Command::new("kill").arg(id.to_string()).status()?;
            anyhow::bail!("{program} {arguments:?} did not end");
        }
    }
}

/// Standard output of a program that must succeed.
async fn printed(program: &str, arguments: &[&str], address: &str, input: &'static str) -> anyhow::Result<String> {
    let output = run(program, arguments, address, input).await?;
    let told = String::from_utf8_lossy(&output.stderr);
    // It says so itself when its environment is missing: run `make setup`.
    assert!(output.status.success(), "{program} {arguments:?}: {} {told}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_client_appends_tails_and_trims() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let options = LocalClusterOptions { directory: Some(directory.path().to_owned()), ..Default::default() };
    let cluster = LocalCluster::start(options).await?;
    let addresses = cluster.addresses().await;

    let parts = printed("walkthrough.py", &[&addresses[0]], &addresses[0], "").await?;
    let expected = [
        "logs",
        "appends",
        "append stream",
        "reads",
        "tailing",
        "trims",
        "bad input",
        "resolving",
        "health",
        "reflection",
        "cleaning up",
    ];
    assert_eq!(parts, expected.map(|part| format!("{part} ok\n")).concat());

    // The same from the command line, through another node.
    let address = &addresses[1];
    printed("logs.py", &["create", "orders"], address, "").await?;
    assert_eq!(printed("logs.py", &["append", "orders", "--key", "7"], address, "one\ntwo\n\n").await?, "1..3\n");
    assert_eq!(printed("logs.py", &["append", "orders"], address, "four\n").await?, "4..4\n");
    assert_eq!(printed("logs.py", &["read", "orders"], address, "").await?, "1\tone\n2\ttwo\n3\t\n4\tfour\n");
    assert_eq!(
        printed("logs.py", &["read", "orders", "--key", "7", "--from", "2"], address, "").await?,
        "2\ttwo\n3\t\n"
    );
    assert_eq!(printed("logs.py", &["trim", "orders", "--to", "2"], address, "").await?, "2\n");
    assert_eq!(printed("logs.py", &["tail", "orders"], address, "").await?, "5\n");
    let unknown = run("logs.py", &["tail", "nobody"], address, "").await?;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("unknown_log"));
    cluster.shutdown().await;
    Ok(())
}
