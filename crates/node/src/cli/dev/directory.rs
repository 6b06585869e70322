//! Where the data of `bifrost dev` is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::super::error::{CliError, ErrorCode};
use super::super::failures::plain;

/// What the directory of a cluster has in it, always.
const METADATA: &str = "metadata";

/// The directory; a temporary one is removed when this is dropped.
#[derive(Debug)]
pub(super) struct DataDirectory {
    path: PathBuf,
    /// As it was asked for.
    named: PathBuf,
    temporary: Option<TempDir>,
}

impl DataDirectory {
    /// Takes the directory that was asked for, or makes a temporary one. What belongs to somebody else is refused.
    pub(super) fn prepare(asked: Option<&Path>) -> Result<Self, CliError> {
        let Some(asked) = asked else {
            let made = tempfile::Builder::new().prefix("bifrost-dev-").tempdir();
            let temporary = made.map_err(|error| unusable(&std::env::temp_dir(), &error))?;
            let path = temporary.path().to_owned();
            return Ok(Self { named: path.clone(), path, temporary: Some(temporary) });
        };
        let path = fs::create_dir_all(asked).and_then(|()| fs::canonicalize(asked));
        let path = path.map_err(|error| unusable(asked, &error))?;
        let mut entries = fs::read_dir(&path).map_err(|error| unusable(asked, &error))?;
        if !path.join(METADATA).is_dir() && entries.next().is_some() {
            let error = CliError::new(ErrorCode::Refused, format!("{} is not empty", path.display()));
            let error = error.with_cause("what is in it is not the data of a cluster");
            return Err(error.with_advice("choose an empty or a new directory with --data-dir"));
        }
        Ok(Self { path, named: asked.to_owned(), temporary: None })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory in the words of whoever asked for it.
    pub(super) fn named(&self) -> &Path {
        &self.named
    }

    pub(super) const fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    /// Removes a temporary directory. One that was asked for is kept.
    pub(super) fn leave(self) -> Result<(), CliError> {
        let Self { path, temporary, .. } = self;
        match temporary.map(TempDir::close) {
            None | Some(Ok(())) => Ok(()),
            Some(Err(error)) => {
                let failed = CliError::new(ErrorCode::Failed, format!("{} cannot be removed", path.display()));
                Err(failed.with_cause(plain(&error)).with_advice("remove it by hand"))
            }
        }
    }
}

fn unusable(path: &Path, error: &io::Error) -> CliError {
    let failed = CliError::new(ErrorCode::Failed, format!("the directory {} cannot be used", path.display()));
    failed.with_cause(plain(error)).with_advice("choose a writable one with --data-dir")
}
