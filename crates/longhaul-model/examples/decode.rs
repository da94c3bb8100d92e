//! Makes one call to a provider and prints what was understood of the answer, as one JSON object.
//!
//! `LONGHAUL_KEY=… cargo run -p longhaul-model --example decode -- --url https://api.openai.com/v1
//! --api openai-responses --model gpt-5 [--no-stream]`

#[path = "decode/exchange.rs"]
mod exchange;

use std::io::Write as _;
use std::process::ExitCode;

use exchange::Ask;
use longhaul_model::Secret;
use longhaul_model::http::Connections;

const USAGE: &str =
    "usage: decode --url BASE --api openai-chat|openai-responses|anthropic|gemini --model NAME [--no-stream]";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let said = match read(std::env::args().skip(1)) {
        Ok(ask) => exchange::decode(&ask, &Connections::default()).await.map_err(|error| error.message),
        Err(why) => Err(format!("{why}\n{USAGE}")),
    };
    let (written, code) = match said {
        Ok(said) => (writeln!(std::io::stdout(), "{said}"), ExitCode::SUCCESS),
        Err(why) => (writeln!(std::io::stderr(), "{why}"), ExitCode::FAILURE),
    };
    if written.is_ok() { code } else { ExitCode::FAILURE }
}

fn read(mut arguments: impl Iterator<Item = String>) -> Result<Ask, String> {
    #[expect(clippy::disallowed_methods, reason = "this program is the edge where configuration is read")]
    let key = std::env::var("LONGHAUL_KEY").ok().map(Secret::new);
    let (mut url, mut api, mut model, mut stream) = (None, None, None, true);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--url" => url = arguments.next(),
            "--api" => api = arguments.next(),
            "--model" => model = arguments.next(),
            "--no-stream" => stream = false,
            unknown => return Err(format!("unknown argument: {unknown}")),
        }
    }
    match (url, api, model) {
        (Some(url), Some(api), Some(model)) => Ok(Ask { url, api, model, key, stream }),
        (_, _, _) => Err("--url, --api and --model must be given".to_owned()),
    }
}
