"""The answers, in OpenAI's shape, as the OpenAPI document tells them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Finish = Literal["stop", "length"]


class _Reply(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class Usage(_Reply):
    """Counts of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TopLogprob(_Reply):
    """A token that could have stood there."""

    token: str
    logprob: float
    bytes: list[int] | None
    """UTF-8; null for a token that holds a part of a character."""


class TokenLogprob(TopLogprob):
    """A token of the answer; ``logprob`` is the natural log of its probability."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(_Reply):
    """Of the tokens of ``content``."""

    content: list[TokenLogprob]
    refusal: None


class AnswerMessage(_Reply):
    """What the model says."""

    role: Literal["assistant"]
    content: str
    refusal: None
    reasoning_content: str | None = None
    """What a reasoning model thought before; only where its template opens with a thought."""


class ChatChoice(_Reply):
    """One of ``n`` answers."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: Finish


class ChatCompletion(_Reply):
    """The answer to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[ChatChoice]
    usage: Usage


class TextLogprobs(_Reply):
    """Parallel lists, an entry for each token."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(_Reply):
    """One of ``n`` answers to one of the prompts."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Finish


class Completion(_Reply):
    """What a text goes on with."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[TextChoice]
    usage: Usage


class Generated(_Reply):
    """The answer to a question; ``response`` and ``text`` are the same."""

    id: str
    model: str
    response: str
    text: str
    reasoning_content: str | None = None
    finish_reason: Finish
    usage: Usage


class Model(_Reply):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    description: str
    max_model_len: int
    """The most tokens of prompt and answer together."""


class ModelList(_Reply):
    """The models that are served; the first answers where none is named."""

    object: Literal["list"]
    data: list[Model]


class Status(_Reply):
    """How the server is."""

    status: Literal["ok"]
    engine: str
    models: list[str]


class Tokens(_Reply):
    """The ids of a rendered conversation."""

    tokens: list[int]
    count: int
    max_model_len: int
