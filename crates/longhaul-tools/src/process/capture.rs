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

    /// Returns what was kept. Bytes that are no UTF-8 are replaced.
    pub(crate) fn text(&self) -> String {
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        if self.dropped == 0 {
            return String::from_utf8_lossy(&[&self.head[..], &tail].concat()).into_owned();
        }
        format!(
            "{}\n[… {} bytes of output were not kept …]\n{}",
            String::from_utf8_lossy(&self.head),
            self.dropped,
            String::from_utf8_lossy(&tail)
        )
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
