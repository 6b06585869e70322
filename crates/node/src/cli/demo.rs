//! `bifrost demo`.

use super::context::{Context, Output};
use super::error::{CliError, ErrorCode, chain};
use super::exit::Exit;
use crate::demo::{self, DemoError, DemoOptions};

pub(crate) const HELP: &str = "Exit codes: 0 every promise held; 1 a promise was broken; 2 wrong arguments; 3 it could \
                               not run; 5 the directory is in use; 130 interrupted.";

#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    options: DemoOptions,
}

pub(crate) async fn run(context: &Context, args: DemoArgs) -> Result<Exit, CliError> {
    let DemoArgs { options } = args;
    let nodes = context.config().local_cluster();
    let report = demo::run_on(nodes, &options, context.stop().clone()).await.map_err(|error| failed(&error))?;
    if options.json || context.output() == Output::Json {
        let json = report.to_json();
        let json =
            json.map_err(|error| CliError::new(ErrorCode::Failed, "the report has no JSON form").because(&error))?;
        context.print(&(json + "\n"))?;
    } else {
        context.print(&report.to_text())?;
    }
    Ok(if report.ok { Exit::Done } else { Exit::Broken })
}

fn failed(error: &DemoError) -> CliError {
    let code = match error {
        DemoError::Interrupted => return CliError::interrupted(),
        DemoError::InUse { .. } => ErrorCode::InUse,
        DemoError::Directory { .. } | DemoError::Space { .. } | DemoError::Cluster { .. } | DemoError::Client(_) => {
            ErrorCode::Failed
        }
    };
    let text = error.to_string();
    // The sentence says what and, behind the semicolon, what next.
    let (what, next) = text.split_once("; ").unwrap_or((&text, ""));
    let mut failed = CliError::new(code, what);
    if let Some(source) = std::error::Error::source(error) {
        failed = failed.with_cause(chain(source));
    }
    if next.is_empty() { failed } else { failed.with_advice(next) }
}
