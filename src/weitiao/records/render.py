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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, Literal

import jinja2
import numpy as np
import numpy.typing as npt

from weitiao.errors import ModelError
from weitiao.records.batching import Batches, windows
from weitiao.records.opaque import questions_of
from weitiao.records.options import Reasoning
from weitiao.records.record import Message, Reason, Record
from weitiao.records.shortening import shorten
from weitiao.records.tokenizing import (
    Encoder,
    Sample,
    Tokenizer,
    TokenSearch,
    common_start,
    markers_of_template,
    special_tokens,
)
from weitiao.records.turns import (
    RefusedError,
    Turn,
    answer_starts,
    left_open,
    scored_turns,
    without_reasoning,
    words_between,
)

__all__ = ["ChatFormat", "Sample", "Tokenizer"]

_SENTINEL = "weitiaoMarksTheAnswerHere"


@dataclass(frozen=True, slots=True)
class _Part:
    """The turns of one sample, and which of them (by number) are scored."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...]
    scored: tuple[int, ...]
    turns: tuple[Turn, ...]


class ChatFormat:
    """A tokenizer and its chat template.

    Raises:
        ModelError: the tokenizer has no chat template, or one that cannot be masked exactly.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        if not tokenizer.chat_template:
            raise ModelError("error.no_chat_template", model=tokenizer.name_or_path)
        self.tokenizer = tokenizer
        self._encoder = Encoder(tokenizer)
        special = special_tokens(tokenizer)
        self._special = TokenSearch(special)
        self._control = TokenSearch(special | markers_of_template(tokenizer))
        question = (Message("user", "?"),)
        try:
            turn = self._turn((*question, Message("assistant", "!")), 1, ())
            shown = self._template((*question, Message("assistant", _SENTINEL)))
        except RefusedError as refused:
            raise self._unusable(refused) from refused
        before = shown.partition(_SENTINEL)[0]
        self.opener = turn.prompt[len(before) :] if turn.prompt.startswith(before) else ""
        """What the generation prompt opens for the model, ``<think>\n`` for DeepSeek-R1, or ''."""
        ends = {self._encoder.one(turn.completion)[-1], tokenizer.eos_token_id}
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
        reasoning: Reasoning = "learn",
    ) -> list[Sample] | Reason:
        """Return the record's samples of at most ``max_tokens`` tokens each, or why not.

        A conversation gives one sample in which every answer is scored, where each prompt
        continues the conversation so far as it was said. Where a template retells it
        otherwise (DeepSeek-R1 leaves out earlier reasoning), each answer is a sample of its
        own, after the very prompt the model will get. Turns with ``loss`` false are context.

        ``reasoning``: "context" gives the same ids as "learn", and of an answer scores what
        follows its last ``</think>`` and the blanks after it (a token that holds both is
        scored), also where the template wrote the tags. "drop" renders the answers as if
        the assistant had never reasoned. With both, reasoning that never ends is a reason.

        A passage (``record.text``) gives windows of nearly equal length with every token in
        exactly one; all are scored but each window's first, which nothing precedes.
        """
        if record.text is not None:
            ids = self._encoder.one(record.text)
            return windows(ids, self.tokenizer.eos_token_id, row, max_tokens)
        messages = record.messages
        if reasoning == "drop":
            messages = without_reasoning(messages)
        scored = scored_turns(messages, score_turns)
        if not scored:
            return Reason("no_scored_token")
        if reasoning != "learn":
            for i in scored:
                if left_open(messages[i].content):
                    return Reason("reasoning_unclosed", {"turn": i + 1})
        if _uses_tools(record) and "tool" not in str(self.tokenizer.chat_template):
            return Reason("template_without_tools")
        try:
            parts = self._parts(messages, record.tools, scored)
            shortens, apart = too_long == "shorten", reasoning == "context"
            return [self._sample(part, row, max_tokens, shortens, apart) for part in parts]
        except RefusedError as refused:
            return refused.reason

    def batch(
        self,
        records: Sequence[Record],
        first_row: int = 0,
        *,
        max_tokens: int = 1024,
        too_long: Literal["shorten", "reject"] = "shorten",
        score_turns: Literal["all", "last"] = "all",
        reasoning: Reasoning = "learn",
    ) -> list[list[Sample] | Reason]:
        """Return what :meth:`samples` returns for each record, and several times as fast.

        The records' rows count from ``first_row``. Samples of one call share their memory:
        as long as one is kept, so are thousands of its neighbours.
        """
        plainly = partial(
            self.samples,
            max_tokens=max_tokens,
            too_long=too_long,
            score_turns=score_turns,
            reasoning=reasoning,
        )
        return self._batches.samples(
            records, first_row, plainly, max_tokens, too_long, score_turns, reasoning
        )

    def prompt_ids(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[int]:
        """Return the ids after which the model answers ``messages``.

        Raises:
            ModelError: the template refuses this conversation.
        """
        return self._encoder.one(self.prompt_text(messages, tools))

    def prompt_text(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
    ) -> str:
        """Return the text after which the model answers ``messages``.

        Raises:
            ModelError: the template refuses this conversation.
        """
        try:
            return self._template(messages, tools, generation=True)
        except RefusedError as refused:
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
        return self._control.first(text)

    def count(self, text: str) -> int:
        """Return the number of tokens of ``text`` by itself."""
        return len(self._encoder.one(text))

    def _unusable(self, refused: RefusedError) -> ModelError:
        return ModelError(
            "error.template_unusable",
            model=self.tokenizer.name_or_path,
            why=refused.reason.sentence(),
        )

    @cached_property
    def _batches(self) -> Batches:
        questions = questions_of(self.tokenizer.chat_template)
        if questions is not None:
            # These two are asked here, not by the template.
            thinks = "think" in str(self.tokenizer.chat_template)
            ours = (_SENTINEL, "</think>") if thinks else (_SENTINEL,)
            questions = replace(questions, parts=(*questions.parts, *ours))
        return Batches(self._encoder, questions, self._special, self._answers)

    def _answers(
        self, messages: Sequence[Message], scored: Sequence[int]
    ) -> list[tuple[Turn, ...]]:
        return [part.turns for part in self._parts(messages, (), scored)]

    def _parts(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        scored: Sequence[int],
    ) -> list[_Part]:
        turns = [self._turn(messages, i, tools) for i in scored]
        if all(b.prompt.startswith(a.prompt + a.completion) for a, b in pairwise(turns)):
            end = scored[-1] + 1
            return [_Part(tuple(messages[:end]), tuple(tools), tuple(scored), tuple(turns))]
        return [
            _Part(tuple(messages[: i + 1]), tuple(tools), (i,), (turn,))
            for i, turn in zip(scored, turns, strict=True)
        ]

    def _sample(
        self, part: _Part, row: int, max_tokens: int, may_shorten: bool, apart: bool
    ) -> Sample:
        """Return a part's sample; ``apart``: the reasoning in it is not scored."""
        pieces = self._pieces(part.turns, apart)
        length = sum(len(ids) for ids, _ in pieces)
        shortened = length > max_tokens
        if shortened:
            messages = None
            if may_shorten:
                messages = shorten(
                    part.messages, max_tokens, self.count, lambda cut: self._length(part, cut)
                )
            if messages is None:
                raise RefusedError("too_long", tokens=length, limit=max_tokens)
            pieces = self._pieces(self._turns(part, messages), apart)
        ids = np.concatenate([ids for ids, _ in pieces])
        scored = np.concatenate([np.full(len(ids), scored) for ids, scored in pieces])
        return Sample(ids, scored, row, shortened)

    def _turns(self, part: _Part, messages: Sequence[Message]) -> list[Turn]:
        return [self._turn(messages, i, part.tools) for i in part.scored]

    def _length(self, part: _Part, messages: Sequence[Message]) -> int:
        return sum(len(ids) for ids, _ in self._pieces(self._turns(part, messages)))

    def _pieces(
        self, turns: Sequence[Turn], apart: bool = False
    ) -> list[tuple[npt.NDArray[np.int32], bool]]:
        """Return (ids, scored) of turns of which each prompt continues the one before."""
        pieces, said = [], ""
        for turn in turns:
            pieces.append((self._ids(turn.prompt[len(said) :]), False))
            ids, given = self._ids(turn.completion), 0
            if apart and turn.thought:
                given = common_start(ids, self._ids(turn.completion[: turn.thought]))
            pieces += [(ids[:given], False), (ids[given:], True)]
            said = turn.prompt + turn.completion
        return pieces

    def _ids(self, text: str) -> npt.NDArray[np.int32]:
        return np.asarray(self._encoder.one(text), dtype=np.int32)

    def _turn(
        self, messages: Sequence[Message], i: int, tools: Sequence[Mapping[str, Any]]
    ) -> Turn:
        """Return what the model is given before turn ``i`` and what it must say there."""
        prompt = self._template(messages[:i], tools, generation=True)
        if messages[i].tool_calls:
            return self._tool_turn(messages, i, tools, prompt)
        shown = self._template((*messages[:i], Message("assistant", _SENTINEL)), tools)
        before, _, after = shown.rpartition(_SENTINEL)
        end = self._special.pattern.search(after)
        if end is None:
            raise RefusedError("template_without_end")
        words = words_between(prompt, before)
        if words is None:
            raise RefusedError("template_not_exact")
        said, ending = words(messages[i].content), after[: end.end()]
        return Turn(i, prompt, said + ending, words, ending, answer_starts(said))

    def _tool_turn(
        self,
        messages: Sequence[Message],
        i: int,
        tools: Sequence[Mapping[str, Any]],
        prompt: str,
    ) -> Turn:
        """Return a turn that calls tools; its words are the template's, up to its last special."""
        shown = self._template(messages[: i + 1], tools)
        ends = [match.end() for match in self._special.pattern.finditer(shown, len(prompt))]
        if not shown.startswith(prompt) or not ends:
            raise RefusedError("template_not_exact")
        completion, thought = shown[len(prompt) : ends[-1]], 0
        before, closing, _ = messages[i].content.rpartition("</think>")
        if closing:
            # The template may write the reasoning in its own way, or leave it out.
            marked = replace(messages[i], content=before + closing + _SENTINEL)
            shown = self._template((*messages[:i], marked), tools)[len(prompt) :]
            before, closing, _ = shown.partition(_SENTINEL)[0].rpartition("</think>")
            if not completion.startswith(before + closing):
                raise RefusedError("template_not_exact")
            thought = answer_starts(completion, len(before + closing)) if closing else 0
        return Turn(i, prompt, completion, thought=thought)

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
            raise RefusedError("template_refuses", cause=str(error)) from error
        return str(text)


def _uses_tools(record: Record) -> bool:
    return bool(record.tools) or any(m.tool_calls or m.role == "tool" for m in record.messages)


def _for_template(message: Message) -> dict[str, Any]:
    if not message.tool_calls:
        return {"role": message.role, "content": message.content}
    calls = [dict(call) for call in message.tool_calls]
    return {"role": message.role, "content": message.content or None, "tool_calls": calls}
