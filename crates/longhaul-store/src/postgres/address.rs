//! What a URL says: where the server is, how to sign on, and how the connection is protected. It never
//! gives the URL back: only the address of the database without user and password.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::tls::Proof;
use crate::Error;
use crate::limits::{CONNECT_TIMEOUT_S, KEEPALIVE_S, LEASES_MS, UNACKNOWLEDGED_S};

/// The option that says how long an owner lives without a renewal, in milliseconds.
const LEASE_OPTION: &str = "longhaul_lease_ms";

/// Where a database is and how to get there.
pub(super) struct Address {
    /// Hosts, ports and name, for messages.
    pub(super) database: Arc<str>,
    pub(super) config: Config,
    /// What the server must prove.
    pub(super) proof: Proof,
    /// For how long an owner lives without a renewal, where the URL says so.
    pub(super) lease_ms: Option<u64>,
}

/// Reads a URL.
pub(super) fn parse(url: &str) -> Result<Address, Error> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return wrong("it does not begin with postgres:// or postgresql://");
    }
    // Up to the first @ it is user and password, whatever stands in it.
    let host = url.find('@').unwrap_or_default();
    let query = url[host..].find('?').map_or(url.len(), |at| host + at);
    let (address, options) = (&url[..query], url[query..].trim_start_matches('?'));
    let (mut mode, mut root, mut lease_ms, mut others) = (None, None, None, Vec::new());
    for option in options.split('&').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("sslmode", value)) => mode = Some(value),
            Some(("sslrootcert", value)) => root = Some(decode(value)?),
            Some((LEASE_OPTION, value)) => lease_ms = Some(lease(value)?),
            _ => others.push(option),
        }
    }
    let separator = if others.is_empty() { "" } else { "?" };
    let mut config: Config = format!("{address}{separator}{}", others.join("&"))
        .parse()
        .map_err(|error| Error::Address { reason: reason(&error) })?;
    let (mode, proof) = protection(mode, root)?;
    config.ssl_mode(mode);
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return wrong("it names no host");
    }
    if config.get_application_name().is_none() {
        config.application_name("longhaul");
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(Duration::from_secs(CONNECT_TIMEOUT_S));
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(Duration::from_secs(UNACKNOWLEDGED_S));
    }
    if config.get_keepalives_interval().is_none() {
        let every = Duration::from_secs(KEEPALIVE_S);
        config.keepalives_idle(every).keepalives_interval(every).keepalives_retries(2);
    }
    Ok(Address { database: place(&config).into(), config, proof, lease_ms })
}

/// Reads a lease.
fn lease(value: &str) -> Result<u64, Error> {
    let lease_ms = value.parse().ok().filter(|lease_ms| LEASES_MS.contains(lease_ms));
    lease_ms.map_or_else(
        || {
            let (shortest, longest) = (LEASES_MS.start(), LEASES_MS.end());
            wrong(&format!("{LEASE_OPTION} is a number of milliseconds from {shortest} to {longest}"))
        },
        Ok,
    )
}

/// Decides what `sslmode` and `sslrootcert` come to. A root certificate asks for proof: without
/// `verify-full` it would be there for nothing.
fn protection(mode: Option<&str>, root: Option<String>) -> Result<(SslMode, Proof), Error> {
    let root = root.map(PathBuf::from);
    match (mode, root) {
        (Some("disable"), None) => Ok((SslMode::Disable, Proof::None)),
        (Some("disable"), Some(_)) => wrong("sslmode=disable and sslrootcert contradict each other"),
        (None | Some("prefer"), None) => Ok((SslMode::Prefer, Proof::None)),
        (Some("require"), None) => Ok((SslMode::Require, Proof::None)),
        (Some("verify-full"), None) => Ok((SslMode::Require, Proof::System)),
        (None | Some("prefer" | "require" | "verify-full"), Some(root)) => {
            Ok((SslMode::Require, Proof::Root(root)))
        }
        (Some(_), _) => wrong("sslmode is one of disable, prefer, require and verify-full"),
    }
}

/// Names hosts, ports and database, and nothing else of the URL.
fn place(config: &Config) -> String {
    let ports = config.get_ports();
    let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(5432);
    let mut hosts = Vec::new();
    for (at, host) in config.get_hosts().iter().enumerate() {
        hosts.push(match host {
            Host::Tcp(name) => format!("{name}:{}", port(at)),
            Host::Unix(path) => format!("{}:{}", path.display(), port(at)),
        });
    }
    if hosts.is_empty() {
        let addresses = config.get_hostaddrs().iter().enumerate();
        hosts.extend(addresses.map(|(at, address)| format!("{address}:{}", port(at))));
    }
    let name = config.get_dbname().or_else(|| config.get_user()).unwrap_or("(the user's)");
    format!("{}/{name}", hosts.join(","))
}

/// Says what the parser found wrong without repeating what it read: an unescaped password may be part of it.
fn reason(error: &tokio_postgres::Error) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    if cause.starts_with("invalid value for option") {
        cause
    } else if cause.starts_with("unknown option") {
        "it has an option that is not known".to_owned()
    } else {
        "it is not written as a URL; characters like @, / and ? in user or password are written as %40, %2F and %3F"
            .to_owned()
    }
}

/// Reads %-escapes.
fn decode(value: &str) -> Result<String, Error> {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        let escaped = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (byte, escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(decoded)) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            _ => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).or_else(|_| wrong("sslrootcert is not UTF-8"))
}

fn wrong<T>(reason: &str) -> Result<T, Error> {
    Err(Error::Address { reason: reason.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_named_without_user_and_password() {
        let cases = [
            ("postgres://ada:secret@db.example/longhaul", "db.example:5432/longhaul"),
            ("postgresql://ada:s%40cret@db.example:6000/x?application_name=y", "db.example:6000/x"),
            ("postgres://ada:secret@one,two:7/x", "one:5432,two:7/x"),
            ("postgres://ada:secret@%2Fvar%2Frun/x", "/var/run:5432/x"),
            ("postgres://ada:se?cr=et@db.example/x?sslmode=disable", "db.example:5432/x"),
            ("postgres://ada@db.example", "db.example:5432/ada"),
        ];
        for (url, expected) in cases {
            assert_eq!(&*parse(url).map(|it| it.database).unwrap(), expected, "{url}");
        }
    }

    #[test]
    fn a_url_that_cannot_be_used_is_refused_without_repeating_it() {
        for url in [
            "secret",
            "mysql://ada:secret@db/x",
            "postgres://ada:secret@db:port/x",
            "postgres://ada:secret@db/x?secret=1",
            "postgres:///x",
            "postgres://ada:secret@db/x?sslmode=allow",
            "postgres://ada:secret@db/x?sslmode=disable&sslrootcert=/ca.pem",
            "postgres://ada:secret@db/x?connect_timeout=secret",
            "postgres://ada:secret@db/x?longhaul_lease_ms=999",
            "postgres://ada:secret@db/x?longhaul_lease_ms=secret",
        ] {
            let Err(error) = parse(url) else { panic!("{url} was accepted") };
            let text = error.to_string();
            assert!(text.contains("cannot be used") && !text.contains("secret"), "{url}: {text}");
        }
    }

    #[test]
    fn a_lease_is_taken_out_of_the_url() {
        let lease_ms = |options: &str| parse(&format!("postgres://ada@db/x?{options}")).unwrap().lease_ms;
        assert_eq!(lease_ms("sslmode=disable"), None);
        assert_eq!(lease_ms("sslmode=disable&longhaul_lease_ms=60000"), Some(60_000));
    }

    #[test]
    fn a_root_certificate_asks_for_proof() {
        let url = |options: &str| format!("postgres://ada@db/x?{options}");
        let parsed = |options: &str| {
            let address = parse(&url(options)).unwrap();
            (address.config.get_ssl_mode(), address.proof)
        };
        assert_eq!(parsed(""), (SslMode::Prefer, Proof::None));
        assert_eq!(parsed("sslmode=disable"), (SslMode::Disable, Proof::None));
        assert_eq!(parsed("sslmode=require"), (SslMode::Require, Proof::None));
        assert_eq!(parsed("sslmode=verify-full"), (SslMode::Require, Proof::System));
        let root = || (SslMode::Require, Proof::Root("/a b.pem".into()));
        assert_eq!(parsed("sslrootcert=/a%20b.pem"), root());
        assert_eq!(parsed("sslrootcert=%2Fa%20b.pem&sslmode=require"), root());
    }
}
