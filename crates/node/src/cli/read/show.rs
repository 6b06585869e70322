//! Records and gaps on stdout: for people, for scripts, or as they are.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bifrost::{GapKind, Keys, LogRecord, Lsn};
use indicatif::ProgressBar;
use serde::Serialize;

use super::super::context::{Context, Output, Style, json_line};
use super::super::error::CliError;

/// Written when so much is gathered, and whenever there is a pause.
const BUFFER_BYTES: usize = 64 << 10;
/// On a terminal, no more of a payload is shown.
const SHOWN_BYTES: usize = 2 << 10;

/// What was read, as JSON.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum ReadReport<'a> {
    Record {
        lsn: u64,
        /// None, one or two keys.
        keys: Vec<u64>,
        /// First and last key of a range, instead of `keys`.
        #[serde(skip_serializing_if = "Option::is_none")]
        key_range: Option<[u64; 2]>,
        /// Base 64.
        payload: String,
        /// The payload, if it is valid UTF-8.
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<&'a str>,
        created_at_millis: u64,
        writer: String,
        sequence: u64,
    },
    Gap {
        from: u64,
        /// Exclusive.
        end: u64,
        kind: &'static str,
    },
}

pub(super) struct Printer<'a> {
    context: &'a Context,
    /// Of the column of LSNs.
    width: usize,
    buffer: Vec<u8>,
    bar: ProgressBar,
    /// Where the bar begins.
    from: Lsn,
}

impl<'a> Printer<'a> {
    pub(super) const fn new(context: &'a Context, width: usize, bar: ProgressBar, from: Lsn) -> Self {
        Self { context, width, buffer: Vec::new(), bar, from }
    }

    pub(super) fn record(&mut self, record: &LogRecord) -> Result<(), CliError> {
        self.bar.set_position(record.lsn.distance_from(self.from).unwrap_or_default());
        match self.context.output() {
            Output::Raw => {
                self.buffer.extend_from_slice(&record.payload);
                self.buffer.push(b'\n');
            }
            Output::Json => {
                let (keys, key_range) = match record.keys {
                    Keys::None => (Vec::new(), None),
                    Keys::Single(key) => (vec![key], None),
                    Keys::Pair(one, two) => (vec![one, two], None),
                    Keys::Range(first, last) => (Vec::new(), Some([first, last])),
                };
                let report = ReadReport::Record {
                    lsn: record.lsn.get(),
                    keys,
                    key_range,
                    payload: STANDARD.encode(&record.payload),
                    text: std::str::from_utf8(&record.payload).ok(),
                    created_at_millis: record.created_at_millis,
                    writer: record.writer.to_string(),
                    sequence: record.sequence.get(),
                };
                self.buffer.extend_from_slice(json_line(&report)?.as_bytes());
            }
            Output::Text => {
                let lsn = format!("{:>width$}", record.lsn.get(), width = self.width);
                let keys = match record.keys {
                    Keys::None => String::new(),
                    Keys::Single(key) => format!("[{key}]  "),
                    Keys::Pair(one, two) => format!("[{one},{two}]  "),
                    Keys::Range(first, last) => format!("[{first}-{last}]  "),
                };
                let keys = if keys.is_empty() { keys } else { self.context.paint(Style::Dim, keys) };
                let shown = if self.context.terminal().stdout { SHOWN_BYTES } else { usize::MAX };
                let line = format!(
                    "{}  {keys}{}\n",
                    self.context.paint(Style::Strong, lsn),
                    printable(&record.payload, shown)
                );
                self.buffer.extend_from_slice(line.as_bytes());
            }
        }
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    /// A gap is told in every form; `raw` has no place for it on stdout.
    pub(super) fn gap(&mut self, from: Lsn, end: Lsn, kind: GapKind) -> Result<(), CliError> {
        let word = match kind {
            GapKind::Trimmed => "trimmed",
            GapKind::Lost => "lost",
        };
        let last = end.previous().unwrap_or(from);
        let range = if last == from { format!("LSN {from}") } else { format!("LSN {from} to {last}") };
        match self.context.output() {
            Output::Raw => self.context.say(&format!("gap: {range} {word}")),
            Output::Json => {
                let report = ReadReport::Gap { from: from.get(), end: end.get(), kind: word };
                self.buffer.extend_from_slice(json_line(&report)?.as_bytes());
            }
            Output::Text => {
                let style = if kind == GapKind::Lost { Style::Bad } else { Style::Warning };
                let line =
                    self.context.paint(style, format!("{:>width$}  gap: {range} {word}", "-", width = self.width));
                self.buffer.extend_from_slice(line.as_bytes());
                self.buffer.push(b'\n');
            }
        }
        Ok(())
    }

    /// Takes the bar away.
    pub(super) fn finish(&mut self) -> Result<(), CliError> {
        self.bar.finish_and_clear();
        self.flush()
    }

    pub(super) fn flush(&mut self) -> Result<(), CliError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let buffer = std::mem::take(&mut self.buffer);
        self.context.print_bytes(&buffer)
    }
}

/// A payload in one line that no terminal obeys, at most `bytes_max` bytes of it.
fn printable(payload: &[u8], bytes_max: usize) -> String {
    let mut text = String::new();
    for chunk in payload.get(..bytes_max).unwrap_or(payload).utf8_chunks() {
        for letter in chunk.valid().chars() {
            if letter.is_control() { text.extend(letter.escape_default()) } else { text.push(letter) }
        }
        for byte in chunk.invalid() {
            text += &format!("\\x{byte:02x}");
        }
    }
    if payload.len() > bytes_max {
        text += &format!("… ({} bytes)", payload.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_one_line_that_no_terminal_obeys() {
        assert_eq!(printable("grün\t\u{1b}[2J\n".as_bytes(), 100), "grün\\t\\u{1b}[2J\\n");
        assert_eq!(printable(b"a\xff\x00b", 100), "a\\xff\\u{0}b");
        assert_eq!(printable(b"abcdef", 2), "ab… (6 bytes)");
    }
}
