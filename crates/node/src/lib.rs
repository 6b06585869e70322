//! The one binary: daemon, demo and command line.
