"""What users of LangChain do, by its package for servers of the OpenAI API."""

from typing import Literal

import openai
import pydantic
import tiktoken
from checks import BASE, MODEL, PROMPT, close, raises, run, wait
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

TALK = [("system", "You tell stories."), ("human", "Tell me a story.")]
options = {"model": MODEL, "base_url": f"{BASE}/v1", "api_key": "none", "max_retries": 0, "timeout": 60}
chat = ChatOpenAI(**options, temperature=0, seed=1, max_tokens=8, extra_body={"ignore_eos": True})


def invoke():
    answer = chat.invoke(TALK)
    assert answer.content and answer.response_metadata["finish_reason"] == "length"
    assert answer.usage_metadata["output_tokens"] == 8 and answer.response_metadata["model_name"] == MODEL
    assert wait(chat.ainvoke(TALK)).content == answer.content
    assert chat.invoke([*TALK, answer, ("human", "And then?")]).content
    assert chat.bind(stop=[answer.content[3:6]]).invoke(TALK).content == answer.content[:3]
    rated = ChatOpenAI(**options, max_tokens=8, extra_body={"safelmm": {"rating": "G"}})
    assert rated.invoke(TALK).content


def stream():
    async def pieces():
        return [piece async for piece in chat.astream(TALK)]

    whole = chat.invoke(TALK)
    for chunks in [list(chat.stream(TALK)), wait(pieces())]:
        assert len(chunks) > 2 and "".join(chunk.content for chunk in chunks) == whole.content
    usage = list(chat.stream(TALK, stream_usage=True))
    assert sum(chunk.usage_metadata["output_tokens"] for chunk in usage if chunk.usage_metadata) == 8


def batch():
    talks = [[("human", f"Tell me story {number}.")] for number in range(5)]
    answers = chat.batch(talks)
    assert answers[3].content == chat.invoke(talks[3]).content
    assert [a.content for a in wait(chat.abatch(talks))] == [a.content for a in answers]


def logprobs():
    answer = chat.bind(logprobs=True, top_logprobs=2).invoke(TALK)
    content = answer.response_metadata["logprobs"]["content"]
    assert len(content) == 8 and all(token["logprob"] <= 0 for token in content)


class Report(pydantic.BaseModel):
    """What a story is about."""

    hero: Literal["fox", "bear"]
    brave: bool


def structured():
    roomy = ChatOpenAI(**options, seed=1, max_tokens=100)
    answer = roomy.with_structured_output(Report, method="json_schema").invoke(TALK)
    assert isinstance(answer, Report)
    assert roomy.with_structured_output(Report, method="json_schema", include_raw=True).invoke(TALK)["parsed"] == answer


def errors():
    assert raises(openai.NotFoundError, ChatOpenAI(**{**options, "model": "another"}).invoke, TALK).code == "model_not_found"
    long = ChatOpenAI(**options, max_tokens=10**6)
    raised = raises(openai.BadRequestError, long.invoke, TALK)
    assert "This model's maximum context length is" in str(raised)
    raises(openai.BadRequestError, chat.bind_tools([Report]).invoke, TALK)


def embeddings():
    texts = [PROMPT, "The old house stood on the hill."]
    # Texts go out as ids of a vocabulary of tiktoken's, which the model does not have: those beyond its own must be
    # refused. This one stands in for the real one, which tiktoken would download.
    ranks = {bytes([byte]): 50_000 + byte for byte in range(256)}
    foreign = tiktoken.Encoding("foreign", pat_str="(?s).", mergeable_ranks=ranks, special_tokens={})
    tiktoken.get_encoding = lambda name: foreign
    raised = raises(openai.BadRequestError, OpenAIEmbeddings(**options).embed_documents, texts)
    assert raised.param.startswith("input") and "500" in str(raised), raised.body
    # With this switch they go out as texts.
    plain = OpenAIEmbeddings(**options, check_embedding_ctx_length=False)
    vectors = plain.embed_documents(texts)
    assert len(vectors) == 2 and close(plain.embed_query(PROMPT), vectors[0], 1e-6)
    assert wait(plain.aembed_documents(texts)) == vectors


run([invoke, stream, batch, logprobs, structured, errors, embeddings])
