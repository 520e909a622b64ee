"""What users of the `openai` package do. Checks that need a server of their own run when they are named."""

import asyncio
import json
import urllib.request
from typing import Literal

import openai
import pydantic
from checks import BASE, MESSAGES, MODEL, PROMPT, close, raises, run, wait

options = {"base_url": f"{BASE}/v1", "api_key": "none", "max_retries": 0, "timeout": 60}
client = openai.OpenAI(**options)
LIMITS = {"model": MODEL, "max_tokens": 8, "extra_body": {"ignore_eos": True}}
GREEDY = {**LIMITS, "prompt": PROMPT, "temperature": 0}


def completions():
    answer = client.completions.create(prompt=PROMPT, seed=1, n=2, **LIMITS)
    assert answer.object == "text_completion" and answer.model == MODEL
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert all(choice.finish_reason == "length" for choice in answer.choices)
    assert answer.usage.completion_tokens == 16
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 16
    assert answer._request_id.startswith("req_")
    for seed in [1, 2]:  # each choice can be made again alone
        again = client.completions.create(prompt=PROMPT, seed=seed, **LIMITS)
        assert again.choices[0].text == answer.choices[seed - 1].text
    assert answer.choices[0].text != answer.choices[1].text
    several = client.completions.create(prompt=[PROMPT, "The"], seed=1, n=2, **LIMITS)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert several.choices[0].text == answer.choices[0].text


def chat():
    answer = client.chat.completions.create(messages=MESSAGES, seed=1, n=2, **LIMITS)
    assert answer.object == "chat.completion" and len(answer.choices) == 2
    assert answer.choices[0].message.role == "assistant" and answer.choices[0].message.content
    assert answer.usage.completion_tokens == 16
    newer = {"model": MODEL, "max_completion_tokens": 8, "extra_body": {"ignore_eos": True}}
    parts = [{"role": "user", "content": [{"type": "text", "text": MESSAGES[0]["content"]}]}]
    again = client.chat.completions.create(messages=parts, seed=1, **newer)
    assert again.choices[0].message.content == answer.choices[0].message.content


def stop():
    whole = client.completions.create(**{**GREEDY, "max_tokens": 24}).choices[0].text
    end = whole[9:13]
    for given in [end, ["never written", end]]:
        answer = client.completions.create(stop=given, **{**GREEDY, "max_tokens": 24}).choices[0]
        assert answer.text == whole[: whole.index(end)] and answer.finish_reason == "stop"
        chunks = list(client.completions.create(stop=given, stream=True, **{**GREEDY, "max_tokens": 24}))
        assert "".join(chunk.choices[0].text for chunk in chunks) == answer.text
        assert chunks[-1].choices[0].finish_reason == "stop"


def safelmm():
    for rating in ["G", "PG"]:
        extra = {"ignore_eos": True, "safelmm": {"rating": rating, "guidance": 1.5, "use": "non-commercial"}}
        answer = client.completions.create(**{**LIMITS, "prompt": PROMPT, "seed": 2, "extra_body": extra})
        assert answer.safelmm["rating"] == rating and answer.safelmm["use"] == "non-commercial"


def streams():
    for arguments in [{}, {"n": 2}]:
        request = {**LIMITS, "prompt": PROMPT, "seed": 2, **arguments}
        whole = client.completions.create(**request)
        chunks = list(client.completions.create(stream=True, stream_options={"include_usage": True}, **request))
        assert len({chunk.id for chunk in chunks}) == len({chunk.created for chunk in chunks}) == 1
        assert all(chunk.object == "text_completion" for chunk in chunks)
        choices = [choice for chunk in chunks for choice in chunk.choices]
        for choice in whole.choices:
            mine = [piece for piece in choices if piece.index == choice.index]
            assert "".join(piece.text for piece in mine) == choice.text
            assert [piece.finish_reason for piece in mine if piece.finish_reason] == ["length"]
        assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
        assert all(chunk.usage is None for chunk in chunks[:-1])

        request = {**LIMITS, "messages": MESSAGES, "seed": 2, **arguments}
        whole = client.chat.completions.create(**request)
        chunks = list(client.chat.completions.create(stream=True, **request))
        assert chunks[0].choices[0].delta.role == "assistant" and chunks[0].object == "chat.completion.chunk"
        choices = [choice for chunk in chunks for choice in chunk.choices]
        for choice in whole.choices:
            text = "".join(piece.delta.content or "" for piece in choices if piece.index == choice.index)
            assert text == choice.message.content
        assert all(chunk.usage is None for chunk in chunks)


def logprobs():
    answer = client.completions.create(logprobs=2, **GREEDY).choices[0]
    found = answer.logprobs
    assert "".join(found.tokens) == answer.text and len(found.tokens) == 8
    for logprob, top in zip(found.token_logprobs, found.top_logprobs, strict=True):
        assert len(top) >= 2 and logprob == max(top.values()) <= 0
    chunks = list(client.completions.create(logprobs=2, stream=True, **GREEDY))
    pieces = [choice.logprobs for chunk in chunks for choice in chunk.choices if choice.logprobs]
    assert [logprob for piece in pieces for logprob in piece.token_logprobs] == found.token_logprobs
    sampled = client.completions.create(**{**GREEDY, "temperature": 1, "seed": 3, "logprobs": 1}).choices[0].logprobs
    for logprob, top in zip(sampled.token_logprobs, sampled.top_logprobs, strict=True):
        assert logprob <= max(top.values())

    request = {**LIMITS, "messages": MESSAGES, "temperature": 0, "logprobs": True, "top_logprobs": 3}
    answer = client.chat.completions.create(**request).choices[0]
    content = answer.logprobs.content
    assert len(content) == 8
    assert b"".join(bytes(token.bytes) for token in content).decode() == answer.message.content
    for token in content:
        tops = [top.logprob for top in token.top_logprobs]
        assert len(tops) == 3 and token.logprob == tops[0] and tops == sorted(tops, reverse=True)
    chunks = list(client.chat.completions.create(stream=True, **request))
    pieces = [choice.logprobs for chunk in chunks for choice in chunk.choices if choice.logprobs]
    assert [token.logprob for piece in pieces for token in piece.content] == [token.logprob for token in content]


def echo():
    plain = client.completions.create(logprobs=1, **GREEDY).choices[0]
    both = client.completions.create(logprobs=1, echo=True, **GREEDY).choices[0]
    only = client.completions.create(logprobs=1, echo=True, **{**GREEDY, "max_tokens": 0})
    prompt = only.choices[0]
    assert both.text == PROMPT + plain.text and prompt.text == PROMPT
    assert prompt.finish_reason == "length" and only.usage.completion_tokens == 0
    for choice, tokens in [(prompt, len(prompt.logprobs.tokens)), (both, len(prompt.logprobs.tokens) + 8)]:
        found = choice.logprobs
        assert {len(found.tokens), len(found.token_logprobs), len(found.top_logprobs)} == {tokens}
        assert found.token_logprobs[0] is None and all(logprob <= 0 for logprob in found.token_logprobs[1:])
        for token, offset in zip(found.tokens, found.text_offset, strict=True):
            assert choice.text[offset:].startswith(token)
    # The same bits, however much of the prompt is remembered and whatever comes after it.
    assert both.logprobs.token_logprobs == prompt.logprobs.token_logprobs + plain.logprobs.token_logprobs
    assert client.completions.create(echo=True, **GREEDY).choices[0].text == both.text


def embeddings():
    texts = ["The old house stood on the hill.", "Once upon a time", "Three small mice."]
    answer = client.embeddings.create(model=MODEL, input=texts)  # base64 on the wire
    assert [entry.index for entry in answer.data] == [0, 1, 2] and answer.usage.prompt_tokens > 10
    vectors = [entry.embedding for entry in answer.data]
    assert len({len(vector) for vector in vectors}) == 1 and len({tuple(vector) for vector in vectors}) == 3
    floats = client.embeddings.create(model=MODEL, input=texts, encoding_format="float")
    for vector, entry in zip(vectors, floats.data, strict=True):
        assert close(vector, entry.embedding, 1e-6)
    alone = client.embeddings.create(model=MODEL, input=texts[1])
    assert alone.data[0].embedding == vectors[1]
    ids = client.embeddings.create(model=MODEL, input=tokens(texts[1]))
    assert ids.data[0].embedding == vectors[1]
    for wrong in [{"input": [[10**6]]}, {"input": []}, {"input": "x", "dimensions": 3}]:
        raised = raises(openai.BadRequestError, client.embeddings.create, model=MODEL, **wrong)
        assert raised.type == "invalid_request_error" and raised.param.split("[")[0] in wrong, raised.body


def tokens(text):
    body = json.dumps({"prompt": text, "add_special_tokens": False}).encode()
    with urllib.request.urlopen(f"{BASE}/tokenize", body, timeout=60) as answer:
        return json.load(answer)["tokens"]


class Weather(pydantic.BaseModel):
    sky: Literal["blue", "grey"]
    wind: bool


class Report(pydantic.BaseModel):
    place: Literal["hill", "harbour"]
    weather: Weather


def structured():
    request = {"model": MODEL, "messages": MESSAGES, "max_tokens": 100, "seed": 1}
    answer = client.chat.completions.parse(response_format=Report, **request)
    assert isinstance(answer.choices[0].message.parsed, Report) and answer.choices[0].finish_reason == "stop"
    with client.chat.completions.stream(response_format=Report, **request) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == answer.choices[0].message.parsed


def tools():
    """The demo calls no tools, and says so."""
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
    raised = raises(openai.BadRequestError, client.chat.completions.create, messages=MESSAGES, tools=[tool], **LIMITS)
    assert raised.param == "tools" and raised.type == "invalid_request_error", raised.body


def errors():
    for error, arguments in [
        (openai.NotFoundError, {"model": "another"}),
        (openai.BadRequestError, {"temperature": -1}),
        (openai.BadRequestError, {"max_tokens": 10**6}),
        (openai.BadRequestError, {"extra_body": {"safelmm": {"rating": "NC-17"}}}),
        (openai.BadRequestError, {"extra_body": {"frobnicate": 1}}),
    ]:
        for stream in [False, True]:
            for create, content in [
                (client.completions.create, {"prompt": PROMPT}),
                (client.chat.completions.create, {"messages": MESSAGES}),
            ]:
                raised = raises(error, create, **{**LIMITS, **content, "stream": stream, **arguments})
                assert raised.type == "invalid_request_error" and raised.param, raised.body
                if error is openai.NotFoundError:
                    assert raised.code == "model_not_found"
                if "max_tokens" in arguments:
                    assert "This model's maximum context length is" in str(raised)
                    assert raised.code == "context_length_exceeded"


def models():
    assert [entry.id for entry in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "safelmm"


def asynchronous():
    async def all_of_it():
        async with openai.AsyncOpenAI(**options) as client:
            requests = [client.completions.create(prompt=PROMPT, seed=seed, **LIMITS) for seed in range(6)]
            answers = await asyncio.gather(*requests)
            alone = await client.completions.create(prompt=PROMPT, seed=3, **LIMITS)
            assert answers[3].choices[0].text == alone.choices[0].text
            stream = await client.completions.create(prompt=PROMPT, stream=True, seed=3, **LIMITS)
            assert "".join([chunk.choices[0].text async for chunk in stream]) == alone.choices[0].text
            stream = await client.chat.completions.create(messages=MESSAGES, stream=True, seed=4, **LIMITS)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            whole = await client.chat.completions.create(messages=MESSAGES, seed=4, **LIMITS)
            assert text == whole.choices[0].message.content

    wait(all_of_it())


def busy():
    """On a server whose queue is full until the word `refused` is printed: the client waits, asks again and succeeds."""
    raised = raises(openai.RateLimitError, client.completions.create, prompt=PROMPT, **LIMITS)
    assert raised.type == "rate_limit_error" and int(raised.response.headers["retry-after"]) >= 1
    seen = []

    def note(response):
        seen.append(response.status_code)
        if len(seen) == 1:
            print("refused", flush=True)

    patient = openai.OpenAI(
        **{**options, "max_retries": 20}, http_client=openai.DefaultHttpxClient(event_hooks={"response": [note]})
    )
    answer = patient.completions.create(prompt=PROMPT, **LIMITS)
    assert answer.usage.completion_tokens == 8 and seen[0] == 429 and seen[-1] == 200, seen


def keys():
    """On a server that asks for keys, with one in OPENAI_API_KEY, where the client looks for it."""
    own = {**options, "api_key": None}
    assert openai.OpenAI(**own).completions.create(prompt=PROMPT, **LIMITS).usage.completion_tokens == 8
    raised = raises(openai.AuthenticationError, client.completions.create, prompt=PROMPT, **LIMITS)
    assert raised.code == "invalid_api_key" and raised.type == "invalid_request_error", raised.body
    raises(openai.AuthenticationError, client.models.list)


run(
    [completions, chat, stop, safelmm, streams, logprobs, echo, embeddings, structured, tools, errors, models, asynchronous],
    when_named=[busy, keys],
)
