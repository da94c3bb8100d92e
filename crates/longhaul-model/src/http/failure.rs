//! Failures of the connection: what happened, why, and what to do. What providers answer is
//! classified in [`crate::error`].

use std::error::Error as StdError;
use std::io;

use longhaul_session::failure::FailureClass;

use crate::Error;
use crate::error::sentence;

/// Classifies a failure between the first name look-up and the last byte.
pub(super) fn classify(error: &reqwest::Error, url: &str) -> Error {
    let cause = root_cause(error);
    if error.is_builder() {
        return Error::new(FailureClass::InvalidRequest, format!("cannot ask {url}: {cause}"));
    }
    if let Some(tls) = find::<rustls::Error>(error) {
        let message = format!(
            "cannot connect to {url} safely: {tls}. If its certificate comes from an authority of your own, \
             name that in a file with certificates; if it speaks no TLS, use http://"
        );
        return Error::new(FailureClass::Network, message);
    }
    if error.is_connect() {
        return Error { message: cannot_connect(error, url, &cause), ..Error::new(connect_class(error), "") };
    }
    if error.is_timeout() {
        let message = format!("{url} did not answer in time: {cause}");
        return Error::new(FailureClass::Timeout, message);
    }
    let what = match find::<io::Error>(error).map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => "was reset by the other side",
        Some(io::ErrorKind::UnexpectedEof) => "was closed by the other side",
        Some(_) | None => "broke",
    };
    let message = format!("the connection to {url} {what} before the answer was complete: {cause}");
    Error::new(FailureClass::Network, message)
}

/// Says that the answer did not begin, or was not there as a whole, in time.
pub(super) fn too_late(url: &str, limit_ms: u64, streamed: bool) -> Error {
    let (what, limit) = match streamed {
        true => ("did not begin to answer", "model_first_part"),
        false => ("had not answered in full", "model_call"),
    };
    let message = format!(
        "{url} {what} within {limit_ms} ms. A local server may still read the prompt: \
         if this happens often, raise the limit `{limit}`"
    );
    Error::new(FailureClass::Timeout, message)
}

/// Says that an answer stopped coming.
pub(super) fn stalled(url: &str, idle_ms: u64) -> Error {
    let message = format!(
        "{url} stopped in the middle of its answer and sent nothing for {idle_ms} ms. \
         If this happens often, raise the limit `model_idle`"
    );
    Error::new(FailureClass::Timeout, message)
}

fn connect_class(error: &reqwest::Error) -> FailureClass {
    if error.is_timeout() { FailureClass::Timeout } else { FailureClass::Network }
}

fn cannot_connect(error: &reqwest::Error, url: &str, cause: &str) -> String {
    let (why, advice) = if error.is_timeout() {
        ("nobody answered in time", "Check the base URL, the network and any proxy in between")
    } else if chain(error).any(|it| it.to_string() == "dns error") {
        ("its name could not be looked up", "Check the base URL for typing errors, and the network")
    } else if find::<io::Error>(error).map(io::Error::kind) == Some(io::ErrorKind::ConnectionRefused) {
        ("the connection was refused", "Check that the server is running, and the port in the base URL")
    } else {
        ("the connection failed", "Check the base URL, the network and any proxy in between")
    };
    format!("cannot connect to {url}: {why} ({cause}). {advice}")
}

/// Returns the innermost reason, which is the one that says most. Never names the URL.
pub(super) fn root_cause(error: &reqwest::Error) -> String {
    let innermost = chain(error).last().map(ToString::to_string);
    innermost.and_then(|text| sentence(&text)).unwrap_or_else(|| "no reason was given".to_owned())
}

/// Finds an error of a type in the chain, also where I/O errors wrap it: their source leaves out
/// what they wrap.
fn find<E: StdError + 'static>(error: &reqwest::Error) -> Option<&E> {
    chain(error)
        .flat_map(|it| std::iter::successors(Some(it), |it| wrapped(*it)))
        .find_map(|it| it.downcast_ref())
}

fn wrapped<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    let inner = error.downcast_ref::<io::Error>()?.get_ref()?;
    Some(inner)
}

/// The reasons of an error, from the outside to the inside; without the outermost, which names the
/// URL with all that is in it.
fn chain(error: &reqwest::Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(error.source(), |it: &&'_ (dyn StdError + 'static)| StdError::source(*it))
}
