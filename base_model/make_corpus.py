"""Write the embedded model's training text and the texts held out from it.

    python base_model/make_corpus.py --shared ../shared/data

The corpus is made on the spot and never committed. Rows are ``{"text": ...}``; dialogues are
rendered as the chat template renders them and end in ``<|im_end|>``, so that stopping is
learned too. What is held out is chosen by hash, so that it stays held out when files grow:

* every row of the quatrain task, and every poem that shares a couplet with one of them
  (``--held-out-quatrains 3`` chooses three in ten by hash instead);
* one in a hundred of the other poems (``heldout_poems``);
* one in five dialogues by their first question (``heldout_modern``, ``heldout_english``);
* one in a hundred synthetic documents (``heldout_synthetic``).

No poem enters a dialogue: writing verse on request is left for fine-tuning to teach.
"""

import argparse
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import repetition
import sources
import synthetic
from sources import bucket, han_only
from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[1]
POETRY = re.compile(
    r"诗|绝句|俳句|押韵|歌词|打油|poe[mt]|haiku|sonnet|verse|rhym|lyric|limerick", re.I
)
COUPLET_HAN = 10
LOOPS, REPETITIONS = 16_000, 10_000
POEMS_PERCENT = 60
COPYING, TRAIN, POEMS, MODERN, ENGLISH, SYNTHETIC = (
    "copying", "train", "heldout_poems", "heldout_modern", "heldout_english", "heldout_synthetic",
)  # fmt: skip


@dataclass(frozen=True)
class Document:
    """One text, the file it goes to and where it came from."""

    text: str
    file: str
    source: str


def couplets(text: str) -> set[str]:
    """Return the sentences of verse in ``text`` that are long enough to know a poem by."""
    sentences = (han_only(part) for part in re.split(r"[。！？；\n]", text))
    return {sentence for sentence in sentences if len(sentence) >= COUPLET_HAN}


def quatrain_is_held_out(row: dict[str, str], tenths: int) -> bool:
    """Say whether a row of the quatrain task, and with it its poem, is kept from training."""
    return bucket(f"{row['instruction']}\n{row['input']}", 10) < tenths


def poems(data: Path, held_out_tenths: int) -> Iterator[Document]:
    """Yield the poems, each body once; those of held-out quatrains are left out altogether."""
    quatrains: set[str] = set()
    for row in sources.quatrain_rows(data):
        if quatrain_is_held_out(row, held_out_tenths):
            quatrains |= couplets(row["output"]) | {han_only(row["output"])}
    bodies = {han_only(poem.body): poem for poem in sources.poems(data)}
    kept = {
        body: poem
        for body, poem in bodies.items()
        if body not in quatrains and not couplets(poem.body) & quatrains
    }
    probes = [poem for body, poem in kept.items() if bucket(body, 100) == 0]
    probed = set().union(*(couplets(poem.body) for poem in probes))
    for poem in probes:
        yield Document(poem.text, POEMS, "poems")
    for body, poem in kept.items():
        if 0 < bucket(body, 100) <= POEMS_PERCENT and not couplets(poem.body) & probed:
            yield Document(poem.text, TRAIN, "poems")


def known_verse(data: Path) -> set[str]:
    """Return every couplet of the poems and of the quatrain task."""
    bodies = (poem.body for poem in sources.poems(data))
    answers = (row["output"] for row in sources.quatrain_rows(data))
    return {couplet for text in (*bodies, *answers) for couplet in couplets(text)}


def dialogues(data: Path) -> Iterator[Document]:
    """Yield the real dialogues without verse, each question on one side only."""
    files = {
        "identity": sources.alpaca(data / "identity.json"),
        "alpaca_zh": sources.alpaca(data / "alpaca_zh.json"),
        "alpaca_en": sources.alpaca(data / "alpaca_en_demo.json"),
        "medical": sources.medical(data / "medical_qa_gbk.csv"),
        "v1_sft": sources.v1_messages(data / "v1_sft_demo.jsonl"),
        "glaive": sources.tool_free_dialogues(data / "glaive_toolcall_zh_demo.json"),
    }
    verse = known_verse(data)
    for source, found in files.items():
        for dialogue in found:
            text = sources.chatml(dialogue)
            if POETRY.search(dialogue[0]["content"]) or couplets(text) & verse:
                continue
            held_out = MODERN if sources.HAN.search(text) else ENGLISH
            # By the question: the same one occurs in several files.
            file = TRAIN if bucket(dialogue[0]["content"], 10) < 8 else held_out
            yield Document(text, file, source)


def others(data: Path, seed: int, characters: int) -> Iterator[Document]:
    """Yield the encyclopaedia's passages, the synthetic text and the repetitions."""
    for text in sources.passages(data / "wiki_demo.txt"):
        yield Document(text, ENGLISH if bucket(text, 100) == 0 else TRAIN, "wiki")
    for text in synthetic.documents(seed, characters):
        yield Document(text, SYNTHETIC if bucket(text, 100) == 0 else TRAIN, "synthetic")
    for number, text in enumerate(repetition.documents(seed, LOOPS + REPETITIONS)):
        yield Document(text, COPYING if number < LOOPS else TRAIN, "repetition")


def write(documents: Iterable[Document], out: Path, seed: int) -> dict[str, list[Document]]:
    """Write each file's documents, every text once, shuffled; return them by file."""
    files: dict[str, dict[str, Document]] = defaultdict(dict)
    for document in documents:
        files[document.file].setdefault(document.text, document)
    out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    written = {}
    for file, by_text in files.items():
        rows = list(by_text.values())
        rng.shuffle(rows)
        lines = (json.dumps({"text": row.text}, ensure_ascii=False) + "\n" for row in rows)
        (out / f"{file}.jsonl").write_text("".join(lines), encoding="utf-8")
        written[file] = rows
    return written


def count_tokens(written: dict[str, list[Document]], tokenizer: Tokenizer) -> str:
    """Return a table of documents, characters and tokens by file and source."""
    lines = [f"{'file':18} {'source':10} {'documents':>9} {'characters':>10} {'tokens':>9}"]
    for file, rows in written.items():
        encoded = tokenizer.encode_batch([row.text for row in rows])
        totals: dict[str, Counter[str]] = defaultdict(Counter)
        for row, ids in zip(rows, encoded, strict=True):
            counted = {"documents": 1, "characters": len(row.text), "tokens": len(ids)}
            totals[row.source].update(counted)
            totals["all"].update(counted)
        for source, total in totals.items():
            lines.append(
                f"{file:18} {source:10} {total['documents']:9,} "
                f"{total['characters']:10,} {total['tokens']:9,}"
            )
    return "\n".join(lines)


def main() -> None:
    """Write the corpus and print its token counts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shared", type=Path, default=ROOT / "../shared/data")
    parser.add_argument("--out", type=Path, default=ROOT / "base_model/build")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--synthetic-characters", type=int, default=2_800_000)
    parser.add_argument(
        "--held-out-quatrains",
        type=int,
        default=10,
        metavar="TENTHS",
        help="tenths of the quatrain task whose poems are left out (default 10: all of them)",
    )
    options = parser.parse_args()
    documents = (
        *poems(options.shared, options.held_out_quatrains),
        *dialogues(options.shared),
        *others(options.shared, options.seed, options.synthetic_characters),
    )
    written = write(documents, options.out, options.seed)
    tokenizer = Tokenizer.from_file(str(ROOT / "src/weitiao/models/embedded/tokenizer.json"))
    table = count_tokens(written, tokenizer)
    (options.out / "counts.txt").write_text(table + "\n", encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
