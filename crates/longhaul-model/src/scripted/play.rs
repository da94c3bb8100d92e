//! Streams the parts of an answer at a script's pace, whole or up to where it fails. Every wait
//! ends at once when the attempt is cancelled.

use std::time::Duration;

use futures_util::stream;
use tokio_util::sync::CancellationToken;

use crate::scripted::script::{Failure, How};
use crate::{Error, Part, PartStream};

/// Streams a whole answer.
pub(super) fn whole(parts: Vec<Part>, delay_ms: u64, cancel: CancellationToken) -> PartStream {
    stream_of(parts, Ending::Quiet, delay_ms, cancel)
}

/// Streams an answer up to where it fails.
///
/// # Errors
/// The script wants an error before the first part.
pub(super) fn failing(
    mut parts: Vec<Part>,
    failure: &Failure,
    delay_ms: u64,
    cancel: CancellationToken,
) -> Result<PartStream, Error> {
    let usage = failure.usage.map(|stated| stated.or_counted(|| 0, 0, 0));
    keep_chars(&mut parts, failure.after_chars);
    let ending = match &failure.how {
        How::Error { class, message, retry_after_ms } => {
            let error =
                Error { retry_after_ms: *retry_after_ms, usage, ..Error::new(*class, message.clone()) };
            if failure.after_chars == 0 {
                return Err(error);
            }
            return Ok(stream_of(parts, Ending::Error(error), delay_ms, cancel));
        }
        How::Cut => Ending::Quiet,
        How::Hang => Ending::Hang,
    };
    parts.extend(usage.map(|usage| Part::Usage { usage }));
    Ok(stream_of(parts, ending, delay_ms, cancel))
}

/// Waits; tells whether the attempt may go on. Needs a tokio timer only if there is a delay.
pub(super) async fn pause(delay_ms: u64, cancel: &CancellationToken) -> bool {
    if delay_ms > 0 {
        #[expect(
            clippy::disallowed_methods,
            reason = "a script's pace stands for a provider's, and is part of the world, not of the engine"
        )]
        let sleep = tokio::time::sleep(Duration::from_millis(delay_ms));
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            () = sleep => {}
        }
    }
    !cancel.is_cancelled()
}

/// What comes after the parts.
enum Ending {
    Quiet,
    Error(Error),
    Hang,
}

struct Playing {
    parts: std::vec::IntoIter<Part>,
    ending: Ending,
    delay_ms: u64,
    cancel: CancellationToken,
}

fn stream_of(parts: Vec<Part>, ending: Ending, delay_ms: u64, cancel: CancellationToken) -> PartStream {
    let playing = Playing { parts: parts.into_iter(), ending, delay_ms, cancel };
    Box::pin(stream::unfold(playing, Playing::next))
}

impl Playing {
    async fn next(mut self) -> Option<(Result<Part, Error>, Self)> {
        let Some(mut part) = self.parts.next() else {
            return match std::mem::replace(&mut self.ending, Ending::Quiet) {
                Ending::Quiet => None,
                Ending::Error(error) => Some((Err(error), self)),
                Ending::Hang => {
                    self.cancel.cancelled().await;
                    None
                }
            };
        };
        let delay_ms = if piece(&mut part).is_some() { self.delay_ms } else { 0 };
        pause(delay_ms, &self.cancel).await.then_some((Ok(part), self))
    }
}

/// Leaves so many characters of the answer, and the parts before and between them.
fn keep_chars(parts: &mut Vec<Part>, chars: usize) {
    let mut left = chars;
    let mut kept = 0;
    for part in parts.iter_mut() {
        if let Some(text) = piece(part) {
            if left == 0 {
                break;
            }
            if let Some((end, _)) = text.char_indices().nth(left) {
                text.truncate(end);
            }
            left -= text.chars().count();
        }
        kept += 1;
    }
    parts.truncate(kept);
}

fn piece(part: &mut Part) -> Option<&mut String> {
    match part {
        Part::Text { text }
        | Part::Refusal { text }
        | Part::Reasoning { text }
        | Part::ToolCallArguments { text, .. } => Some(text),
        Part::Started { .. }
        | Part::ReasoningEnd { .. }
        | Part::ToolCallStarted { .. }
        | Part::ToolCallEnd { .. }
        | Part::Item { .. }
        | Part::Usage { .. }
        | Part::Finished { .. } => None,
    }
}
