//! What several tests share.

pub mod interpose;
pub mod stepped;
pub mod tool;
pub mod world;
