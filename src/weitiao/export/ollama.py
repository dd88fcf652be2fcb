"""An Ollama ``Modelfile``: the chat template in Go's syntax, stops and sampling as measured.

The pieces are not looked up by family: a conversation of marks goes through the model's own
template, what stands between the marks is taken, and conversations put together from these
pieces must equal the template's own, or nothing is written.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from weitiao.errors import ModelError
from weitiao.export.gguf_file import begins_with_bos
from weitiao.records.record import Message
from weitiao.records.render import ChatFormat

_MARKS = {role: f"weitiaoMarksThe{role.title()}Here" for role in ("system", "user", "assistant")}
_MOST_CONTEXT = 8192
"""Ollama sets aside memory for the whole context: more than this is for the user to ask for."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """What a chat template puts around words; each ends where the next words begin."""

    before_system: str
    after_system: str
    """From the system prompt to the first question."""
    no_system: str
    """Before the first question where nobody gave a system prompt."""
    answer: str
    """From a question to an answer that was given."""
    question: str
    """From an answer to the next question."""
    prompt: str
    """From the last question to where the model goes on."""

    def text(self, messages: Sequence[Message]) -> str:
        """Return the prompt for a conversation: system or not, then user and assistant in turn."""
        rest, said = list(messages), self.no_system
        if rest[0].role == "system":
            said = self.before_system + rest.pop(0).content + self.after_system
        between = {"user": self.answer, "assistant": self.question}
        said += "".join(m.content + between[m.role] for m in rest[:-1])
        return said + rest[-1].content + self.prompt


def chat_pieces(chat: ChatFormat) -> Pieces:
    """Return the pieces of a chat template, without the bos that programs put first themselves.

    Raises:
        ModelError: the template does more than put words around each turn.
    """
    refused = ModelError("error.ollama_template", model=chat.tokenizer.name_or_path)
    marks = {role: Message(role, mark) for role, mark in _MARKS.items()}  # type: ignore[arg-type]
    talk = [marks["user"], marks["assistant"], marks["user"]]
    whole = _between(_prompt_text(chat, [marks["system"], *talk]))
    plain = _between(_prompt_text(chat, talk))
    # Today's date would be the day of the export for ever.
    dated = "strftime_now" in str(chat.tokenizer.chat_template)
    if dated or len(whole) != 5 or len(plain) != 4 or plain[1:] != whole[2:]:
        raise refused
    found = Pieces(whole[0], whole[1], plain[0], *whole[2:])
    for messages in _conversations():
        if found.text(messages) != _prompt_text(chat, messages):
            raise refused
    return found


def _prompt_text(chat: ChatFormat, messages: Sequence[Message]) -> str:
    tokenizer: Any = chat.tokenizer
    turns = [{"role": m.role, "content": m.content} for m in messages]
    text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    return text.removeprefix(tokenizer.bos_token) if begins_with_bos(chat) else text


def _between(text: str) -> list[str]:
    for mark in _MARKS.values():
        text = text.replace(mark, "\0")
    return text.split("\0")


def _conversations() -> list[list[Message]]:
    system, ask = Message("system", "你是一位诗人。\n请简短。"), Message("user", "写秋天")
    answer, more = Message("assistant", "空山新雨后，\n天气晚来秋。"), Message("user", "Why?")
    long = [ask, answer, more, Message("assistant", "{1}"), ask, answer, more]
    return [[ask], [system, ask], [ask, answer, more], [system, ask, answer, more], long]


def go_template(pieces: Pieces) -> str:
    """Return the template in the syntax of Go's text/template, as Ollama fills it in."""
    p = {name: _literal(getattr(pieces, name)) for name in Pieces.__slots__}
    return (
        "{{ if .System }}" + p["before_system"] + "{{ .System }}" + p["after_system"]
        + "{{ else }}" + p["no_system"] + "{{ end }}"
        "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        '{{ if eq .Role "user" }}{{ .Content }}{{ if $last }}' + p["prompt"] + "{{ end }}"
        '{{ else if eq .Role "assistant" }}' + p["answer"] + "{{ .Content }}"
        "{{ if not $last }}" + p["question"] + "{{ end }}{{ end }}{{ end }}"
    )  # fmt: skip


def _literal(text: str) -> str:
    return "{{ " + json.dumps(text, ensure_ascii=False) + " }}" if "{{" in text else text


def modelfile(
    gguf: str, folder: Path, chat: ChatFormat, context: int, system: str | None = None
) -> str:
    """Return the Modelfile for the file ``gguf`` that lies beside it.

    ``folder`` holds the merged model: how it samples is read from its generation_config.json,
    and where that tells nothing the likeliest token is taken, as in the evaluation. ``context``
    is in tokens. ``system`` is the prompt that all training rows share.

    Raises:
        ModelError: the chat template cannot be said exactly in Ollama's terms.
    """
    template = go_template(chat_pieces(chat))
    tokenizer: Any = chat.tokenizer
    stops = [tokenizer.convert_ids_to_tokens(i) for i in chat.stop_ids]
    quoted = [template] if system is None else [template, system]
    if any('"""' in text for text in quoted):
        raise ModelError("error.ollama_template", model=tokenizer.name_or_path)
    parameters = {"num_ctx": min(context, _MOST_CONTEXT), **_sampling(folder)}
    lines = [f"FROM ./{gguf}", f'TEMPLATE """{template}"""']
    if system is not None:
        lines.append(f'SYSTEM """{system}"""')
    lines += [f"PARAMETER {name} {value}" for name, value in parameters.items()]
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops]
    return "\n".join(lines) + "\n"


def _sampling(folder: Path) -> dict[str, float]:
    config = GenerationConfig.from_pretrained(str(folder))
    # Ollama would otherwise punish repetition by itself.
    penalty = {"repeat_penalty": config.repetition_penalty or 1.0}
    if not config.do_sample:
        return {"temperature": 0, **penalty}
    given = {
        "temperature": 1.0 if config.temperature is None else config.temperature,
        "top_p": 1.0 if config.top_p is None else config.top_p,
        "top_k": config.top_k,
    }
    return {name: value for name, value in given.items() if value is not None} | penalty
