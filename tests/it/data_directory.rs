//! Data directories that must not be used: each is refused with one sentence that says what, why and what next, and
//! nothing in it is changed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bifrost::Bifrost;
use bifrost_logserver::Marker;
use bifrost_metadata::LocalMetadata;
use bifrost_node::local_cluster::{LocalCluster, LocalClusterOptions};
use bifrost_types::DiskId;

use crate::support::small_disk::{SmallDisk, ran_as_root};
use crate::support::tool;

/// Names the directory to the process that holds it.
const DIRECTORY: &str = "BIFROST_TEST_HELD_DIRECTORY";
const HELD: &str = "the directory is held";

/// Names and contents of everything in a directory.
fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(contents(&path)),
            false => found.push((path.clone(), fs::read(path).unwrap())),
        }
    }
    found.sort();
    found
}

/// An error and all its causes in one line, as the binary prints it.
fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    assert!(!text.contains('\n'), "one sentence: {text}");
    text
}

fn options(directory: &Path, nodes: usize) -> LocalClusterOptions {
    LocalClusterOptions { nodes, directory: Some(directory.to_owned()), ..LocalClusterOptions::default() }
}

/// A cluster that ran and was stopped.
async fn stopped_cluster(directory: &Path, nodes: usize) {
    LocalCluster::start(options(directory, nodes)).await.unwrap().shutdown().await;
}

/// Starts a cluster on a directory, which refuses, and returns what it says. Nothing in `untouched` changes.
async fn refused(directory: &Path, nodes: usize, untouched: &Path) -> String {
    let before = contents(untouched);
    let error = LocalCluster::start(options(directory, nodes)).await.expect_err("it is refused");
    assert!(contents(untouched) == before, "the refusal changed {}", untouched.display());
    sentence(&error)
}

fn says(sentence: &str, parts: &[&str]) {
    for part in parts {
        assert!(sentence.contains(part), "`{part}` is not in `{sentence}`");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_running_process_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("data");
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "data_directory::a_process_that_holds_a_directory", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, &directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.by_ref().any(|line| line.unwrap().contains(HELD)), "the other process has it");
    let error = Bifrost::embedded(&directory).await.expect_err("in use");
    says(&sentence(&error), &["metadata is in use by another process", "stop that one, or choose another directory"]);
    // Its log server's part alone is as much in use.
    let server = directory.join("log-server");
    let error = bifrost_logserver::RocksStore::open(&server, &bifrost_logserver::RocksOptions::default());
    says(&sentence(&error.expect_err("in use")), &["log-server is in use by another process", "stop that one"]);
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success(), "the other one was not disturbed");
    Bifrost::embedded(&directory).await.expect("free again").shutdown().await;
}

/// Not a test of its own: the process that the other one starts. It goes on until its standard input ends.
#[test]
fn a_process_that_holds_a_directory() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let bifrost = Bifrost::embedded(Path::new(&directory)).await.unwrap();
        let log = bifrost.create_log("held", bifrost::LogOptions::default()).await.unwrap();
        println!("\n{HELD}");
        tokio::task::spawn_blocking(|| std::io::stdin().lines().count()).await.unwrap();
        log.appender().append("still here").await.unwrap();
        bifrost.shutdown().await;
    });
}

#[test]
fn a_second_bifrost_dev_on_the_same_data_ends_with_a_code_and_a_sentence() {
    let root = tempfile::tempdir().unwrap();
    let dev = tool::Dev::start(["--nodes", "1", "--data-dir", root.path().to_str().unwrap()]);
    let mut second = tool::command(["dev", "--port", "0", "--data-dir"]);
    let ended = tool::run(second.arg(root.path()), b"");
    assert_ne!(ended.code, 0);
    says(&ended.stderr, &["in use by another process", "--data-dir"]);
    assert_eq!(dev.end("TERM").0, 0, "the first one was not disturbed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_node_is_refused() {
    let root = tempfile::tempdir().unwrap();
    stopped_cluster(root.path(), 2).await;
    let (one, two, aside) = (root.path().join("n1"), root.path().join("n2"), root.path().join("aside"));
    for (from, to) in [(&one, &aside), (&two, &one), (&aside, &two)] {
        fs::rename(from, to).unwrap();
    }
    let told = refused(root.path(), 2, &one).await;
    says(&told, &["node n1 did not start", "belongs to cluster", "node N2, not to this node", "its own directory"]);
    for (from, to) in [(&one, &aside), (&two, &one), (&aside, &two)] {
        fs::rename(from, to).unwrap();
    }
    stopped_cluster(root.path(), 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_cluster_is_refused_also_by_a_node_that_is_new() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    stopped_cluster(ours.path(), 1).await;
    stopped_cluster(theirs.path(), 2).await;
    // In place of a node that ran here.
    fs::rename(ours.path().join("n1"), ours.path().join("aside")).unwrap();
    fs::rename(theirs.path().join("n1"), ours.path().join("n1")).unwrap();
    let told = refused(ours.path(), 1, &ours.path().join("n1")).await;
    says(&told, &["belongs to cluster", "not to this node", "or an empty one if it is new"]);
    fs::remove_dir_all(ours.path().join("n1")).unwrap();
    fs::rename(ours.path().join("aside"), ours.path().join("n1")).unwrap();
    // And of one that this cluster has never seen.
    fs::rename(theirs.path().join("n2"), ours.path().join("n2")).unwrap();
    let told = refused(ours.path(), 2, &ours.path().join("n2")).await;
    says(&told, &["node n2 did not start", "belongs to cluster", "not to this node"]);
    fs::remove_dir_all(ours.path().join("n2")).unwrap();
    stopped_cluster(ours.path(), 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_disk_under_the_right_name_is_refused() {
    let root = tempfile::tempdir().unwrap();
    stopped_cluster(root.path(), 1).await;
    let node = root.path().join("n1");
    let marker = Marker::read(&node).unwrap().unwrap();
    Marker { disk: DiskId::try_from(77).unwrap(), ..marker }.write(&node).unwrap();
    let told = refused(root.path(), 1, &node).await;
    says(&told, &["the data directory is disk", "the cluster knows this node with disk", "put that disk back"]);
    marker.write(&node).unwrap();
    stopped_cluster(root.path(), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_directory_under_the_name_of_a_node_that_had_records_is_a_lost_disk() {
    let root = tempfile::tempdir().unwrap();
    stopped_cluster(root.path(), 1).await;
    let node = root.path().join("n1");
    fs::rename(&node, root.path().join("aside")).unwrap();
    fs::create_dir(&node).unwrap();
    let told = refused(root.path(), 1, &node).await;
    says(&told, &["of this node is gone", "will not be served as empty", "start a new node under another name"]);
    let told = refused(root.path(), 1, &node).await;
    says(&told, &["is in state", "is not served", "start a new node under another name"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_format_is_refused_by_what_it_is() {
    let root = tempfile::tempdir().unwrap();
    stopped_cluster(root.path(), 1).await;
    let path = root.path().join("n1").join(Marker::FILE);
    let marker = fs::read_to_string(&path).unwrap();
    let (body, _) = marker.split_at(marker.rfind("crc32c ").unwrap());
    let body = body.replace("bifrost-disk 2", "bifrost-disk 3");
    fs::write(&path, format!("{body}crc32c {:08x}\n", crc32c(body.as_bytes()))).unwrap();
    let told = refused(root.path(), 1, &root.path().join("n1")).await;
    says(&told, &["format 3", "this build knows format 2", "start it with the build that wrote it"]);
    fs::write(&path, marker).unwrap();
    stopped_cluster(root.path(), 1).await;
}

/// CRC-32C bit by bit: what the marker carries, without the product's own.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_foreign_files_and_a_removed_store_are_refused() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("metadata")).unwrap();
    let node = root.path().join("n1");
    fs::write(&node, "mine").unwrap();
    let error = LocalCluster::start(options(root.path(), 1)).await.expect_err("a file");
    says(&sentence(&error), &["n1 is a file, and a data directory is wanted", "choose another path"]);
    assert_eq!(fs::read(&node).unwrap(), b"mine");
    fs::remove_file(&node).unwrap();
    fs::create_dir(&node).unwrap();
    fs::write(node.join("thesis.txt"), "mine").unwrap();
    let told = refused(root.path(), 1, &node).await;
    says(&told, &["n1 holds thesis.txt", "no part of a log server's data", "choose an empty directory"]);
    fs::remove_file(node.join("thesis.txt")).unwrap();
    stopped_cluster(root.path(), 1).await;
    fs::rename(node.join("db"), root.path().join("db")).unwrap();
    let told = refused(root.path(), 1, &node).await;
    says(&told, &["has a marker and no store", "put them back"]);
    fs::rename(root.path().join("db"), node.join("db")).unwrap();
    stopped_cluster(root.path(), 1).await;
    // The same for metadata.
    let file = root.path().join("file");
    fs::write(&file, "mine").unwrap();
    let error = LocalMetadata::open(&file).await.expect_err("a file");
    says(&sentence(&error), &["is a file, and a directory for metadata is wanted", "choose another path"]);
    let error = LocalMetadata::open(root.path()).await.expect_err("foreign");
    says(&sentence(&error), &["no part of a metadata store", "choose an empty directory"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_cannot_be_written_is_refused() {
    if ran_as_root() {
        return;
    }
    // Root may write everywhere but on a file system that is read-only.
    let disk = SmallDisk::mount_with("size=1m,ro");
    let error = bifrost_logserver::RocksStore::open(disk.path(), &bifrost_logserver::RocksOptions::default());
    let told = sentence(&error.expect_err("read-only"));
    says(&told, &["cannot be written", "Read-only file system", "or choose another directory"]);
    let error = LocalMetadata::open(disk.path()).await.expect_err("read-only");
    says(&sentence(&error), &["cannot be written", "Read-only file system", "or choose another directory"]);
    let deeper = disk.path().join("deeper");
    let error = bifrost_logserver::RocksStore::open(&deeper, &bifrost_logserver::RocksOptions::default());
    says(&sentence(&error.expect_err("read-only")), &["cannot create the data directory", "check the path"]);
}
