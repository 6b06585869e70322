//! What makes copies behave as one: quorums, seal, find tail, repair, read plan, trim.
