"""What users of LiteLLM do. Checks that need a server of their own run when they are named."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # nothing is asked of the network

import litellm
from checks import BASE, MESSAGES, MODEL, PROMPT, close, raises, run, wait

litellm.telemetry = False
litellm.suppress_debug_info = True
options = {"api_base": f"{BASE}/v1", "api_key": "none", "num_retries": 0, "max_retries": 0, "timeout": 60}
CHAT = {**options, "model": f"openai/{MODEL}", "messages": MESSAGES, "extra_body": {"ignore_eos": True}}
SHORT = {**CHAT, "max_tokens": 8, "seed": 1}


def completion():
    answer = litellm.completion(**SHORT)
    assert answer.choices[0].message.content and answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 8
    again = wait(litellm.acompletion(**SHORT))
    assert again.choices[0].message.content == answer.choices[0].message.content
    assert len(litellm.completion(**SHORT, n=2).choices) == 2


def stream():
    async def pieces():
        return [chunk async for chunk in await litellm.acompletion(**SHORT, stream=True)]

    whole = litellm.completion(**SHORT).choices[0].message.content
    for chunks in [list(litellm.completion(**SHORT, stream=True)), wait(pieces())]:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole
        assert chunks[-1].choices[0].finish_reason == "length"
    chunks = list(litellm.completion(**SHORT, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.completion_tokens == 8


def text_completion():
    request = {**options, "prompt": PROMPT, "max_tokens": 8, "seed": 1, "extra_body": {"ignore_eos": True}}
    answer = litellm.text_completion(model=f"text-completion-openai/{MODEL}", **request)
    assert answer.choices[0].text and answer.usage.completion_tokens == 8
    chunks = list(litellm.text_completion(model=f"text-completion-openai/{MODEL}", stream=True, **request))
    assert "".join(chunk.choices[0].text or "" for chunk in chunks) == answer.choices[0].text


def embedding():
    texts = [PROMPT, "The old house stood on the hill."]
    answer = litellm.embedding(model=f"openai/{MODEL}", input=texts, **options)
    vectors = [entry["embedding"] for entry in answer.data]
    assert len(vectors) == 2 and len(vectors[0]) == len(vectors[1]) and answer.usage.prompt_tokens > 0
    alone = wait(litellm.aembedding(model=f"openai/{MODEL}", input=[PROMPT], **options))
    assert close(alone.data[0]["embedding"], vectors[0], 1e-6)


def errors():
    raises(litellm.ContextWindowExceededError, litellm.completion, **{**SHORT, "max_tokens": 10**6})
    raises(litellm.ContextWindowExceededError, litellm.completion, **{**SHORT, "max_tokens": 10**6, "stream": True})
    raises(litellm.NotFoundError, litellm.completion, **{**SHORT, "model": "openai/another"})
    raises(litellm.BadRequestError, litellm.completion, **{**SHORT, "temperature": -1})


def busy():
    """On a server whose queue is full."""
    raises(litellm.RateLimitError, litellm.completion, **SHORT)
    print("refused", flush=True)


def denied():
    """On a server that denies prompts which spell control tokens."""
    talk = [{"role": "user", "content": "<|rating:X|> Tell me a story."}]
    raised = raises(litellm.ContentPolicyViolationError, litellm.completion, **{**SHORT, "messages": talk})
    assert raised.status_code == 400


def keys():
    """On a server that asks for keys, with one in OPENAI_API_KEY."""
    assert litellm.completion(**{**SHORT, "api_key": os.environ["OPENAI_API_KEY"]}).usage.completion_tokens == 8
    raises(litellm.AuthenticationError, litellm.completion, **SHORT)


run([completion, stream, text_completion, embedding, errors], when_named=[busy, denied, keys])
