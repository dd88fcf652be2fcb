"""Make the embedded model's tokenizer: byte-level BPE in which a Han character is one token.

    python base_model/make_tokenizer.py --shared ../shared/data

The vocabulary is put together from four parts: the 256 bytes, the common Han characters
and Chinese punctuation (by merges written out here, so that none depends on luck), merges
learned from English text and JSON, and the chat tokens. A Han character is always split
off alone, so a verse of five characters is five tokens and its form can be learned; a rare
character falls into its bytes, so every text survives encoding and decoding.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import sources
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 8192
COMMON_HAN = 5000
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = (END_OF_TEXT, TURN_START, TURN_END)
PUNCTUATION = "，。！？；：、“”‘’（）《》〈〉【】「」『』［］—…·～￥％＋－＝／℃°×÷→　•"
# Four times as much verse as prose is in the shared files: without a weight the five
# thousand characters would be the poets', and modern ones would fall into bytes.
PROSE_WEIGHT = 4

WORD = r" ?(?:(?!\p{Han})\p{L})+"
MARKS = rf" ?(?:(?![{PUNCTUATION}])[^\s\p{{L}}\p{{N}}])+"
PIECES = rf"\p{{Han}}|[{PUNCTUATION}]|\p{{N}}|{WORD}|{MARKS}|\s*[\r\n]+|\s+(?!\S)|\s+"
"""What BPE may join: letters of one word, marks such as ``\":``, whitespace; a digit is alone."""

CHAT_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

FIELD_WORDS = """
name date time city address phone email type status title price count total color size
weight room seat order number quantity category label reason reply intent slots slot value
item items person place start end from to origin destination depart arrive model brand
product author book food dish drink doctor department subject grade class teacher student
score level unit language topic tone style summary keywords positive negative neutral true
false null yes no none query search cancel book buy return repair complain thanks greeting
weather temperature wind rain train flight hotel ticket parcel sender receiver company
amount account customer service query change delete add update confirm set open close turn
device mode volume duration frequency contact message id code result answer question text
"""
"""Names that JSON fields bear everywhere; each becomes one or two tokens."""


def byte_characters() -> dict[int, str]:
    """Return the printable character that stands for each byte in a byte-level vocabulary.

    Source: ``bytes_to_unicode`` of the GPT-2 tokenizer.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    shifted = (byte for byte in range(256) if byte not in set(printable))
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + place) for place, byte in enumerate(shifted)
    }


def prose(data: Path) -> Iterator[str]:
    """Yield the modern texts, Chinese and English, that the tokenizer is counted on."""
    dialogues = (
        *sources.alpaca(data / "alpaca_zh.json"),
        *sources.alpaca(data / "alpaca_en_demo.json"),
        *sources.alpaca(data / "identity.json"),
        *sources.v1_messages(data / "v1_sft_demo.jsonl"),
        *sources.medical(data / "medical_qa_gbk.csv"),
    )
    yield from (turn["content"] for dialogue in dialogues for turn in dialogue)
    yield from sources.passages(data / "wiki_demo.txt")
    # Raw, with its tool calls: this is where JSON's punctuation is learned.
    for row in json.loads((data / "glaive_toolcall_zh_demo.json").read_text(encoding="utf-8")):
        yield from (turn["value"] for turn in row["conversations"])


def common_han(data: Path) -> list[str]:
    """Return the Han characters that get a token: the most common, and all of everyday Chinese.

    Everyday Chinese is level 1 of GB 2312 (3,755 characters).
    """
    counts: Counter[str] = Counter()
    for poem in sources.poems(data):
        counts.update(sources.HAN.findall(poem.text))
    for text in prose(data):
        counts.update(sources.HAN.findall(text) * PROSE_WEIGHT)
    most_common = sorted(counts, key=lambda han: (-counts[han], han))[:COMMON_HAN]
    rows = (bytes((row, cell)) for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF))
    level_1 = "".join(pair.decode("gb2312", errors="ignore") for pair in rows)
    return list(dict.fromkeys((*most_common, *level_1)))


def spelled_merges(characters: Iterable[str]) -> list[tuple[str, str]]:
    """Return the merges that join the UTF-8 bytes of each character from left to right."""
    names = byte_characters()
    merges: dict[tuple[str, str], None] = {}
    for character in characters:
        joined, *rest = (names[byte] for byte in character.encode())
        for name in rest:
            merges[joined, name] = None
            joined += name
    return list(merges)


def pieces() -> pre_tokenizers.PreTokenizer:
    """Return the pre-tokenizer: ``PIECES``, then bytes."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def learned_merges(data: Path, count: int) -> list[tuple[str, str]]:
    """Return ``count`` merges learned from English words, JSON marks and whitespace."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pieces()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + count,
        initial_alphabet=sorted(byte_characters().values()),
        show_progress=False,
    )
    spelled = re.compile(rf"(?:{sources.HAN.pattern}|[{PUNCTUATION}])+")
    texts = (piece for text in prose(data) for piece in spelled.split(text) if piece)
    fields = [f'{{"{word}": "{word}", "{word}": {{"{word}": ""}}}}' for word in FIELD_WORDS.split()]
    tokenizer.train_from_iterator([*texts, *(fields * 50)], trainer)
    return [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]


def make_tokenizer(data: Path) -> Tokenizer:
    """Return the tokenizer; its ids are bytes, spelled, learned, special, in this order."""
    alphabet = list(byte_characters().values())
    spelled = spelled_merges((*PUNCTUATION, *common_han(data)))
    room = VOCABULARY - len(alphabet) - len(spelled) - len(SPECIAL)
    # A few merges can be learned that are spelled already (marks that English uses too).
    merges = list(dict.fromkeys((*spelled, *learned_merges(data, room))))
    tokens = dict.fromkeys((*alphabet, *(left + right for left, right in merges)))
    vocabulary = {token: place for place, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pieces()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in SPECIAL])
    return tokenizer


def main() -> None:
    """Write the tokenizer's three files."""
    root = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shared", type=Path, default=root / "../shared/data")
    parser.add_argument("--out", type=Path, default=root / "src/weitiao/models/embedded")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(options.shared)
    tokenizer.save(str(options.out / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": END_OF_TEXT,
        "eos_token": TURN_END,
        "bos_token": None,
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
    }
    text = json.dumps(config, indent=2) + "\n"
    (options.out / "tokenizer_config.json").write_text(text, encoding="utf-8")
    (options.out / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    print(f"{tokenizer.get_vocab_size()} entries in {options.out}")


if __name__ == "__main__":
    main()
