//! What several tests share.

pub mod honest;
pub mod interpose;
pub mod judge;
pub mod protobuf;
pub mod raw;
pub mod server;
pub mod small_disk;
pub mod stepped;
pub mod tool;
pub mod world;
