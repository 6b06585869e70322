//! The command line as a person and a script meet it: the real binary against a real `bifrost dev`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::ports::free_ports;
use crate::support::tool::{Dev, command, objects, run, send_signal};

fn create(dev: &Dev, names: &[&str]) {
    for name in names {
        dev.run(["log", "create", name]).ok();
    }
}

#[test]
fn a_tour_from_the_first_record_to_a_trim() {
    let dev = Dev::start([""; 0]);
    create(&dev, &["orders", "empty", "bytes", "many"]);

    // Nothing is there yet.
    assert_eq!(dev.run(["tail", "orders"]).ok(), "1\n");
    assert_eq!(dev.run(["read", "orders"]).ok(), "");

    // Lines are records; the last one needs no newline, and an empty one is a record.
    assert_eq!(dev.feed(["append", "orders"], "one espresso\n\ntwo").ok(), "1\n2\n3\n");
    assert_eq!(dev.run(["tail", "orders"]).ok(), "4\n");
    assert_eq!(dev.run(["tail", "1"]).ok(), "4\n", "by number");
    assert_eq!(dev.run(["read", "orders"]).ok(), "    1  one espresso\n    2  \n    3  two\n");
    assert_eq!(dev.run(["read", "orders", "--output", "raw"]).ok(), "one espresso\n\ntwo\n");
    assert_eq!(dev.feed(["append", "empty"], "").ok(), "", "no lines, no records");

    // Keys choose records.
    let appended = dev.feed(["append", "orders", "--keys", "7,9", "--output", "json"], "keyed\n").objects();
    assert_eq!(appended, [json!({"outcome": "committed", "line": 1, "lsn": 4})]);
    assert_eq!(dev.feed(["append", "orders", "--keys", "20-29"], "ranged\n").ok(), "5\n");
    assert_eq!(dev.run(["read", "orders", "--key", "9"]).ok(), "    4  [7,9]  keyed\n");
    assert_eq!(dev.run(["read", "orders", "--key", "25-40"]).ok(), "    5  [20-29]  ranged\n");
    let records = dev.run(["read", "orders", "--from", "4", "--output", "json"]).objects();
    let [pair, range] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!((&pair["type"], &pair["lsn"], &pair["keys"]), (&json!("record"), &json!(4), &json!([7, 9])));
    assert_eq!((&pair["text"], &pair["payload"]), (&json!("keyed"), &json!("a2V5ZWQ=")));
    assert!(pair["created_at_millis"].is_u64() && pair["sequence"] == 1 && pair["writer"].is_string(), "{pair}");
    assert!(pair.get("key_range").is_none() && range["key_range"] == json!([20, 29]), "{pair} {range}");

    // Ranges are half-open; the tail ends a read.
    assert_eq!(dev.run(["read", "orders", "--from", "2", "--until", "4"]).ok(), "    2  \n    3  two\n");
    assert_eq!(dev.run(["read", "orders", "--from", "tail-2"]).ok().lines().count(), 2);
    assert_eq!(dev.run(["read", "orders", "--from", "tail-100", "--until", "2"]).ok(), "    1  one espresso\n");
    assert_eq!(dev.run(["read", "orders", "--from", "tail"]).ok(), "");
    assert_eq!(dev.run(["read", "orders", "--from", "99"]).ok(), "");
    assert_eq!(dev.run(["read", "orders", "--from", "3", "--until", "3"]).ok(), "");

    // Any bytes: in as base 64, out as they are, and never a command to the terminal.
    let mut input = String::from("AP8KCQ==\n");
    input += "G1sySg==\n";
    assert_eq!(dev.feed(["append", "bytes", "--base64"], &input).ok(), "1\n2\n");
    assert_eq!(dev.run(["read", "bytes"]).ok(), "    1  \\u{0}\\xff\\n\\t\n    2  \\u{1b}[2J\n");
    let records = dev.run(["read", "bytes", "--output", "json"]).objects();
    assert_eq!(records[0]["payload"], "AP8KCQ==");
    assert!(records[0].get("text").is_none() && records[1]["text"] == "\u{1b}[2J");

    // A trim is a gap, and never goes back.
    assert_eq!(dev.run(["trim", "orders", "--to", "2"]).ok(), "log orders is trimmed up to and including LSN 2\n");
    let again = dev.run(["trim", "orders", "--to", "1", "--output", "json"]).objects();
    assert_eq!(again, [json!({"log": 1, "name": "orders", "trim_point": 2})]);
    assert_eq!(dev.run(["read", "orders"]).ok().lines().count(), 3, "from the oldest on there is no gap");
    let from_one = dev.run(["read", "orders", "--from", "1", "--until", "4"]).ok();
    assert_eq!(from_one, "    -  gap: LSN 1 to 2 trimmed\n    3  two\n");
    let gap = dev.run(["read", "orders", "--from", "1", "--until", "3", "--output", "json"]).objects();
    assert_eq!(gap, [json!({"type": "gap", "from": 1, "end": 3, "kind": "trimmed"})]);
    let raw = dev.run(["read", "orders", "--from", "1", "--until", "4", "--output", "raw"]);
    assert_eq!((raw.stdout.as_str(), raw.stderr.as_str()), ("two\n", "gap: LSN 1 to 2 trimmed\n"));
    assert!(dev.run(["trim", "orders", "--to", "6"]).refused(5).contains("the tail is 6"));
    let tail = dev.run(["tail", "orders", "--output", "json"]).objects();
    assert_eq!(tail, [json!({"log": 1, "name": "orders", "tail": 6, "kind": "linearizable"})]);
    assert_eq!(dev.run(["tail", "orders", "--cached", "--output", "json"]).objects()[0]["kind"], "cached");

    many_records(&dev);
    bad_input(&dev);
    stop_while_following(&dev);
    assert_eq!(dev.end("TERM"), (0, String::new()));
}

/// More than one batch, from a file; and a reader that goes away early.
fn many_records(dev: &Dev) {
    let lines: String = (1..=30_000).map(|line| format!("line {line}\n")).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &lines).unwrap();
    let path = file.path().to_str().unwrap();
    let appended = dev.run(["append", "many", "--file", path, "--output", "json"]).objects();
    assert_eq!(appended.len(), 30_000);
    for (record, number) in appended.iter().zip(1_u64..) {
        assert_eq!((record["line"].as_u64(), record["lsn"].as_u64()), (Some(number), Some(number)));
    }
    assert_eq!(dev.run(["read", "many", "--output", "raw"]).ok(), lines);

    let mut reading = dev.command(["read", "many", "--follow"]).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(reading.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "    1  line 1\n");
    // Stdout is closed now. The next record tells the reader, if the rest did not fit into the pipe.
    dev.feed(["append", "many"], "one more\n").ok();
    let mut told = String::new();
    reading.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(reading.wait().unwrap().success() && told.is_empty(), "{told}");
}

fn bad_input(dev: &Dev) {
    // What cannot name a log, a position, or a range.
    let long = "x".repeat(10 << 10);
    for name in ["0", "../x", "a b", "", "-", "x\u{1b}[2J", "18446744073709551616", &long] {
        let told = dev.run(["tail", "--", name]).refused(2);
        assert!(told.len() < 500 && !told.contains('\u{1b}'), "{told}");
    }
    assert!(dev.run(["read", "orders", "--from", "0"]).refused(2).contains("an LSN from 1 on"));
    assert!(dev.run(["trim", "orders", "--to", "0"]).refused(2).contains("an LSN is a number from 1 on"));
    assert!(dev.run(["read", "orders", "--from", "5", "--until", "4"]).refused(2).contains("lies before --from 5"));
    assert!(dev.run(["read", "orders", "--key", "9-7"]).refused(2).contains("a key is a number"));
    assert!(dev.run(["tail", "orders", "--output", "raw"]).refused(2).contains("for `bifrost read` only"));
    assert!(dev.run(["append", "orders", "--file", "no such file"]).refused(2).contains("no such file or directory"));
    assert_eq!(dev.run(["tail", "18446744073709551615"]).code, 4);

    // No such log, in words and as data.
    let told = dev.run(["append", "ordrs"]).refused(4);
    assert!(told.contains("there is no log `ordrs`") && told.contains("did you mean `orders`?"), "{told}");
    let error = dev.run(["read", "ordrs", "--output", "json"]).error(4);
    assert_eq!((&error["code"], &error["message"]), (&json!("unknown-log"), &json!("there is no log `ordrs`")));
    assert!(error["advice"].is_string());

    // A line over the limit, and one that is no base 64: what came before is there, and is told.
    let lines = [&b"short\n"[..], &vec![b'x'; (8 << 20) + 1], b"\n"].concat();
    let told = dev.feed(["append", "empty"], &lines);
    assert!(told.stderr.contains("line 2 is longer than 8388608 bytes"), "{}", told.stderr);
    assert_eq!((told.code, told.stdout.as_str()), (6, "1\n"), "a part was done");
    let told = dev.feed(["append", "empty", "--base64"], "*\n");
    assert!(told.refused(2).contains("line 1 is not base 64"));
    let largest = [vec![b'x'; 8 << 20], b"\n".to_vec()].concat();
    assert_eq!(dev.feed(["append", "empty"], largest).ok(), "2\n");

    // An outcome that is settled, and ids that are not one.
    assert!(dev.run(["resolve", "orders", "nonsense"]).refused(2).contains("an append id looks like"));
    let append = "2/00000000000000000000000001/1+1/0/1/1";
    assert!(dev.run(["resolve", "empty", append]).ok().starts_with("not appended"));
    let resolved = dev.run(["resolve", "2", append, "--output", "json"]).objects();
    assert_eq!(resolved[0]["outcome"], "not-appended");
    assert!(dev.run(["resolve", "many", append]).refused(2).contains("was made to log 2"));
}

/// A follower ends with 130 at a signal, and what it has printed by then is whole.
fn stop_while_following(dev: &Dev) {
    let mut following = dev.command(["read", "orders", "--from", "3", "--follow", "--output", "json"]).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    for expected in [3, 4, 5] {
        let record: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(record["lsn"], expected);
    }
    assert_eq!(dev.feed(["append", "orders"], "while you wait\n").ok(), "6\n");
    let record: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(record["text"], "while you wait");
    send_signal(&following, "INT");
    assert_eq!(following.wait().unwrap().code(), Some(130));

    // An appender that waits for stdin tells what it has done.
    let mut appending = dev.command(["append", "orders"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = appending.stdin.take().unwrap();
    stdin.write_all(b"before the signal\n").unwrap();
    let mut stdout = BufReader::new(appending.stdout.take().unwrap());
    let mut first = String::new();
    stdout.read_line(&mut first).unwrap();
    assert_eq!(first, "7\n");
    send_signal(&appending, "INT");
    let mut told = String::new();
    appending.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(appending.wait().unwrap().code(), Some(130));
    assert_eq!(told, "error: interrupted; 1 record appended, the last at LSN 7\n");
}

#[test]
fn an_append_whose_outcome_is_not_told_has_an_id_that_tells_it_later() {
    let dev = Dev::start(["--nodes", "1"]);
    create(&dev, &["orders"]);
    let mut appending = dev.command(["append", "orders", "--output", "json", "--timeout", "2s"]);
    let mut appending = appending.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = appending.stdin.take().unwrap();
    let mut lines = BufReader::new(appending.stdout.take().unwrap()).lines();
    stdin.write_all(b"told\n").unwrap();
    assert!(lines.next().unwrap().unwrap().contains("\"lsn\":1"));
    // The cluster stands still: whatever it does with the next line, it cannot say so.
    dev.signal("STOP");
    stdin.write_all(b"not told\n").unwrap();
    let record: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!((&record["outcome"], &record["line"], &record["index"]), (&json!("unknown"), &json!(2), &json!(0)));
    drop(stdin);
    let mut told = String::new();
    appending.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(appending.wait().unwrap().code(), Some(6));
    let error: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(error["error"]["code"], "outcome-unknown");
    let append = record["append_id"].as_str().unwrap();
    assert!(error["error"]["advice"].as_str().unwrap().contains(&format!("bifrost resolve orders {append}")));
    let silent = dev.run(["tail", "orders", "--timeout", "300ms"]).refused(7);
    assert!(silent.contains("300ms") || silent.contains("cannot be reached"), "{silent}");

    dev.signal("CONT");
    let resolved = dev.run(["resolve", "orders", append, "--output", "json"]).objects();
    let there = dev.run(["read", "orders", "--output", "raw"]).ok();
    match resolved[0]["outcome"].as_str() {
        Some("committed") => assert_eq!((there.as_str(), &resolved[0]["lsn"]), ("told\nnot told\n", &json!(2))),
        Some("not-appended") => assert_eq!(there, "told\n"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn dev_goes_on_with_its_data_after_a_stop_and_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let data = data.to_str().unwrap();
    let port = free_ports(2).to_string();
    let first = Dev::start(["--nodes", "2", "--data-dir", data, "--replication", "1", "--port", &port]);
    assert!(first.run(["log", "create", "orders"]).ok().contains("replication {node: 1}"));
    assert_eq!(first.feed(["append", "orders"], "one\n").ok(), "1\n");
    let (addresses, nodes) = (first.addresses(), first.ready["nodes"].clone());
    assert_eq!(addresses[0], format!("127.0.0.1:{port}"));
    assert_eq!(nodes.as_array().map(Vec::len), Some(2));
    assert_eq!((&first.ready["event"], &first.ready["temporary"]), (&json!("ready"), &json!(false)));

    // The same directory, and the same port: refused, and the first one does not notice.
    let second = run(&mut command(["dev", "--port", "0", "--data-dir", data]), b"");
    assert!(second.refused(5).contains("is in use by another process"));
    let second = run(&mut command(["dev", "--port", &port]), b"");
    let told = second.refused(5);
    assert!(told.contains(&format!("port {port} is in use")) && told.contains("--port 0"), "{told}");
    assert_eq!(first.feed(["append", "orders"], "two\n").ok(), "2\n");
    assert_eq!(first.end("TERM"), (0, String::new()));

    // Stopped: the same nodes at the same places, also when no port is named.
    let second = Dev::start(["--data-dir", data]);
    assert_eq!(second.addresses(), addresses);
    let ids = |nodes: &Value| nodes.as_array().unwrap().iter().map(|node| node["node"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&second.ready["nodes"]), ids(&nodes));
    assert_eq!(second.ready["nodes"][0]["generation"], 2);
    assert_eq!(second.run(["read", "orders", "--output", "raw"]).ok(), "one\ntwo\n");
    assert_eq!(second.feed(["append", "orders"], "three\n").ok(), "3\n");
    assert!(second.run(["log", "create", "more"]).ok().contains("replication {node: 1}"), "kept with the data");
    assert_eq!(second.end("KILL").0, 128 + 9);

    // Killed: what was acknowledged is there.
    let third = Dev::start(["--data-dir", data]);
    assert_eq!(third.addresses(), addresses);
    assert_eq!(third.run(["read", "orders", "--output", "raw"]).ok(), "one\ntwo\nthree\n");
    assert_eq!(third.end("INT").0, 0);
}

#[test]
fn dev_refuses_what_it_cannot_use_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("letter.txt"), "mine").unwrap();
    let somebody = directory.path().to_str().unwrap();
    let told = run(&mut command(["dev", "--port", "0", "--data-dir", somebody]), b"").refused(5);
    assert!(told.contains("is not empty"), "{told}");
    let file = directory.path().join("letter.txt");
    let told = run(&mut command(["dev", "--port", "0", "--data-dir", file.to_str().unwrap()]), b"").refused(3);
    assert!(told.contains("cannot be used"), "{told}");
    assert!(run(&mut command(["dev", "--nodes", "0"]), b"").refused(2).contains("--nodes"));
    let told = run(&mut command(["dev", "--replication", "4"]), b"").refused(2);
    assert!(told.contains("more than 3 nodes in one zone"), "{told}");
    assert!(run(&mut command(["dev", "--port", "65535"]), b"").refused(2).contains("there are no 3 ports"));

    let dev = Dev::start(["--nodes", "1"]);
    assert_eq!(dev.ready["temporary"], true);
    let data = dev.data_dir().to_owned();
    assert!(data.is_dir());
    assert_eq!(dev.end("INT"), (0, String::new()));
    assert!(!data.exists(), "the temporary directory is removed");
}

#[test]
fn a_cluster_that_is_not_there_is_told_with_the_address_and_what_to_do() {
    // It takes connections and never answers. No other test is at this address, so nobody follows it there.
    let silent = TcpListener::bind("127.0.0.9:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let told = run(&mut command(["tail", "orders", "--address", &address, "--timeout", "300ms"]), b"").refused(7);
    assert!(told.contains(&address), "{told}");
    drop(silent);
    let gone = run(&mut command(["tail", "orders", "--address", &address]), b"").refused(7);
    assert!(gone.contains(&format!("{address}: connection refused")) && gone.contains("bifrost dev"), "{gone}");

    // A flag goes before the environment, the environment before the file.
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("bifrost.toml"), "[client]\naddresses = [\"127.0.0.7:1\"]\n").unwrap();
    let in_directory = |arguments: &[&str], env: Option<&str>| {
        let mut command = command(arguments);
        command.current_dir(directory.path());
        if let Some(address) = env {
            command.env("BIFROST_ADDRESS", address);
        }
        run(&mut command, b"")
    };
    assert!(in_directory(&["tail", "orders"], None).refused(7).contains("127.0.0.7:1"));
    assert!(in_directory(&["tail", "orders"], Some(&address)).refused(7).contains(&address));
    let flag = in_directory(&["tail", "orders", "--address", &address], Some("127.0.0.8:1"));
    assert!(flag.refused(7).contains(&address));
    assert!(in_directory(&["tail", "orders", "--address", "nonsense"], None).refused(2).contains("not an address"));
    let shown = in_directory(&["config", "show", "--output", "json", "--timeout", "5s"], Some(&address)).objects();
    let of = |key: &str| shown.iter().find(|value| value["key"] == key).unwrap().clone();
    assert_eq!(of("addresses")["origin"], "environment variable BIFROST_ADDRESS");
    assert_eq!((&of("timeout")["source"], &of("timeout")["value"]), (&json!("flag"), &json!("5s")));
    assert_eq!(of("open_files")["source"], "default");
}

#[test]
fn a_wrong_configuration_is_refused_before_anything_is_done() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mine.toml");
    fs::write(&file, "[dev]\n\nnods = 5\n").unwrap();
    let file = file.to_str().unwrap();
    let told = run(&mut command(["dev", "--config", file]), b"").refused(2);
    assert!(told.contains("mine.toml:3: unknown key dev.nods"), "{told}");
    assert!(told.contains("did you mean dev.nodes?"), "{told}");
    let error = run(&mut command(["tail", "orders", "--config", file, "--output", "json"]), b"").error(2);
    assert_eq!(error["code"], "invalid-config");
    let told = run(command(["config", "show"]).env("BIFROST__DEV__PORT", "many"), b"").refused(2);
    assert!(told.contains("environment variable BIFROST__DEV__PORT: dev.port is many"), "{told}");
    // What helps to mend it works.
    let example = run(&mut command(["config", "example", "--config", file]), b"").ok();
    fs::write(file, &example).unwrap();
    let shown = run(&mut command(["config", "show", "--config", file, "--output", "json"]), b"").objects();
    assert!(shown.len() > 50 && shown.iter().all(|value| value["source"] == "default"), "{shown:?}");
    assert!(run(&mut command(["config", "show", "--config", "no such file"]), b"").refused(2).contains("no such file"));
}

#[test]
fn wrong_arguments_are_told_in_words_and_as_data() {
    assert!(run(&mut command(["apend"]), b"").refused(2).contains("'append'"));
    assert!(run(&mut command(["tail", "orders", "--cache"]), b"").refused(2).contains("'--cached'"));
    let error = run(&mut command(["tail", "--output", "json"]), b"").error(2);
    assert_eq!(error["code"], "invalid-argument");
    assert!(run(&mut command([""; 0]), b"").stderr.contains("Usage: bifrost"));
    assert!(run(&mut command(["--help"]), b"").ok().lines().all(|line| line.chars().count() <= 80));
    assert!(run(&mut command(["--version"]), b"").ok().starts_with("bifrost "));
    let version = objects(&run(&mut command(["version", "--output", "json"]), b"").ok());
    assert_eq!(version[0]["protocol"], "bifrost.v1");
}

#[test]
fn completions_are_scripts_that_shells_take() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&mut command(["completions", shell]), b"").ok();
        assert!(script.contains("bifrost") && script.contains("append"), "{shell}: {script}");
    }
    let script = run(&mut command(["completions", "bash"]), b"").ok();
    let mut bash = std::process::Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
    bash.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(bash.wait().unwrap().success());
}
