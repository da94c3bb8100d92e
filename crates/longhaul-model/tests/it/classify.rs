//! Errors of providers: their class, how long to wait, and what a person reads.

use FailureClass::{
    Auth, ChainBroken, ContentFilter, ContextOverflow, InvalidRequest, Overloaded, Quota, RateLimited,
    Server, Timeout, Unknown,
};
use longhaul_model::codec::{Codec as _, ResponseHead};
use longhaul_model::error::classify;
use longhaul_model::openai_chat::{Codec, Options};
use longhaul_model::{Error, Secret};
use longhaul_session::failure::FailureClass;

fn error(status: u16, headers: &[(&str, &str)], body: &str) -> Error {
    let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    classify(&ResponseHead { status, headers }, body.as_bytes())
}

// tidy: long — a table of what providers send
#[test]
fn errors_are_classified_by_status_codes_and_words() {
    let plain = r#"{"error":{"message":"No."}}"#;
    let cases: &[(u16, &str, FailureClass)] = &[
        (302, "", InvalidRequest),
        (400, plain, InvalidRequest),
        (401, plain, Auth),
        (402, plain, Quota),
        (403, plain, Auth),
        (404, r#"{"error":{"message":"model 'x' not found"}}"#, InvalidRequest),
        (404, r#"{"detail":"Not Found"}"#, InvalidRequest),
        (408, plain, Timeout),
        (409, plain, Server),
        (413, "<html><title>413 Request Entity Too Large</title></html>", ContextOverflow),
        (422, r#"{"detail":[{"loc":["body","n"],"msg":"field required"}]}"#, InvalidRequest),
        (429, plain, RateLimited),
        (429, "", RateLimited),
        (498, plain, Overloaded),
        (500, plain, Server),
        (500, "", Server),
        (501, plain, InvalidRequest),
        (502, "<html><body>bad gateway</body></html>", Server),
        (503, r#"{"error":{"message":"Loading model","type":"unavailable_error","code":503}}"#, Overloaded),
        (504, "upstream timed out", Timeout),
        (505, plain, Server),
        (524, "", Timeout),
        (529, plain, Overloaded),
        (600, plain, Unknown),
        // One status, several reasons.
        (400, r#"{"error":{"message":"API key not valid.","status":"INVALID_ARGUMENT"}}"#, Auth),
        (400, r#"{"error":{"message":"?","details":[{"reason":"API_KEY_INVALID"}]}}"#, Auth),
        (
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low"}}"#,
            Quota,
        ),
        (400, r#"{"error":{"message":"Refused.","code":"content_policy_violation"}}"#, ContentFilter),
        (
            400,
            r#"{"error":{"message":"?","code":"content_filter","innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
            ContentFilter,
        ),
        (
            403,
            r#"{"error":{"message":"Input was flagged","code":403,"metadata":{"reasons":["x"]}}}"#,
            ContentFilter,
        ),
        (403, r#"{"error":{"message":"Key limit exceeded (daily limit)","code":403}}"#, Quota),
        (
            429,
            r#"{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}"#,
            Quota,
        ),
        (
            429,
            r#"{"error":{"message":"You exceeded your current quota","status":"RESOURCE_EXHAUSTED"}}"#,
            RateLimited,
        ),
        (429, r#"{"error":{"message":"Engine is overloaded","type":"engine_overloaded_error"}}"#, Overloaded),
        (
            429,
            r#"{"error":{"message":"Request too large for m on tokens per min","code":"rate_limit_exceeded"}}"#,
            ContextOverflow,
        ),
        (400, r#"{"error":{"message":"gone","code":"previous_response_not_found"}}"#, ChainBroken),
        (400, r#"[{"error":{"message":"API key expired"}}]"#, Auth),
        (401, r#"{"error":"no auth credentials found"}"#, Auth),
        // What a router wraps.
        (
            400,
            r#"{"error":{"message":"?","metadata":{"raw":"{\"error\":{\"code\":\"context_length_exceeded\"}}"}}}"#,
            ContextOverflow,
        ),
        (
            400,
            r#"{"error":{"message":"Provider returned error","code":400,"metadata":{"raw":"{\"error\":{\"message\":\"prompt is too long: 9 tokens > 8 maximum\"}}"}}}"#,
            ContextOverflow,
        ),
        (
            502,
            r#"{"error":{"message":"Provider returned error","metadata":{"raw":{"error":{"message":"The model is overloaded"}}}}}"#,
            Overloaded,
        ),
    ];
    for (status, body, class) in cases {
        assert_eq!(error(*status, &[], body).class, *class, "{status} {body}");
    }
}

// tidy: long — a table of what providers send
#[test]
fn each_provider_is_understood_in_its_own_shape_and_words() {
    let cases: &[(u16, &str, FailureClass)] = &[
        // Alibaba
        (400, r#"{"error":{"code":"Arrearage","type":"Arrearage","message":"Access denied."}}"#, Quota),
        (
            403,
            r#"{"error":{"code":"AllocationQuota.FreeTierOnly","message":"The free tier of the model has been exhausted."}}"#,
            Quota,
        ),
        (400, r#"{"error":{"code":"data_inspection_failed","message":"Output refused."}}"#, ContentFilter),
        (
            400,
            r#"{"error":{"code":"invalid_parameter_error","message":"Range of input length should be [1, 9]"}}"#,
            ContextOverflow,
        ),
        (401, r#"{"code":"InvalidApiKey","message":"No such key.","request_id":"r"}"#, Auth),
        (429, r#"{"code":"Throttling.RateQuota","message":"Requests rate limit exceeded."}"#, RateLimited),
        // Azure, GitHub Models and Copilot
        (401, r#"{"statusCode":401,"message":"Unauthorized. Access token is missing."}"#, Auth),
        (
            404,
            r#"{"error":{"code":"DeploymentNotFound","message":"There is no such deployment."}}"#,
            InvalidRequest,
        ),
        (
            429,
            r#"{"error":{"code":"RateLimitReached","message":"Rate limit of 9 per 60s","details":"no list"}}"#,
            RateLimited,
        ),
        (
            413,
            r#"{"error":{"code":"tokens_limit_reached","message":"Request body too large for m. Max size: 9 tokens."}}"#,
            ContextOverflow,
        ),
        (
            400,
            r#"{"error":{"message":"prompt token count of 9 exceeds the limit of 8","param":"","code":"","type":""}}"#,
            ContextOverflow,
        ),
        (
            400,
            r#"{"error":{"message":"Too much.","code":"model_max_prompt_tokens_exceeded"}}"#,
            ContextOverflow,
        ),
        (402, r#"{"error":{"message":"The allowance is used up.","code":"quota_exceeded"}}"#, Quota),
        // Cerebras, Groq
        (
            400,
            r#"{"message":"Please reduce the length of the messages.","type":"invalid_request_error","code":"context_length_exceeded"}"#,
            ContextOverflow,
        ),
        (
            429,
            r#"{"message":"Tokens per minute limit exceeded - too many tokens processed.","code":"token_quota_exceeded"}"#,
            RateLimited,
        ),
        (
            413,
            r#"{"error":{"message":"Request too large for model `m` on tokens per minute","code":"rate_limit_exceeded"}}"#,
            ContextOverflow,
        ),
        (
            400,
            r#"{"error":{"message":"Failed to call a function.","code":"tool_use_failed","failed_generation":"<f>"}}"#,
            InvalidRequest,
        ),
        (
            498,
            r#"{"error":{"message":"Flex tier capacity exceeded","code":"capacity_exceeded"}}"#,
            Overloaded,
        ),
        // Cloudflare
        (401, r#"{"success":false,"errors":[{"code":10000,"message":"Authentication error"}]}"#, Auth),
        // Cohere, Mistral
        (401, r#"{"message":"invalid api token"}"#, Auth),
        (401, r#"{"message":"Unauthorized","request_id":"r"}"#, Auth),
        (
            400,
            r#"{"object":"error","message":"Prompt contains 9 tokens, too large for model with 8 maximum context length","type":"invalid_request_prompt","code":"3051"}"#,
            ContextOverflow,
        ),
        (
            422,
            r#"{"object":"error","message":{"detail":[{"type":"missing","msg":"Field required"}]},"type":"invalid_request_error"}"#,
            InvalidRequest,
        ),
        (
            429,
            r#"{"object":"error","message":"Service tier capacity exceeded for this model.","type":"service_tier_capacity_exceeded","code":"3505"}"#,
            Overloaded,
        ),
        // DeepSeek
        (
            401,
            r#"{"error":{"message":"Authentication Fails","type":"authentication_error","code":"invalid_request_error"}}"#,
            Auth,
        ),
        (
            402,
            r#"{"error":{"message":"Insufficient Balance","type":"unknown_error","code":"invalid_request_error"}}"#,
            Quota,
        ),
        (400, r#"{"error":{"message":"Content Exists Risk","type":"invalid_request_error"}}"#, ContentFilter),
        (422, "Failed to deserialize the JSON body into the target type", InvalidRequest),
        // Fireworks
        (
            412,
            r#"{"error":{"message":"Account a is suspended, possibly due to reaching the monthly spending limit","code":"PRECONDITION_FAILED"}}"#,
            Quota,
        ),
        // Hugging Face and its servers
        (402, r#"{"error":"You have depleted your monthly included credits."}"#, Quota),
        (
            422,
            r#"{"error":"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8. Given: 9","error_type":"validation"}"#,
            ContextOverflow,
        ),
        (429, r#"{"error":"Model is overloaded","error_type":"overloaded"}"#, Overloaded),
        (424, r#"{"error":"Request failed during generation","error_type":"generation"}"#, InvalidRequest),
        // Local servers
        (
            400,
            r#"{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error"}}"#,
            ContextOverflow,
        ),
        (
            400,
            r#"{"object":"error","message":"The decoder prompt (length 9) is longer than the maximum model length of 8","type":"BadRequestError","code":400}"#,
            ContextOverflow,
        ),
        (
            400,
            r#"{"error":"The number of tokens to keep from the initial prompt is greater than the context length"}"#,
            ContextOverflow,
        ),
        (
            404,
            r#"{"error":{"message":"model \"m\" not found, try pulling it first","type":"api_error","code":null}}"#,
            InvalidRequest,
        ),
        // Moonshot
        (
            400,
            r#"{"error":{"message":"Your request exceeded model token limit: 8 (requested: 9)","type":"invalid_request_error"}}"#,
            ContextOverflow,
        ),
        (
            400,
            r#"{"error":{"message":"The request was rejected because it was considered high risk","type":"content_filter"}}"#,
            ContentFilter,
        ),
        (
            401,
            r#"{"error":{"message":"Invalid Authentication","type":"invalid_authentication_error"}}"#,
            Auth,
        ),
        (
            429,
            r#"{"error":{"message":"The account is suspended.","type":"exceeded_current_quota_error"}}"#,
            Quota,
        ),
        // NVIDIA
        (
            403,
            r#"{"type":"urn:x:problem-details","title":"Forbidden","status":403,"detail":"Authorization failed"}"#,
            Auth,
        ),
        // Novita, SiliconFlow, Volcengine
        (
            403,
            r#"{"code":403,"reason":"NOT_ENOUGH_BALANCE","message":"not enough balance","metadata":{}}"#,
            Quota,
        ),
        (403, r#"{"code":30001,"message":"Sorry, your account balance is insufficient","data":null}"#, Quota),
        (
            400,
            r#"{"code":20015,"message":"length of prompt_tokens (9) must be less than max_seq_len (8).","data":null}"#,
            ContextOverflow,
        ),
        (
            503,
            r#"{"code":50505,"message":"Model service overloaded. Please try again later.","data":null}"#,
            Overloaded,
        ),
        (401, r#""Invalid token""#, Auth),
        (
            403,
            r#"{"error":{"code":"AccountOverdueError","message":"The account has an overdue balance.","type":"Forbidden"}}"#,
            Quota,
        ),
        (
            400,
            r#"{"error":{"code":"SensitiveContentDetected","message":"The input text may contain sensitive information.","type":"BadRequest"}}"#,
            ContentFilter,
        ),
        (
            429,
            r#"{"error":{"code":"ServerOverloaded","message":"Unable to handle more.","type":"TooManyRequests"}}"#,
            Overloaded,
        ),
        // One API, which many resellers run
        (403, r#"{"error":{"message":"?","type":"new_api_error","code":"insufficient_user_quota"}}"#, Quota),
        (
            503,
            r#"{"error":{"message":"No available channel for model m","code":"model_not_found"}}"#,
            Overloaded,
        ),
        // Perplexity
        (
            401,
            r#"{"error":{"message":"Invalid API key provided.","type":"invalid_api_key","code":401}}"#,
            Auth,
        ),
        // xAI
        (
            400,
            r#"{"code":"Client specified an invalid argument","error":"Incorrect API key provided: x."}"#,
            Auth,
        ),
        (
            403,
            r#"{"code":"The caller does not have permission","error":"Content violates usage guidelines."}"#,
            ContentFilter,
        ),
        (
            403,
            r#"{"code":"The caller does not have permission","error":"The team has used all available credits"}"#,
            Quota,
        ),
        (
            404,
            r#"{"code":"Some requested entity was not found","error":"The model m does not exist"}"#,
            InvalidRequest,
        ),
        (
            429,
            r#"{"code":"Some resource has been exhausted","error":"Too many requests for team t"}"#,
            RateLimited,
        ),
        // Zhipu
        (400, r#"{"error":{"code":"1261","message":"?"}}"#, ContextOverflow),
        (
            400,
            r#"{"contentFilter":[{"level":1,"role":"user"}],"error":{"code":"1301","message":"?"}}"#,
            ContentFilter,
        ),
        (401, r#"{"error":{"code":"1000","message":"?"}}"#, Auth),
        (429, r#"{"error":{"code":"1113","message":"?"}}"#, Quota),
        (429, r#"{"error":{"code":"1302","message":"?"}}"#, RateLimited),
    ];
    for (status, body, class) in cases {
        assert_eq!(error(*status, &[], body).class, *class, "{status} {body}");
    }
}

// tidy: long — a table of what servers send
#[test]
fn servers_that_people_run_and_gateways_are_understood_too() {
    let cases: &[(u16, &str, FailureClass)] = &[
        // Alibaba
        (
            429,
            r#"{"error":{"code":"insufficient_quota","message":"Allocated quota exceeded, please increase it."}}"#,
            RateLimited,
        ),
        (403, r#"{"code":"AllocationQuota.FreeTier","message":"Free allocated quota exceeded."}"#, Quota),
        // Baidu
        (
            400,
            r#"{"error":{"code":"tokens_too_long","message":"Shorten it.","type":"x"},"id":"i"}"#,
            ContextOverflow,
        ),
        (
            403,
            r#"{"error":{"code":"system_unsafe","message":"Refused.","type":"x"},"id":"i"}"#,
            ContentFilter,
        ),
        (429, r#"{"error":{"code":"tpm_rate_limit_exceeded","message":"Slower.","type":"x"}}"#, RateLimited),
        // Bedrock
        (400, r#"{"message":"Input Tokens Exceeded: update the input to try again."}"#, ContextOverflow),
        (403, r#"{"Message":"Make sure that the key is valid."}"#, Auth),
        (429, r#"{"message":"Too many tokens, please wait before the next."}"#, RateLimited),
        // Cloudflare
        (
            400,
            r#"{"errors":{"message":"AiError: The 9 tokens exceeded this model context window","code":5021},"success":false}"#,
            ContextOverflow,
        ),
        (429, r#"{"errors":[{"message":"The daily free allocation is used up","code":3036}]}"#, Quota),
        (429, r#"{"errors":[{"message":"No more data centers to ask","code":3040}]}"#, Overloaded),
        // Cohere
        (400, r#"{"message":"too many tokens: total number of tokens is 9"}"#, ContextOverflow),
        (400, r#"{"message":"too many tokens: max tokens must be less than or equal to 9"}"#, InvalidRequest),
        // Databricks
        (
            400,
            r#"{"error_code":"BAD_REQUEST","message":"{\"error\":{\"code\":\"context_length_exceeded\"}}"}"#,
            ContextOverflow,
        ),
        (400, r#"{"error_code":"BAD_REQUEST","message":"prompt token count cannot be 9"}"#, ContextOverflow),
        (403, r#"{"error_code":"PERMISSION_DENIED","message":"No."}"#, Auth),
        (429, r#"{"error_code":"REQUEST_LIMIT_EXCEEDED","message":"Slower."}"#, RateLimited),
        // LiteLLM, Portkey, Vercel
        (
            400,
            r#"{"error":{"message":"litellm.ContextWindowExceededError: no room","type":null,"code":"400"}}"#,
            ContextOverflow,
        ),
        (
            400,
            r#"{"error":{"message":"litellm.ContentPolicyViolationError: no","type":null,"code":"400"}}"#,
            ContentFilter,
        ),
        (
            400,
            r#"{"error":{"message":"Violated guardrail policy","type":"None","code":"400"}}"#,
            ContentFilter,
        ),
        (400, r#"{"error":{"message":"Spent: 2 of 1","type":"budget_exceeded","code":"400"}}"#, Quota),
        (429, r#"{"error":{"message":"Budget has been exceeded! Spent: 2","type":"x","code":"429"}}"#, Quota),
        (
            446,
            r#"{"error":{"message":"A check failed","type":"hooks_failed"},"hook_results":{}}"#,
            ContentFilter,
        ),
        (402, r#"{"error":{"message":"Top up.","type":"insufficient_funds"}}"#, Quota),
        // NVIDIA
        (
            400,
            r#"{"object":"error","message":"The sum of prompt length (9.0), query length (0) is above 8","code":400}"#,
            ContextOverflow,
        ),
        // OpenAI
        (429, r#"{"error":{"message":"None left.","code":"credit_balance_exhausted","type":"x"}}"#, Quota),
        (429, r#"{"error":{"message":"Reached.","code":"project_spend_limit_exceeded"}}"#, Quota),
        // Servers of one's own
        (400, r#"{"error":"Prompt sequence length is greater than 8"}"#, ContextOverflow),
        (503, r#"{"error":"server busy, please try again. maximum pending requests exceeded"}"#, Overloaded),
        (
            503,
            r#"{"error":{"message":"The request queue is full.","type":"SERVICE_UNAVAILABLE"}}"#,
            Overloaded,
        ),
        // Together
        (
            403,
            r#"{"error":{"message":"Tokens must be less than the context length of the model"}}"#,
            ContextOverflow,
        ),
        // Venice
        (400, r#"{"error":"It was blocked due to the provider's content policies."}"#, ContentFilter),
        // Volcengine
        (400, r#"{"error":{"code":"OutofContextError","message":"Too much.","type":"x"}}"#, ContextOverflow),
        (
            400,
            r#"{"error":{"code":"InputTextRiskDetection","message":"The text includes sensitive content"}}"#,
            ContentFilter,
        ),
        (
            403,
            r#"{"error":{"code":"OperationDenied.ServiceOverdue","message":"Your account balance is overdue"}}"#,
            Quota,
        ),
        (429, r#"{"error":{"code":"SetLimitExceeded","message":"It has been paused."}}"#, Quota),
        (
            429,
            r#"{"error":{"code":"RateLimitExceeded.EndpointTPMExceeded","message":"Slower."}}"#,
            RateLimited,
        ),
        // Zhipu
        (429, r#"{"error":{"code":"1309","message":"?"}}"#, Quota),
        (429, r#"{"error":{"code":"1305","message":"?"}}"#, Overloaded),
        (429, r#"{"error":{"code":"1308","message":"It resets at noon."}}"#, RateLimited),
    ];
    for (status, body, class) in cases {
        assert_eq!(error(*status, &[], body).class, *class, "{status} {body}");
    }
}

#[test]
fn an_overflow_is_recognised_in_any_wording() {
    for said in [
        "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens",
        "Your input exceeds the context window of this model.",
        "the request exceeds the available context size, try increasing it",
        "prompt is too long: 3333404 tokens > 200000 maximum",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        "This endpoint's maximum context length is 200000 tokens.",
        "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
        "This model's maximum prompt length is 131072 but the request contains 150000 tokens.",
        "Please reduce the length of the messages or completion.",
        "Input is too long for requested model.",
        "Current length is 9000 while limit is 8192.",
        "Request payload size exceeds the limit: 20971520 bytes.",
        "Input length (9000) exceeds the maximum allowed length (8192). Use a shorter input.",
        "Trying to keep the first 9000 tokens, but the model is loaded with a context length of 8192.",
    ] {
        let body = serde_json::json!({ "error": { "message": said, "type": "invalid_request_error" } });
        assert_eq!(error(400, &[], &body.to_string()).class, ContextOverflow, "{said}");
    }
    let code = r#"{"error":{"message":"?","code":"context_length_exceeded"}}"#;
    assert_eq!(error(400, &[], code).class, ContextOverflow);
    let per_minute = r#"{"error":{"message":"The input token count per minute is used up"}}"#;
    assert_eq!(error(429, &[], per_minute).class, RateLimited);
}

#[test]
fn the_wait_is_read_from_wherever_it_is_said() {
    type Headers = &'static [(&'static str, &'static str)];
    const NOW: (&str, &str) = ("date", "Fri, 20 Nov 2026 11:00:00 GMT");
    let cases: &[(Headers, Option<u64>)] = &[
        (&[], None),
        (&[("retry-after-ms", "1400"), ("retry-after", "2")], Some(1_400)),
        (&[("Retry-After", " 2 ")], Some(2_000)),
        (&[("retry-after", "0.25")], Some(250)),
        (&[("retry-after", "-5")], Some(0)),
        (&[("retry-after", "soon")], None),
        (&[("retry-after", "1000000")], Some(86_400_000)),
        (&[("retry-after", "Fri, 20 Nov 2026 11:00:30 GMT"), NOW], Some(30_000)),
        (&[("retry-after", "Fri, 20 Nov 2026 10:59:00 GMT"), NOW], Some(0)),
        (&[("retry-after", "Fri, 20 Nov 2026 11:00:30 GMT")], None),
        (&[("retry-after", "Friday, 20-Nov-26 11:00:30 GMT"), NOW], Some(30_000)),
        (&[("retry-after", "Fri Nov 20 11:00:30 2026"), NOW], Some(30_000)),
        (&[("retry-after", "Sun Dec  6 11:00:00 2026"), NOW], Some(86_400_000)),
        (&[("retry-after", "Fri Nov 20 11:00:30"), NOW], None),
        (&[("x-ratelimit-reset", "1795172460000"), NOW], Some(60_000)),
        (&[("x-ratelimit-reset", "1795172460"), NOW], Some(60_000)),
        (&[("x-ratelimit-reset", "12")], Some(12_000)),
        (&[("x-ratelimit-reset-requests", "6m0s"), ("x-ratelimit-reset-tokens", "120ms")], Some(120)),
        (
            &[
                ("x-ratelimit-reset-requests", "1h2m3s"),
                ("x-ratelimit-remaining-requests", "0"),
                ("x-ratelimit-reset-tokens", "1.5s"),
            ],
            Some(3_723_000),
        ),
        (&[("anthropic-ratelimit-requests-reset", "2026-11-20T11:00:12Z"), NOW], Some(12_000)),
        (&[("x-ratelimit-reset-tokens", "s"), ("x-ratelimit-reset", "1x")], None),
        (
            &[
                ("x-ratelimit-remaining-requests-day", "0"),
                ("x-ratelimit-reset-requests-day", "7200.5"),
                ("x-ratelimit-remaining-tokens-minute", "60"),
                ("x-ratelimit-reset-tokens-minute", "12.5"),
            ],
            Some(7_200_500),
        ),
        (&[("ratelimitbysize-reset", "12"), ("x-rate-limit-reset", "30")], Some(12_000)),
        (
            &[("llm_provider-retry-after", "7"), ("llm_provider-x-ratelimit-reset-requests", "1s")],
            Some(7_000),
        ),
        (&[("llm_provider-x-ratelimit-reset-requests", "3s")], Some(3_000)),
        (&[("x-ratelimit-remaining-requests-day", "9"), ("x-ratelimit-reset-requests-day", "7200")], None),
        (&[("x-ratelimit-limit-requests", "3"), ("x-preset", "3"), ("reset", "3")], None),
    ];
    for (headers, wait_ms) in cases {
        assert_eq!(error(429, headers, "").retry_after_ms, *wait_ms, "{headers:?}");
    }
    let google = r#"{"error":{"details":[{"@type":"…RetryInfo","retryDelay":"48.5s"}]}}"#;
    assert_eq!(error(429, &[], google).retry_after_ms, Some(48_500));
    assert_eq!(error(400, &[("retry-after", "2")], "").retry_after_ms, None, "waiting does not help");
    assert_eq!(error(503, &[("retry-after", "2")], "").retry_after_ms, Some(2_000));
    assert_eq!(error(503, &[("x-ratelimit-reset", "20")], "").retry_after_ms, None, "no limit was hit");
}

#[test]
fn a_message_says_what_the_provider_said_in_one_line() {
    let cases = [
        (
            429,
            r#"{"error":{"message":"Slow\n down,\tplease."}}"#,
            "the provider answered 429: Slow down, please.",
        ),
        (500, "", "the provider answered 500 without saying why"),
        (500, "{}", "the provider answered 500 without saying why"),
        (502, "Bad gateway", "the provider answered 502: Bad gateway"),
        (
            503,
            "<html><head><TITLE>Down for repairs</TITLE></head>",
            "the provider answered 503 with a web page: Down for repairs",
        ),
        (404, r#"{"detail":"Not Found"}"#, "the provider answered 404: Not Found"),
        (402, r#"{"detail":{"error":"Top up."}}"#, "the provider answered 402: Top up."),
        (
            422,
            r#"{"object":"error","message":{"detail":[{"loc":["body","tools",0,"x"],"msg":"Not known"}]}}"#,
            "the provider answered 422: body.tools.0.x: Not known",
        ),
        (400, r#"{"errors":{"message":"Bad input","code":5006}}"#, "the provider answered 400: Bad input"),
        (
            400,
            "event: error\ndata: {\"error\":{\"message\":\"Incorrect\",\"param\":\"Say more.\"}}\n\n",
            "the provider answered 400: Incorrect: Say more.",
        ),
        (
            500,
            r#"{"error":{"message":"Provider returned error","metadata":{"raw":"disk full"}}}"#,
            "the provider answered 500: Provider returned error: disk full",
        ),
    ];
    for (status, body, message) in cases {
        assert_eq!(error(status, &[], body).message, message);
    }
    let moved = error(301, &[("location", "https://new.test/v1")], "");
    assert!(moved.message.contains("https://new.test/v1"), "{moved}");
    let long = error(500, &[], &"ä".repeat(100_000));
    assert!(long.message.chars().count() < 1_100 && long.message.ends_with('…'), "{long}");
}

#[test]
fn keys_in_messages_are_masked() {
    for key in ["sk-proj-abcdefgh12345678", "gsk_abcdefgh1234", "AIzaSyAbcdefgh1234"] {
        for said in [format!("Incorrect API key: {key}."), format!("?key={key}&x"), format!("'{key}'")] {
            let body = serde_json::json!({ "error": { "message": said } }).to_string();
            let message = error(401, &[], &body).message;
            assert!(!message.contains(key) && message.contains("[masked]"), "{message}");
        }
    }
    let bearer = error(401, &[], "the header was: Bearer 0123456789abcdef");
    assert!(!bearer.message.contains("0123456789abcdef"), "{bearer}");
    let words = error(400, &[], "bearer tokens of a risk-averse key-holder");
    assert!(!words.message.contains("masked a"), "{words}");
}

#[test]
fn a_secret_shows_itself_to_nobody() {
    let secret = Secret::new(" hunter2hunter2\n");
    assert_eq!(secret.expose(), "hunter2hunter2");
    let mut options = Options::new("http://localhost/v1", "m");
    options.key = Some(secret.clone());
    options.headers.push(("api-key".to_owned(), secret.clone()));
    let codec = Codec::new(options.clone());
    let shown = format!("{secret} {secret:?} {options:?} {codec:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_field_that_a_server_does_not_know_is_named_with_what_to_switch_off() {
    let codec = Codec::new(Options::new("http://localhost/v1", "m"));
    let refusal = |status, message: &str| {
        let body = serde_json::json!({ "error": { "message": message } }).to_string();
        codec.failure(&ResponseHead { status, headers: Vec::new() }, body.as_bytes()).message
    };
    assert!(refusal(400, "Unknown field: stream_options").contains("switch `include_usage` off"));
    for said in ["reasoning_content: extra field", "`messages[3].reasoning`: not supported with this model"] {
        assert!(refusal(422, said).contains("switch `replay_reasoning` off"), "{said}");
    }
    let wanted = "The `reasoning_content` must be passed back to the API.";
    assert!(!refusal(400, wanted).contains("switch"));
    let silent = Options { replay_reasoning: false, ..Options::new("http://localhost/v1", "m") };
    let head = ResponseHead { status: 400, headers: Vec::new() };
    let refused = Codec::new(silent).failure(&head, wanted.as_bytes());
    assert!(refused.message.contains("switch `replay_reasoning` on"), "{refused}");
    let listed = r#"{"detail":[{"loc":["body","stream_options"],"msg":"Extra inputs are not permitted"}]}"#;
    let head = ResponseHead { status: 422, headers: Vec::new() };
    assert!(codec.failure(&head, listed.as_bytes()).message.contains("switch `include_usage` off"));
    let renamed = "'max_tokens' is not supported. Use 'max_completion_tokens' instead.";
    assert!(refusal(400, renamed).contains("`max_completion_tokens` among the `parameters`"));
    assert!(!refusal(400, "Unknown field: top_k").contains("switch"));
    assert!(!refusal(500, "stream_options").contains("switch"));
}
