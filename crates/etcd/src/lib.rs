//! Metadata that etcd keeps, for those who run etcd already: a [`MetadataStore`](bifrost_metadata::MetadataStore) over its
//! v3 API. It is a client. It keeps nothing itself, and it does not run etcd.
//!
//! ```text
//!  get, list, txn ─► one transaction of etcd: the guard, the preconditions, the operations ─► answer
//!  watch ──────────► one stream of etcd ─► Assembler: whole revisions, in order ─► bounded channel
//! ```
//!
//! | here | in etcd |
//! |---|---|
//! | key | [`EtcdOptions::prefix`], then the key: clusters share an etcd under prefixes of their own |
//! | revision | etcd's own, of the whole store: never 0 (M1), and not without gaps, because others write there too |
//! | `Precondition::Absent` | the key was created by revision 0 |
//! | `Precondition::Revision` | the key was modified by that revision |
//! | a transaction | one transaction: 128 operations at most, and bytes as `--max-request-bytes` says (1.5 MiB) |
//! | history | what etcd has not compacted |
//!
//! A lost reply is `Unknown` (M2), also where etcd refuses after it may have carried a transaction out. Every call has a
//! deadline. Each transaction and each read carries the cluster's id as one more demand, so that a prefix that was given
//! to another cluster is told apart at once.
//!
//! Who of the nodes leads is held under a lease ([`lead`]): the one whose controller judges who is silent, as the leader of a
//! metadata group does.
//!
//! Reading order: [`options`], `keys`, `answer` (what etcd says, checked), [`store`], `watch`, [`lead`]; `testing` starts an etcd
//! for tests.

mod answer;
mod keys;
pub mod lead;
pub mod options;
mod pb;
pub mod store;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
mod watch;

pub use options::{EtcdOptions, Guard, InvalidEtcdOptions};
pub use store::EtcdMetadata;
