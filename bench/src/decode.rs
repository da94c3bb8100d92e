//! What reading an answer costs: each wire's decoder against a loop that finds the events and parses each as
//! JSON, and makes nothing of it. No socket is in it.

use std::hint::black_box;

use anyhow::bail;
use longhaul_model::codec::Codec;
use longhaul_model::{Part, anthropic, gemini, openai_chat, openai_responses};
use serde_json::Value;

use crate::measure::{Aim, Cost, Moment, Pairs, Spread, in_turn, say};
use crate::streams::{self, Matter};

/// Pieces of each answer.
const PIECES: usize = 5_000;

/// How much is read at once, in bytes: what a fast connection hands over, and about what one event takes.
const CHUNKS: [usize; 2] = [16 * 1024, 256];

const URL: &str = "https://provider.test/v1";

/// A wire: its name, its codec, and its long answers.
type Wire = (&'static str, Box<dyn Codec>, fn(Matter, usize) -> String);

fn wires() -> [Wire; 4] {
    [
        ("chat", Box::new(openai_chat::Codec::new(openai_chat::Options::new(URL, "bench"))), streams::chat),
        (
            "responses",
            Box::new(openai_responses::Codec::new(openai_responses::Options::new(URL, "bench"))),
            streams::responses,
        ),
        (
            "messages",
            Box::new(anthropic::Codec::new(anthropic::Options::new(URL, "bench"))),
            streams::messages,
        ),
        ("contents", Box::new(gemini::Codec::new(gemini::Options::new(URL, "bench"))), streams::contents),
    ]
}

/// Measures and reports.
pub(crate) fn run(rounds: usize) -> anyhow::Result<()> {
    say("decode: a decoder / finding the events and parsing them, processor time");
    for (name, codec, stream) in wires() {
        for matter in Matter::ALL {
            let answer = stream(matter, PIECES).into_bytes();
            for chunk_bytes in CHUNKS {
                let mut parts = 0;
                let measured = in_turn(
                    rounds,
                    || {
                        let (cost, count) = decoded(&*codec, &answer, chunk_bytes)?;
                        parts = count;
                        Ok(cost)
                    },
                    || parsed(&answer, chunk_bytes),
                )?;
                report(name, matter, chunk_bytes, &answer, parts, &measured);
            }
        }
    }
    Ok(())
}

fn report(
    name: &str,
    matter: Matter,
    chunk_bytes: usize,
    answer: &[u8],
    parts: usize,
    measured: &[(Cost, Cost)],
) {
    let what = format!("{name}, {}, {chunk_bytes} bytes at once", matter.name());
    Pairs::of(measured, |cost| cost.processor_us).report(&what, "us", Aim::None);
    let each = |number: &dyn Fn(f64) -> f64| {
        Spread::of(measured.iter().map(|(cost, _)| number(cost.processor_us)).collect()).median
    };
    let megabytes_a_second = each(&|us| answer.len() as f64 / us);
    let us_a_part = each(&|us| us / parts as f64);
    let size = answer.len() as f64 / 1e6;
    say(&format!(
        "    {megabytes_a_second:6.0} MB/s, {us_a_part:5.2} us a part ({size:.1} MB, {parts} parts)"
    ));
}

fn decoded(codec: &dyn Codec, answer: &[u8], chunk_bytes: usize) -> anyhow::Result<(Cost, usize)> {
    let started = Moment::now();
    let mut decoder = codec.decoder();
    let (mut parts, mut count) = (Vec::new(), 0);
    for chunk in answer.chunks(chunk_bytes) {
        decoder.push(chunk, &mut parts)?;
        count += parts.len();
        if let Some(Part::Finished { .. }) = parts.last() {
            return Ok((started.cost(), count));
        }
        black_box(&parts);
        parts.clear();
    }
    decoder.finish(&mut parts)?;
    count += parts.len();
    match parts.last() {
        Some(Part::Finished { .. }) => Ok((started.cost(), count)),
        _ => bail!("the answer did not end"),
    }
}

/// Reads the same bytes and parses the data of each event, as the least that anybody must do.
fn parsed(answer: &[u8], chunk_bytes: usize) -> anyhow::Result<Cost> {
    let started = Moment::now();
    let mut buffer: Vec<u8> = Vec::new();
    for chunk in answer.chunks(chunk_bytes) {
        buffer.extend_from_slice(chunk);
        let mut read = 0;
        while let Some(end) = buffer[read..].iter().position(|byte| *byte == b'\n') {
            let line = &buffer[read..read + end];
            if let Some(data) = line.strip_prefix(b"data: ").filter(|data| data.first() == Some(&b'{')) {
                black_box(serde_json::from_slice::<Value>(data)?);
            }
            read += end + 1;
        }
        buffer.drain(..read);
    }
    Ok(started.cost())
}
