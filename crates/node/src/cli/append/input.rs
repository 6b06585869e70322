//! Lines become batches of records, on a thread of their own: reading stdin blocks.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bifrost::{Keys, Record};
use bifrost_types::limits::{BATCH_RECORDS_MAX, RECORD_BYTES_MAX};
use bytes::Bytes;
use thiserror::Error;
use tokio::sync::mpsc;

/// What is read at once is one batch: as much as is there, and no more than this beside one long line.
const CHUNK_BYTES: usize = 64 << 10;
/// Batches that wait to be sent.
const BATCHES: usize = 4;

const _: () = assert!(CHUNK_BYTES <= BATCH_RECORDS_MAX as usize, "a chunk of empty lines is a legal batch");

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    /// Base 64 instead of the payload itself.
    pub(super) base64: bool,
    /// The keys of every record.
    pub(super) keys: Keys,
}

/// Records that are sent together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lines {
    /// Number of the first line, from 1.
    pub(super) first: u64,
    pub(super) records: Vec<Record>,
    /// Bytes of input up to the end of these lines.
    pub(super) read_bytes: u64,
}

/// Why input cannot be used.
#[derive(Debug, Error)]
pub(super) enum InputError {
    #[error("line {line} is longer than {RECORD_BYTES_MAX} bytes, the largest record")]
    TooLong { line: u64 },
    #[error("line {line} is not base 64")]
    NotBase64 {
        line: u64,
        #[source]
        source: base64::DecodeError,
    },
    #[error("the input cannot be read")]
    Read(#[source] io::Error),
}

/// Opens the input: a file with its size, or stdin.
pub(super) fn open(file: Option<&Path>) -> io::Result<(Box<dyn Read + Send>, Option<u64>)> {
    let Some(path) = file else { return Ok((Box::new(io::stdin()), None)) };
    let file = File::open(path)?;
    let about = file.metadata()?;
    if about.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok((Box::new(file), about.is_file().then_some(about.len())))
}

/// Starts to read. The thread ends with the input, after an error, or once nobody receives; one that waits for stdin
/// ends with the process.
pub(super) fn start(
    input: Box<dyn Read + Send>,
    format: Format,
) -> io::Result<mpsc::Receiver<Result<Lines, InputError>>> {
    let (sender, receiver) = mpsc::channel(BATCHES);
    let read = move || {
        let mut splitter = Splitter { format, partial: Vec::new(), next_line: 1, read_bytes: 0 };
        splitter.run(BufReader::with_capacity(CHUNK_BYTES, input), &sender);
    };
    thread::Builder::new().name("bifrost-input".to_owned()).spawn(read)?;
    Ok(receiver)
}

struct Splitter {
    format: Format,
    /// The beginning of a line whose end was not read yet.
    partial: Vec<u8>,
    next_line: u64,
    read_bytes: u64,
}

impl Splitter {
    fn run(&mut self, mut input: impl BufRead, sender: &mpsc::Sender<Result<Lines, InputError>>) {
        loop {
            let (lines, error, taken) = match input.fill_buf() {
                Ok([]) => {
                    if let Some(last) = self.finish().transpose() {
                        let _gone = sender.blocking_send(last);
                    }
                    return;
                }
                Ok(chunk) => {
                    let (lines, error) = self.split(chunk);
                    (lines, error, chunk.len())
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => (None, Some(InputError::Read(error)), 0),
            };
            input.consume(taken);
            let ended = error.is_some();
            for told in lines.into_iter().map(Ok).chain(error.map(Err)) {
                if sender.blocking_send(told).is_err() {
                    return;
                }
            }
            if ended {
                return;
            }
        }
    }

    /// The lines that end in `chunk`, up to the first that cannot be used.
    fn split(&mut self, chunk: &[u8]) -> (Option<Lines>, Option<InputError>) {
        let first = self.next_line;
        let mut records = Vec::new();
        let error = self.records_of(chunk, &mut records).err();
        self.read_bytes += chunk.len() as u64;
        let lines = (!records.is_empty()).then_some(Lines { first, records, read_bytes: self.read_bytes });
        (lines, error)
    }

    fn records_of(&mut self, chunk: &[u8], records: &mut Vec<Record>) -> Result<(), InputError> {
        let mut rest = chunk;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end);
            self.take(line)?;
            records.push(self.record()?);
            rest = after.get(1..).unwrap_or_default();
        }
        self.take(rest)
    }

    /// The last line, if no newline ends it.
    fn finish(&mut self) -> Result<Option<Lines>, InputError> {
        if self.partial.is_empty() {
            return Ok(None);
        }
        let first = self.next_line;
        Ok(Some(Lines { first, records: vec![self.record()?], read_bytes: self.read_bytes }))
    }

    fn take(&mut self, part: &[u8]) -> Result<(), InputError> {
        // Base 64 has four letters for three bytes, and a bit of padding.
        let bytes_max = if self.format.base64 { RECORD_BYTES_MAX.div_ceil(3) * 4 + 4 } else { RECORD_BYTES_MAX };
        if self.partial.len() + part.len() > bytes_max {
            return Err(InputError::TooLong { line: self.next_line });
        }
        self.partial.extend_from_slice(part);
        Ok(())
    }

    fn record(&mut self) -> Result<Record, InputError> {
        let line = self.next_line;
        self.next_line += 1;
        let payload = if self.format.base64 {
            let text = self.partial.trim_ascii();
            let payload = STANDARD.decode(text).map_err(|source| InputError::NotBase64 { line, source })?;
            if payload.len() > RECORD_BYTES_MAX {
                return Err(InputError::TooLong { line });
            }
            payload
        } else {
            self.partial.clone()
        };
        self.partial.clear();
        Ok(Record::new(Bytes::from(payload)).with_keys(self.format.keys))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splitter(base64: bool) -> Splitter {
        let format = Format { base64, keys: Keys::None };
        Splitter { format, partial: Vec::new(), next_line: 1, read_bytes: 0 }
    }

    fn payloads(lines: Option<Lines>) -> Vec<Bytes> {
        lines.into_iter().flat_map(|lines| lines.records).map(|record| record.payload).collect()
    }

    #[test]
    fn lines_are_records_however_they_arrive() {
        let mut splitter = splitter(false);
        assert_eq!(splitter.split(b"on").0, None);
        assert_eq!(payloads(splitter.split(b"e\n\ntw").0), ["one", ""]);
        assert_eq!(payloads(splitter.split(b"o\r\n").0), ["two\r"], "only the newline goes");
        assert_eq!(splitter.finish().unwrap(), None);
        assert!(splitter.split(b"three").1.is_none());
        let last = splitter.finish().unwrap().expect("a last line without a newline");
        assert_eq!((last.first, last.read_bytes), (4, 15));
    }

    #[test]
    fn base64_is_decoded_and_anything_else_is_refused() {
        let mut splitter = splitter(true);
        assert_eq!(payloads(splitter.split(b"AAH/\n\n").0), [&b"\0\x01\xff"[..], b""]);
        let (before, refused) = splitter.split(b"AAH/\nnot base 64\nAAH/\n");
        assert_eq!(payloads(before), [&b"\0\x01\xff"[..]], "what comes before is taken");
        assert!(matches!(refused, Some(InputError::NotBase64 { line: 4, .. })), "{refused:?}");
    }

    #[test]
    fn a_line_without_end_is_refused_and_not_held() {
        let mut splitter = splitter(false);
        let chunk = vec![b'x'; CHUNK_BYTES];
        let refused = (0..=RECORD_BYTES_MAX / CHUNK_BYTES).find_map(|_| splitter.split(&chunk).1);
        assert!(matches!(refused, Some(InputError::TooLong { line: 1 })), "{refused:?}");
        assert!(splitter.partial.len() <= RECORD_BYTES_MAX);
    }
}
