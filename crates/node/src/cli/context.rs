//! What a command gets: the configuration, the cluster once it is wanted, and where its output goes.

use std::fmt;
use std::future::Future;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use bifrost::catalog::CatalogError;
use bifrost::{Bifrost, Log, LogError};
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::error::{CliError, ErrorCode};
use super::failures;
use super::log_ref::LogRef;
use crate::config::{ADDRESSES, Config, Source, TIMEOUT};
use crate::nearest::nearest;

/// How long tasks of the client have to end.
const DISCONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// How long to look for a log of a similar name, and among how many.
const HINT_DEADLINE: Duration = Duration::from_secs(1);
const HINT_LOGS: usize = 256;
/// The width of tables on a terminal that does not say its own.
const COLUMNS: u16 = 80;
/// A terminal that says it is narrower is not believed.
const COLUMNS_MIN: u16 = 20;

/// What every command takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct GlobalArgs {
    /// Nodes of the cluster, HOST:PORT; repeat it or separate with commas [env: BIFROST_ADDRESS]
    #[arg(long, global = true, value_name = "HOST:PORT", value_delimiter = ',', help_heading = "Global options")]
    address: Vec<String>,
    /// How results are printed: text, json (one object a line), or raw (payloads as they are; `read` only) [default:
    /// text]
    #[arg(
        long,
        short,
        global = true,
        value_name = "FORMAT",
        help_heading = "Global options",
        hide_possible_values = true
    )]
    output: Option<Output>,
    /// The configuration file [env: BIFROST_CONFIG] [default: bifrost.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    config: Option<PathBuf>,
    /// Colours: auto (on a terminal, unless NO_COLOR is set), always, or never [default: auto]
    #[arg(long, global = true, value_name = "WHEN", help_heading = "Global options", hide_possible_values = true)]
    color: Option<ColorChoice>,
    /// How long to wait without any progress, such as 500ms, 10s or 2m [default: 30s]
    #[arg(long, global = true, value_name = "TIME", value_parser = super::values::parse_duration, help_heading = "Global options")]
    timeout: Option<Duration>,
}

/// The form of results on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Output {
    /// For people
    #[default]
    Text,
    /// For scripts: JSON objects, one a line
    Json,
    /// Payloads as they are, a newline after each (`read` only)
    Raw,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Everywhere
    Always,
    /// Nowhere
    Never,
}

/// What stdout and stderr are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terminal {
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) stdout_color: bool,
    pub(crate) stderr_color: bool,
}

/// What a command gets.
pub(crate) struct Context {
    config: Config,
    output: Output,
    terminal: Terminal,
    timeout_flag: Option<Duration>,
    stop: CancellationToken,
    bifrost: OnceCell<Bifrost>,
}

/// How a word is shown where there are colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Good,
    Bad,
    Warning,
    Strong,
    Dim,
}

impl GlobalArgs {
    pub(crate) fn terminal(&self) -> Terminal {
        Terminal::detect(self.color.unwrap_or_default())
    }

    pub(crate) fn output(&self) -> Output {
        self.output.unwrap_or_default()
    }
}

impl Terminal {
    pub(crate) fn detect(choice: ColorChoice) -> Self {
        let (stdout, stderr) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let color = |terminal: bool| match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !set("NO_COLOR") && !dumb,
        };
        Self { stdout, stderr, stdout_color: color(stdout), stderr_color: color(stderr) }
    }
}

impl Context {
    pub(super) fn new(args: GlobalArgs, needs_no_config: bool) -> Result<Self, CliError> {
        let (terminal, output) = (args.terminal(), args.output());
        let mut config = if needs_no_config {
            Config::default()
        } else {
            Config::load(&Source::of_process(args.config)).map_err(|error| failures::config(&error))?
        };
        if !args.address.is_empty() {
            config.client.addresses = args.address;
            config.set_by_flag(ADDRESSES, "--address");
        }
        if let Some(timeout) = args.timeout {
            config.client.timeout = timeout;
            config.set_by_flag(TIMEOUT, "--timeout");
        }
        Ok(Self {
            config,
            output,
            terminal,
            timeout_flag: args.timeout,
            stop: CancellationToken::new(),
            bifrost: OnceCell::new(),
        })
    }

    pub(crate) const fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) const fn output(&self) -> Output {
        self.output
    }

    pub(crate) const fn terminal(&self) -> Terminal {
        self.terminal
    }

    /// `--timeout`, if it was given: then it goes before every other time-out of the configuration.
    pub(crate) const fn timeout_flag(&self) -> Option<Duration> {
        self.timeout_flag
    }

    /// Fires at the first Ctrl-C or SIGTERM.
    pub(crate) const fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// The cluster; connected when it is first wanted.
    pub(crate) async fn bifrost(&self) -> Result<&Bifrost, CliError> {
        let connect = || async {
            let addresses = &self.config.client.addresses;
            let connecting =
                Bifrost::connect_with(addresses, self.config.client.options.clone(), self.config.connection.clone());
            match timeout(self.config.client.timeout, connecting).await {
                Ok(Ok(bifrost)) => Ok(bifrost),
                Ok(Err(error)) => Err(failures::not_connected(addresses, &error).await),
                Err(_) => Err(failures::no_answer(addresses, self.config.client.timeout)),
            }
        };
        self.bifrost.get_or_try_init(connect).await
    }

    /// A log by its name or number.
    pub(crate) async fn log(&self, log: &LogRef) -> Result<Log, CliError> {
        let bifrost = self.bifrost().await?;
        let found = self.within("looking for the log", async {
            match log {
                LogRef::Id(id) => bifrost.log_by_id(*id).await,
                LogRef::Name(name) => bifrost.log(name).await,
            }
        });
        match (found.await?, log) {
            (Ok(found), _) => Ok(found),
            (Err(LogError::Catalog(CatalogError::UnknownLog)), LogRef::Name(name)) => {
                Err(failures::unknown_log(name, self.log_like(name).await.as_deref()))
            }
            (Err(error), _) => Err(failures::look_error(log, error)),
        }
    }

    /// The log whose name is nearest to this one. Nobody waits long for a hint.
    async fn log_like(&self, name: &str) -> Option<String> {
        let bifrost = self.bifrost.get()?;
        let logs = timeout(HINT_DEADLINE, bifrost.catalog().logs(None, HINT_LOGS)).await.ok()?.ok()?;
        nearest(name, logs.into_iter().filter_map(|stored| stored.chain.name), |known| known)
    }

    /// Waits for an answer of the cluster, for as long as `--timeout` says. `doing` completes "timed out while ...".
    pub(crate) async fn within<T>(&self, doing: &str, answer: impl Future<Output = T>) -> Result<T, CliError> {
        let patience = self.config.client.timeout;
        timeout(patience, answer).await.map_err(|_| failures::timed_out(doing, patience))
    }

    /// Ends the client in good order, or leaves it.
    pub(super) async fn disconnect(&self) {
        if let Some(bifrost) = self.bifrost.get() {
            let _late = timeout(DISCONNECT_DEADLINE, bifrost.shutdown()).await;
        }
    }

    /// Text for stdout, as it is.
    pub(crate) fn print(&self, text: &str) -> Result<(), CliError> {
        self.print_bytes(text.as_bytes())
    }

    /// Bytes for stdout, as they are.
    pub(crate) fn print_bytes(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| failures::stdout(&error))
    }

    /// One JSON object in one line on stdout.
    pub(crate) fn print_json(&self, value: &impl Serialize) -> Result<(), CliError> {
        self.print(&json_line(value)?)
    }

    /// A line on stderr, beside the data.
    pub(crate) fn say(&self, text: &str) {
        // That nobody reads it is no reason to stop.
        let _unread = writeln!(io::stderr().lock(), "{text}");
    }

    /// Text for stdout, in colour where there are colours.
    pub(crate) fn paint(&self, style: Style, text: impl fmt::Display) -> String {
        if !self.terminal.stdout_color {
            return text.to_string();
        }
        let code = match style {
            Style::Good => "32",
            Style::Bad => "1;31",
            Style::Warning => "33",
            Style::Strong => "1",
            Style::Dim => "2",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// An empty table for stdout: no lines, fitted to the terminal. In a pipe each row is one line, however long: whoever
    /// filters it sees whole addresses and names.
    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if self.terminal.stdout {
            table.set_content_arrangement(ContentArrangement::Dynamic);
            // Some terminals say that they have no columns at all.
            if table.width().is_none_or(|columns| columns < COLUMNS_MIN) {
                table.set_width(COLUMNS);
            }
        }
        table
    }

    /// Asks on the terminal; only `y` and `yes` are yes. Without a terminal nobody can be asked: an error says to give
    /// `--yes`.
    pub(crate) fn confirm(&self, question: &str) -> Result<bool, CliError> {
        if !io::stdin().is_terminal() || !self.terminal.stderr {
            let error = CliError::new(ErrorCode::Refused, "not confirmed");
            return Err(error.with_cause("nobody can be asked without a terminal").with_advice("give --yes"));
        }
        let _unread = write!(io::stderr().lock(), "{question} [y/N] ");
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        read.map_err(|error| CliError::new(ErrorCode::Failed, "the answer cannot be read").because(&error))?;
        Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }
}

/// A value as one line of JSON.
pub(crate) fn json_line(value: &impl Serialize) -> Result<String, CliError> {
    let line = serde_json::to_string(value);
    line.map(|line| line + "\n")
        .map_err(|error| CliError::new(ErrorCode::Failed, "the result has no JSON form").because(&error))
}
