//! Each service through a real server on loopback.
