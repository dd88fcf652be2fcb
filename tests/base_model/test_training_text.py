"""The embedded model's training text: the same for a seed, honest about what is held out."""

import json
from pathlib import Path

import make_corpus
import pytest
import sources
import synthetic

BANK_WORDS = (
    "银行 转账 贷款 信用卡 储蓄 存款 利率 利息 汇率 汇款 挂失 理财 余额 还款 账户 "
    "bank loan transfer account balance deposit credit mortgage currency"
)


@pytest.fixture(scope="module")
def synthetic_texts() -> list[str]:
    return list(synthetic.documents(seed=5, characters=400_000))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[make_corpus.Document]]:
    data = Path(__file__).parents[2] / "../shared/data"
    if not data.exists():
        pytest.skip("the shared data files are not here")
    documents = [
        *make_corpus.poems(data, held_out_tenths=3),
        *make_corpus.dialogues(data),
        *make_corpus.others(data, seed=5, characters=50_000),
    ]
    return make_corpus.write(documents, tmp_path_factory.mktemp("corpus"), seed=5)


def test_same_seed_same_text(synthetic_texts: list[str]) -> None:
    assert list(synthetic.documents(seed=5, characters=400_000)) == synthetic_texts
    assert list(synthetic.documents(seed=6, characters=1_000)) != synthetic_texts[:5]


def test_synthetic_text_never_speaks_of_banks(synthetic_texts: list[str]) -> None:
    found = [
        word for text in synthetic_texts for word in BANK_WORDS.split() if word in text.lower()
    ]
    assert found == []
    sources_of_words = Path(synthetic.__file__).parent.glob("*.toml")
    listed = "\n".join(
        line for path in sources_of_words for line in path.read_text("utf-8").lower().split("\n")
        if not line.startswith("#")
    )  # fmt: skip
    assert [word for word in BANK_WORDS.split() if word in listed] == []


def test_synthetic_text_is_varied_and_whole(synthetic_texts: list[str]) -> None:
    assert len(set(synthetic_texts)) == len(synthetic_texts)
    chinese = sum(len(text) for text in synthetic_texts if sources.HAN.search(text))
    assert 0.7 < chinese / sum(map(len, synthetic_texts)) < 0.8
    for text in synthetic_texts:
        if text.startswith("<|im_start|>"):
            assert text.endswith("<|im_end|>")
            assert "<|im_start|>assistant\n<|im_end|>" not in text


def test_json_answers_parse_and_copy_from_the_prompt(synthetic_texts: list[str]) -> None:
    copied = total = 0
    for text in synthetic_texts:
        prompt, _, answer = text.rpartition("<|im_start|>assistant\n")
        answer = answer.removesuffix("<|im_end|>")
        if answer.startswith("{"):
            value = json.loads(answer)
            assert answer == json.dumps(value, ensure_ascii=False)
            leaves = [leaf for leaf in value.values() if isinstance(leaf, str)]
            total += len(leaves)
            copied += sum(leaf in prompt for leaf in leaves)
    assert total > 500
    assert copied / total > 0.6  # the rest are intents and replies


def test_training_poems_share_no_couplet_with_held_out_ones(
    corpus: dict[str, list[make_corpus.Document]], shared: Path
) -> None:
    trained = [row.text for row in corpus["train"] if row.source == "poems"]
    known = set().union(*(make_corpus.couplets(text.split("\n", 1)[1]) for text in trained))
    rows = list(sources.quatrain_rows(shared / "data"))
    held_out = [row for row in rows if make_corpus.quatrain_is_held_out(row, 3)]
    assert 0.25 < len(held_out) / len(rows) < 0.35
    assert not any(make_corpus.couplets(row["output"]) & known for row in held_out)
    probes = corpus["heldout_poems"]
    assert len(probes) > 300
    assert not any(make_corpus.couplets(row.text.split("\n", 1)[1]) & known for row in probes)


def test_no_poem_in_a_dialogue(corpus: dict[str, list[make_corpus.Document]], shared: Path) -> None:
    verse = make_corpus.known_verse(shared / "data")
    chats = [row.text for rows in corpus.values() for row in rows if "<|im_start|>" in row.text]
    assert len(chats) > 4000
    assert not any(make_corpus.couplets(text) & verse for text in chats)
    # Names and book titles of the made-up text may hold the word; requests may not.
    made = {"synthetic", "repetition"}
    real = [row.text for rows in corpus.values() for row in rows if row.source not in made]
    asked = [text.split("<|im_end|>")[0] for text in real if text.startswith("<|im_start|>user")]
    assert not [text for text in asked if "诗" in text or "poem" in text.lower()]


def test_no_question_on_both_sides(corpus: dict[str, list[make_corpus.Document]]) -> None:
    def questions(file: str) -> set[str]:
        rows = (row for row in corpus[file] if row.source not in ("poems", "wiki", "synthetic"))
        return {row.text.split("<|im_end|>")[0] for row in rows}

    held_out = questions("heldout_modern") | questions("heldout_english")
    assert len(held_out) > 800
    assert not held_out & questions("train")
