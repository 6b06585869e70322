//! Keeps one copy of many loglets and obeys seals.
