//! What the client adds to the first part of an answer: the time from asking to the first text, over a connection
//! that is open already, against a bare socket that sends the same bytes and waits for the first event.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use longhaul_model::codec::Codec as _;
use longhaul_model::openai_chat::{Codec, Options};
use longhaul_model::{Model, ModelCall, Part, openai_chat};
use longhaul_session::agent::Request;
use longhaul_session::item::Item;
use tokio_util::sync::CancellationToken;

use crate::endpoint::Endpoint;
use crate::measure::{Aim, Cost, Moment, Pairs, Spread, in_turn, say};
use crate::{rig, wire};

/// Questions of one measurement.
const QUESTIONS: u32 = 100;

/// The most that the client may add, in microseconds.
const MOST_US: f64 = 1_000.0;

/// Measures and reports.
pub(crate) fn run(rounds: usize) -> anyhow::Result<()> {
    let endpoint = Endpoint::start()?;
    let runtime = rig::runtime()?;
    let model: Arc<dyn Model> = Arc::new(openai_chat(options(&endpoint))?);
    let mut bare = Bare::connect(&endpoint)?;
    let measured = in_turn(
        rounds,
        || runtime.block_on(async { tokio::spawn(client(Arc::clone(&model))).await? }),
        || bare.ask(),
    )?;
    say(&format!("firstpart: {QUESTIONS} questions, each to its first part: the client / a bare socket"));
    Pairs::of(&measured, |cost| cost.wall_us).report("to the first part", "us", Aim::None);
    Pairs::of(&measured, |cost| cost.processor_us).report("processor time", "us", Aim::None);
    let added = measured.iter().map(|(client, bare)| client.wall_us - bare.wall_us).collect();
    Spread::of(added).report("what the client adds", "us", Aim::AtMost(MOST_US));
    Ok(())
}

fn options(endpoint: &Endpoint) -> Options {
    Options::new(endpoint.url(), wire::model(0))
}

fn question() -> Request {
    Request {
        system: "Be brief.".to_owned(),
        items: vec![Arc::new(Item::User { text: "What is left to do?".to_owned() })],
        tools: Arc::new(vec![wire::tool()]),
        previous: None,
    }
}

/// Returns what one question costs, up to the first text.
async fn client(model: Arc<dyn Model>) -> anyhow::Result<Cost> {
    let mut total = Cost { wall_us: 0.0, processor_us: 0.0 };
    for _ in 0..QUESTIONS {
        let request = Arc::new(question());
        let call = ModelCall { request, attempt: 0, cancel: CancellationToken::new(), resume: None };
        let started = Moment::now();
        let mut parts = model.call(call).await?;
        while !matches!(parts.next().await.context("the answer holds no text")??, Part::Text { .. }) {}
        add(&mut total, started.cost());
        while parts.next().await.transpose()?.is_some() {}
    }
    Ok(total.divided())
}

fn add(total: &mut Cost, cost: Cost) {
    total.wall_us += cost.wall_us;
    total.processor_us += cost.processor_us;
}

impl Cost {
    fn divided(self) -> Cost {
        let each = |us: f64| us / f64::from(QUESTIONS);
        Cost { wall_us: each(self.wall_us), processor_us: each(self.processor_us) }
    }
}

/// A connection, and the bytes of the question.
struct Bare {
    stream: TcpStream,
    request: Vec<u8>,
}

impl Bare {
    fn connect(endpoint: &Endpoint) -> anyhow::Result<Self> {
        let request = Codec::new(options(endpoint)).request(&question());
        let (host, path) = request
            .url
            .strip_prefix("http://")
            .and_then(|rest| rest.split_once('/'))
            .context("the endpoint has no URL")?;
        let mut bytes = format!(
            "POST /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            request.body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(&request.body);
        let stream = TcpStream::connect(host)?;
        stream.set_nodelay(true)?;
        Ok(Bare { stream, request: bytes })
    }

    fn ask(&mut self) -> anyhow::Result<Cost> {
        let mut total = Cost { wall_us: 0.0, processor_us: 0.0 };
        for _ in 0..QUESTIONS {
            let started = Moment::now();
            self.stream.write_all(&self.request)?;
            let mut answer = Vec::new();
            self.read_until(&mut answer, b"data: ")?;
            add(&mut total, started.cost());
            self.read_until(&mut answer, b"\r\n0\r\n\r\n")?;
        }
        Ok(total.divided())
    }

    fn read_until(&mut self, answer: &mut Vec<u8>, wanted: &[u8]) -> anyhow::Result<()> {
        let mut buffer = [0; 4 * 1024];
        while !answer.windows(wanted.len()).any(|window| window == wanted) {
            match self.stream.read(&mut buffer)? {
                0 => bail!("the endpoint closed the connection"),
                count => answer.extend_from_slice(&buffer[..count]),
            }
        }
        Ok(())
    }
}
