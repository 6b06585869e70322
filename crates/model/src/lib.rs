//! The protocol cores, explored exhaustively.
