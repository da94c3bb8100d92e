"""What Anthropic's library reads of an answer."""

import json

import anthropic

QUESTION = [{"role": "user", "content": "What is the weather in Florence?"}]
OURS = ("text", "thinking", "redacted_thinking", "tool_use")


def failure(error):
    return {"error": {"http_status": getattr(error, "status_code", None), "said": str(error)[:200]}}


def messages(url, streamed):
    client = anthropic.Anthropic(base_url=url, api_key="test-key", max_retries=0, timeout=20)
    asked = {"model": "test-model", "messages": QUESTION, "max_tokens": 1_000}
    if not streamed:
        return message(client.messages.create(**asked))
    with client.messages.stream(**asked) as stream:
        return message(stream.get_final_message())


def message(answer):
    blocks = answer.content
    calls = [block for block in blocks if block.type == "tool_use"]
    return {
        "text": "".join(block.text for block in blocks if block.type == "text"),
        "reasoning_text": "".join(block.thinking for block in blocks if block.type == "thinking"),
        "tool_calls": [
            {"id": call.id, "name": call.name, "arguments": json.dumps(call.input)} for call in calls
        ],
        "other_items": [block.type for block in blocks if block.type not in OURS],
        "finish_reason_raw": answer.stop_reason,
        "usage": usage(answer.usage),
        "response_id": answer.id,
    }


def usage(said):
    if said is None:
        return None
    read, written = said.cache_read_input_tokens or 0, said.cache_creation_input_tokens or 0
    details = said.output_tokens_details
    return {
        # The wire leaves out what a cache had or got.
        "input_tokens": (said.input_tokens or 0) + read + written,
        "cached_input_tokens": read,
        "cache_write_tokens": written,
        "output_tokens": said.output_tokens,
        "reasoning_tokens": details and details.thinking_tokens,
    }
