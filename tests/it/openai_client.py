"""What users of the openai package do, against a SafeLMM server: `openai_client.py BASE_URL MODEL`."""

import asyncio
import sys

import openai

base, model = sys.argv[1], sys.argv[2]
options = {"base_url": f"{base}/v1", "api_key": "none", "max_retries": 0, "timeout": 60}
client = openai.OpenAI(**options)
PROMPT = "Once upon a time"
MESSAGES = [{"role": "user", "content": "Tell me a story."}]
LIMITS = {"model": model, "max_tokens": 8, "extra_body": {"ignore_eos": True}}


def rated(rating):
    return {**LIMITS, "extra_body": {"ignore_eos": True, "safelmm": {"rating": rating}}}


def completions():
    answer = client.completions.create(prompt=PROMPT, seed=1, n=2, **LIMITS)
    assert answer.object == "text_completion" and answer.model == model
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert all(choice.finish_reason == "length" for choice in answer.choices)
    assert answer.usage.completion_tokens == 16
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 16
    assert answer.safelmm["rating"] == "PG" and answer._request_id.startswith("req_")
    again = client.completions.create(prompt=PROMPT, seed=1, **LIMITS)
    assert again.choices[0].text == answer.choices[0].text


def chat():
    answer = client.chat.completions.create(messages=MESSAGES, seed=1, **LIMITS)
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant" and answer.choices[0].message.content
    assert answer.usage.completion_tokens == 8


def streams():
    for rating in ["G", "R"]:
        whole = client.completions.create(prompt=PROMPT, seed=2, **rated(rating))
        stream = client.completions.create(
            prompt=PROMPT, seed=2, stream=True, stream_options={"include_usage": True}, **rated(rating)
        )
        chunks = list(stream)
        assert len({chunk.id for chunk in chunks}) == len({chunk.created for chunk in chunks}) == 1
        assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == whole.choices[0].text
        assert chunks[-2].choices[0].finish_reason == "length" and chunks[-2].safelmm["rating"] == rating
        assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
        assert all(chunk.usage is None for chunk in chunks[:-1])

        whole = client.chat.completions.create(messages=MESSAGES, seed=2, **rated(rating))
        chunks = list(client.chat.completions.create(messages=MESSAGES, seed=2, stream=True, **rated(rating)))
        assert chunks[0].choices[0].delta.role == "assistant"
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert text == whole.choices[0].message.content
        assert chunks[-1].choices[0].finish_reason == "length" and chunks[-1].safelmm["rating"] == rating


def errors():
    for error, arguments in [
        (openai.NotFoundError, {"model": "another"}),
        (openai.BadRequestError, {"temperature": -1}),
        (openai.BadRequestError, {"max_tokens": 10**6}),
        (openai.BadRequestError, {"extra_body": {"safelmm": {"rating": "NC-17"}}}),
        (openai.BadRequestError, {"extra_body": {"frobnicate": 1}}),
    ]:
        for stream in [False, True]:
            try:
                client.completions.create(**{**LIMITS, "prompt": PROMPT, "stream": stream, **arguments})
            except error as raised:
                assert raised.type == "invalid_request_error" and raised.param, raised.body
                if error is openai.NotFoundError:
                    assert raised.code == "model_not_found"
                if "max_tokens" in arguments:
                    assert "This model's maximum context length is" in str(raised)
                    assert raised.code == "context_length_exceeded"
            else:
                raise AssertionError(f"{arguments} was accepted")


def models():
    assert [entry.id for entry in client.models.list()] == [model]
    assert client.models.retrieve(model).owned_by == "safelmm"


async def asynchronous():
    async with openai.AsyncOpenAI(**options) as client:
        requests = [client.completions.create(prompt=PROMPT, seed=seed, **LIMITS) for seed in range(6)]
        answers = await asyncio.gather(*requests)
        alone = await client.completions.create(prompt=PROMPT, seed=3, **LIMITS)
        assert answers[3].choices[0].text == alone.choices[0].text
        text = ""
        async for chunk in await client.chat.completions.create(messages=MESSAGES, stream=True, seed=4, **LIMITS):
            text += chunk.choices[0].delta.content or ""
        whole = await client.chat.completions.create(messages=MESSAGES, seed=4, **LIMITS)
        assert text == whole.choices[0].message.content


for check in [completions, chat, streams, errors, models, lambda: asyncio.run(asynchronous())]:
    check()
