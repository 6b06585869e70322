//! The part of etcd's protocol that is used, as it was generated.
#![allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]

tonic::include_proto!("etcdserverpb");
