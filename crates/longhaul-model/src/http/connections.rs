//! Connections that models share, and whom they trust. What goes over them is left to the client.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Url};

use super::{Transport, failure, invalid};
use crate::Error;
use crate::limits::MAX_CA_BYTES;
use crate::recording::Tape;

const USER_AGENT: &str = concat!("longhaul/", env!("CARGO_PKG_VERSION"));

/// Connections to providers. All models made with clones of one share it: reading the system's
/// certificates takes milliseconds, and they are read when the first model is made.
#[derive(Clone, Debug)]
pub struct Connections(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    connect_ms: u64,
    ca_file: Option<PathBuf>,
    tape: Option<Tape>,
    /// To this machine itself, past any proxy.
    here: Mutex<Option<Ready>>,
    elsewhere: Mutex<Option<Ready>>,
}

#[derive(Clone, Debug)]
struct Ready {
    http: reqwest::Client,
    /// Why there is no TLS, where the system has no certificates at all.
    without_tls: Option<Error>,
}

impl Default for Connections {
    fn default() -> Self {
        Connections::new(10_000, None)
    }
}

impl Connections {
    /// Makes connections that must stand within a time: name, address, TLS. `ca_file` names
    /// certificates (PEM) to trust besides the system's.
    #[must_use]
    pub fn new(connect_ms: u64, ca_file: Option<PathBuf>) -> Self {
        Connections::with_tape(connect_ms, ca_file, None)
    }

    /// Makes the same, but what goes over them is written to a recording, or comes from one; then nothing
    /// is connected at all.
    #[must_use]
    pub fn with_tape(connect_ms: u64, ca_file: Option<PathBuf>, tape: Option<Tape>) -> Self {
        let (here, elsewhere) = (Mutex::default(), Mutex::default());
        Connections(Arc::new(Shared { connect_ms, ca_file, tape, here, elsewhere }))
    }

    /// Returns the way to a URL.
    pub(super) fn transport(&self, url: &Url) -> Result<Transport, Error> {
        let tape = self.0.tape.clone();
        let http = match &tape {
            Some(Tape::Replay(_)) => None,
            Some(Tape::Record(_)) | None => Some(self.client(url)?),
        };
        Ok(Transport { http, tape })
    }

    fn client(&self, url: &Url) -> Result<reqwest::Client, Error> {
        let is_here = is_here(url);
        let kept = if is_here { &self.0.here } else { &self.0.elsewhere };
        let mut ready = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Ready { http, without_tls } = match &*ready {
            Some(ready) => ready.clone(),
            None => ready.insert(self.0.prepare(is_here)?).clone(),
        };
        match without_tls {
            Some(error) if url.scheme() != "http" => Err(error),
            Some(_) | None => Ok(http),
        }
    }
}

impl Shared {
    fn prepare(&self, is_here: bool) -> Result<Ready, Error> {
        let certificates = self.ca_file.as_deref().map_or(Ok(Vec::new()), read_certificates)?;
        install_crypto();
        let builder = || {
            let connect = Duration::from_millis(self.connect_ms);
            let builder = reqwest::Client::builder().connect_timeout(connect).user_agent(USER_AGENT);
            // A redirect would turn POST into GET, and carry keys to another host.
            let builder = builder.redirect(Policy::none()).referer(false);
            if is_here { builder.no_proxy() } else { builder }
        };
        let refusal = |error: &reqwest::Error| {
            let text = failure::root_cause(error);
            invalid(format!(
                "cannot prepare TLS: {text}. Install the system's certificates (ca-certificates), \
                 or name a file with certificates"
            ))
        };
        match builder().tls_certs_merge(certificates).build() {
            Ok(http) => Ok(Ready { http, without_tls: None }),
            // Where the system has no certificates at all, plain HTTP must still work.
            Err(error) => {
                let http = builder().tls_certs_only([]).build().map_err(|error| refusal(&error))?;
                Ok(Ready { http, without_tls: Some(refusal(&error)) })
            }
        }
    }
}

fn read_certificates(path: &Path) -> Result<Vec<Certificate>, Error> {
    let wrong = |why: String| invalid(format!("cannot use the certificates in {}: {why}", path.display()));
    let bytes = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
    if bytes > MAX_CA_BYTES {
        return Err(wrong(format!("the file is {bytes} bytes, more than the {MAX_CA_BYTES} allowed")));
    }
    let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let certificates =
        Certificate::from_pem_bundle(&pem).map_err(|error| wrong(failure::root_cause(&error)))?;
    if certificates.is_empty() {
        return Err(wrong("there is none in it. The file must be in PEM form".to_owned()));
    }
    Ok(certificates)
}

/// One provider of cryptography serves the whole process; whoever embeds this may have chosen.
fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // It fails when another thread was quicker, which is as good.
            let _installed = rustls::crypto::ring::default_provider().install_default();
        }
    });
}

/// Says whether a server is on this machine: to a proxy, its address would mean the proxy itself.
fn is_here(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|it| it.is_loopback())
}
