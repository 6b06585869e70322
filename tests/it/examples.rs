//! The examples that the documentation shows are run as they stand.

#[path = "../../crates/bifrost/examples/append.rs"]
mod append;
#[path = "../../crates/bifrost/examples/embed.rs"]
mod embed;
#[path = "../../crates/bifrost/examples/tail.rs"]
mod tail;

#[test]
fn append_runs() {
    append::main().expect("the append example");
}

#[test]
fn tail_runs() {
    tail::main().expect("the tail example");
}

#[test]
fn embed_runs() {
    embed::main().expect("the embed example");
}
