"""The requests, in OpenAI's shape. What is unknown is ignored, and null is as good as nothing."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Text = Annotated[str, Field(min_length=1, max_length=256)]
Nothing = Annotated[dict[str, Any], Field(max_length=0)]
_MOST_IDS = 2**31 - 1


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _whole(cls, value: object) -> object:
        return _whole_numbers(value)


def _whole_numbers(value: object, deep: int = 2) -> object:
    """Take 7.0 for 7, which JSON does not tell apart; in lists of lists, too."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list) and deep:
        return [_whole_numbers(one, deep - 1) for one in value]
    return value


class SamplingFields(_Body):
    """What all ways of asking have in common."""

    model: str | None = None
    """One of /v1/models; without it, the first of them."""

    max_tokens: int | None = Field(default=None, ge=1, le=_MOST_IDS)
    """The longest answer in tokens; it is cut where the model's context ends."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    """0 takes the likeliest token; without it, what the model was measured with."""

    top_p: float | None = Field(default=None, ge=0, le=1)
    """Sample only from the likeliest tokens that together have this probability."""

    repetition_penalty: float | None = Field(default=None, ge=0.01, le=10)
    """Above 1, tokens that occurred before become less likely. Not in OpenAI's protocol."""

    seed: int | None = None
    """With one, the same request is answered the same way."""

    stop: Text | Annotated[list[Text], Field(max_length=4)] | None = None
    """The answer ends before any of these."""


class StreamOptions(_Body):
    """What is told while streaming."""

    include_usage: bool | None = None
    """Tell the counts of tokens at the end."""


class _OpenAI(SamplingFields):
    n: int | None = Field(default=None, ge=1, le=16)
    """How many answers."""

    stream: bool | None = None
    """Send the answer as it comes, as server-sent events."""

    stream_options: StreamOptions | None = None
    """Only with stream."""

    user: str | None = None
    """Who asks; not used."""

    frequency_penalty: float | None = Field(default=None, ge=0, le=0)
    """Only 0: repetition_penalty is what there is."""

    presence_penalty: float | None = Field(default=None, ge=0, le=0)
    """Only 0: repetition_penalty is what there is."""

    logit_bias: Nothing | None = None
    """Only empty."""


class TextPart(_Body):
    """A part of a message."""

    type: Literal["text"]
    text: str


class CalledFunction(_Body):
    """The function that a tool call calls."""

    name: str
    arguments: str
    """A JSON object as text."""


class ToolCall(_Body):
    """A call the assistant made."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(_Body):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class Function(_Body):
    """A function's signature."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """A JSON schema."""
    strict: bool | None = None


class Tool(_Body):
    """A function the model may call."""

    type: Literal["function"]
    function: Function


class ResponseFormat(_Body):
    """How the answer is written."""

    type: Literal["text"]


class ChatRequest(_OpenAI):
    """A conversation to be gone on with."""

    messages: list[ChatMessage] = Field(min_length=1, fail_fast=True)
    """The turns so far."""

    max_completion_tokens: int | None = Field(default=None, ge=1, le=_MOST_IDS)
    """OpenAI's newer name of max_tokens; it goes first."""

    logprobs: bool | None = None
    """Tell the log probability of each token."""

    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    """How many likeliest alternatives are told with each token, with logprobs."""

    tools: list[Tool] | None = None
    """Passed to the model's chat template."""

    tool_choice: Literal["auto", "none"] | None = None
    """none leaves the tools out."""

    response_format: ResponseFormat | None = None
    """Only text."""


TokenId = Annotated[int, Field(ge=0, le=_MOST_IDS)]
# The first fault is told, and the others not looked for, which takes seconds of a large body.
_Ids = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
# An empty list would fit several branches, and a prompt needs a token.
_Prompt = (
    str
    | Annotated[list[str], Field(min_length=1, max_length=32)]
    | _Ids
    | Annotated[list[_Ids], Field(min_length=1, fail_fast=True)]
)


class CompletionRequest(_OpenAI):
    """A text to be gone on with, as it is: no chat template."""

    prompt: _Prompt
    """A text, a list of texts, a list of token ids, or a list of those."""

    echo: bool | None = None
    """Put the prompt before the answer."""

    logprobs: int | None = Field(default=None, ge=0, le=5)
    """Tell the log probability of each token, and so many likeliest alternatives."""

    best_of: Annotated[int, Field(ge=1, le=1)] | None = None
    """Only 1."""

    suffix: Annotated[str, Field(max_length=0)] | None = None
    """Only empty."""


class GenerateRequest(SamplingFields):
    """One question, without a conversation."""

    prompt: str | None = None
    """The question; or give it as query."""

    query: str | None = None
    """The question; or give it as prompt."""

    system: str | None = None
    """The system prompt; without it, the model's own."""

    max_new_tokens: int | None = Field(default=None, ge=1, le=_MOST_IDS)
    """Another name of max_tokens."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": [name], "properties": {name: {"type": "string"}}}
                for name in ("prompt", "query")
            ]
        }
    )


class TokenizeRequest(ChatRequest):
    """A conversation, or a text as it is."""

    messages: list[ChatMessage] = Field(default=[], min_length=1, fail_fast=True)
    """The turns so far; or give a prompt."""

    prompt: str | None = None
    """A text, to which nothing is added; or give messages."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["messages"], "properties": {"prompt": {"type": "null"}}},
                {
                    "required": ["prompt"],
                    "properties": {"prompt": {"type": "string"}},
                    "not": {"required": ["messages"]},
                },
            ]
        }
    )
