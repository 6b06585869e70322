//! What a person or a script is told when a command fails: what, why, and what next.

use std::error::Error;
use std::io::{self, Write};

use serde::Serialize;

use super::context::Terminal;
use super::exit::Exit;

/// Longest line of an error; what was typed may be longer.
const LINE_CHARS_MAX: usize = 400;

/// One line for each code: its name in Rust, its name in JSON, and how the tool exits.
macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident $name:literal $exit:ident,)*) => {
        /// What went wrong, by a name that is stable: `error.code` in JSON. `docs/CLI.md` lists them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum ErrorCode {
            $($(#[$doc])* $code,)*
        }

        impl ErrorCode {
            #[cfg(test)]
            pub(super) const ALL: &[Self] = &[$(Self::$code),*];

            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Self::$code => $name,)*
                }
            }

            pub(crate) const fn exit(self) -> Exit {
                match self {
                    $(Self::$code => Exit::$exit,)*
                }
            }
        }
    };
}

codes! {
    InvalidArgument "invalid-argument" Usage,
    InvalidInput "invalid-input" Usage,
    InvalidConfig "invalid-config" Usage,
    Failed "failed" Failed,
    UnknownLog "unknown-log" NotFound,
    UnknownNode "unknown-node" NotFound,
    NameTaken "name-taken" Refused,
    BeyondTail "beyond-tail" Refused,
    LogClosed "log-closed" Refused,
    NoPlacement "no-placement" Refused,
    DiskFull "disk-full" Refused,
    Refused "refused" Refused,
    InUse "in-use" Refused,
    OutcomeUnknown "outcome-unknown" Unfinished,
    PartlyDone "partly-done" Unfinished,
    Unreachable "unreachable" Unreachable,
    TimedOut "timed-out" Unreachable,
    Interrupted "interrupted" Interrupted,
    /// Whoever reads stdout has gone away, as in `bifrost read orders | head`: not told, and no failure.
    OutputClosed "output-closed" Done,
}

/// A failed command: what, why, and what next, one sentence each, without a full stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CliError {
    code: ErrorCode,
    message: String,
    cause: Option<String>,
    advice: Option<String>,
}

#[derive(Serialize)]
struct ErrorReport<'a> {
    error: ErrorBody<'a>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: &'static str,
    message: &'a str,
    cause: Option<&'a str>,
    advice: Option<&'a str>,
}

impl CliError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), cause: None, advice: None }
    }

    /// Why, in words.
    pub(crate) fn with_cause(self, cause: impl Into<String>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }

    /// Why, by the error that was met and all that are behind it.
    pub(crate) fn because(self, error: &(dyn Error + 'static)) -> Self {
        self.with_cause(chain(error))
    }

    /// What to do next.
    pub(crate) fn with_advice(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    pub(crate) fn interrupted() -> Self {
        Self::new(ErrorCode::Interrupted, "interrupted")
    }

    pub(crate) const fn code(&self) -> ErrorCode {
        self.code
    }

    /// Tells it on stderr and says how to exit.
    pub(crate) fn report(&self, json: bool, terminal: Terminal) -> Exit {
        if self.code != ErrorCode::OutputClosed {
            let text = if json { self.to_json() } else { self.to_text(terminal.stderr_color) };
            // Nobody reads stderr: the exit code still tells.
            let _unread = io::stderr().lock().write_all(text.as_bytes());
        }
        self.code.exit()
    }

    fn to_json(&self) -> String {
        let Self { code, message, cause, advice } = self;
        let error = ErrorBody { code: code.name(), message, cause: cause.as_deref(), advice: advice.as_deref() };
        let mut text = serde_json::to_string(&ErrorReport { error }).expect("text fields have a JSON form");
        text.push('\n');
        text
    }

    fn to_text(&self, color: bool) -> String {
        let paint =
            |style: &str, text: &str| if color { format!("\u{1b}[{style}m{text}\u{1b}[0m") } else { text.to_owned() };
        let mut text = format!("{} {}\n", paint("1;31", "error:"), printable(&self.message));
        if let Some(cause) = &self.cause {
            text += &format!("  {} {}\n", paint("1", "why:"), printable(cause));
        }
        if let Some(advice) = &self.advice {
            text += &format!("  {} {}\n", paint("1", "next:"), printable(advice));
        }
        text
    }
}

/// An error and all that are behind it, without what is said twice.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text += ": ";
            text += &said;
        }
        source = error.source();
    }
    text
}

/// One line that no terminal obeys: what was typed, stored or sent by others is among it.
pub(crate) fn printable(text: &str) -> String {
    let mut line = String::new();
    for (count, letter) in text.chars().enumerate() {
        if count == LINE_CHARS_MAX {
            line.push('…');
            break;
        }
        if letter.is_control() { line.extend(letter.escape_default()) } else { line.push(letter) }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_three_lines_at_most_and_one_json_object() {
        let error = CliError::new(ErrorCode::UnknownLog, "there is no log `a\u{1b}[2J\nb`")
            .with_cause("nobody made it")
            .with_advice("make it");
        assert_eq!(
            error.to_text(false),
            "error: there is no log `a\\u{1b}[2J\\nb`\n  why: nobody made it\n  next: make it\n"
        );
        let json: serde_json::Value = serde_json::from_str(&error.to_json()).expect("an object");
        assert_eq!(json["error"]["code"], "unknown-log");
        assert_eq!(json["error"]["message"], "there is no log `a\u{1b}[2J\nb`");
    }

    #[test]
    fn what_was_typed_is_cut() {
        assert_eq!(printable(&"x".repeat(10_000)).chars().count(), LINE_CHARS_MAX + 1);
    }

    #[test]
    fn a_cause_is_not_said_twice() {
        let inner = io::Error::other("disk is full");
        let outer = anyhow::Error::from(inner).context("cannot write");
        assert_eq!(chain(outer.as_ref()), "cannot write: disk is full");
    }
}
