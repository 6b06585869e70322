//! What several tests share.

pub mod interpose;
pub mod stepped;
pub mod small_disk;
pub mod tool;
pub mod world;
