//! A segmented, replicated log you can embed.
