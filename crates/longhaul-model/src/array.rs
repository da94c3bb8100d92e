//! A JSON array that arrives bit by bit: bytes in, elements out, however the bytes are cut. Whether an
//! element is JSON, and what it means, is left to the codecs.

use crate::sse::{Event, TooLarge};

/// Finds the elements of one array. Each becomes an event without a name.
#[derive(Debug)]
pub(crate) struct Elements {
    max_bytes: usize,
    element: Vec<u8>,
    /// How many brackets of the element are open.
    depth: usize,
    in_string: bool,
    after_backslash: bool,
    opened: bool,
    ended: bool,
}

impl Elements {
    /// Starts before the opening bracket. No element may be larger than `max_bytes`.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Elements {
            max_bytes,
            element: Vec::new(),
            depth: 0,
            in_string: false,
            after_backslash: false,
            opened: false,
            ended: false,
        }
    }

    /// Reads the next piece and appends the elements it completes. What follows the array means nothing.
    pub(crate) fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), TooLarge> {
        for byte in bytes {
            if self.ended {
                break;
            }
            if self.element.len() >= self.max_bytes {
                return Err(TooLarge { max_bytes: self.max_bytes });
            }
            self.take(*byte, events);
        }
        Ok(())
    }

    fn take(&mut self, byte: u8, events: &mut Vec<Event>) {
        let between = self.element.is_empty();
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' if between => {}
            b'[' if !self.opened => self.opened = true,
            b',' | b']' if self.depth == 0 && !self.in_string => {
                if !between {
                    self.end(events);
                }
                self.ended = byte == b']';
            }
            _ => {
                self.element.push(byte);
                if self.closes(byte) {
                    self.end(events);
                }
            }
        }
    }

    /// Follows strings and brackets, and tells whether the byte closes the element's outermost bracket.
    fn closes(&mut self, byte: u8) -> bool {
        if self.in_string {
            let escaped = std::mem::take(&mut self.after_backslash);
            self.after_backslash = byte == b'\\' && !escaped;
            self.in_string = byte != b'"' || escaped;
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        let element = std::mem::take(&mut self.element);
        let data = String::from_utf8_lossy(&element).into_owned();
        events.push(Event { data, ..Event::default() });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn elements(pieces: &[&[u8]]) -> Vec<String> {
        let mut events = Vec::new();
        let mut array = Elements::new(1_000);
        for piece in pieces {
            array.push(piece, &mut events).unwrap();
        }
        events.into_iter().map(|event| event.data).collect()
    }

    #[test]
    fn elements_come_as_soon_as_they_are_whole() {
        let text = b" [ {\"a\": \"}]\\\"\", \"b\": [{}]}\n,\n[1, 2], 3 ,\"x,]\"]{\"behind\": 1}";
        let whole = vec!["{\"a\": \"}]\\\"\", \"b\": [{}]}", "[1, 2]", "3 ", "\"x,]\""];
        assert_eq!(elements(&[text]), whole);
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(elements(&bytes), whole);
        assert_eq!(elements(&[b"[{\"a\": 1}"]), ["{\"a\": 1}"]);
        assert_eq!(elements(&[b"[{\"a\": 1"]), [""; 0]);
    }

    #[test]
    fn an_element_without_end_is_too_large() {
        let mut array = Elements::new(10);
        assert_eq!(array.push(b"[\"", &mut Vec::new()), Ok(()));
        assert_eq!(array.push(&[b'x'; 20], &mut Vec::new()), Err(TooLarge { max_bytes: 10 }));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(texts in prop::collection::vec(".{0,8}", 0..5)) {
            let values: Vec<Value> = texts.iter().map(|text| json!({ text: [text, { "b": text }] })).collect();
            let read = elements(&[Value::Array(values.clone()).to_string().as_bytes()]);
            let read: Vec<Value> = read.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
            prop_assert_eq!(read, values);
        }
    }
}
