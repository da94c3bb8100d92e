//! Keeps the beginning and the end of a command's output, and passes its lines on as they come.

use std::collections::VecDeque;

use crate::limits::{MAX_COMMAND_BYTES, MAX_LIVE_LINE_BYTES};
use crate::tool::Progress;

const HALF: usize = MAX_COMMAND_BYTES / 2;

/// The output of a command: all of it, or its first and last bytes.
pub(crate) struct Capture {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    dropped: u64,
    line: Vec<u8>,
    progress: Progress,
}

impl Capture {
    pub(super) fn new(progress: Progress) -> Self {
        Capture { head: Vec::new(), tail: VecDeque::new(), dropped: 0, line: Vec::new(), progress }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.pass_on(bytes);
        let (first, rest) = bytes.split_at(bytes.len().min(HALF - self.head.len()));
        self.head.extend_from_slice(first);
        self.tail.extend(rest);
        let over = self.tail.len().saturating_sub(HALF);
        self.tail.drain(..over);
        self.dropped += over as u64;
    }

    /// Passes on what follows the last line end.
    pub(super) fn finish(&mut self) {
        if !self.line.is_empty() {
            self.progress.line(&self.line);
            self.line.clear();
        }
    }

    /// Returns what was kept as text. Bytes that are no UTF-8 are replaced, and so are zero bytes,
    /// which would make the output look like a binary file when it is read as an artifact.
    pub(crate) fn text(&self) -> String {
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        let gap = match self.dropped {
            0 => String::new(),
            bytes => format!("\n[… {bytes} bytes of output were not kept …]\n"),
        };
        let kept = [&self.head[..], gap.as_bytes(), &tail].concat();
        String::from_utf8_lossy(&kept).replace('\0', "\u{fffd}")
    }

    fn pass_on(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            for part in text.chunks(MAX_LIVE_LINE_BYTES) {
                if self.line.len() + part.len() > MAX_LIVE_LINE_BYTES {
                    self.progress.line(&self.line);
                    self.line.clear();
                }
                self.line.extend_from_slice(part);
            }
            if ends {
                self.progress.line(&self.line);
                self.line.clear();
            }
        }
    }
}
