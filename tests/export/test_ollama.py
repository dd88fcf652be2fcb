"""Modelfiles: Go's template, evaluated, gives the chat template's own text."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from trained import embedded_chat
from transformers import GenerationConfig

from weitiao.errors import ModelError
from weitiao.export.gguf_file import begins_with_bos
from weitiao.export.ollama import chat_pieces, go_template, modelfile
from weitiao.models.load import find_model, load_tokenizer
from weitiao.records.render import ChatFormat

LLAMA_3 = """{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = \
'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + \
'<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}\
{{ content }}{% endfor %}{% if add_generation_prompt %}\
{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""
QWEN_3 = """{%- if messages[0].role == 'system' %}{{- '<|im_start|>system\n' + \
messages[0].content + '<|im_end|>\n' }}{%- endif %}
{%- set ns = namespace(last=messages|length - 1, found=false) %}
{%- for message in messages[::-1] %}{%- if message.role == 'user' and not ns.found %}
{%- set ns.last = messages|length - 1 - loop.index0 %}{%- set ns.found = true %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
{%- if message.role == 'user' %}{{- '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}
{%- elif message.role == 'assistant' %}
{%- set content = message.content.split('</think>')[-1].lstrip('\n') %}
{{- '<|im_start|>assistant\n' }}
{%- if loop.index0 > ns.last %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}
{{- content + '<|im_end|>\n' }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"""
BRACES = (
    "{% for m in messages %}{{ '{{' + m.role + '}} ' + m.content + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '{{assistant}} ' }}{% endif %}"
)
TALKS: list[list[tuple[str, str]]] = [
    [("user", "你好")],
    [("system", "你是医生。\n\n请简短。"), ("user", "头疼怎么办？")],
    [("user", "Hi"), ("assistant", "Hello!\nYes?"), ("user", "{{ .System }} \"1\" 'x' \\n")],
    [
        ("system", "S"), ("user", "一"), ("assistant", "二"), ("user", "三"), ("assistant", "四"),
        ("user", "五"),
    ],
]  # fmt: skip


def with_template(template: str, bos: str = "", eos: str = "<|im_end|>") -> ChatFormat:
    tokenizer: Any = load_tokenizer(find_model("embedded"))
    special = {name: text for name, text in (("bos_token", bos), ("eos_token", eos)) if text}
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(["<|eot_id|>"], special_tokens=True)
    tokenizer.chat_template = template
    return ChatFormat(tokenizer)


def published(shared: Path) -> Iterator[tuple[str, ChatFormat]]:
    for entry in json.loads((shared / "data" / "chat_templates.json").read_text("utf-8")):
        chat = with_template(entry["chat_template"], entry["bos_token"], entry["eos_token"])
        yield entry["model"], chat


def families(shared: Path) -> Iterator[tuple[str, ChatFormat]]:
    yield from published(shared)
    yield "embedded", embedded_chat()
    yield "Qwen3", with_template(QWEN_3)
    yield "Llama 3", with_template(LLAMA_3, "<|begin_of_text|>", "<|eot_id|>")
    yield "braces", with_template(BRACES)


def test_the_go_template_gives_the_chat_templates_own_text(shared: Path) -> None:
    named = dict(families(shared))
    assert len(named) == 7
    for name, chat in named.items():
        template = go_template(chat_pieces(chat))
        for talk in TALKS:
            messages = [{"role": role, "content": content} for role, content in talk]
            expected = chat.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
            if begins_with_bos(chat):
                expected = expected.removeprefix(chat.tokenizer.bos_token)
            assert filled(template, messages) == expected, name
    bos = {name for name, chat in named.items() if begins_with_bos(chat)}
    assert bos == {"DeepSeek-R1-Distill-Qwen", "deepseek-llm-7b-chat", "Llama 3"}


def test_an_answer_that_was_begun_is_gone_on_with() -> None:
    messages = [{"role": "user", "content": "写"}, {"role": "assistant", "content": "秋"}]
    said = filled(go_template(chat_pieces(embedded_chat())), messages)
    assert said == "<|im_start|>user\n写<|im_end|>\n<|im_start|>assistant\n秋"


@pytest.mark.parametrize(
    "template",
    [
        # Each turn is numbered, or the day is told.
        "{% for m in messages %}[{{ loop.index }}]{{ m.role + m.content + eos_token }}{% endfor %}",
        "{{ strftime_now('%Y') }}{% for m in messages %}{{ m.content + eos_token }}{% endfor %}",
        # The last question is said in another way than the first.
        "{% for m in messages %}{{ m.role + m.content + ('#' if loop.index > 2 else eos_token) }}"
        "{% endfor %}",
    ],
)
def test_a_template_that_does_more_is_refused(template: str) -> None:
    chat = with_template(template)
    with pytest.raises(ModelError, match="Modelfile"):
        chat_pieces(chat)


def test_the_modelfile_stops_and_samples_as_the_model_does(tmp_path: Path) -> None:
    GenerationConfig(eos_token_id=8190).save_pretrained(tmp_path)
    chat = embedded_chat()
    text = modelfile("model-q8_0.gguf", tmp_path, chat, 1024, "你是诗人。")
    lines = text.splitlines()
    assert lines[0] == "FROM ./model-q8_0.gguf"
    assert 'SYSTEM """你是诗人。"""' in lines
    assert 'PARAMETER stop "<|im_end|>"' in lines
    assert "PARAMETER temperature 0" in lines
    assert "PARAMETER repeat_penalty 1.0" in lines
    assert "PARAMETER num_ctx 1024" in lines
    assert go_template(chat_pieces(chat)) in text
    GenerationConfig(
        do_sample=True, temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.05
    ).save_pretrained(tmp_path)
    sampled = modelfile("m.gguf", tmp_path, chat, 32768)
    for told in ("temperature 0.7", "top_p 0.8", "top_k 20", "repeat_penalty 1.05", "num_ctx 8192"):
        assert f"PARAMETER {told}\n" in sampled
    assert "SYSTEM" not in sampled.replace(".System", "")
    with pytest.raises(ModelError):
        modelfile("m.gguf", tmp_path, chat, 1024, 'say """')


# What of Go's text/template the Modelfile uses, as Ollama evaluates it.


def filled(template: str, messages: Sequence[dict[str, str]]) -> str:
    parts = re.split(r"\{\{ (.*?) \}\}", template)
    nodes = [("text" if i % 2 == 0 else "action", part) for i, part in enumerate(parts)]
    systems = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    scope = {"$": {"System": systems, "Messages": list(messages)}}
    scope["."] = scope["$"]
    out, rest = _run(nodes, scope)
    assert rest == [], "an end too many"
    return out


def _run(nodes: list[tuple[str, str]], scope: dict[str, Any]) -> tuple[str, list[Any]]:
    """Evaluate up to an else or end that is not ours; return it with what follows."""
    out = ""
    while nodes:
        (kind, code), nodes = nodes[0], nodes[1:]
        if kind == "text":
            out += code
        elif code == "end" or code.startswith("else"):
            return out, [(kind, code), *nodes]
        elif code.startswith("if "):
            said, nodes = _branch(code[3:], nodes, scope)
            out += said
        elif code.startswith("range "):
            after = nodes
            for i, message in enumerate(_value(code.split(":= ")[1], scope)):
                own = {"Role": message["role"], "Content": message["content"]}
                said, after = _run(nodes, scope | {"$i": i, ".": own})
                out += said
            nodes = after[1:]
        elif ":=" in code:
            name, _, value = code.partition(" := ")
            scope[name] = _value(value, scope)
        else:
            out += str(_value(code, scope))
    return out, []


def _branch(test: str, nodes: list[Any], scope: dict[str, Any]) -> tuple[str, list[Any]]:
    holds = bool(_value(test, scope))
    said, nodes = _run(nodes, dict(scope))
    out, (_, code), nodes = said if holds else "", nodes[0], nodes[1:]
    if code.startswith("else if "):
        other, nodes = _branch(code[8:], nodes, scope)
        return (out if holds else other), nodes
    if code == "else":
        other, nodes = _run(nodes, dict(scope))
        return (out if holds else other), nodes[1:]
    return out, nodes


def _value(code: str, scope: dict[str, Any]) -> Any:
    if code.startswith('"'):
        return json.loads(code)
    if code.startswith("(") and code.endswith(")"):
        return _value(code[1:-1], scope)
    if code.isdecimal():
        return int(code)
    verb, *words = re.findall(r'"[^"]*"|\((?:[^()]|\([^()]*\))*\)|\S+', code)
    given = [_value(word, scope) for word in words]
    if words:
        verbs: dict[str, Any] = {
            "eq": lambda a, b: a == b, "not": lambda a: not a, "len": len,
            "slice": lambda a, i: a[i:],
        }  # fmt: skip
        return verbs[verb](*given)
    if verb.startswith("$."):
        return scope["$"][verb[2:]]
    return scope["."][verb[1:]] if verb.startswith(".") else scope[verb]
