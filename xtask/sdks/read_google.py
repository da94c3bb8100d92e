"""What Google's library reads of an answer."""

import json

from google import genai
from google.genai import types

QUESTION = "What is the weather in Florence?"


def failure(error):
    return {"error": {"http_status": getattr(error, "code", None), "said": str(error)[:200]}}


def contents(url, streamed):
    once = types.HttpOptions(
        base_url=url, timeout=20_000, retry_options=types.HttpRetryOptions(attempts=1)
    )
    asked = {"model": "test-model", "contents": QUESTION}
    with genai.Client(api_key="test-key", http_options=once) as client:
        if streamed:
            return answer(list(client.models.generate_content_stream(**asked)))
        return answer([client.models.generate_content(**asked)])


def answer(chunks):
    candidates = [it for chunk in chunks for it in chunk.candidates or [] if not it.index]
    parts = [part for it in candidates if it.content for part in it.content.parts or []]
    spoken = [part for part in parts if part.text]
    reasons = [it.finish_reason for it in candidates if it.finish_reason]
    blocked = [chunk.prompt_feedback.block_reason for chunk in chunks if chunk.prompt_feedback]
    ids = [chunk.response_id for chunk in chunks if chunk.response_id]
    end = (reasons or [it for it in blocked if it] or [None])[-1]
    return {
        "text": "".join(part.text for part in spoken if not part.thought),
        "reasoning_text": "".join(part.text for part in spoken if part.thought),
        "tool_calls": [call(part.function_call) for part in parts if part.function_call],
        "finish_reason_raw": end and end.value,
        "usage": usage([chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]),
        "response_id": ids[0] if ids else None,
    }


def call(said):
    return {"id": said.id, "name": said.name, "arguments": json.dumps(said.args or {})}


def usage(said):
    """Joins what the chunks say: of each number the last one counts."""
    if not said:
        return None

    def last(name):
        numbers = [getattr(it, name) for it in said if getattr(it, name) is not None]
        return numbers[-1] if numbers else 0

    return {
        "input_tokens": last("prompt_token_count") + last("tool_use_prompt_token_count"),
        "cached_input_tokens": last("cached_content_token_count"),
        "output_tokens": last("candidates_token_count") + last("thoughts_token_count"),
        "reasoning_tokens": last("thoughts_token_count"),
    }
