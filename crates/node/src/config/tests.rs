//! What a person meets who configures something.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bifrost::controller::ControllerOptions;
use bifrost::liveness::LivenessOptions;

use super::*;

fn source(env: &[(&str, &str)]) -> Source {
    let env = env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
    Source { file: None, env, directory: PathBuf::from("no such directory") }
}

fn file(text: &str) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    config.apply_file(Path::new("bifrost.toml"), text)?;
    config.check()?;
    Ok(config)
}

fn refused(text: &str) -> (String, String) {
    let error = file(text).expect_err("a wrong file");
    (error.to_string(), error.advice())
}

/// All values, in the form of the file.
fn values(config: &Config) -> Vec<String> {
    keys().map(|key| format!("{} = {}", key.name, config.value(key))).collect()
}

#[test]
fn the_example_sets_nothing_and_without_its_signs_it_sets_every_key_to_its_default() {
    let text = example();
    let untouched = file(&text).expect("the example is valid");
    assert_eq!(values(&untouched), values(&Config::default()));
    assert!(keys().all(|key| untouched.origin(key) == Origin::Default));
    let all: Vec<&str> = text
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ') && !rest.is_empty()).unwrap_or(line))
        .collect();
    let set = file(&all.join("\n")).expect("every key is valid");
    assert_eq!(values(&set), values(&Config::default()));
    for key in keys() {
        assert!(matches!(set.origin(key), Origin::File { .. }), "{} is not in the example", key.name);
    }
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

/// The names of the fields of a struct and of those within it, by what `Debug` prints.
fn fields(debug: &str) -> Vec<&str> {
    let name = |part: &str| part.rsplit([' ', '{', '(']).next().is_some_and(|name| !name.is_empty());
    let parts = debug.split(": ").filter(|part| name(part));
    let names: Vec<&str> = parts.filter_map(|part| part.rsplit([' ', '{', '(']).next()).collect();
    // What follows the last colon is a value.
    names.split_last().map(|(_, names)| names.to_vec()).unwrap_or_default()
}

/// Options that are not for people: two are made by the node itself, one only groups others, one is for the simulator.
const NOT_CONFIGURED: [&str; 4] = ["cluster", "preferred", "space", "dial"];

#[test]
fn every_option_of_every_part_has_a_key() {
    let parts = [
        ("server", format!("{:?}", ServerLimits::default())),
        ("connection", format!("{:?}", ClientOptions::default())),
        ("failover", format!("{:?}", LivenessOptions::default())),
        ("failover", format!("{:?}", ControllerOptions::default())),
        ("gateway", format!("{:?}", GatewayOptions::default())),
        ("storage", format!("{:?}", RocksOptions::default())),
        ("segments", format!("{:?}", SegmentLimits::default())),
        ("appender", format!("{:?}", AppenderOptions::default())),
        ("client", format!("{:?}", Options::default())),
    ];
    for (section, debug) in parts {
        let fields = fields(&debug);
        assert!(!fields.is_empty(), "{debug}");
        for field in fields.into_iter().filter(|field| !NOT_CONFIGURED.contains(field)) {
            assert!(load::find(section, field).is_some(), "{section}.{field} cannot be configured");
        }
    }
}

#[test]
fn every_section_has_keys_and_every_key_a_section() {
    for key in keys() {
        assert!(SECTIONS.iter().any(|(section, _)| *section == key.name.section), "{}", key.name);
        assert!(key.doc.len() > 20, "{} is not documented", key.name);
    }
    for (section, _) in SECTIONS {
        assert!(keys().any(|key| key.name.section == *section), "[{section}] is empty");
    }
}

#[test]
fn the_environment_goes_before_the_file() {
    let mut config = file("[client]\ntimeout = \"5s\"\nnodeset_max = 3\n").expect("valid");
    assert_eq!(config.client.timeout, Duration::from_secs(5));
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join(FILE), "[client]\ntimeout = \"5s\"\nnodeset_max = 3\n").expect("written");
    let source = Source {
        directory: directory.path().to_owned(),
        ..source(&[("BIFROST__CLIENT__TIMEOUT", "2m"), ("BIFROST_ADDRESS", "a:1, b:2"), ("OTHER", "x")])
    };
    let loaded = Config::load(&source).expect("valid");
    assert_eq!(loaded.client.timeout, Duration::from_secs(120));
    assert_eq!(loaded.client.options.nodeset_max, 3);
    assert_eq!(loaded.client.addresses, ["a:1", "b:2"]);
    let origin = |section, key| load::find(section, key).map(|key| loaded.origin(key).to_string()).unwrap_or_default();
    assert_eq!(origin("client", "timeout"), "environment variable BIFROST__CLIENT__TIMEOUT");
    assert_eq!(origin("client", "addresses"), "environment variable BIFROST_ADDRESS");
    assert!(origin("client", "nodeset_max").ends_with("bifrost.toml:3"));
    assert_eq!(origin("client", "call_deadline"), "default");
    config.set_by_flag(TIMEOUT, "--timeout");
    assert!(keys().any(|key| config.origin(key) == Origin::Flag { name: "--timeout" }));
}

#[test]
fn a_wrong_name_is_refused_with_its_line_and_the_nearest_known_one() {
    let (what, next) = refused("[server]\n\nkeepalive_intervall = \"5s\"\n");
    assert_eq!(what, "bifrost.toml:3: unknown key server.keepalive_intervall");
    assert!(next.starts_with("did you mean server.keepalive_interval?"), "{next}");
    let (what, next) = refused("[sever]\n");
    assert_eq!(what, "bifrost.toml:1: unknown section [sever]");
    assert!(next.starts_with("did you mean [server]?"), "{next}");
    let (what, next) = refused("# mine\ntimeout = \"5s\"\n");
    assert_eq!(what, "bifrost.toml:2: unknown key timeout");
    assert!(next.starts_with("did you mean client.timeout?"), "{next}");
    let (_, next) = refused("[client]\nwrite_buffer_bytes = 1\n");
    assert!(next.starts_with("did you mean storage.write_buffer_bytes?"), "{next}");
    let (_, next) = refused("[client]\nzzzzzzzzzzzzzzzzz = 1\n");
    assert!(!next.contains("did you mean"), "{next}");
    let error = Config::load(&source(&[("BIFROST__CLIENT__TIMEOUTS", "1s")])).expect_err("unknown");
    assert_eq!(error.to_string(), "environment variable BIFROST__CLIENT__TIMEOUTS: unknown key client.timeouts");
    assert!(error.advice().starts_with("did you mean client.timeout?"));
    let error = Config::load(&source(&[("BIFROST__CLIENT", "1s")])).expect_err("half a name");
    assert!(matches!(error, ConfigError::UnknownKey { .. }), "{error}");
}

#[test]
fn a_wrong_value_is_refused_with_what_is_allowed() {
    for (text, told) in [
        ("[client]\ntimeout = 5\n", "client.timeout is 5, and must be a time with its unit"),
        ("[client]\ntimeout = \"5 parsecs\"\n", "client.timeout is \"5 parsecs\", and must be a time"),
        ("[client]\nnodeset_max = 0\n", "client.nodeset_max is 0, allowed is 1 to 128"),
        ("[client]\nnodeset_max = -1\n", "client.nodeset_max is -1, allowed is 0 to"),
        ("[client]\nnodeset_max = \"3\"\n", "client.nodeset_max is \"3\", and must be a whole number"),
        ("[client]\naddresses = []\n", "client.addresses is [], allowed is one HOST:PORT or more"),
        ("[dev]\nport = 65536\n", "dev.port is 65536, allowed is 0 to 65535"),
        ("[dev]\nreplication = \"many\"\n", "dev.replication is \"many\", allowed is a number of nodes"),
        ("[server]\nkeepalive_interval = \"0s\"\n", "server.keepalive_interval is \"0s\", allowed is more than 0"),
        ("[server]\nframe_bytes_max = \"1KiB\"\n", "server.frame_bytes_max is \"1KiB\", allowed is 16384 to"),
        ("[storage]\nbackground_jobs = 0\n", "storage.background_jobs is 0, allowed is 1 to 64"),
        ("[storage]\nwrite_buffer_bytes = \"99999999999GiB\"\n", "allowed is 0 to"),
        ("[storage]\nwrite_buffer_bytes = true\n", "storage.write_buffer_bytes is a boolean, and must be a number"),
    ] {
        let (what, _) = refused(text);
        assert!(what.contains(told), "{text} gives {what}");
        assert!(what.starts_with("bifrost.toml:2: "), "{what}");
    }
}

#[test]
fn what_is_not_toml_is_refused_with_its_line() {
    let (what, _) = refused("[client]\ntimeout = \n");
    assert!(what.starts_with("bifrost.toml:2: not TOML: "), "{what}");
    assert!(matches!(
        file("[client]\na = 1\na = 2\n"),
        Err(ConfigError::Syntax { .. } | ConfigError::UnknownKey { .. })
    ));
    assert!(file("[[client]]\n").is_err());
}

#[test]
fn a_named_file_must_be_there() {
    let source = Source { file: Some(PathBuf::from("no such file.toml")), ..Source::default() };
    assert!(matches!(Config::load(&source), Err(ConfigError::Unreadable { .. })));
}
