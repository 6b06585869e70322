//! What several tests share.

pub mod interpose;
pub mod stepped;
pub mod world;
