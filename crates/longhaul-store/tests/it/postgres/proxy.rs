//! Stands between a store and its server, and cuts connections where a test says so.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What happens to the connection that sends certain bytes. It happens once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// It is cut, and the server never gets them.
    Before,
    /// The server gets them, and its answer is lost.
    After,
    /// It is cut at once, and the server gets them when the test lets go.
    Held,
}

/// The proxy.
pub(super) struct Proxy {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    cut: Mutex<Option<(Vec<u8>, Cut)>>,
    /// Nobody gets through any more.
    closed: AtomicBool,
    /// Whoever is connected is cut.
    cut_all: Notify,
    /// What is held goes on.
    let_go: Notify,
    /// What was held has been answered.
    answered: Notify,
    /// How often a client spoke after its server had.
    round_trips: AtomicU64,
}

impl Proxy {
    /// Stands before the server that a URL names.
    pub(super) async fn before(url: &str) -> Self {
        let server = place(url).to_owned();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !shared.closed.load(Ordering::Relaxed) {
                    let server = TcpStream::connect(&server).await.unwrap();
                    tokio::spawn(serve(client, server, Arc::clone(&shared)));
                }
            }
        });
        Proxy { port, state }
    }

    /// Returns the URL of the same database through the proxy.
    pub(super) fn url(&self, url: &str) -> String {
        url.replace(place(url), &format!("127.0.0.1:{}", self.port)) + "?sslmode=disable"
    }

    /// Cuts the next connection on which a client sends certain bytes.
    pub(super) fn cut(&self, cut: Cut, bytes: &str) {
        *self.state.cut.lock().unwrap() = Some((bytes.as_bytes().to_vec(), cut));
    }

    pub(super) fn cut_all(&self) {
        self.state.cut_all.notify_waiters();
    }

    /// Lets nobody in any more, or everybody again.
    pub(super) fn close(&self, closed: bool) {
        self.state.closed.store(closed, Ordering::Relaxed);
    }

    /// Sends the server what was held, and waits for its answer.
    pub(super) async fn let_go(&self) {
        self.state.let_go.notify_one();
        self.state.answered.notified().await;
    }

    pub(super) fn round_trips(&self) -> u64 {
        self.state.round_trips.load(Ordering::Relaxed)
    }
}

/// Returns host and port.
fn place(url: &str) -> &str {
    url.split_once('@').unwrap().1.split('/').next().unwrap()
}

async fn serve(mut client: TcpStream, mut server: TcpStream, state: Arc<State>) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut clients_turn = true;
    loop {
        tokio::select! {
            () = state.cut_all.notified() => return,
            read = from_server.read(&mut answered) => {
                let Ok(len @ 1..) = read else { return };
                clients_turn = true;
                if to_client.write_all(&answered[..len]).await.is_err() {
                    return;
                }
            }
            read = from_client.read(&mut asked) => {
                let Ok(len @ 1..) = read else { return };
                if std::mem::take(&mut clients_turn) {
                    state.round_trips.fetch_add(1, Ordering::Relaxed);
                }
                match state.cut_by(&asked[..len]) {
                    None => {}
                    Some(Cut::Before) => return,
                    Some(Cut::After) => {
                        to_server.write_all(&asked[..len]).await.unwrap();
                        return until_ready(from_server).await;
                    }
                    Some(Cut::Held) => {
                        to_client.shutdown().await.unwrap();
                        state.let_go.notified().await;
                        to_server.write_all(&asked[..len]).await.unwrap();
                        until_ready(from_server).await;
                        return state.answered.notify_one();
                    }
                }
                if to_server.write_all(&asked[..len]).await.is_err() {
                    return;
                }
            }
        }
    }
}

impl State {
    /// Says what is to happen to a connection on which these bytes are sent.
    fn cut_by(&self, sent: &[u8]) -> Option<Cut> {
        let mut cut = self.cut.lock().unwrap();
        let found = cut.as_ref().is_some_and(|(bytes, _)| sent.windows(bytes.len()).any(|it| it == bytes));
        if found { cut.take().map(|(_, cut)| cut) } else { None }
    }
}

/// Reads until the server has done all it was asked for.
async fn until_ready(mut server: impl AsyncRead + Unpin) {
    let mut buffer = vec![0; 1 << 16];
    // The last message of an answer: `Z`, its length, and the state of the transaction.
    let is_ready =
        |answer: &[u8]| answer.len() >= 6 && answer[answer.len() - 6..].starts_with(b"Z\0\0\0\x05");
    while let Ok(len @ 1..) = server.read(&mut buffer).await {
        if is_ready(&buffer[..len]) {
            return;
        }
    }
}
