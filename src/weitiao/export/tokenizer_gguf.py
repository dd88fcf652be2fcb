"""A byte-level BPE tokenizer in GGUF's terms, and what a program makes of them.

GGUF does not hold how text is split before merges are looked up: it names one of llama.cpp's
ways. The name is found by trying: the same vocabulary behind each known splitting must give the
tokenizer's own ids.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import orjson
from tokenizers import AddedToken, Regex, Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as Splits

from weitiao.errors import ModelError

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""GGUF's types of tokens."""

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_SIGNS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LETTERS = (
    r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕ"
    r"ἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\x{1F7D}ᾀ-ᾴᾶ-ᾼ\x{1FBE}ῂ-ῄῆ-ῌῐ-\x{1FD3}ῖ-\x{1FDB}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\x{2126}"
    r"ℨ\x{212A}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲"
    r"𑢠-𑣟𞤀-𞥃]+"
)
PATTERNS: dict[str, tuple[str, ...]] = {
    "qwen2": (_WORDS + r"\p{N}" + _SIGNS,),
    "llama-bpe": (_WORDS + r"\p{N}{1,3}" + _SIGNS,),
    "deepseek-llm": (
        r"[\r\n]", _LETTERS, r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", r"[一-龥ࠀ-一가-퟿]+",
        r"\p{N}+",
    ),
}  # fmt: skip
"""llama.cpp's name of a splitting → its patterns, one after the other. Qwen2.5, Qwen3 and the
DeepSeek-R1 distilled from Qwen split like qwen2, Llama 3 and those distilled from it like
llama-bpe."""

PROBES = (
    "床前明月光，疑是地上霜。1+1=2，12345 6.78%",
    "It's Tom's; they'LL say 'same' and don't'x I'm you're we've he'd",
    "  two  spaces\t\ttabs\n\n \nlines\r\n\r\n end  ",
    "def f(x):\n    return {\"a\": [1, 22, 333]}  # ok\n\n\tif x != y: pass",
    "“引号”——省略……（一）、《二》！？\n\n第2行：完。\n",
    "ÀÉîõü ñandú Привет, мир! Ελληνικά ひらがなカタカナ 한국어 עברית ไทย",
    "😀👩‍👧 🇨🇳 © ™ → ≥ ½ ① Ⅳ ２０２４年ＡＢＣ http://a.b/c?d=e&f=1",
)  # fmt: skip
"""Text of many kinds in NFC, which llama.cpp does not bring about by itself."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer as GGUF holds it: tokens and their types by id, merges, splitting's name."""

    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    pre: str

    def padded(self, entries: int) -> "Vocabulary":
        """Return it with unused entries up to the rows of the embedding."""
        more = range(len(self.tokens), entries)
        tokens = (*self.tokens, *(f"[PAD{i}]" for i in more))
        return Vocabulary(tokens, (*self.types, *(UNUSED for _ in more)), self.merges, self.pre)

    def tokenizer(self) -> Tokenizer:
        """Return what a program that reads the file splits and merges text with."""
        ids = {token: i for i, token in enumerate(self.tokens)}
        pairs = [(one, other) for one, other in (merge.split(" ") for merge in self.merges)]
        # llama.cpp takes a whole word that is a token without its merges for Llama 3 alone.
        made = Tokenizer(BPE(ids, pairs, ignore_merges=self.pre == "llama-bpe"))
        made.pre_tokenizer = _splitting(PATTERNS[self.pre])
        made.decoder = decoders.ByteLevel()
        for kind, add in ((USER_DEFINED, made.add_tokens), (CONTROL, made.add_special_tokens)):
            chosen = zip(self.tokens, self.types, strict=True)
            add([AddedToken(t, normalized=False) for t, own in chosen if own == kind])
        return made


def _splitting(patterns: Iterable[str]) -> Any:
    splits = [Split(Regex(pattern), "isolated") for pattern in patterns]
    return Splits([*splits, ByteLevel(add_prefix_space=False, use_regex=False)])


def read_vocabulary(folder: Path, model: str) -> Vocabulary:
    """Return the tokenizer of ``folder`` in GGUF's terms; ``model`` names it in the error.

    Raises:
        ModelError: it is no byte-level BPE, or splits text in a way that llama.cpp has no
            name for.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ModelError("error.gguf_tokenizer", model=model)
    data = orjson.loads(file.read_bytes())
    splits = _pre_tokenizers(data)
    byte_level = data["model"]["type"] == "BPE" and any(s["type"] == "ByteLevel" for s in splits)
    if not byte_level or data["model"].get("byte_fallback"):
        raise ModelError("error.gguf_tokenizer", model=model)
    found = _vocabulary(data)
    if splits == _embedded_splits():
        # Equal but for quoted words such as 'text', whose beginning qwen2 takes for that of don't.
        return found
    return replace(found, pre=_name_of(data, model))


def _vocabulary(data: Mapping[str, Any]) -> Vocabulary:
    tokens: dict[int, str] = {i: token for token, i in data["model"]["vocab"].items()}
    types = dict.fromkeys(tokens, NORMAL)
    for added in data["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    entries = max(tokens) + 1
    return Vocabulary(
        tokens=tuple(tokens.get(i, f"[PAD{i}]") for i in range(entries)),
        types=tuple(types.get(i, UNUSED) for i in range(entries)),
        merges=tuple(m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]),
        pre="qwen2",
    )


def _name_of(data: Mapping[str, Any], model: str) -> str:
    """Return the name of the splitting behind which the probes have the tokenizer's own ids."""
    data = _shortened(data, PROBES)
    expected = ids_of(Tokenizer.from_buffer(orjson.dumps(data)), PROBES)
    for pre in PATTERNS:
        if ids_of(replace(_vocabulary(data), pre=pre).tokenizer(), PROBES) == expected:
            return pre
    raise ModelError("error.gguf_tokenizer", model=model)


def _shortened(data: Mapping[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """Return the tokenizer with those tokens alone that ``texts`` can become, numbered anew.

    They are single bytes and what stands in the texts; merges make nothing else of them. All of
    a large vocabulary takes a second to load.
    """
    level = ByteLevel(add_prefix_space=False, use_regex=False)
    there = "\n".join(level.pre_tokenize_str(text)[0][0] for text in texts)
    added = data["added_tokens"]
    kept = [token for token in data["model"]["vocab"] if len(token) == 1 or token in there]
    ids = {
        token: i for i, token in enumerate(dict.fromkeys([*kept, *(a["content"] for a in added)]))
    }
    merges = (m.split(" ") if isinstance(m, str) else m for m in data["model"]["merges"])
    made = [[a, b] for a, b in merges if a + b in ids and a in ids and b in ids]
    return {
        **data,
        "model": {**data["model"], "vocab": ids, "merges": made},
        "added_tokens": [{**a, "id": ids[a["content"]]} for a in added],
    }


def ids_of(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of each text by itself, nothing put before or after it."""
    return [e.ids for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def _pre_tokenizers(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = data["pre_tokenizer"] or {"type": "none"}
    return list(found.get("pretokenizers", [found]))


def _embedded_splits() -> list[dict[str, Any]]:
    file = resources.files("weitiao.models") / "embedded" / "tokenizer.json"
    return _pre_tokenizers(orjson.loads(file.read_bytes()))
