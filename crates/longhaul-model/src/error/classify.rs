//! The one classifier: an answer that is an error, to the class that says what follows. Failures of
//! the connection itself are classified where they happen, in [`crate::http`].
//!
//! Codes are believed before words, and words before the status, because providers use one status
//! for many things: 429 is a rate limit, or exhausted credit, or a request too large to ever pass.

use longhaul_session::failure::FailureClass;
use serde_json::Value;

use super::Error;
use super::said::Said;
use super::wait;
use crate::codec::ResponseHead;

/// A class, and the codes and words that mean it.
struct Mark {
    class: FailureClass,
    /// Whole codes. Bare numbers are those of Zhipu.
    codes: &'static [&'static str],
    /// Parts of the message.
    words: &'static [&'static str],
    /// The statuses with which the words mean it; 0 stands for none.
    statuses: &'static [u16],
}

const REFUSED: &[u16] = &[0, 400, 403, 413, 422, 446];

/// In this order: the first that fits is the class.
const MARKS: [Mark; 10] = [
    // Cohere says so of a limit that was asked for, and no shorter prompt helps.
    Mark {
        class: FailureClass::InvalidRequest,
        codes: &[],
        words: &["max tokens must be less than or equal"],
        statuses: &[400],
    },
    // Limits per minute, in the words for too long a request, and with the code for exhausted credit.
    Mark {
        class: FailureClass::RateLimited,
        codes: &[],
        words: &["too many tokens, please wait", "allocated quota exceeded, please increase"],
        statuses: &[0, 429],
    },
    Mark {
        class: FailureClass::ContextOverflow,
        codes: &[
            "1261",
            "characters_too_long",
            "content_length_exceeds_threshold",
            "context_length_exceeded",
            "context_window_exceeded",
            "exceed_context_size_error",
            "model_context_window_exceeded",
            "model_max_prompt_tokens_exceeded",
            "outofcontexterror",
            "request_too_large",
            "string_above_max_length",
            "tokens_limit_reached",
            "tokens_too_long",
        ],
        words: &[
            "context length",
            "context window",
            "contextwindowexceedederror",
            "context size",
            "maximum context",
            "prompt is too long",
            "prompt too long",
            "input is too long",
            "input length",
            "input token count",
            "too many input tokens",
            "`inputs` tokens",
            "`inputs` must have less than",
            "prompt token count",
            "prompt sequence length",
            "sum of prompt length",
            "prompt exceeds max length",
            "maximum number of input tokens",
            "maximum allowed number of input tokens",
            "maximum model length",
            "maximum prompt length",
            "max_seq_len",
            "exceeded model token limit",
            "number of tokens in the prompt",
            "request too large",
            "too many tokens",
            "exceeds the maximum number of tokens",
            "exceed max message tokens",
            "input tokens exceed",
            "payload size exceeds",
            "while limit is",
            "token limit exceeded",
            "reduce the length of",
        ],
        statuses: &[0, 400, 403, 413, 422, 500],
    },
    Mark {
        class: FailureClass::ContextOverflow,
        codes: &[],
        words: &["request too large for"],
        statuses: &[429],
    },
    Mark {
        class: FailureClass::ContentFilter,
        codes: &[
            "1301",
            "content_filter",
            "content_policy_violation",
            "data_inspection_failed",
            "datainspectionfailed",
            "hooks_failed",
            "moderation",
            "moderation_blocked",
            "prohibited_content",
            "responsibleaipolicyviolation",
            "sensitive_words_detected",
            "system_unsafe",
        ],
        words: &[
            "content management policy",
            "content policy",
            "content policies",
            "content filter",
            "safety system",
            "requires moderation",
            "was flagged",
            "data may contain inappropriate content",
            "contentpolicyviolationerror",
            "guardrail",
            "includes sensitive content",
            "may contain sensitive information",
            "violate platform rules",
            "content exists risk",
            "considered high risk",
            "violates usage guidelines",
        ],
        statuses: REFUSED,
    },
    Mark {
        class: FailureClass::Quota,
        codes: &[
            "1113",
            "1309",
            "accountoverdueerror",
            "arrearage",
            "insufficient_quota",
            "insufficient_credits",
            "insufficient_balance",
            "insufficient_user_quota",
            "not_enough_balance",
            "pre_consume_token_quota_failed",
            "billing_hard_limit_reached",
            "billing_not_active",
            "billing_error",
            "budget_exceeded",
            "exceeded_current_quota_error",
            "credit_balance_exhausted",
            "credit_balance_too_low",
            "billing_disabled",
            "insufficient_funds",
            "organization_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
            "project_spend_limit_exceeded",
            "setlimitexceeded",
        ],
        words: &[
            "credit balance is too low",
            "credits are depleted",
            "insufficient balance",
            "insufficient account balance",
            "balance is insufficient",
            "balance is not enough",
            "not enough balance",
            "overdue balance",
            "balance is overdue",
            "budget has been exceeded",
            "daily free allocation",
            "free allocated quota exceeded",
            "insufficient credits",
            "no credits remaining",
            "free quota has been exhausted",
            "free tier of the model has been exhausted",
            "exhausted its free trial quota",
            "out of credits",
            "used all available credits",
            "spend limit",
            "spending limit",
            "specified api usage limits",
            "key limit exceeded",
            "account is not active",
        ],
        statuses: &[0, 400, 401, 403, 412, 429],
    },
    Mark {
        class: FailureClass::ChainBroken,
        codes: &["previous_response_not_found"],
        // Also of an answer made in the background that cannot be picked up.
        words: &["response with id", "not a background response", "created with background"],
        statuses: &[0, 400, 404, 409],
    },
    Mark {
        class: FailureClass::Auth,
        codes: &[
            "api_key_invalid",
            "invalid_api_key",
            "invalidapikey",
            "authentication_error",
            "authenticationerror",
            "unauthorized",
            "permission_error",
            "permission_denied",
            "unauthenticated",
            "invalid_authentication_error",
            "unsupported_country_region_territory",
        ],
        words: &[
            "api key not valid",
            "invalid api key",
            "incorrect api key",
            "api key expired",
            "no auth credentials",
            "user location is not supported",
        ],
        statuses: REFUSED,
    },
    Mark {
        class: FailureClass::RateLimited,
        codes: &[
            "1302",
            "1303",
            "rate_limit_error",
            "rate_limit_exceeded",
            "ratelimitexceeded",
            "throttlingexception",
            "too_many_requests",
        ],
        words: &["rate limit", "too many requests"],
        statuses: &[0],
    },
    Mark {
        class: FailureClass::Overloaded,
        codes: &[
            "1305",
            "1312",
            "overloaded_error",
            "engine_overloaded",
            "engine_overloaded_error",
            "server_overloaded",
            "server_is_overloaded",
            "serveroverloaded",
            "slow_down",
            "unavailable",
            "service_unavailable",
        ],
        words: &[
            "overloaded",
            "at capacity",
            "no capacity",
            "capacity exceeded",
            "capacity temporarily exceeded",
            "no more data centers",
        ],
        statuses: &[0, 429, 498, 500, 502],
    },
];

/// What codes mean where no status is known: in an answer that had begun.
const CODES: [(&str, FailureClass); 22] = [
    ("overloaded", FailureClass::Overloaded),
    ("rate_limit", FailureClass::RateLimited),
    ("ratelimit", FailureClass::RateLimited),
    ("throttl", FailureClass::RateLimited),
    ("resource_exhausted", FailureClass::RateLimited),
    ("too_many_requests", FailureClass::RateLimited),
    ("usage_limit", FailureClass::RateLimited),
    ("timeout", FailureClass::Timeout),
    ("deadline_exceeded", FailureClass::Timeout),
    ("invalid_request", FailureClass::InvalidRequest),
    ("invalid_argument", FailureClass::InvalidRequest),
    ("invalid_prompt", FailureClass::InvalidRequest),
    ("badrequest", FailureClass::InvalidRequest),
    ("bad_request", FailureClass::InvalidRequest),
    ("not_found", FailureClass::InvalidRequest),
    ("failed_precondition", FailureClass::InvalidRequest),
    ("unsupported", FailureClass::InvalidRequest),
    ("unimplemented", FailureClass::InvalidRequest),
    ("encrypted_content", FailureClass::InvalidRequest),
    ("_policy", FailureClass::ContentFilter),
    ("server_error", FailureClass::Server),
    ("image", FailureClass::InvalidRequest),
];

/// Classifies an answer whose status is no success.
///
/// The message holds the provider's sentence, shortened if need be, with what looks like a key
/// masked. A time to wait is only given when waiting may help.
#[must_use]
pub fn classify(head: &ResponseHead, body: &[u8]) -> Error {
    let said = Said::in_body(body);
    let class = marked(&said, head.status).unwrap_or_else(|| of_status(head.status));
    let status = head.status;
    let message = match (&said.message, said.web_page) {
        (Some(text), false) => format!("the provider answered {status}: {text}"),
        (Some(text), true) => format!("the provider answered {status} with a web page: {text}"),
        (None, _) => format!("the provider answered {status} without saying why"),
    };
    let message = match head.header("location").filter(|_| (300..400).contains(&status)) {
        Some(location) => {
            let location = super::said::sentence(location).unwrap_or_default();
            format!("the server redirects to {location}: if you trust it, make that the base URL")
        }
        None => message,
    };
    let wait = class.is_retryable().then(|| wait::asked_for_ms(head, said.retry_delay.as_deref()));
    Error { retry_after_ms: wait.flatten(), ..Error::new(class, message) }
}

/// Classifies an error that came where an answer was expected: in a stream, or with a status that
/// promised success. `value` is the error, or what holds it.
///
/// The request had been taken, so what nothing else is known of is the provider's own failure.
pub(crate) fn classify_in_answer(value: &Value) -> Error {
    let said = Said::in_value(value);
    let coded = || {
        let means = |(part, class): &(&str, FailureClass)| {
            said.codes.iter().any(|code| code.contains(part)).then_some(*class)
        };
        CODES.iter().find_map(means)
    };
    let class = marked(&said, said.status.unwrap_or(0))
        .or_else(|| said.status.map(of_status))
        .or_else(coded)
        .unwrap_or(FailureClass::Server);
    let text = said.message.as_deref().unwrap_or("it did not say why");
    let head = ResponseHead { status: 0, headers: Vec::new() };
    let wait = class.is_retryable().then(|| wait::asked_for_ms(&head, said.retry_delay.as_deref()));
    let message = format!("the provider failed while it answered: {text}");
    Error { retry_after_ms: wait.flatten(), ..Error::new(class, message) }
}

/// Describes a document that is neither an answer nor an error in JSON, under a status that
/// promised success: most often the page of a proxy, or of a server's start page.
pub(crate) fn web_page_in_answer(body: &[u8]) -> Error {
    let said = Said::in_body(body);
    let what = if said.web_page { "a web page" } else { "something that is no JSON" };
    let text = said.message.map_or(String::new(), |text| format!(": {text}"));
    let message = format!(
        "the server sent {what} instead of an answer{text}. \
         A proxy may be in between, or the base URL may lack a part such as /v1"
    );
    Error::new(FailureClass::Server, message)
}

fn marked(said: &Said, status: u16) -> Option<FailureClass> {
    let text = said.message.as_deref().unwrap_or_default().to_lowercase();
    // Volcengine and Alibaba say behind a dot more of what the code says.
    let codes: Vec<&str> = said.codes.iter().filter_map(|code| code.split('.').next()).collect();
    // Proxies put what they were answered into their sentence.
    let quotes = |code: &&str| {
        code.contains('_') && ['\'', '"'].iter().any(|mark| text.contains(&format!("{mark}{code}{mark}")))
    };
    let means = |mark: &&Mark| {
        mark.codes.iter().any(|code| codes.contains(code) || quotes(code))
            || mark.statuses.contains(&status) && mark.words.iter().any(|word| text.contains(word))
    };
    MARKS.iter().find(means).map(|mark| mark.class)
}

fn of_status(status: u16) -> FailureClass {
    match status {
        401 | 403 => FailureClass::Auth,
        402 => FailureClass::Quota,
        408 | 504 | 524 => FailureClass::Timeout,
        409 | 425 => FailureClass::Server,
        413 => FailureClass::ContextOverflow,
        429 => FailureClass::RateLimited,
        446 | 451 => FailureClass::ContentFilter,
        498 | 503 | 529 => FailureClass::Overloaded,
        300..=499 | 501 => FailureClass::InvalidRequest,
        500..=599 => FailureClass::Server,
        _ => FailureClass::Unknown,
    }
}
