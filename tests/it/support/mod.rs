//! What several tests share.

#[cfg(target_os = "linux")]
pub mod cluster;
pub mod files;
pub mod gate;
pub mod honest;
pub mod interpose;
pub mod judge;
#[cfg(target_os = "linux")]
pub mod net;
pub mod ports;
pub mod protobuf;
#[cfg(target_os = "linux")]
pub mod proxy;
pub mod raw;
pub mod server;
pub mod small_disk;
pub mod stepped;
pub mod tool;
pub mod world;
