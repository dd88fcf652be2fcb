"""From a record to token ids and a loss mask, through the tokenizer's own chat template.

This is the only place that makes a mask. Nothing is searched for in the rendered text:
what the model is given is the template's generation prompt, and what it must say is
built from where the template itself puts an assistant's words. So the mask is right for
templates whose prompt is a prefix of the conversation (Qwen2.5), whose answers begin with
a space that belongs to the answer (deepseek-llm), and whose prompt opens a reasoning
block that the rendered conversation does not show (DeepSeek-R1).

Prompt and answer are tokenised apart, because that is how the model meets them: when it
answers, the prompt is already tokens and the first answer token follows it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Protocol

import jinja2
import numpy as np
import numpy.typing as npt

from weitiao.errors import ModelError
from weitiao.records.record import Message, Reason, Record
from weitiao.records.shortening import shorten

_SENTINEL = "weitiaoMarksTheAnswerHere"
_OPENER = re.compile(r"\s*(<think>\s*)?(</think>\s*)?")
_EMPTY_REASONING = re.compile(r"<think>\s*</think>\s*")
_LEADING_TAG = re.compile(r"\s*<think>\n?")
_TAGS_IN_TEXT = re.compile(r"</?(think|tool_call|tool_response|tools|answer)>")


class Tokenizer(Protocol):
    """What is used of ``transformers.PreTrainedTokenizerBase``."""

    chat_template: Any
    name_or_path: str
    eos_token_id: int | None

    @property
    def all_special_tokens(self) -> list[str]:
        """The special tokens the tokenizer knows by name."""

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """Id → added token, with ``content`` and ``special``."""

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """Render a conversation."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the token ids of ``text``."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Tokens to train on: ``ids`` int32 [L]; ``scored`` bool [L], true where a token is a target.

    ``row`` is the number of the record it was made from; one record can give several
    samples. ``shortened``: its texts were cut to fit.
    """

    ids: npt.NDArray[np.int32]
    scored: npt.NDArray[np.bool_]
    row: int
    shortened: bool = False


@dataclass(frozen=True, slots=True)
class _Turn:
    """One answer: the text the model is given, and the text it must say, end of turn included."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class _Part:
    """The turns of one sample, and which of them (by number) are scored."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...]
    scored: tuple[int, ...]
    turns: tuple[_Turn, ...]


class _RefusedError(Exception):
    """A conversation that this template cannot render with an exact mask."""

    def __init__(self, name: str, **values: Any) -> None:
        super().__init__(name)
        self.reason = Reason(name, values)


class ChatFormat:
    """A tokenizer and its chat template.

    Raises:
        ModelError: the tokenizer has no chat template, or one that cannot be masked exactly.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        if not tokenizer.chat_template:
            raise ModelError("error.no_chat_template", model=tokenizer.name_or_path)
        self.tokenizer = tokenizer
        special = _special_tokens(tokenizer)
        self._special = _any_of(special)
        self._control = _any_of(special | _markers_of_template(tokenizer))
        question = (Message("user", "?"),)
        try:
            turn = self._turn((*question, Message("assistant", "!")), 1, ())
            shown = self._template((*question, Message("assistant", _SENTINEL)))
        except _RefusedError as refused:
            raise self._unusable(refused) from refused
        before = shown.partition(_SENTINEL)[0]
        self.opener = turn.prompt[len(before) :] if turn.prompt.startswith(before) else ""
        """What the generation prompt opens for the model, ``<think>\n`` for DeepSeek-R1, or ''."""
        ends = {self._encode(turn.completion)[-1], tokenizer.eos_token_id}
        self.stop_ids: tuple[int, ...] = tuple(sorted(i for i in ends if i is not None))
        """The ids that end an answer: the template's end of turn, and the tokenizer's eos."""

    def samples(
        self,
        record: Record,
        row: int = 0,
        *,
        max_tokens: int = 1024,
        too_long: Literal["shorten", "reject"] = "shorten",
        score_turns: Literal["all", "last"] = "all",
    ) -> list[Sample] | Reason:
        """Return the record's samples of at most ``max_tokens`` tokens each, or why not.

        A conversation gives one sample in which every answer is scored, where each prompt
        continues the conversation so far as it was said. Where a template retells it
        otherwise (DeepSeek-R1 leaves out earlier reasoning), each answer is a sample of its
        own, after the very prompt the model will get. Turns with ``loss`` false are context.

        A passage (``record.text``) gives windows of nearly equal length with every token in
        exactly one; all are scored but each window's first, which nothing precedes.
        """
        if record.text is not None:
            return self._windows(record.text, row, max_tokens)
        answers = [i for i, m in enumerate(record.messages) if m.role == "assistant"]
        if score_turns == "last":
            answers = answers[-1:]
        scored = [i for i in answers if record.messages[i].loss]
        if not scored:
            return Reason("no_scored_token")
        if _uses_tools(record) and "tool" not in str(self.tokenizer.chat_template):
            return Reason("template_without_tools")
        try:
            parts = self._parts(record, scored)
            return [self._sample(part, row, max_tokens, too_long == "shorten") for part in parts]
        except _RefusedError as refused:
            return refused.reason

    def prompt_ids(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[int]:
        """Return the ids after which the model answers ``messages``.

        Raises:
            ModelError: the template refuses this conversation.
        """
        try:
            return self._encode(self._template(messages, tools, generation=True))
        except _RefusedError as refused:
            raise self._unusable(refused) from refused

    def answer_text(self, text: str) -> str:
        """Return what was said without reasoning and outer blanks; '' if it never got there."""
        _thought, closed, answer = text.rpartition("</think>")
        if closed:
            return answer.strip()
        still_open = self.opener and "</think>" not in self.opener
        return "" if still_open or text.lstrip().startswith("<think>") else text.strip()

    def control_token(self, text: str) -> str | None:
        """Return the first token in ``text`` that steers the model: special, or of the template.

        Reasoning and tool tags such as ``<think>`` are words a text may hold.
        """
        found = self._control.search(text)
        return found.group() if found else None

    def count(self, text: str) -> int:
        """Return the number of tokens of ``text`` by itself."""
        return len(self._encode(text))

    def _unusable(self, refused: _RefusedError) -> ModelError:
        return ModelError(
            "error.template_unusable",
            model=self.tokenizer.name_or_path,
            why=refused.reason.sentence(),
        )

    def _parts(self, record: Record, scored: Sequence[int]) -> list[_Part]:
        turns = [self._turn(record.messages, i, record.tools) for i in scored]
        if all(b.prompt.startswith(a.prompt + a.completion) for a, b in pairwise(turns)):
            end = scored[-1] + 1
            return [_Part(record.messages[:end], record.tools, tuple(scored), tuple(turns))]
        return [
            _Part(record.messages[: i + 1], record.tools, (i,), (turn,))
            for i, turn in zip(scored, turns, strict=True)
        ]

    def _sample(self, part: _Part, row: int, max_tokens: int, may_shorten: bool) -> Sample:
        pieces = self._pieces(part.turns)
        length = sum(len(ids) for ids, _ in pieces)
        shortened = length > max_tokens
        if shortened:
            messages = None
            if may_shorten:
                messages = shorten(
                    part.messages, max_tokens, self.count, lambda cut: self._length(part, cut)
                )
            if messages is None:
                raise _RefusedError("too_long", tokens=length, limit=max_tokens)
            pieces = self._pieces(self._turns(part, messages))
        ids = np.concatenate([np.asarray(ids, dtype=np.int32) for ids, _ in pieces])
        scored = np.concatenate([np.full(len(ids), scored) for ids, scored in pieces])
        return Sample(ids, scored, row, shortened)

    def _turns(self, part: _Part, messages: Sequence[Message]) -> list[_Turn]:
        return [self._turn(messages, i, part.tools) for i in part.scored]

    def _length(self, part: _Part, messages: Sequence[Message]) -> int:
        return sum(len(ids) for ids, _ in self._pieces(self._turns(part, messages)))

    def _pieces(self, turns: Sequence[_Turn]) -> list[tuple[list[int], bool]]:
        """Return (ids, scored) of turns of which each prompt continues the one before."""
        pieces, said = [], ""
        for turn in turns:
            pieces.append((self._encode(turn.prompt[len(said) :]), False))
            pieces.append((self._encode(turn.completion), True))
            said = turn.prompt + turn.completion
        return pieces

    def _turn(
        self, messages: Sequence[Message], i: int, tools: Sequence[Mapping[str, Any]]
    ) -> _Turn:
        """Return what the model is given before turn ``i`` and what it must say there."""
        prompt = self._template(messages[:i], tools, generation=True)
        if messages[i].tool_calls:
            return self._tool_turn(prompt, self._template(messages[: i + 1], tools))
        shown = self._template((*messages[:i], Message("assistant", _SENTINEL)), tools)
        before, _, after = shown.rpartition(_SENTINEL)
        end = self._special.search(after)
        if end is None:
            raise _RefusedError("template_without_end")
        content = messages[i].content
        if before.startswith(prompt):
            words = _after_lead(before[len(prompt) :], content)
        elif prompt.startswith(before) and _OPENER.fullmatch(prompt, len(before)):
            words = _after_opener(prompt[len(before) :], content)
        else:
            raise _RefusedError("template_not_exact")
        return _Turn(prompt, words + after[: end.end()])

    def _tool_turn(self, prompt: str, shown: str) -> _Turn:
        """Return a turn that calls tools; its words are the template's, up to its last special."""
        ends = [match.end() for match in self._special.finditer(shown, len(prompt))]
        if not shown.startswith(prompt) or not ends:
            raise _RefusedError("template_not_exact")
        return _Turn(prompt, shown[len(prompt) : ends[-1]])

    def _template(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        generation: bool = False,
    ) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                [_for_template(message) for message in messages],
                tools=[dict(tool) for tool in tools] or None,
                tokenize=False,
                add_generation_prompt=generation,
            )
        # A template is a program: it refuses with TemplateError and stumbles with the others.
        except (jinja2.TemplateError, TypeError, ValueError, LookupError) as error:
            raise _RefusedError("template_refuses", cause=str(error)) from error
        return str(text)

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _windows(self, text: str, row: int, max_tokens: int) -> list[Sample] | Reason:
        ids = self._encode(text)
        eos = self.tokenizer.eos_token_id
        if eos is not None and (not ids or ids[-1] != eos):
            ids.append(eos)
        if len(ids) < 2:
            return Reason("no_scored_token")
        windows = np.array_split(np.asarray(ids, dtype=np.int32), -(-len(ids) // max_tokens))
        return [Sample(window, np.arange(len(window)) > 0, row) for window in windows]


def _uses_tools(record: Record) -> bool:
    return bool(record.tools) or any(m.tool_calls or m.role == "tool" for m in record.messages)


def _for_template(message: Message) -> dict[str, Any]:
    if not message.tool_calls:
        return {"role": message.role, "content": message.content}
    calls = [dict(call) for call in message.tool_calls]
    return {"role": message.role, "content": message.content or None, "tool_calls": calls}


def _after_lead(lead: str, content: str) -> str:
    """Return the words after a prompt to which the template adds ``lead`` before an answer.

    Some leads are an empty reasoning block (Qwen3); an answer with reasoning has its own.
    """
    return (_EMPTY_REASONING.sub("", lead) if "</think>" in content else lead) + content


def _after_opener(opener: str, content: str) -> str:
    """Return the words after a prompt that opens, or opens and closes, a reasoning block."""
    _, has_reasoning, answer = content.rpartition("</think>")
    if "</think>" in opener:
        return answer.lstrip("\n") if has_reasoning else content
    line_end = "" if opener.endswith("\n") else "\n"
    if has_reasoning:
        return line_end + _LEADING_TAG.sub("", content, count=1)
    # What the model must say from this prompt to answer without reasoning first.
    return line_end + "\n</think>\n\n" + content


def _special_tokens(tokenizer: Tokenizer) -> set[str]:
    added = {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
    return added | set(tokenizer.all_special_tokens)


def _markers_of_template(tokenizer: Tokenizer) -> set[str]:
    """Return added tokens that the template writes as markers, special or not.

    DeepSeek-R1's ``<｜User｜>`` is not declared special, and would open a turn all the same.
    """
    template = str(tokenizer.chat_template)
    added = {t.content for t in tokenizer.added_tokens_decoder.values()}
    return {t for t in added if t[:1] in "<[" and t in template and not _TAGS_IN_TEXT.fullmatch(t)}


def _any_of(tokens: set[str]) -> re.Pattern[str]:
    longest_first = sorted((t for t in tokens if t.strip()), key=lambda t: (-len(t), t))
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
