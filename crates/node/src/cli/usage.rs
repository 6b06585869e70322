//! Wrong arguments, in the same form as every other error, and help where it was asked for.

use std::ffi::OsStr;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::context::{ColorChoice, Terminal};
use super::error::{CliError, ErrorCode};
use super::exit::Exit;

/// Prints help, or what is wrong with the arguments.
pub(super) fn report(error: &clap::Error) -> Exit {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Nobody reads it: then nobody misses it.
            let _unread = error.print();
            Exit::Done
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _unread = error.print();
            Exit::Usage
        }
        _ => explain(error).report(json_was_asked_for(), Terminal::detect(ColorChoice::Auto)),
    }
}

/// A value that was typed is repeated no further than that.
const VALUE_CHARS_MAX: usize = 60;
const HELP: &str = "`--help` behind the command shows what it takes";

/// Puts clap's paragraphs (what, a tip, the usage) into our form.
fn explain(error: &clap::Error) -> CliError {
    let mut text = error.to_string();
    if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue)
        && let Some((end, _)) = value.char_indices().nth(VALUE_CHARS_MAX)
        && let Some(beginning) = value.get(..end)
    {
        text = text.replace(value, &format!("{beginning}…"));
    }
    let mut paragraphs = text.split("\n\n").map(|paragraph| {
        let lines: Vec<&str> = paragraph.lines().map(str::trim).collect();
        lines.join(" ")
    });
    let message = paragraphs.next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(&message).to_owned();
    let mut advice = None;
    for paragraph in paragraphs {
        if let Some(tip) = paragraph.strip_prefix("tip: ") {
            advice = Some(tip.to_owned());
            break;
        }
        if paragraph.starts_with("Usage: ") {
            advice = Some(paragraph);
        }
    }
    let error = CliError::new(ErrorCode::InvalidArgument, message);
    error.with_advice(advice.unwrap_or_else(|| HELP.to_owned()))
}

/// The arguments cannot be understood, so they are only looked through.
fn json_was_asked_for() -> bool {
    let arguments: Vec<_> = std::env::args_os().collect();
    let is = |argument: &OsStr, text: &str| argument == OsStr::new(text);
    arguments.iter().any(|argument| is(argument, "--output=json") || is(argument, "-ojson"))
        || arguments.windows(2).any(|pair| match pair {
            [flag, value] => (is(flag, "--output") || is(flag, "-o")) && is(value, "json"),
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::Cli;
    use super::*;

    fn told(arguments: &[&str]) -> String {
        let error = Cli::try_parse_from(arguments).expect_err("wrong arguments");
        format!("{:?}", explain(&error))
    }

    #[test]
    fn wrong_arguments_are_told_in_our_form() {
        let told = told(&["bifrost", "dmeo"]);
        assert!(told.contains("unrecognized subcommand 'dmeo'"), "{told}");
        assert!(told.contains("'demo'"), "{told}");
    }

    #[test]
    fn a_long_value_is_not_repeated() {
        let told = told(&["bifrost", "tail", &"x".repeat(10_000)]);
        assert!(told.contains("a name has 1 to 255 letters") && told.len() < 400, "{told}");
    }

    #[test]
    fn the_definitions_are_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
