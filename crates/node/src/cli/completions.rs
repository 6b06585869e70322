//! `bifrost completions`.

use clap::CommandFactory;
use clap_complete::Shell;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;

pub(crate) const HELP: &str = "\
Install them, for example:
  bash  bifrost completions bash > ~/.local/share/bash-completion/completions/bifrost
  zsh   bifrost completions zsh > \"${fpath[1]}/_bifrost\"
  fish  bifrost completions fish > ~/.config/fish/completions/bifrost.fish";

#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(context: &Context, args: &CompletionsArgs) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "bifrost", &mut script);
    context.print_bytes(&script)?;
    Ok(Exit::Done)
}
