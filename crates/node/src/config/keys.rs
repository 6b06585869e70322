//! Every key that can be set. The defaults are those of the parts; the words here say unit and reason.

macro_rules! keys {
    ($($section:ident . $key:ident $kind:ident $field:tt $doc:literal)*) => {
        &[$(Key {
            name: KeyName { section: stringify!($section), key: stringify!($key) },
            doc: $doc,
            access: access!($kind $field),
        }),*]
    };
}

/// How a key is read and set: as a field that takes whatever fits into it, as a number that is not 0, or by two functions.
macro_rules! access {
    (Time ($($field:ident).+)) => {
        Access::Time { get: |config| config.$($field).+, set: |config, time| config.$($field).+ = time }
    };
    ($kind:ident (not_zero $($field:ident).+)) => {
        Access::$kind {
            get: |config| $crate::config::keys::number(config.$($field).+.get()),
            set: |config, value| $crate::config::keys::not_zero(value, &mut config.$($field).+),
        }
    };
    ($kind:ident ($($field:ident).+)) => {
        Access::$kind {
            get: |config| $crate::config::keys::number(config.$($field).+),
            set: |config, value| $crate::config::keys::fits(value, &mut config.$($field).+),
        }
    };
    ($kind:ident { $get:expr, $set:expr }) => {
        Access::$kind { get: $get, set: $set }
    };
}

mod client;
mod data;
mod failover;
mod process;
mod server;

use std::num::NonZeroUsize;

use super::key::{Key, KeyName};
use super::value::Rejected;

/// The sections, in the order in which they are shown, and what each is about.
pub const SECTIONS: &[(&str, &str)] = &[
    ("client", "How the commands reach a cluster."),
    ("connection", "Connections of the commands to nodes, and of `bifrost dev` from node to node."),
    ("appender", "`bifrost append`."),
    ("reader", "`bifrost read`."),
    ("dev", "`bifrost dev`: a cluster on this machine."),
    ("node", "`bifrost server`: one node of a cluster."),
    ("metadata", "The part of `bifrost server` in the cluster's metadata."),
    ("metrics", "What `bifrost server` tells monitoring."),
    ("server", "What peers may take of a node's listener. Limits are per connection unless said otherwise."),
    ("gateway", "What clients in other languages may take of a node: the service bifrost.v1.LogService."),
    ("failover", "How logs go on when nodes of `bifrost server` fail or stop."),
    ("storage", "RocksDB of each log server, and the space on its disk."),
    ("segments", "When a segment counts as full: it is closed then and the next one opened. What its sequencer keeps."),
];

/// The key that `--address` and `BIFROST_ADDRESS` set.
pub const ADDRESSES: KeyName = KeyName { section: "client", key: "addresses" };
/// The key that `--join` sets.
pub const JOIN: KeyName = KeyName { section: "metadata", key: "join" };
/// Without a default.
pub const NODE_NAME: KeyName = KeyName { section: "node", key: "name" };
/// Without a default.
pub const DATA_DIR: KeyName = KeyName { section: "node", key: "data_dir" };
/// The key that `--timeout` sets.
pub const TIMEOUT: KeyName = KeyName { section: "client", key: "timeout" };

/// Most memory that one limit may name, in bytes.
const MEMORY_MAX: u64 = 1 << 40;

/// Every key, section by section.
pub fn keys() -> impl Iterator<Item = &'static Key> + Clone {
    client::KEYS.iter().chain(data::KEYS).chain(process::KEYS).chain(server::KEYS).chain(failover::KEYS)
}

fn number(value: impl TryInto<u64>) -> u64 {
    value.try_into().unwrap_or(u64::MAX)
}

/// Takes a number into a type that may be smaller; the part itself checks more.
fn fits<T: TryFrom<u64> + Bounded>(value: u64, field: &mut T) -> Result<(), Rejected> {
    *field = T::try_from(value).map_err(|_| Rejected::Range(format!("0 to {}", T::LARGEST)))?;
    Ok(())
}

fn between<T: TryFrom<u64>>(value: u64, least: u64, most: u64, field: &mut T) -> Result<(), Rejected> {
    let allowed = || Rejected::Range(format!("{least} to {most}"));
    if value < least || value > most {
        return Err(allowed());
    }
    *field = T::try_from(value).map_err(|_| allowed())?;
    Ok(())
}

fn not_zero(value: u64, field: &mut NonZeroUsize) -> Result<(), Rejected> {
    let mut count = 0_usize;
    between(value, 1, MEMORY_MAX, &mut count)?;
    *field = NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
    Ok(())
}

/// The largest number that a field can hold.
trait Bounded {
    const LARGEST: u64;
}

impl Bounded for u16 {
    const LARGEST: u64 = Self::MAX as u64;
}

impl Bounded for u32 {
    const LARGEST: u64 = Self::MAX as u64;
}

impl Bounded for u64 {
    const LARGEST: u64 = Self::MAX;
}

impl Bounded for usize {
    const LARGEST: u64 = Self::MAX as u64;
}
