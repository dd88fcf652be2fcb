"""From a request to prompts of token ids."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from weitiao.errors import ModelError
from weitiao.records.record import Message
from weitiao.serving.desk import Desk
from weitiao.serving.engine import Ask, Sampling
from weitiao.serving.faults import RequestError
from weitiao.serving.service import Served
from weitiao.serving.text import opens_reasoning
from weitiao.serving.wire import (
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    GenerateRequest,
    SamplingFields,
    TokenizeRequest,
    ToolCall,
)

_LONG = 20_000
"""Texts of so many characters are tokenised beside the event loop, which others wait for."""

_PIECE = 4000
"""Characters; the tokens of pieces are, all in all, as many as those of the whole text."""

_MOST_ASKS = 64
"""Answers to one request: prompts times n."""


@dataclass(frozen=True, slots=True)
class Questions:
    """What one request asks: ``choices`` answers to each of ``prompts``, in their order."""

    served: Served
    prompts: tuple[tuple[int, ...], ...]
    asks: tuple[Ask, ...]
    """One for each answer, those to the first prompt first."""
    stops: tuple[str, ...]
    thinking: bool
    said: Any
    """The messages (with the model's own system prompt where it was added) or the prompt."""

    @property
    def prompt_tokens(self) -> int:
        """Those of all prompts, each counted once."""
        return sum(map(len, self.prompts))


async def of_chat(desk: Desk, asked: ChatRequest) -> Questions:
    """Return what a conversation asks.

    Raises:
        RequestError: an unknown model, texts that may not be said, or too much of them.
    """
    served = desk.find(asked.model)
    tools = [tool.model_dump(exclude_unset=True) for tool in asked.tools or ()]
    if asked.tool_choice == "none":
        tools = []
    messages = [_message(message) for message in asked.messages]
    own = _own_system(served, messages)
    said = [_told(turn) for turn in own]
    said += [message.model_dump(exclude_none=True) for message in asked.messages]
    texts = [(f"messages.{i}", text) for i, turn in enumerate(asked.messages) for text in _of(turn)]
    if tools:
        texts.append(("tools", json.dumps(tools, ensure_ascii=False)))
    prompt = await _rendered(desk, served, [*own, *messages], tools, texts)
    longest = asked.max_completion_tokens or asked.max_tokens
    logprobs = asked.top_logprobs or 0 if asked.logprobs else None
    return _questions(desk, served, asked, [prompt], said, longest, asked.n, logprobs)


async def of_question(desk: Desk, asked: GenerateRequest) -> Questions:
    """Return what one question asks.

    Raises:
        RequestError: as for :func:`of_chat`.
    """
    served = desk.find(asked.model)
    text = asked.prompt if asked.prompt is not None else asked.query
    if text is None:
        raise RequestError("serve.error.no_prompt", param="prompt")
    turns = [("prompt" if asked.prompt is not None else "query", Message("user", text))]
    if asked.system is not None:
        turns.insert(0, ("system", Message("system", asked.system)))
    messages = [turn for _, turn in turns]
    messages = [*_own_system(served, messages), *messages]
    texts = [(field, turn.content) for field, turn in turns]
    prompt = await _rendered(desk, served, messages, [], texts)
    said = [_told(turn) for turn in messages]
    longest = asked.max_new_tokens or asked.max_tokens
    return _questions(desk, served, asked, [prompt], said, longest)


async def of_text(desk: Desk, asked: CompletionRequest) -> Questions:
    """Return what texts, or token ids, ask to be gone on with; they are taken as they are.

    Raises:
        RequestError: as for :func:`of_chat`; or a token id that there is not.
    """
    served = desk.find(asked.model)
    if asked.echo and asked.logprobs is not None:
        raise RequestError("serve.error.echo_logprobs", param="echo")
    given: Any = asked.prompt
    if isinstance(given, str) or isinstance(given[0], int):
        given = [given]
    prompts = []
    for prompt in given:
        ids = prompt if isinstance(prompt, list) else await _ids(desk, served, prompt)
        unknown = next((i for i in ids if i >= served.vocabulary), None)
        if unknown is not None:
            most = served.vocabulary - 1
            raise RequestError("serve.error.token_id", param="prompt", id=unknown, most=most)
        # Nothing to begin with: the model's own beginning is its end of a text.
        prompts.append(tuple(ids) or served.chat.stop_ids[:1])
    return _questions(
        desk, served, asked, prompts, asked.prompt, asked.max_tokens, asked.n, asked.logprobs
    )


async def to_tokens(desk: Desk, asked: TokenizeRequest) -> Questions:
    """Return what a conversation would ask, or a text.

    Raises:
        RequestError: as for :func:`of_chat`; or there are neither, or both.
    """
    if bool(asked.messages) == (asked.prompt is not None):
        raise RequestError("serve.error.no_messages", param="messages")
    if asked.prompt is None:
        return await of_chat(desk, asked)
    return await of_text(desk, CompletionRequest(model=asked.model, prompt=asked.prompt))


def _questions(
    desk: Desk,
    served: Served,
    asked: SamplingFields,
    prompts: Sequence[tuple[int, ...]],
    said: Any,
    longest: int | None,
    n: int | None = None,
    logprobs: int | None = None,
) -> Questions:
    choices, most = n or 1, desk.options.max_tokens
    if len(prompts) * choices > _MOST_ASKS:
        asks = len(prompts) * choices
        raise RequestError("serve.error.too_many", param="n", asks=asks, most=_MOST_ASKS)
    told = desk.service.engine.top_logprobs
    if (logprobs or 0) > told:
        field = "logprobs" if isinstance(asked, CompletionRequest) else "top_logprobs"
        name = desk.service.engine.name
        raise RequestError("serve.error.top_logprobs", param=field, most=told, engine=name)
    longest = longest or served.defaults.max_new_tokens
    longest = longest if most is None else min(longest, most)
    sampling = replace(_sampling(served.defaults, asked), logprobs=logprobs)
    context, asks_ = desk.service.engine.context, []
    for prompt in prompts:
        if len(prompt) >= context:
            field = "prompt" if not isinstance(asked, ChatRequest) else "messages"
            raise RequestError(
                "serve.error.context", param=field, tokens=len(prompt), context=context
            )
        room = min(longest, context - len(prompt))
        for choice in range(choices):
            seed = None if sampling.seed is None else (sampling.seed + choice) % 2**63
            own = replace(sampling, max_new_tokens=room, seed=seed)
            asks_.append(Ask(served.name, prompt, own, served.chat.stop_ids))
    stops = (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ())
    chat = not isinstance(asked, CompletionRequest)
    thinking = chat and opens_reasoning(served.chat.opener)
    return Questions(served, tuple(prompts), tuple(asks_), stops, thinking, said)


def _sampling(defaults: Sampling, asked: SamplingFields) -> Sampling:
    names = ("temperature", "top_p", "repetition_penalty", "seed")
    given = {name: value for name in names if (value := getattr(asked, name)) is not None}
    if given.get("top_p") == 0:
        given |= {"temperature": 0.0, "top_p": 1.0}
    return replace(defaults, **given)


def _own_system(served: Served, messages: Sequence[Message]) -> list[Message]:
    """Return the model's own system prompt, as a turn, for a conversation that brings none."""
    if served.system is None or any(turn.role == "system" for turn in messages):
        return []
    return [Message("system", served.system)]


def _told(turn: Message) -> dict[str, str]:
    return {"role": turn.role, "content": turn.content}


def _message(message: ChatMessage) -> Message:
    role = "system" if message.role == "developer" else message.role
    content = message.content or ""
    if not isinstance(content, str):
        content = "".join(part.text for part in content)
    metadata = {
        name: value
        for name in ("name", "tool_call_id")
        if (value := getattr(message, name)) is not None
    }
    calls = tuple(_call(call) for call in message.tool_calls or ())
    return Message(role, content, tool_calls=calls, metadata=metadata)


def _call(call: ToolCall) -> Mapping[str, Any]:
    """Return a call with its arguments as an object: a template would quote a text once more."""
    made = call.model_dump(exclude_none=True)
    try:
        arguments = json.loads(call.function.arguments)
    except (ValueError, RecursionError):
        return made
    if isinstance(arguments, dict):
        made["function"]["arguments"] = arguments
    return made


def _of(message: ChatMessage) -> Iterator[str]:
    """Yield every text of a message that its template may write."""
    content = message.content or ""
    yield content if isinstance(content, str) else "".join(part.text for part in content)
    yield message.name or ""
    for call in message.tool_calls or ():
        yield f"{call.function.name} {call.function.arguments}"


async def _rendered(
    desk: Desk,
    served: Served,
    messages: list[Message],
    tools: Sequence[Mapping[str, Any]],
    texts: Sequence[tuple[str, str]],
) -> tuple[int, ...]:
    """Return the prompt of a conversation of which ``texts`` are all texts, by their fields."""
    for field, text in texts:
        if token := served.chat.control_token(text):
            raise RequestError("serve.error.control_token", param=field, field=field, token=token)
    _check_tools(served, messages, tools)
    whole = [text for _, text in texts]
    try:
        return tuple(
            await _aside(desk, served, whole, lambda: served.chat.prompt_ids(messages, tools))
        )
    except ModelError as error:
        why = error.values.get("why", "")
        raise RequestError("serve.error.template", param="messages", why=why) from error
    except UnicodeEncodeError as error:
        raise RequestError("serve.error.characters", param="tools") from error


def _check_tools(
    served: Served, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]
) -> None:
    used = tools or any(turn.tool_calls or turn.role == "tool" for turn in messages)
    if used and "tool" not in str(served.chat.tokenizer.chat_template):
        raise RequestError("serve.error.tools", param="tools")


async def _ids(desk: Desk, served: Served, text: str) -> list[int]:
    encode = served.chat.tokenizer.encode
    return await _aside(desk, served, [text], lambda: encode(text, add_special_tokens=False))


async def _aside(
    desk: Desk, served: Served, texts: Sequence[str], work: Callable[[], list[int]]
) -> list[int]:
    """Return what ``work`` makes of ``texts``; long ones do not hold up the event loop."""
    if sum(map(len, texts)) < _LONG:
        return work()
    context = desk.service.engine.context

    def bounded() -> list[int]:
        # The time a tokenizer takes for text without blanks grows with the square of its length.
        pieces = (text[i : i + _PIECE] for text in texts for i in range(0, len(text), _PIECE))
        tokens = sum(served.chat.count(piece) for piece in pieces)
        if tokens > 2 * context:
            raise RequestError("serve.error.context", tokens=tokens, context=context)
        return work()

    return await asyncio.get_running_loop().run_in_executor(desk.aside, bounded)
