//! `bifrost log`, `bifrost explain` and `bifrost reconfigure`: the real binary against a real `bifrost dev`.

use serde_json::{Value, json};

use crate::support::tool::{Dev, Ended, command, run};

fn one(ended: Ended) -> Value {
    let mut objects = ended.objects();
    assert_eq!(objects.len(), 1, "{objects:?}");
    objects.remove(0)
}

#[test]
fn logs_are_made_listed_described_explained_moved_and_deleted() {
    let dev = Dev::start([""; 0]);
    let json = |arguments: &[&str]| one(dev.run([arguments, &["--output", "json"]].concat()));

    let listed = dev.run(["log", "list"]);
    assert_eq!((listed.code, listed.stdout.as_str()), (0, ""));
    assert!(listed.stderr.contains("`bifrost log create NAME`"), "{listed:?}");

    // Make.
    let made = dev.run(["log", "create", "orders"]).ok();
    assert_eq!(made, "log orders has number 1, replication {node: 2} on N1, N2, N3\n");
    let three = json(&["log", "create", "payments", "--replication", "{zone: 1, node: 3}"]);
    assert_eq!((&three["log"], &three["name"]), (&json!(2), &json!("payments")));
    assert_eq!((&three["replication"], &three["nodeset"]), (&json!("{zone: 1, node: 3}"), &json!(["N1", "N2", "N3"])));
    let taken = dev.run(["log", "create", "orders", "--output", "json"]).error(5);
    assert_eq!(taken["code"], "name-taken");
    assert_eq!(
        dev.run(["log", "create", "x", "--replication", "4", "--output", "json"]).error(5)["code"],
        "no-placement"
    );
    for wrong in [vec!["17"], vec!["../x"], vec!["x", "--replication", "{rack: 2}"], vec!["x", "--replication", "0"]] {
        dev.run([vec!["log", "create"], wrong].concat()).refused(2);
    }

    // List.
    let text = dev.run(["log", "list"]).ok();
    assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    assert!(text.contains("orders") && text.contains("payments") && text.contains("open"), "{text}");
    let logs = dev.run(["log", "list", "--output", "json"]).objects();
    assert_eq!(logs.len(), 2);
    assert_eq!(
        (&logs[0]["name"], &logs[0]["state"], &logs[0]["segments"]),
        (&json!("orders"), &json!("open"), &json!(1))
    );

    // Explain before and after the first append.
    assert_eq!(json(&["explain", "orders"])["state"], "idle");
    assert_eq!(dev.feed(["append", "orders"], "one\ntwo\nthree\n").ok(), "1\n2\n3\n");
    let healthy = json(&["explain", "1"]);
    assert_eq!((&healthy["state"], &healthy["log"], &healthy["lacks"]), (&json!("healthy"), &json!(1), &Value::Null));
    assert_eq!(healthy["servers"].as_array().map(Vec::len), Some(3));
    let text = dev.run(["explain", "orders"]).ok();
    assert!(text.starts_with("log `orders` takes appends; its tail is 4.\n"), "{text}");
    assert!(text.contains("next: nothing to do"), "{text}");

    // Reconfigure: planned, refused, done.
    let before = json(&["log", "describe", "orders"]);
    let plan = json(&["reconfigure", "orders", "--sequencer", "N3", "--nodeset", "N2,N3", "--dry-run"]);
    assert_eq!((&plan["dry_run"], &plan["closes"], &plan["pending"]), (&json!(true), &json!(0), &Value::Null));
    assert!(plan["next"]["sequencer"].as_str().is_some_and(|sequencer| sequencer.starts_with("N3:")), "{plan}");
    assert_eq!(plan["next"]["nodeset"], json!(["N2", "N3"]));
    assert_eq!(json(&["log", "describe", "orders"])["version"], before["version"], "nothing was done");
    let unknown = dev.run(["reconfigure", "orders", "--nodeset", "N1,N9"]).refused(5);
    assert!(unknown.contains("N9 is not a node of this cluster"), "{unknown}");
    let too_few = dev.run(["reconfigure", "orders", "--nodeset", "N1"]).refused(5);
    assert!(too_few.contains("1 of the 2 distinct domains of scope node"), "{too_few}");
    let done = json(&["reconfigure", "orders", "--sequencer", "N3", "--nodeset", "N2,N3"]);
    assert_eq!((&done["outcome"], &done["closed"], &done["tail"]), (&json!("done"), &json!(0), &json!(4)));
    assert_eq!((&done["opened"], &done["next"]["nodeset"]), (&json!(1), &json!(["N2", "N3"])));
    let moved = dev.run(["reconfigure", "orders", "--replication", "3"]).ok();
    assert!(moved.contains("segment 1 is closed") && moved.contains("replication {node: 3}"), "{moved}");

    // Describe.
    let chain = json(&["log", "describe", "orders"]);
    assert_eq!((&chain["tail"], &chain["tail_unknown"], &chain["pending"]), (&json!(4), &Value::Null, &Value::Null));
    let segments = chain["segments"].as_array().expect("a list");
    assert_eq!(segments.len(), 3);
    assert_eq!(
        (&segments[0]["base_lsn"], &segments[0]["tail"], &segments[0]["state"]),
        (&json!(1), &json!(4), &json!("closed"))
    );
    let closed = &segments[0]["closed"];
    assert_eq!(
        (&closed["actor"], &closed["reason"], &closed["op"]),
        (&json!("operator"), &json!("requested"), &done["op"])
    );
    assert!(closed["total_micros"].as_u64() >= closed["seal_micros"].as_u64(), "{closed}");
    assert_eq!((&segments[2]["state"], &segments[2]["closed"]), (&json!("open"), &Value::Null));
    assert_eq!(segments[2]["nodeset"][0]["removed"], json!(false));
    let text = dev.run(["log", "describe", "orders"]).ok();
    assert!(text.contains("closed by operator (requested), operation "), "{text}");

    // Close, delete.
    let unasked = dev.run(["reconfigure", "payments", "--close"]).refused(5);
    assert!(unasked.contains("--yes"), "{unasked}");
    assert_eq!(json(&["reconfigure", "payments", "--close", "--yes"])["next"], Value::Null);
    assert_eq!(json(&["explain", "payments"])["state"], "closed");
    assert_eq!(dev.run(["reconfigure", "payments", "--output", "json"]).error(5)["code"], "log-closed");
    let unasked = dev.run(["log", "delete", "orders"]).refused(5);
    assert!(unasked.contains("give --yes"), "{unasked}");
    assert_eq!(json(&["log", "delete", "orders", "--yes"]), json!({"log": 1, "name": "orders", "deleted": true}));
    assert_eq!(dev.run(["log", "delete", "orders", "--yes", "--output", "json"]).error(4)["code"], "unknown-log");
    assert_eq!(dev.run(["read", "orders", "--output", "json"]).error(4)["code"], "unknown-log");
    let gone = dev.run(["explain", "orders"]);
    assert_eq!((gone.code, gone.stdout.lines().next()), (4, Some("there is no log `orders`.")));

    // The name is free, the number is not.
    assert_eq!(json(&["log", "create", "orders"])["log"], json!(3));
    assert_eq!(dev.run(["tail", "orders"]).ok(), "1\n");
    assert_eq!(dev.end("TERM"), (0, String::new()));
}

#[test]
fn explain_works_against_a_dead_address() {
    // Nobody listens at port 1.
    let mut explain = command(["explain", "orders", "--address", "127.0.0.1:1", "--output", "json"]);
    let ended = run(&mut explain, b"");
    assert_eq!((ended.code, ended.stderr.as_str()), (7, ""));
    let report: Value = serde_json::from_str(&ended.stdout).expect("an object");
    assert_eq!(report["state"], "no-metadata");
    let tried = json!({"label": "127.0.0.1:1", "text": "connection refused"});
    assert!(report["evidence"].as_array().is_some_and(|lines| lines.contains(&tried)), "{report}");
    let ended = run(&mut command(["explain", "7", "--address", "127.0.0.1:1"]), b"");
    let first = "the cluster's metadata does not answer, so nothing can be said about log `7`.";
    assert_eq!((ended.code, ended.stdout.lines().next()), (7, Some(first)));
    assert!(ended.stdout.contains("127.0.0.1:1") && ended.stdout.contains("next: "), "{ended:?}");
}
