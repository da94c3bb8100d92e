"""What OpenAI's library reads of an answer, on its two wires."""

import openai

QUESTION = [{"role": "user", "content": "What is the weather in Florence?"}]


def client(url):
    return openai.OpenAI(base_url=url, api_key="test-key", max_retries=0, timeout=20)


def failure(error):
    return {"error": {"http_status": getattr(error, "status_code", None), "said": str(error)[:200]}}


def chat(url, streamed):
    asked = {"model": "test-model", "messages": QUESTION}
    completions = client(url).chat.completions
    try:
        if not streamed:
            return chat_answer(completions.create(**asked))
        with completions.stream(**asked, stream_options={"include_usage": True}) as stream:
            return chat_answer(stream.get_final_completion())
    except (openai.LengthFinishReasonError, openai.ContentFilterFinishReasonError) as ended:
        # The library tells of these ends by raising, with the answer.
        return chat_answer(ended.completion)


def chat_answer(answer):
    choice = answer.choices[0]
    message = choice.message
    reasoning = (getattr(message, name, None) for name in ("reasoning_content", "reasoning"))
    calls = [call.function for call in message.tool_calls or []]
    return {
        "text": message.content or "",
        "refusal": message.refusal,
        "reasoning_text": next((text for text in reasoning if text), ""),
        "tool_calls": [
            {"id": call.id, "name": function.name, "arguments": function.arguments}
            for call, function in zip(message.tool_calls or [], calls)
        ],
        "finish_reason_raw": choice.finish_reason,
        "usage": chat_usage(answer.usage),
        "response_id": answer.id,
    }


def chat_usage(usage):
    if usage is None:
        return None
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    return {
        "input_tokens": usage.prompt_tokens,
        "cached_input_tokens": prompt and prompt.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "reasoning_tokens": completion and completion.reasoning_tokens,
    }


def responses(url, streamed):
    asked = {"model": "test-model", "input": QUESTION}
    if not streamed:
        return response_answer(client(url).responses.create(**asked))
    last, items = None, []
    with client(url).responses.stream(**asked) as stream:
        for event in stream:
            if event.type == "response.output_item.done":
                items.append(event.item)
            if event.type in ("response.completed", "response.incomplete", "response.failed"):
                last = event.response
    if last is None:
        raise RuntimeError("the stream ended without a response")
    # Some servers say the items once only, as they are made.
    last.output = last.output or items
    return response_answer(last)


def response_answer(answer):
    if answer.error:
        raise RuntimeError(f"the response failed: {answer.error}")
    reason = answer.incomplete_details and answer.incomplete_details.reason
    contents = [part for item in answer.output if item.type == "message" for part in item.content]
    thoughts = [
        part.text
        for item in answer.output
        if item.type == "reasoning"
        for part in [*(item.summary or []), *(item.content or [])]
    ]
    return {
        "text": "".join(part.text for part in contents if part.type == "output_text"),
        "refusal": "".join(part.refusal for part in contents if part.type == "refusal"),
        "reasoning_text": "\n\n".join(thoughts),
        "tool_calls": [response_call(item) for item in answer.output if item.type in CALLS],
        "other_items": [item.type for item in answer.output if item.type not in KNOWN],
        "finish_reason_raw": reason if answer.status == "incomplete" and reason else answer.status,
        "usage": response_usage(answer.usage),
        "response_id": answer.id,
    }


CALLS = ("function_call", "custom_tool_call")
KNOWN = ("message", "reasoning", *CALLS)


def response_call(item):
    arguments = item.arguments if item.type == "function_call" else item.input
    return {"id": item.call_id, "name": item.name, "arguments": arguments}


def response_usage(usage):
    if usage is None:
        return None
    return {
        "input_tokens": usage.input_tokens,
        "cached_input_tokens": usage.input_tokens_details and usage.input_tokens_details.cached_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.output_tokens_details and usage.output_tokens_details.reasoning_tokens,
    }
