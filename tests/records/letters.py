"""A tokenizer of one token a character."""

import re
from types import SimpleNamespace
from typing import Any

import jinja2

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


class LetterTokenizer:
    """One token a character (its code point), special tokens from 2,000,000 on."""

    def __init__(self, template: str = CHATML, eos: str = "<|im_end|>", *more: str) -> None:
        self.chat_template = template
        self.compiled = jinja2.Template(template, keep_trailing_newline=True)
        self.name_or_path = "letters"
        self.special = list(dict.fromkeys([eos, "<|im_start|>", "<|im_end|>", *more]))
        self.eos_token_id = 2_000_000
        self.all_special_tokens = [eos]
        self.added_tokens_decoder = {
            2_000_000 + i: SimpleNamespace(content=token, special=True)
            for i, token in enumerate(self.special)
        }

    def apply_chat_template(self, conversation: Any, **options: Any) -> str:
        return self.compiled.render(messages=conversation, raise_exception=refuse, **options)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        pieces = re.split("(" + "|".join(map(re.escape, self.special)) + ")", text)
        ids: list[int] = []
        for piece in pieces:
            if piece in self.special:
                ids.append(2_000_000 + self.special.index(piece))
            else:
                ids.extend(map(ord, piece))
        return ids

    def decode(self, ids: Any) -> str:
        return "".join(
            self.special[i - 2_000_000] if i >= 2_000_000 else chr(i) for i in map(int, ids)
        )
