//! The trace of a run: what the history records and what the product itself says, in one list of lines.

use std::io::{self, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::interpose;

/// Collects the diagnostics of the process.
#[derive(Debug, Clone, Default)]
pub struct Diagnostics {
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Diagnostics {
    /// From here on the process writes its diagnostics to the collection.
    ///
    /// # Errors
    /// When something else of the process collects them already.
    pub fn install(level: Level) -> Result<Self, tracing::subscriber::SetGlobalDefaultError> {
        let diagnostics = Self::default();
        let filter = tracing_subscriber::EnvFilter::new(format!(
            "bifrost={level},bifrost_node={level},bifrost_logserver={level},bifrost_sequencer={level},\
             bifrost_loglet={level},bifrost_metadata={level},bifrost_raft={level},bifrost_wire={level}"
        ));
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .with_target(false)
            .with_timer(VirtualTime)
            .with_writer(diagnostics.clone())
            .finish();
        tracing::subscriber::set_global_default(subscriber)?;
        Ok(diagnostics)
    }

    /// Takes what was written since the last call.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.bytes.lock())
    }
}

/// Microseconds since the simulation began.
struct VirtualTime;

impl FormatTime for VirtualTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        let at = interpose::now_micros();
        write!(writer, "{:>4}.{:06}", at / 1_000_000, at % 1_000_000)
    }
}

/// One line on its way.
#[derive(Debug)]
pub struct LineWriter(Diagnostics);

impl Write for LineWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.bytes.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Diagnostics {
    type Writer = LineWriter;

    fn make_writer(&'a self) -> LineWriter {
        LineWriter(self.clone())
    }
}
