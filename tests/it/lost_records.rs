//! Records whose only copies are on disks that are gone: a reader waits and says for which ones, until an operator has given
//! every one of them up. What a node says of its own disk is no such word. A log whose open segment was on such disks goes on
//! after the same word.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Command;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::support::server::Cluster;
use super::support::tool::objects;

/// No LSN below it is given again: 2^40 may have been, and nobody is left to say.
const FIRST_AFTER: u64 = (1 << 40) + 1;

/// Only a reader that says nothing gets here.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn records_of_wiped_disks_are_waited_for_until_an_operator_gives_the_disks_up() {
    let mut cluster = Cluster::of(1);
    let copies = |command: &mut Command| {
        command.env("BIFROST__NODE__ROLES", "log-server,sequencer");
    };
    let (one, other) = (cluster.add(copies), cluster.add(copies));
    cluster.run(0, ["log", "create", "orders", "--replication", "1"], b"").ok();
    cluster.run(0, ["reconfigure", "orders", "--nodeset", "N2,N3", "--sequencer", "N2"], b"").ok();
    cluster.run(0, ["append", "orders"], b"one\ntwo\n").ok();
    cluster.run(0, ["reconfigure", "orders", "--nodeset", "N1", "--sequencer", "N1"], b"").ok();
    cluster.run(0, ["append", "orders"], b"three\n").ok();
    for node in [one, other] {
        cluster.kill(node);
        fs::remove_dir_all(cluster.directory(node).join("log-server")).expect("a wiped disk");
    }

    let mut reader = cluster.start_command(0, ["read", "orders", "--follow", "--until", "4", "--output", "json"]);
    drop(reader.stdin.take());
    let (line, lines) = sync_channel(64);
    let told = BufReader::new(reader.stderr.take().expect("piped"));
    thread::spawn(move || told.lines().map_while(Result::ok).try_for_each(|told| line.send(told)));
    let waits_for = |nodes: &[&str]| loop {
        let told = lines.recv_timeout(PATIENCE).expect("the reader says whom it waits for");
        let named: Vec<&str> =
            ["N1", "N2", "N3"].into_iter().filter(|node| told.contains(&format!("{node} (disk "))).collect();
        if told.contains("LSN 1 is on no copy that can be reached; waiting for") && named == nodes {
            break;
        }
    };
    waits_for(&["N2", "N3"]);

    // The node finds its disk gone and writes so: not an operator's word.
    let join = cluster.metadata_address(0);
    let told = cluster.run_server(one, |command| copies(command.args(["--join", &join])));
    let told = told.refused(5);
    assert!(told.contains("it was marked as data loss"), "{told}");
    cluster.run(0, ["node", "set-state", "N3", "data-loss", "--yes"], b"").ok();
    waits_for(&["N2"]);
    let declared = || {
        let nodes = cluster.run(0, ["nodes", "--output", "json"], b"").objects();
        nodes.iter().map(|node| json!([node["storage"], node["declared_lost"]])).collect::<Vec<_>>()
    };
    let in_service = json!(["read-write", false]);
    assert_eq!(declared(), [in_service.clone(), json!(["data-loss", false]), json!(["data-loss", true])]);
    let described = cluster.run(0, ["node", "describe", "N2"], b"").ok();
    assert!(described.contains("`bifrost node set-state N2 data-loss` gives it up"), "{described}");
    assert!(reader.try_wait().expect("a child").is_none(), "nobody gave the disk of N2 up");

    let told = cluster.run(0, ["node", "set-state", "N2", "data-loss", "--yes"], b"").ok();
    assert_eq!(told, "the disk of N2 was data-loss by its own word, and is declared lost now\n");
    assert_eq!(declared(), [in_service, json!(["data-loss", true]), json!(["data-loss", true])]);
    let ended = reader.wait_with_output().expect("it ends");
    let events = objects(&String::from_utf8(ended.stdout).expect("text"));
    assert_eq!(events[0], json!({"type": "gap", "from": 1, "end": 3, "kind": "lost"}));
    assert_eq!((&events[1]["lsn"], &events[1]["text"], events.len()), (&json!(3), &json!("three"), 2));
    assert_eq!(ended.status.code(), Some(6));
    // Whoever comes later does not wait.
    let read = cluster.run(0, ["read", "orders"], b"");
    assert_eq!(read.code, 6, "{read:?}");
    assert!(read.stdout.contains("gap: LSN 1 to 2 lost\n") && read.stdout.contains("three\n"), "{read:?}");
    assert!(read.stderr.contains("2 positions of log `orders` are lost"), "{read:?}");
}

#[test]
fn a_log_goes_on_when_too_many_disks_of_its_open_segment_are_given_up() {
    let mut cluster = Cluster::of(1);
    for _ in 0..4 {
        cluster.add(|command| {
            command.env("BIFROST__NODE__ROLES", "log-server,sequencer");
        });
    }
    cluster.run(0, ["log", "create", "orders", "--replication", "2"], b"").ok();
    cluster.run(0, ["reconfigure", "orders", "--nodeset", "N1,N2,N3", "--sequencer", "N2"], b"").ok();
    cluster.run(0, ["append", "orders"], b"one\ntwo\n").ok();
    for node in [1, 2] {
        cluster.kill(node);
        fs::remove_dir_all(cluster.directory(node).join("log-server")).expect("a wiped disk");
    }
    let append = || cluster.run(0, ["append", "orders", "--timeout", "3s"], b"three\n");
    let appended = append();
    let waits = "waits for 1 of: N2 (the peer cannot be reached), N3 (the peer cannot be reached)";
    assert!(appended.code == 7 && appended.stderr.contains(waits), "{appended:?}");
    let explained = cluster.run(0, ["explain", "orders"], b"").ok();
    for told in
        ["has sealed N1 and waits for 1 of N2, N3 (for an f-majority)", "`bifrost node set-state NODE data-loss`"]
    {
        assert!(explained.contains(told), "{explained}");
    }

    // One of them may come back and be enough.
    cluster.run(0, ["node", "set-state", "N2", "data-loss", "--yes"], b"").ok();
    assert_eq!(append().code, 7);
    cluster.run(0, ["node", "set-state", "N3", "data-loss", "--yes"], b"").ok();
    let appended = cluster.run(0, ["append", "orders", "--output", "json"], b"four\n").objects();
    assert_eq!(appended[0]["lsn"], json!(FIRST_AFTER));

    let described = &cluster.run(0, ["log", "describe", "orders", "--output", "json"], b"").objects()[0];
    let closed = &described["segments"][1];
    assert_eq!((&closed["lost_from"], &closed["tail"]), (&json!(3), &json!(FIRST_AFTER)), "{described}");
    let described = cluster.run(0, ["log", "describe", "orders"], b"").ok();
    assert!(described.contains("lost from LSN 3: nothing is left from there to the tail"), "{described}");

    let read = cluster.run(0, ["read", "orders", "--output", "json"], b"");
    let (code, events) = (read.code, objects(&read.stdout));
    let texts: Vec<_> = events.iter().filter_map(|event| event["text"].as_str()).collect();
    assert_eq!((code, texts), (6, vec!["one", "two", "four"]));
    assert_eq!(events[2], json!({"type": "gap", "from": 3, "end": FIRST_AFTER, "kind": "lost"}));
    // The one who has what is left has nothing to catch up.
    let described = &cluster.run(0, ["node", "describe", "N1", "--output", "json"], b"").objects()[0];
    assert_eq!(described["status"]["catch_up"]["bytes_to_do"], json!(0), "{described}");
    assert_eq!(described["needs"][0]["cost"], json!("may-lose-records"), "N1 has the only copy: {described}");
}
