//! How a command ended, as scripts see it.

use std::process::ExitCode;

/// For the help of the whole tool.
pub(crate) const HELP: &str = "\
Exit codes: 0 done; 1 a promise was found broken (demo); 2 wrong arguments or configuration; 3 failed; \
4 no such log or node; 5 refused, as things are; 6 the outcome is unknown, or only a part was done; \
7 cannot be reached, or not in time; 130 interrupted.\n\nRUST_LOG sets what is told on stderr (default: warn).";

/// The exit codes of the tool. They are stable: `docs/CLI.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// What was asked for is done.
    Done,
    /// A promise of the log was found broken (`demo`).
    Broken,
    /// The arguments, their input or the configuration are wrong. Nothing was done.
    Usage,
    /// It could not be carried out.
    Failed,
    /// There is no such log or node. Nothing was done.
    NotFound,
    /// Refused, as things are: a name is taken, a directory is in use, a log is closed.
    Refused,
    /// The outcome is unknown, or a part was done and the rest was not.
    Unfinished,
    /// The cluster cannot be reached, or does not answer in time.
    Unreachable,
    /// Ctrl-C or SIGTERM.
    Interrupted,
}

impl Exit {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Broken => 1,
            Self::Usage => 2,
            Self::Failed => 3,
            Self::NotFound => 4,
            Self::Refused => 5,
            Self::Unfinished => 6,
            Self::Unreachable => 7,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}
