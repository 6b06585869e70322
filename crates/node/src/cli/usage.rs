//! Wrong arguments, in the same form as every other error, and help where it was asked for.

use std::ffi::OsStr;

use clap::error::ErrorKind;

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
        _ => explain(&error.to_string()).report(json_was_asked_for(), Terminal::detect(ColorChoice::Auto)),
    }
}

/// Puts clap's paragraphs (what, a tip, the usage) into our form.
fn explain(text: &str) -> CliError {
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
    error.with_advice(advice.unwrap_or_else(|| "`bifrost --help` shows what there is".to_owned()))
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
        format!("{:?}", explain(&error.to_string()))
    }

    #[test]
    fn wrong_arguments_are_told_in_our_form() {
        let told = told(&["bifrost", "dmeo"]);
        assert!(told.contains("unrecognized subcommand 'dmeo'"), "{told}");
        assert!(told.contains("similar subcommand exists: 'demo'"), "{told}");
    }

    #[test]
    fn the_definitions_are_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
