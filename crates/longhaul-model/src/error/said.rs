//! What a provider said about a failure, in whichever of the known shapes. What it means is left to
//! the classifier.

use serde_json::Value;

use crate::limits::MAX_ERROR_CHARS;
use crate::secret::mask;

/// Where a document holds its error.
const PLACES: [&str; 5] = ["/error", "/errors/0", "/errors", "/base_resp", "/x_groq/error"];

/// Where an error has its codes, or the status it stands for.
const CODES: [&str; 9] = [
    "code",
    "type",
    "status",
    "status_code",
    "statusCode",
    "http_status_code",
    "http_code",
    "error_code",
    "reason",
];

/// Where an error says for people what happened.
const TEXTS: [&str; 11] = [
    "message",
    "msg",
    "detail",
    "error_description",
    "error_msg",
    "error_message",
    "status_msg",
    "Message",
    "title",
    "error",
    "errors",
];

/// What an error's body says.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// The sentence for people: one line, bounded, without keys.
    pub(crate) message: Option<String>,
    /// Codes, types and reasons, in small letters.
    pub(crate) codes: Vec<String>,
    /// An HTTP status named in the body.
    pub(crate) status: Option<u16>,
    /// How long Google's `RetryInfo` asks to wait, as it says it.
    pub(crate) retry_delay: Option<String>,
    /// The body is a web page.
    pub(crate) web_page: bool,
}

impl Said {
    /// Reads the body of an answer, of any kind.
    pub(crate) fn in_body(body: &[u8]) -> Said {
        let text = String::from_utf8_lossy(body);
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.starts_with('<') {
            return Said { message: page_text(text), web_page: true, ..Said::default() };
        }
        // Some frame it like an event of the stream that was asked for.
        let framed = text.lines().find_map(|line| line.strip_prefix("data:"));
        match serde_json::from_str::<Value>(framed.unwrap_or(text)) {
            Ok(value) => Said::in_value(&value),
            Err(_) => Said { message: sentence(text), ..Said::default() },
        }
    }

    /// Reads a JSON document: an error itself, or what holds one.
    pub(crate) fn in_value(value: &Value) -> Said {
        let value = value.get(0).unwrap_or(value);
        let mut said = Said::default();
        if let Some(kind) = value.get("type").and_then(Value::as_str).filter(|kind| *kind != "error") {
            said.codes.push(kind.to_lowercase());
        }
        let held = PLACES.iter().find_map(|place| value.pointer(place).filter(|error| says_failure(error)));
        said.read(held.unwrap_or(value));
        // Beside an error that is only a text stands what kind it is of.
        if held.is_some_and(|error| !error.is_object()) {
            said.read_codes(value);
        }
        if said.message.is_none() {
            said.message = text_of(value).and_then(|text| sentence(&text));
        }
        said
    }

    fn read(&mut self, error: &Value) {
        let mut texts: Vec<String> = text_of(error).into_iter().collect();
        self.read_codes(error);
        // Most name a field here; Xiaomi says what is wrong.
        let param = error.get("param").and_then(Value::as_str).filter(|param| param.contains(' '));
        texts.extend(param.map(str::to_owned));
        for detail in error.get("details").and_then(Value::as_array).into_iter().flatten() {
            if let Some(reason) = detail.get("reason").and_then(Value::as_str) {
                self.codes.push(reason.to_lowercase());
            }
            if let Some(delay) = detail.get("retryDelay").and_then(Value::as_str) {
                self.retry_delay = Some(delay.to_owned());
            }
        }
        if let Some(inner) = error.pointer("/innererror/code").and_then(Value::as_str) {
            self.codes.push(inner.to_lowercase());
        }
        // A router says that its provider failed; what the provider said is in here.
        if let Some(raw) = error.pointer("/metadata/raw") {
            let inner = match raw.as_str() {
                Some(text) => Said::in_body(text.as_bytes()),
                None => Said::in_value(raw),
            };
            texts.extend(inner.message);
            self.codes.extend(inner.codes);
        }
        if error.pointer("/metadata/reasons").is_some() {
            self.codes.push("moderation".to_owned());
        }
        self.message = sentence(&texts.join(": "));
    }

    fn read_codes(&mut self, error: &Value) {
        for key in CODES {
            match error.get(key) {
                Some(Value::String(code)) => self.codes.push(code.to_lowercase()),
                Some(Value::Number(code)) => self.status = self.status.or(http_status(code.as_u64())),
                Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => {}
            }
        }
        let numbers: Vec<u16> = self.codes.iter().filter_map(|code| http_status(code.parse().ok())).collect();
        self.status = self.status.or(numbers.first().copied());
    }
}

/// Tells whether what stands in the place of an error is one: some servers fill it in where all is well, with a
/// number or texts that say nothing.
pub(crate) fn says_failure(error: &Value) -> bool {
    match error {
        Value::Null => false,
        Value::Bool(failed) => *failed,
        Value::Number(code) => code.as_f64() != Some(0.0),
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(errors) => errors.iter().any(says_failure),
        Value::Object(fields) => fields.values().any(says_failure),
    }
}

/// Reads a number as an HTTP status. MiniMax has numbers of its own, under a status that says success.
fn http_status(number: Option<u64>) -> Option<u16> {
    match number? {
        status @ 400..600 => u16::try_from(status).ok(),
        1_000 | 1_013 | 1_024 | 1_033 => Some(500),
        1_001 => Some(408),
        1_002 | 1_041 | 2_045 => Some(429),
        1_004 | 2_049 => Some(401),
        1_008 | 2_056 => Some(402),
        1_026 | 1_027 => Some(451),
        1_039 => Some(413),
        1_042 | 2_013 => Some(400),
        2_061 => Some(403),
        _ => None,
    }
}

/// Finds the sentence in an error, which may be an object or a list of what was wrong with the request.
fn text_of(error: &Value) -> Option<String> {
    match error {
        Value::String(text) => Some(text.clone()).filter(|text| !text.trim().is_empty()),
        Value::Array(all) => all.iter().find_map(text_of),
        Value::Object(fields) => {
            let text = TEXTS.iter().find_map(|key| text_of(fields.get(*key)?))?;
            Some(match fields.get("loc").and_then(Value::as_array) {
                Some(path) => format!("{}: {text}", path_of(path)),
                None => text,
            })
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// Writes which part of the request an error is of.
fn path_of(path: &[Value]) -> String {
    let steps = path.iter().map(|step| step.as_str().map_or_else(|| step.to_string(), str::to_owned));
    steps.collect::<Vec<String>>().join(".")
}

/// Makes one line of a text: masked, bounded, without control characters.
pub(crate) fn sentence(text: &str) -> Option<String> {
    let head: String = text.chars().take(MAX_ERROR_CHARS * 4).collect();
    let words: Vec<&str> = head.split(|c: char| c.is_whitespace() || c.is_control()).collect();
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    let masked = mask(&words.join(" "));
    let mut line: String = masked.chars().take(MAX_ERROR_CHARS).collect();
    if line.len() < masked.len() {
        line.push('…');
    }
    Some(line).filter(|line| !line.is_empty())
}

/// Returns the title of a web page, or else its text.
fn page_text(page: &str) -> Option<String> {
    let lower = page.to_ascii_lowercase();
    let title = lower.find("<title").and_then(|start| {
        let start = start + lower[start..].find('>')? + 1;
        let end = start + lower[start..].find("</title")?;
        sentence(&page[start..end])
    });
    title.or_else(|| {
        let mut text = String::new();
        for piece in page.split('<') {
            text.push_str(piece.split_once('>').map_or("", |(_, text)| text));
            text.push(' ');
        }
        sentence(&text)
    })
}
