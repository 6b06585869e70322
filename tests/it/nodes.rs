//! `bifrost nodes` and `bifrost node`: the real binary against a real `bifrost dev`.

use bifrost_metadata::LocalMetadata;
use bifrost_wire::metadata::{MetadataStore, Txn};
use serde_json::{Value, json};

use crate::support::tool::{Dev, Ended};

fn one(ended: Ended) -> Value {
    let mut objects = ended.objects();
    assert_eq!(objects.len(), 1, "{objects:?}");
    objects.remove(0)
}

#[test]
fn nodes_are_listed_and_described_with_what_needs_them() {
    let dev = Dev::start([""; 0]);
    let json = |arguments: &[&str]| one(dev.run([arguments, &["--output", "json"]].concat()));
    dev.run(["log", "create", "orders"]).ok();
    dev.feed(["append", "orders"], "one\ntwo\n").ok();
    dev.run(["reconfigure", "orders", "--nodeset", "N1,N2", "--sequencer", "N2"]).ok();

    let nodes = dev.run(["nodes", "--output", "json"]).objects();
    let names: Vec<_> = nodes.iter().map(|node| (&node["node"], &node["name"], &node["answers"])).collect();
    let expected = json!([["N1", "n1", true], ["N2", "n2", true], ["N3", "n3", true]]);
    assert_eq!(json!(names), expected);
    let counts = |node: &Value| json!([node["open_segments"], node["closed_segments"], node["sequenced_logs"]]);
    assert_eq!(nodes.iter().map(counts).collect::<Vec<_>>(), [json!([1, 1, 0]), json!([1, 1, 1]), json!([0, 1, 0])]);
    assert_eq!((&nodes[0]["storage"], &nodes[0]["generation"]), (&json!("read-write"), &json!(1)));
    assert_eq!(nodes[0]["address"], json!(dev.addresses()[0]));
    assert!(nodes.iter().all(|node| node["disk"].is_string() && node["removed"] == json!(false)), "{nodes:?}");
    let text = dev.run(["nodes"]).ok();
    assert!(text.contains("N2:1") && text.contains("read-write") && text.contains("yes"), "{text}");

    // By name, by number and by its digits.
    let described = json(&["node", "describe", "n2"]);
    for name in ["N2", "2"] {
        let mut other = json(&["node", "describe", name]);
        // Time goes on, and so does what a node does by itself.
        assert_eq!(other["status"]["node"], described["status"]["node"]);
        other["status"] = described["status"].clone();
        assert_eq!(described, other);
    }
    let needs = json!([
        {"log": 1, "name": "orders", "segment": 0, "why": "closed-copy", "cost": "fewer-copies"},
        {"log": 1, "name": "orders", "segment": 1, "why": "sequencer", "cost": "moves"},
        {"log": 1, "name": "orders", "segment": 1, "why": "open-copy", "cost": "no-appends"},
    ]);
    assert_eq!((&described["needs"], &described["more_needs"], &described["node"]), (&needs, &json!(0), &json!("N2")));
    let text = dev.run(["node", "describe", "n3"]).ok();
    assert!(text.starts_with("N3:1 n3\n") && text.contains("state      answers"), "{text}");
    assert!(
        text.contains("roles      log-server, sequencer\n") && text.contains("load       numbers the appends of "),
        "{text}"
    );
    assert!(text.contains("1 segment needs it:\n  log orders (number 1), segment 0: it is closed"), "{text}");
    let status = &described["status"];
    assert_eq!((&status["node"], &status["leaving"]), (&json!("N2:1"), &json!(false)));
    assert_eq!(status["roles"], json!(["log-server", "sequencer"]));
    assert_eq!((&status["disk"]["disk"], &status["disk"]["fullness"]), (&nodes[1]["disk"], &json!("ample")));
    assert!(status["uptime_millis"].as_u64().unwrap() > 0 && status["loglets"].as_u64().unwrap() >= 1, "{status}");
    dev.run(["trim", "orders", "--to", "2"]).ok();
    let text = dev.run(["node", "describe", "n3"]).ok();
    assert!(text.ends_with("\nno segment needs it\n"), "{text}");

    let unknown = dev.run(["node", "describe", "n9", "--output", "json"]).error(4);
    assert_eq!((&unknown["code"], &unknown["message"]), (&json!("unknown-node"), &json!("there is no node `n9`")));
    assert!(dev.run(["node", "describe", "N9"]).refused(4).contains("`bifrost nodes` lists all"));
    dev.run(["node", "describe"]).refused(2);
    assert_eq!(dev.end("TERM"), (0, String::new()));
}

#[test]
fn a_node_that_is_gone_and_named_by_history_is_shown_as_removed() {
    let root = tempfile::tempdir().unwrap();
    let data = ["--data-dir", root.path().to_str().unwrap()];
    let dev = Dev::start(data);
    dev.run(["log", "create", "orders"]).ok();
    assert_eq!(dev.end("TERM").0, 0);
    // As if its record had been taken away by force.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let metadata = LocalMetadata::open(root.path().join("metadata")).await.unwrap();
        metadata.txn(Txn::new().delete("nodes/0000000003").delete("node-names/n3")).await.unwrap();
        metadata.shutdown().await;
    });
    let dev = Dev::start([data.as_slice(), &["--nodes", "2"]].concat());
    let nodes = dev.run(["nodes", "--output", "json"]).objects();
    assert_eq!(nodes.len(), 3, "{nodes:?}");
    assert_eq!(
        (&nodes[2]["removed"], &nodes[2]["name"], &nodes[2]["storage"]),
        (&json!(true), &Value::Null, &Value::Null)
    );
    assert_eq!(nodes[2]["answers"], json!(false));
    // Its open segment may have left the node already: only history is sure to name it.
    for arguments in [&["nodes"][..], &["node", "describe", "N3"], &["log", "describe", "orders"]] {
        let text = dev.run(arguments).ok();
        assert!(text.contains("N3 (removed)") || text.contains("N3") && text.contains("(removed)"), "{text}");
    }
    dev.run(["explain", "orders"]).ok();
    dev.run(["log", "list"]).ok();
    assert_eq!(dev.end("TERM").0, 0);
}

#[test]
fn a_node_is_taken_out_of_service_emptied_retired_and_removed() {
    let dev = Dev::start([""; 0]);
    let json = |arguments: &[&str]| one(dev.run([arguments, &["--output", "json"]].concat()));
    dev.run(["log", "create", "orders"]).ok();
    // Whoever answered first numbers the appends of the first segment.
    dev.run(["reconfigure", "orders", "--nodeset", "N1,N2,N3", "--sequencer", "N1"]).ok();
    dev.feed(["append", "orders"], "one\ntwo\n").ok();

    // One state leads to the other, and a state that holds is success.
    let changed = json(&["node", "set-state", "n3", "read-only"]);
    assert_eq!(changed, json!({"node": "N3", "before": "read-write", "storage": "read-only"}));
    let again = dev.run(["node", "set-state", "N3", "read-only"]).ok();
    assert_eq!(again, "the disk of N3 is read-only already\n");
    let early = dev.run(["node", "set-state", "n1", "retired", "--yes"]).refused(5);
    assert!(early.contains("N1 is read-write") && early.contains("`bifrost node set-state N1 read-only`"), "{early}");
    let unasked = dev.run(["node", "set-state", "n3", "retired"]).refused(5);
    assert!(unasked.contains("give --yes"), "{unasked}");
    let needed = dev.run(["node", "set-state", "n3", "retired", "--yes"]).refused(5);
    assert!(needed.contains("1 segment needs N3; nothing was changed"), "{needed}");
    // Whoever numbers the segment moves it to other disks; what is closed still needs this one.
    let closed = (0..600).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let told = dev.run(["node", "set-state", "n3", "retired", "--yes"]).refused(5);
        told.contains("log orders segment 1 (closed, holds a copy)")
    });
    assert!(closed, "the open segment stays on a disk that takes no new ones");
    dev.run(["node", "set-state", "n3", "provisioning"]).refused(2);

    // What is opened now is not put there.
    assert_eq!(json(&["reconfigure", "orders", "--sequencer", "N2"])["next"]["nodeset"], json!(["N1", "N2"]));
    let wish = dev.run(["reconfigure", "orders", "--nodeset", "N2,N3"]).refused(5);
    assert!(wish.contains("N3 takes no new segments: its storage is read-only"), "{wish}");
    let needed = dev.run(["node", "remove", "n3"]).refused(5);
    assert!(needed.contains("log orders segment 1 (closed, holds a copy)"), "{needed}");
    dev.run(["trim", "orders", "--to", "2"]).ok();
    let in_service = dev.run(["node", "remove", "n3"]).refused(5);
    assert!(in_service.contains("N3 is in service: its storage is read-only"), "{in_service}");
    assert_eq!(json(&["node", "set-state", "n3", "retired", "--yes"])["storage"], json!("retired"));
    let back = dev.run(["node", "set-state", "n3", "read-write", "--output", "json"]).error(5);
    assert_eq!(back["code"], "refused");
    let removed = json(&["node", "remove", "n3"]);
    assert_eq!(removed, json!({"node": "N3", "name": "n3", "removed": true, "needs": [], "more_needs": 0}));
    assert_eq!(dev.run(["node", "remove", "N3"]).ok(), "N3 was removed before\n");
    assert_eq!(dev.run(["node", "remove", "N9", "--output", "json"]).error(4)["code"], "unknown-node");

    // History keeps its number, and the log goes on.
    for arguments in [&["nodes"][..], &["log", "describe", "orders"], &["node", "describe", "N3"]] {
        let text = dev.run(arguments).ok();
        assert!(text.contains("N3") && text.contains("(removed)"), "{text}");
    }
    assert_eq!(dev.feed(["append", "orders"], "three\n").ok(), "3\n");

    // By force: not without being asked, and the cost is told.
    let unasked = dev.run(["node", "remove", "n2", "--force"]);
    assert_eq!(unasked.code, 5);
    assert!(unasked.stderr.contains("without it there are no appends until a reconfiguration"), "{unasked:?}");
    assert!(unasked.stderr.contains("give --yes"), "{unasked:?}");
    let forced = json(&["node", "remove", "n2", "--force", "--yes"]);
    let costs: Vec<_> = forced["needs"].as_array().unwrap().iter().map(|need| need["cost"].clone()).collect();
    assert!(costs.contains(&json!("no-appends")), "{forced}");
    assert_eq!(dev.end("TERM").0, 0);
}
