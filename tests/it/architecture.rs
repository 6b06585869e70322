//! What the documents say about the code is checked here: crate arrows, named paths, links, decisions, reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which crates a crate may name, in dependencies of every kind. A new edge is a design change: it needs a decision.
const ARROWS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("checksum", &[]),
    ("turns", &[]),
    // docs/adr/0009-metadata-members-have-a-journal-of-their-own.md
    // docs/adr/0011-log-servers-have-the-journal-in-front-of-rocksdb.md
    ("journal", &["checksum"]),
    ("wire", &["types", "checksum"]),
    ("loglet", &["types", "wire"]),
    ("sequencer", &["types", "wire", "loglet"]),
    ("logserver", &["types", "wire", "turns", "journal", "checksum"]),
    ("metadata", &["types", "wire", "checksum"]),
    ("raft", &["types", "wire", "metadata", "turns", "journal", "checksum"]),
    ("etcd", &["types", "metadata"]),
    // `logserver`: docs/adr/0001-embedding-needs-a-log-server.md
    ("bifrost", &["types", "wire", "loglet", "sequencer", "metadata", "logserver"]),
    ("node", &["types", "wire", "loglet", "sequencer", "metadata", "raft", "etcd", "logserver", "bifrost", "checker"]),
    ("checker", &["types"]),
    // These two name anything, and nothing names them.
    ("model", &["types", "wire", "loglet", "sequencer", "metadata", "logserver", "bifrost", "checker"]),
    (
        "sim",
        &[
            "types",
            "wire",
            "loglet",
            "sequencer",
            "metadata",
            "raft",
            "logserver",
            "bifrost",
            "node",
            "checker",
            "model",
        ],
    ),
];

/// Named in `Cargo.toml` and not in a source file: the code that `build.rs` generates calls into it.
const USED_BY_GENERATED_CODE: &[(&str, &str)] = &[("wire", "tonic-prost"), ("etcd", "tonic-prost"), ("etcd", "prost")];

/// Beginnings of paths that exist on one machine only.
const MACHINE_PATHS: &[&str] = &["/home/", "/root/", "/tmp/", "/Users/", "/mnt/", "C:\\"];

#[test]
fn crates_name_each_other_along_the_arrows_only() {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut seen = BTreeSet::new();
    for manifest in manifests_of_crates() {
        let name = name_of_directory(&manifest);
        let allowed = allowed.get(name.as_str()).unwrap_or_else(|| panic!("crate {name} has no arrows: decide them"));
        for dependency in dependencies(&read(&manifest)) {
            let Some(target) = workspace_crate(&dependency) else { continue };
            assert!(allowed.contains(&target.as_str()), "{name} must not depend on {target}");
        }
        seen.insert(name);
    }
    assert_eq!(seen.len(), ARROWS.len(), "a crate of the list does not exist: {seen:?}");
}

#[test]
fn every_path_named_in_the_architecture_exists() {
    let text = read(&root().join("ARCHITECTURE.md"));
    let mut named = 0;
    for path in in_backticks(&text).filter(|text| is_path(text)) {
        assert!(root().join(path).exists(), "ARCHITECTURE.md names {path}, which does not exist");
        named += 1;
    }
    assert!(named > 100, "only {named} paths were recognised in ARCHITECTURE.md");
}

#[test]
fn every_source_file_named_in_the_other_documents_exists() {
    for document in documents() {
        let text = read(&document);
        for path in in_backticks(&text).filter(|text| is_path(text) && !text.contains('*')) {
            assert!(root().join(path).exists(), "{} names {path}, which does not exist", document.display());
        }
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for document in documents() {
        let text = read(&document);
        for link in links(&text) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { document.clone() } else { parent(&document).join(path) };
            assert!(target.exists(), "{} links to {link}, which does not exist", document.display());
            if !anchor.is_empty() {
                let anchors = anchors(&read(&target));
                assert!(anchors.contains(anchor), "{} links to {link}: no such heading", document.display());
            }
        }
    }
}

#[test]
fn every_decision_is_listed_and_numbered_once() {
    let directory = root().join("docs/adr");
    let index = read(&directory.join("README.md"));
    let listed: BTreeSet<&str> = links(&index).collect();
    let mut numbers = BTreeSet::new();
    for file in files(&directory).filter(|file| file.extension().is_some_and(|extension| extension == "md")) {
        let name = file.file_name().unwrap().to_str().unwrap();
        if name == "README.md" {
            continue;
        }
        assert!(listed.contains(name), "docs/adr/README.md does not list {name}");
        let number = name.split_once('-').unwrap().0.to_owned();
        let title = format!("# {number}: ");
        assert!(read(&file).starts_with(&title), "{name} does not begin with {title:?}");
        assert!(numbers.insert(number), "two decisions have the number of {name}");
    }
    assert!(!numbers.is_empty());
}

#[test]
fn documents_name_no_path_of_a_machine() {
    for document in documents() {
        let text = read(&document);
        for path in MACHINE_PATHS {
            assert!(!text.contains(path), "{} contains {path}", document.display());
        }
    }
}

#[test]
fn every_dependency_of_the_workspace_has_a_reason_and_a_user() {
    let text = read(&root().join("Cargo.toml"));
    let lines: Vec<&str> = section(&text, |name| name == "workspace.dependencies").collect();
    let users: Vec<String> = manifests().iter().flat_map(|manifest| dependencies(&read(manifest))).collect();
    let mut before = "";
    for line in lines {
        if let Some(name) = key(line) {
            let reason = before.starts_with("# ") || workspace_crate(name).is_some();
            assert!(reason, "no comment says why the workspace depends on {name}");
            let used = users.iter().any(|user| user == name) || workspace_crate(name).is_some();
            assert!(used, "no crate depends on {name}");
        }
        before = line;
    }
}

#[test]
fn every_dependency_of_a_crate_is_used_by_it() {
    let mut unused = Vec::new();
    for manifest in manifests() {
        let name = name_of_directory(&manifest);
        let sources: Vec<String> = below(parent(&manifest), "rs").iter().map(|file| read(file)).collect();
        for dependency in dependencies(&read(&manifest)) {
            let generated = USED_BY_GENERATED_CODE.contains(&(name.as_str(), dependency.as_str()));
            let word = dependency.replace('-', "_");
            if !generated && !sources.iter().any(|source| has_word(source, &word)) {
                unused.push(format!("{name} depends on {dependency}"));
            }
        }
    }
    assert!(unused.is_empty(), "not used: {unused:?}");
}

fn root() -> PathBuf {
    // At run time: with a shared target directory the binary may have been linked from another clone.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let manifest = manifest.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    parent(&manifest).to_owned()
}

fn parent(path: &Path) -> &Path {
    path.parent().expect("not the root of the file system")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter()
}

/// All files below a directory with this extension.
fn below(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in files(directory) {
        if path.is_dir() {
            found.extend(below(&path, extension));
        } else if path.extension().is_some_and(|known| known == extension) {
            found.push(path);
        }
    }
    found
}

fn documents() -> Vec<PathBuf> {
    let top = files(&root()).filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    top.chain(below(&root().join("docs"), "md")).collect()
}

fn manifests_of_crates() -> Vec<PathBuf> {
    files(&root().join("crates")).map(|directory| directory.join("Cargo.toml")).collect()
}

fn manifests() -> Vec<PathBuf> {
    let mut manifests = manifests_of_crates();
    manifests.extend(["tests", "benches", "fuzz"].map(|name| root().join(name).join("Cargo.toml")));
    manifests
}

fn name_of_directory(manifest: &Path) -> String {
    parent(manifest).file_name().unwrap().to_str().unwrap().to_owned()
}

/// The directory of a crate of this workspace, by its package name.
fn workspace_crate(package: &str) -> Option<String> {
    if package == "bifrost" {
        return Some(package.to_owned());
    }
    package.strip_prefix("bifrost-").map(str::to_owned)
}

/// Names in all dependency sections of a manifest.
fn dependencies(manifest: &str) -> Vec<String> {
    section(manifest, |name| name.rsplit('.').next().is_some_and(|last| last.ends_with("dependencies")))
        .filter_map(key)
        .map(str::to_owned)
        .collect()
}

/// The lines of the sections whose name fits.
fn section(manifest: &str, fits: impl Fn(&str) -> bool) -> impl Iterator<Item = &str> {
    let mut inside = false;
    manifest.lines().filter(move |line| {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            inside = fits(name);
            return false;
        }
        inside
    })
}

/// The key of a line such as `name.workspace = true` or `name = { .. }`.
fn key(line: &str) -> Option<&str> {
    let is_key = |byte: char| byte.is_ascii_alphanumeric() || byte == '-' || byte == '_';
    let end = line.find(|byte| !is_key(byte))?;
    (end > 0 && line.contains('=')).then(|| &line[..end])
}

fn has_word(text: &str, word: &str) -> bool {
    let is_part = |byte: Option<char>| byte.is_some_and(|byte| byte.is_alphanumeric() || byte == '_');
    text.match_indices(word)
        .any(|(at, _)| !is_part(text[..at].chars().next_back()) && !is_part(text[at + word.len()..].chars().next()))
}

/// Inline code outside of code blocks.
fn in_backticks(text: &str) -> impl Iterator<Item = &str> {
    outside_of_blocks(text).flat_map(|line| line.split('`').skip(1).step_by(2))
}

fn outside_of_blocks(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    })
}

/// Whether inline code names something of this repository.
fn is_path(code: &str) -> bool {
    let top = ["crates/", "tests/", "benches/", "docs/", "scripts/", ".ci/"];
    top.iter().any(|top| code.starts_with(top)) && !code.contains(' ') && !code.contains('<')
}

/// Targets of links, without those that lead out of the repository.
fn links(text: &str) -> impl Iterator<Item = &str> {
    outside_of_blocks(text)
        .flat_map(|line| line.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(link, _)| link)))
        .filter(|link| !link.contains("://"))
}

/// The anchors of the headings of a document, as web views make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = outside_of_blocks(text).filter(|line| line.starts_with('#'));
    headings
        .map(|heading| {
            let title = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|byte| byte.is_alphanumeric() || matches!(byte, ' ' | '-' | '_'));
            kept.map(|byte| if byte == ' ' { '-' } else { byte }).collect()
        })
        .collect()
}
