//! The rules by which answers are read, each with cases of ours that would be read otherwise without it. The cases
//! themselves are checked in `wire`.

use std::path::Path;

use crate::wire::OUR_CASES;

/// Each rule, and the cases that hold it: folder and name.
const RULES: [(&str, &[&str]); 40] = [
    (
        "an ordinary end with calls is a request for tools",
        &[
            "openai_chat/tool_calls_and_stop",
            "openai_responses/tool_call",
            "anthropic/tool_call_and_end_turn",
            "gemini/call_without_id",
        ],
    ),
    (
        "an answer cut by its length stays that, also within a call",
        &[
            "openai_chat/length_with_half_a_call",
            "openai_responses/length_with_half_a_call",
            "anthropic/length_with_half_a_call",
            "gemini/call_half_written_at_the_length_limit",
        ],
    ),
    (
        "an incomplete response says why in its details",
        &[
            "openai_responses/length",
            "openai_responses/content_filter",
            "openai_responses/incomplete_without_reason",
        ],
    ),
    (
        "a refusal and a block are a content filter's",
        &[
            "anthropic/refusal",
            "gemini/prompt_blocked",
            "gemini/filtered_safety",
            "openai_chat/content_filter",
        ],
    ),
    ("a paused turn is neither a stop nor an error", &["anthropic/pause_turn"]),
    (
        "a text that is marked as a refusal is kept as one",
        &["openai_chat/refusal", "openai_responses/refusal"],
    ),
    (
        "the input is the whole prompt, cached and written to a cache or not",
        &["anthropic/usage_of_caches_is_part_of_input"],
    ),
    (
        "the output includes the reasoning, also where the provider leaves it out",
        &[
            "gemini/usage_with_thoughts_before_words",
            "openai_chat/usage_leaves_reasoning_out",
            "openai_responses/usage_reasoning_beside_output",
        ],
    ),
    (
        "a usage that nobody tells is none",
        &[
            "openai_chat/usage_never_said",
            "openai_responses/usage_never_said",
            "anthropic/usage_never_said",
            "gemini/usage_never_said",
        ],
    ),
    (
        "of each field of the usage, the last value counts",
        &[
            "openai_chat/usage_last_value_of_each_field_counts",
            "openai_responses/usage_last_value_counts",
            "anthropic/usage_last_value_of_each_field_counts",
            "gemini/text_with_growing_usage",
        ],
    ),
    ("a total may exceed its parts", &["gemini/usage_total_exceeds_parts"]),
    (
        "an error within a stream ends it, and what had arrived is kept",
        &[
            "openai_chat/error_mid_stream",
            "openai_responses/failed",
            "anthropic/error_overloaded_mid_stream",
            "gemini/error_mid_stream",
        ],
    ),
    (
        "what may pass is tried again",
        &[
            "openai_chat/status_408",
            "openai_chat/status_429_rate_limit",
            "openai_chat/status_500",
            "openai_chat/status_529",
            "gemini/status_503",
            "anthropic/status_504",
        ],
    ),
    ("what the server does not know is not tried again", &["openai_chat/status_501"]),
    (
        "spent credit is not tried again",
        &[
            "openai_chat/status_429_no_credit",
            "anthropic/status_400_credit",
            "gemini/status_429_no_credit",
            "openai_responses/status_429_quota",
        ],
    ),
    (
        "a wait in milliseconds is respected before one in seconds",
        &["openai_chat/status_429_rate_limit", "openai_responses/status_429"],
    ),
    ("a wait in seconds is respected", &["anthropic/status_429"]),
    ("a wait until a date is respected", &["openai_chat/status_429_date"]),
    (
        "a wait in Google's details is respected",
        &["gemini/status_429_rate_limit", "openai_chat/status_429_retry_info"],
    ),
    (
        "a stream that stops without its end is no answer",
        &[
            "openai_chat/ends_without_finish_reason",
            "openai_responses/ends_without_end",
            "anthropic/ends_without_reason",
            "gemini/ends_without_finish_reason",
        ],
    ),
    (
        "a finish reason ends a stream of Chat Completions, with or without `[DONE]`",
        &["openai_chat/finish_without_done", "openai_chat/done_without_finish_reason"],
    ),
    (
        "a call without an id gets one",
        &[
            "openai_chat/tool_ids_missing",
            "openai_responses/tool_without_any_id",
            "anthropic/tool_ids_missing",
            "gemini/call_without_id",
        ],
    ),
    (
        "a call without arguments has none",
        &[
            "openai_chat/tool_without_arguments",
            "openai_responses/tool_without_arguments",
            "anthropic/tool_without_arguments",
            "gemini/calls_without_arguments",
        ],
    ),
    (
        "arguments that are no JSON are kept as they came",
        &[
            "openai_chat/tool_arguments_are_no_json",
            "openai_responses/tool_arguments_no_json",
            "anthropic/tool_arguments_are_no_json",
            "gemini/call_with_arguments_that_are_no_json",
        ],
    ),
    (
        "arguments come in one piece, in many, and interleaved",
        &[
            "openai_chat/tool_arguments_in_one_piece",
            "openai_chat/tool_arguments_in_pieces",
            "openai_chat/tool_calls_interleaved",
            "openai_responses/tool_calls_interleaved",
            "anthropic/tool_calls_interleaved",
        ],
    ),
    (
        "what the provider ran itself is carried and never an error",
        &[
            "openai_responses/provider_items_of_all_kinds",
            "anthropic/provider_search_with_citations",
            "gemini/code_that_google_ran",
        ],
    ),
    (
        "signatures and encrypted reasoning are kept",
        &[
            "openai_chat/reasoning_details_with_signature",
            "openai_responses/reasoning_hidden",
            "anthropic/thinking_with_signature",
            "gemini/thought_with_a_signature",
        ],
    ),
    (
        "an answer may have several texts",
        &[
            "openai_responses/two_messages",
            "openai_responses/two_parts_in_a_message",
            "anthropic/several_text_blocks",
        ],
    ),
    (
        "the usage comes in a last chunk without choices, and is null before",
        &["openai_chat/usage_in_own_final_chunk"],
    ),
    ("the usage comes with the finish chunk", &["openai_chat/usage_with_finish_chunk_and_repeated"]),
    ("contents are null, empty or missing, and deltas empty", &["openai_chat/content_null_empty_missing"]),
    (
        "the role is in every delta, and the finish reason comes twice",
        &["openai_chat/role_in_every_delta_finish_twice_comments"],
    ),
    ("the finish chunk has content", &["openai_chat/content_in_finish_chunk"]),
    ("the first chunk has neither id nor choices", &["openai_chat/first_chunk_without_id_and_choices"]),
    (
        "ids change from chunk to chunk",
        &["openai_chat/changing_ids", "openai_responses/ids_change_with_every_event", "gemini/id_changes"],
    ),
    (
        "comments, pings and unknown events mean nothing",
        &[
            "anthropic/pings_comments_and_unknown_events",
            "openai_responses/comments_and_keepalives",
            "gemini/comments_and_names_of_events",
        ],
    ),
    (
        "lines end as they like, JSON is padded, and blank lines come first",
        &[
            "gemini/crlf_and_usage_after_the_finish_reason",
            "anthropic/json_padded_with_spaces",
            "openai_chat/document_with_calls_and_reasoning",
        ],
    ),
    (
        "Gemini signs calls and empty texts, and sends an array for a stream",
        &[
            "gemini/calls_in_parallel_the_first_signed",
            "gemini/signature_on_an_empty_text",
            "gemini/array_for_a_stream",
        ],
    ),
    ("a bad key may be a bad request", &["gemini/status_400_bad_key", "openai_chat/status_400_bad_key"]),
    (
        "an error comes within a success, or as a page of HTML",
        &[
            "openai_chat/error_json_instead_of_stream",
            "openai_responses/error_json_instead_of_stream",
            "anthropic/error_json_instead_of_stream",
            "gemini/error_document_instead_of_a_stream",
            "openai_chat/html_instead_of_json",
            "openai_responses/html_instead_of_json",
            "anthropic/html_instead_of_json",
            "gemini/html_instead_of_json",
        ],
    ),
];

#[test]
fn every_rule_has_its_cases() {
    for (rule, cases) in RULES {
        for case in cases {
            let path = Path::new(OUR_CASES).join(format!("{case}.json"));
            assert!(path.is_file(), "{rule}: there is no {case}");
        }
    }
}
