//! What stands between a run and its provider: proxies, and certificates of an authority of one's own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::endpoint::{Act, Endpoint, GOOD};
use crate::world::{Ran, Running, World};

/// A host that only a proxy knows.
const HOST: &str = "api.longhaul.test";
/// The password of a proxy.
const PASSWORD: &str = "proxy-4c1e9ab7";

/// Serves TLS in front of another server, with a certificate of an authority of its own.
struct Tls {
    address: SocketAddr,
    /// The certificate of the authority.
    authority: String,
}

impl Tls {
    /// Serves until the test ends; its threads end with it.
    fn before(endpoint: &Endpoint, host: &str) -> Self {
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = authority.self_signed(&authority_key).unwrap().pem();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config =
            config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
        let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        let behind = endpoint.address();
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let config = Arc::clone(&config);
                // A client that does not trust the certificate goes away.
                std::thread::spawn(move || pass_on(connection, config, behind).ok());
            }
        });
        Tls { address, authority: pem }
    }
}

/// Passes one request on, and its answer back.
fn pass_on(connection: TcpStream, config: Arc<ServerConfig>, behind: SocketAddr) -> std::io::Result<()> {
    let session = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut front = StreamOwned::new(session, connection);
    let mut back = TcpStream::connect(behind)?;
    let mut request = Vec::new();
    while !is_whole(&request) {
        let mut bytes = [0; 4096];
        let read = front.read(&mut bytes)?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(&bytes[..read]);
    }
    back.write_all(&request)?;
    let mut answer = Vec::new();
    back.read_to_end(&mut answer)?;
    front.write_all(&answer)?;
    front.conn.send_close_notify();
    front.flush()
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.split_once("content-length: ").map(|(_, rest)| rest.split("\r\n").next().unwrap());
    request.len() >= head.len() + 4 + length.map_or(0, |length| length.parse().unwrap())
}

/// Reads what a client asks of a proxy.
fn head_of(client: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|read| read == 1) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// A proxy that connects to one server, whatever is asked of it. Returns its address and what it was asked.
fn proxy(to: SocketAddr) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut front in listener.incoming().map_while(Result::ok) {
            noted.lock().unwrap().push(head_of(&mut front).lines().next().unwrap().to_owned());
            let mut back = TcpStream::connect(to).unwrap();
            front.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
            let (mut from_back, mut to_front) = (back.try_clone().unwrap(), front.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from_back, &mut to_front).ok());
            std::thread::spawn(move || std::io::copy(&mut front, &mut back).ok());
        }
    });
    (url, asked)
}

fn world(url: &str, ca_file: Option<&str>) -> World {
    let world = World::new();
    let trust = ca_file.map(|file| format!("ca_file = \"{file}\"\n")).unwrap_or_default();
    let manifest = format!(
        "[model]\nprovider = \"openai-chat\"\nname = \"test\"\nbase_url = \"{url}\"\n{trust}\
         [agent]\ndirectory = \"work\"\n[limits]\nretry_for = \"0s\"\n"
    );
    world.write("longhaul.toml", &manifest);
    world
}

fn run(world: &World, set: &[(&str, &str)]) -> Ran {
    let mut command = world.command(&["run", "Mend it."]);
    command.envs(set.iter().copied());
    Running::start(command).finish()
}

#[test]
fn a_certificate_of_an_authority_of_ones_own_is_trusted_where_the_manifest_names_it() {
    let endpoint = Endpoint::start([Act::say(GOOD)]);
    let tls = Tls::before(&endpoint, "localhost");
    let url = format!("https://localhost:{}/v1", tls.address.port());
    let refused = world(&url, None);
    let ran = run(&refused, &[]);
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    let said = format!("failed: cannot connect to {url}/chat/completions safely: invalid peer certificate");
    assert!(ran.stdout.contains(&said), "{}", ran.stdout);
    assert!(ran.stdout.contains("name that in a file with certificates"), "{}", ran.stdout);
    let trusting = world(&url, Some("ca.pem"));
    trusting.write("ca.pem", &tls.authority);
    let ran = run(&trusting, &[]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    assert!(ran.stdout.contains(GOOD), "{}", ran.stdout);
    assert_eq!(endpoint.asked().len(), 1);
}

#[test]
fn another_authority_is_no_reason_to_trust() {
    let endpoint = Endpoint::start([]);
    let (tls, other) = (Tls::before(&endpoint, "localhost"), Tls::before(&endpoint, "localhost"));
    let world = world(&format!("https://localhost:{}/v1", tls.address.port()), Some("ca.pem"));
    world.write("ca.pem", &other.authority);
    let ran = run(&world, &[]);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("safely: invalid peer certificate"), "{}", ran.stdout);
    world.write("ca.pem", "no certificate\n");
    let ran = run(&world, &[]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(
        ran.stderr.contains("ca.pem: there is none in it. The file must be in PEM form"),
        "{}",
        ran.stderr
    );
    assert!(endpoint.asked().is_empty());
}

#[test]
fn a_proxy_is_asked_for_servers_elsewhere_unless_they_are_excepted() {
    let endpoint = Endpoint::start([Act::say(GOOD)]);
    let tls = Tls::before(&endpoint, HOST);
    let (url, asked) = proxy(tls.address);
    let world = world(&format!("https://{HOST}/v1"), Some("ca.pem"));
    world.write("ca.pem", &tls.authority);
    let ran = run(&world, &[("HTTPS_PROXY", &url)]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    assert!(ran.stdout.contains(GOOD), "{}", ran.stdout);
    assert_eq!(*asked.lock().unwrap(), [format!("CONNECT {HOST}:443 HTTP/1.1")]);
    // Past the proxy nobody knows the host.
    let ran = run(&world, &[("HTTPS_PROXY", &url), ("NO_PROXY", "localhost,.longhaul.test")]);
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    assert!(
        ran.stdout.contains(&format!("cannot connect to https://{HOST}/v1/chat/completions")),
        "{}",
        ran.stdout
    );
    assert_eq!(asked.lock().unwrap().len(), 1);
}

/// A proxy that answers every request to connect in one way. Returns its address, with a password in it.
fn refusing_proxy(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://me:{PASSWORD}@{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut front in listener.incoming().map_while(Result::ok) {
            head_of(&mut front);
            // A client that has gone away wants no answer.
            front.write_all(answer.as_bytes()).ok();
        }
    });
    url
}

#[test]
fn a_proxy_that_refuses_is_told_of_without_its_password() {
    let world = world(&format!("https://{HOST}/v1"), None);
    for answer in [
        "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        "",
    ] {
        let ran = run(&world, &[("HTTPS_PROXY", &refusing_proxy(answer))]);
        assert_eq!(ran.code, 1, "{}", ran.stdout);
        let said = format!("failed: cannot connect to https://{HOST}/v1/chat/completions: ");
        assert!(ran.stdout.contains(&said) && ran.stdout.contains("any proxy in between"), "{}", ran.stdout);
        assert!(!(ran.stdout + &ran.stderr).contains(PASSWORD));
    }
}

#[test]
fn the_doctor_asks_through_a_proxy_and_trusts_as_a_run_does() {
    let list = serde_json::json!({ "data": [{ "id": "test" }] });
    let ping = Act::call(&[("call_a", "ping", serde_json::json!({}))]);
    let endpoint = Endpoint::start([Act::json("200 OK", "", &list), Act::say("yes"), ping]);
    let tls = Tls::before(&endpoint, HOST);
    let (url, asked) = proxy(tls.address);
    let world = world(&format!("https://{HOST}/v1"), Some("ca.pem"));
    world.write("ca.pem", &tls.authority);
    let mut command = world.command(&["doctor"]);
    command.env("HTTPS_PROXY", &url);
    let ran = Running::start(command).finish();
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    assert!(ran.stdout.contains("ok  listed ") && ran.stdout.contains("ok  tools "), "{}", ran.stdout);
    assert_eq!(endpoint.asked().len(), 3);
    assert!(asked.lock().unwrap().iter().all(|line| *line == format!("CONNECT {HOST}:443 HTTP/1.1")));
}
