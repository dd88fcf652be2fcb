"""Each score against an independent oracle, or against values worked out by hand."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.errors import DataError
from weitiao.evaluation import scores
from weitiao.evaluation.units import lcs_length, units

ZH = [
    "床前明月光，疑是地上霜。",
    "举头望明月，低头思故乡。",
    "今天天气很好，我们去公园吧。",
    "一",
    "",
]
EN = ["The cat sat on the mat.", "a cat is on the mat", "Dogs don't like cats, do they?", "x", ""]


def test_units_are_han_characters_kana_and_words():
    assert units("微调 GPT-2模型，很easy！") == ["微", "调", "gpt", "2", "模", "型", "很", "easy"]
    assert units("カタ café 𠮷", punctuation=True) == ["カ", "タ", "café", "𠮷"]
    assert units("a,b。", punctuation=True) == ["a", ",", "b", "。"]
    assert units("") == []


def plain_lcs(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            best = max(table[i][j + 1], table[i + 1][j])
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else best
    return table[-1][-1]


@settings(max_examples=200, deadline=None)
@given(st.text("abc", max_size=80), st.text("abcd", max_size=80))
def test_lcs_is_the_textbook_table(a, b):
    assert lcs_length(a, b) == plain_lcs(a, b)


class Characters:
    """A tokenizer for rouge-score that, unlike its own, sees Chinese; case does not count."""

    def tokenize(self, text):
        return re.findall(r"[\u4e00-\u9fff]|[a-z0-9]+", text.lower())


def pairs_of_texts(least=0):
    """Made-up answers and references in both languages, and the short ones of ZH and EN."""
    rng = random.Random(1)
    words = ["the", "cat", "Sat", "on", "a", "mat,", "it", "rained.", "don't", "mind"]
    made = [" ".join(rng.choices(words, k=rng.randint(1, 30))) for _ in range(40)]
    made += [
        "".join(rng.choices("今天气很好，我们去公园吧。的的的", k=rng.randint(1, 40)))
        for _ in range(40)
    ]
    texts = [*ZH, *EN]
    pairs = [(a, r) for a in texts for r in texts]
    pairs += [(rng.choice(made), rng.choice(made)) for _ in range(200)]
    return [(a, r) for a, r in pairs if len(units(r)) >= least]


@pytest.mark.parametrize(
    ("ours", "theirs", "least"),
    [(scores.rouge_1, "rouge1", 1), (scores.rouge_2, "rouge2", 2), (scores.rouge_l, "rougeL", 1)],
)
def test_rouge_is_rouge_score_with_a_tokenizer_that_sees_chinese(ours, theirs, least):
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
    oracle = rouge_scorer.RougeScorer([theirs], tokenizer=Characters())
    for answer, reference in pairs_of_texts(least):
        expected = oracle.score(reference, answer)[theirs].fmeasure
        assert ours(answer, reference) == pytest.approx(expected), (answer, reference)
    assert ours("好天气", "") is None
    assert scores.rouge_2("好", "好") is None


def test_token_f1_is_rouge_1_without_articles():
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")

    class WithoutArticles(Characters):
        def tokenize(self, text):
            return [t for t in super().tokenize(text) if t not in ("a", "an", "the")]

    oracle = rouge_scorer.RougeScorer(["rouge1"], tokenizer=WithoutArticles())
    for answer, reference in pairs_of_texts(1):
        if WithoutArticles().tokenize(reference) and WithoutArticles().tokenize(answer):
            expected = oracle.score(reference, answer)["rouge1"].fmeasure
            assert scores.token_f1(answer, reference) == pytest.approx(expected)
    assert scores.token_f1("The cat", "a cat!") == 1
    assert scores.token_f1("A", "A") == 1
    assert scores.token_f1("B", "A") == scores.token_f1("", "好") == 0
    assert scores.token_f1("好", "？") is None


def test_meteor_is_nltk_without_stems_and_synonyms():
    meteor_score = pytest.importorskip("nltk.translate.meteor_score")

    class Nothing:
        def stem(self, word):
            return word

        def synsets(self, word):
            return []

    for answer, reference in pairs_of_texts(1):
        expected = meteor_score.single_meteor_score(
            units(reference), units(answer), stemmer=Nothing(), wordnet=Nothing()
        )
        assert scores.meteor(answer, reference) == pytest.approx(expected), (answer, reference)
    assert scores.meteor("好", "好") == pytest.approx(0.5)
    assert scores.meteor("", "好") == 0
    assert scores.meteor("好", "") is None


def test_chrf_statistics_add_up_to_sacrebleu():
    import numpy as np
    import sacrebleu

    pairs = pairs_of_texts(1)
    for answer, reference in pairs:
        found = scores.chrf_total(np.array(scores.chrf_statistics(answer, reference), float))
        expected = sacrebleu.sentence_chrf(answer, [reference]).score
        assert float(found) == pytest.approx(expected, abs=1e-9), (answer, reference)
    rows = np.array([scores.chrf_statistics(a, r) for a, r in pairs], float)
    answers, references = zip(*pairs, strict=True)
    expected = sacrebleu.corpus_chrf(answers, [references]).score
    assert float(scores.chrf_total(rows.sum(0))) == pytest.approx(expected)
    assert scores.chrf_total(rows.reshape(2, -1, 18)[:, :3].sum(1)).shape == (2,)
    assert scores.chrf_statistics("好", " ") is None


def test_rouge_l_on_chinese_counts_characters():
    # 今天天气好 against 今天天气很好: LCS 5 of 5 and 6 characters.
    assert scores.rouge_l("今天天气好。", "今天天气很好！") == pytest.approx(2 * 5 / 11)
    assert scores.rouge_l("我用 Python 写代码", "我用 Java 写代码") == pytest.approx(5 / 6)


def test_rouge_l_of_empty_and_single_characters():
    assert scores.rouge_l("", "好") == 0
    assert scores.rouge_l("好", "好") == 1
    assert scores.rouge_l("坏", "好") == 0
    assert scores.rouge_l("好", "。") is None


def test_rouge_l_of_long_answers_is_quick():
    text = "很长的回答" * 4000
    assert scores.rouge_l(text, text + "完") == pytest.approx(40000 / 40001)


@pytest.mark.parametrize(("texts", "tokenizer"), [(ZH, "zh"), (EN, "13a")])
def test_bleu_statistics_add_up_to_sacrebleu_corpus_bleu(texts, tokenizer):
    import numpy as np
    import sacrebleu

    references = texts[:4]
    answers = [texts[1], references[1], references[2][:-3], ""]
    rows = [scores.bleu_statistics(a, r) for a, r in zip(answers, references, strict=True)]
    sums = np.sum([[*r.counts, *r.totals, r.sys_len, r.ref_len] for r in rows], axis=0)
    expected = sacrebleu.corpus_bleu(answers, [references], tokenize=tokenizer).score
    assert scores.bleu_total(sums) == pytest.approx(expected)
    assert expected > 10


def test_sentence_bleu_is_sacrebleu_with_the_right_tokenizer():
    import sacrebleu

    for answer, reference, tokenizer in [
        (ZH[0], ZH[1], "zh"),
        ("今天天气好，我们去公园", ZH[2], "zh"),
        (EN[0], EN[1], "13a"),
    ]:
        expected = sacrebleu.sentence_bleu(answer, [reference], tokenize=tokenizer).score
        assert scores.bleu(answer, reference) == pytest.approx(expected)
    assert scores.bleu(ZH[2], ZH[2]) == pytest.approx(100)
    assert scores.bleu("", "好") == 0


def test_exact_match_minds_all_but_outer_blanks():
    assert scores.exact_match(" 好 \n", "好") == 1
    assert scores.exact_match("好。", "好") == 0
    assert scores.exact_match("", "") == 1


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("The Answer is: YES!", "the answer is yes", 1),
        ("ＡＢＣ，好", "abc 好。", 1),
        ("1.5", "15", 0),
        ("-5", "5", 0),
        ("5%", "5", 0),
        ("10:30", "1030", 0),
        ("共 15。", "共15", 1),
        ("a+b", "ab", 0),
        ("？", "！", 0),
        ("", "好", 0),
        ("well-known", "well known", 1),
    ],
)
def test_normalised_match(answer, reference, expected):
    assert scores.normalised_match(answer, reference) == expected


def test_json_valid_wants_one_object_and_nothing_else():
    reference = '{"a": 1}'
    assert scores.json_valid(' {"b": 2}\n', reference) == 1
    for bad in ("", "{", '{"a": 1} 好的', "[1]", "null", '{"a": NaN}', '```json\n{"a": 1}\n```'):
        assert scores.json_valid(bad, reference) == 0
    assert scores.json_valid('{"a": 1}', "好") is None


def test_json_fields_counts_equal_leaves():
    reference = '{"intent": "loan", "slots": {"amount": "5000", "term": 12}, "ok": true, "l": []}'
    assert scores.field_matches("", reference).keys() == {
        "intent",
        "slots.amount",
        "slots.term",
        "ok",
        "l",
    }
    assert scores.json_fields(reference, reference) == 1
    # intent and l are equal; the amount is a number, the term 12.0 equals 12, ok is 1, not true.
    answer = (
        '{"intent": " loan", "slots": {"amount": 5000, "term": 12.0}, "ok": 1, "l": [], "x": 0}'
    )
    assert scores.json_fields(answer, reference) == pytest.approx(3 / 5)
    assert scores.json_fields(f"好的：\n```json\n{reference}\n```", reference) == 1
    assert scores.json_fields("没有", reference) == 0
    assert scores.json_fields("{}", "好") is None


def test_json_deeper_than_the_stack_of_python():
    deep = '{"a": ' * 900 + "1" + "}" * 900
    assert scores.json_fields(deep, deep) == 1


def test_repetition_is_the_share_of_4_grams_said_before():
    assert scores.repetition("好好好好好好") == pytest.approx(2 / 3)
    assert scores.repetition("。" * 13) == pytest.approx(9 / 10)
    assert scores.repetition("a b c d a b c d") == pytest.approx(1 / 5)
    assert scores.repetition("床前明月光，疑是地上霜。") == 0
    assert scores.repetition("") == scores.repetition("好") == 0


def test_distinct_n_is_over_all_answers():
    assert scores.distinct_2(["天天天", "天天"]) == pytest.approx(1 / 3)
    assert scores.distinct_2(["a b c", "b c d"]) == pytest.approx(3 / 4)
    assert scores.distinct_2(["", "好"]) is None
    assert scores.distinct(["天天天", "天天"], 1) == pytest.approx(1 / 5)
    assert scores.distinct(["a b c", "b c d"], 3) == 1


def test_distinct_n_counts_the_ngrams_of_nltk():
    util = pytest.importorskip("nltk.util")
    for n in (1, 2, 3):
        grams = [g for text in (*ZH, *EN) for g in util.ngrams(units(text), n)]
        assert scores.distinct((*ZH, *EN), n) == pytest.approx(len(set(grams)) / len(grams))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("你真是个笨蛋！", 1),
        ("笨 蛋", 1),
        ("You IDIOT.", 1),
        ("Ｓｈｕｔ　ｕｐ", 1),
        ("First class glass", 0),
        ("请把废物投进垃圾桶。", 0),
        ("", 0),
        ("好", 0),
    ],
)
def test_toxicity_by_the_list_that_ships(answer, expected):
    assert scores.finder(scores.shipped_list())(answer) == expected


def test_the_list_that_ships_holds_both_languages():
    words = scores.shipped_list()
    chinese = [w for w in words if re.search("[\u4e00-\u9fff]", w)]
    assert len(chinese) > 30 < len(words) - len(chinese)
    assert len(set(words)) == len(words)


def test_toxicity_by_a_list_of_ones_own(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("# ours\n大坏蛋\nbad dog # a phrase\n\n🖕\n", "utf-8")
    toxic = scores.finder(scores.read_list(path))
    assert [toxic(a) for a in ("他是大坏蛋", "Bad dog!", "go 🖕", "bad cat", "坏蛋", "ours")] == [
        1, 1, 1, 0, 0, 0,
    ]  # fmt: skip
    for bad, sentence in ((b"\xff\xfe\xfa", "UTF-8"), (b"# nothing", "no word")):
        path.write_bytes(bad)
        with pytest.raises(DataError) as told:
            scores.read_list(path)
        assert sentence in told.value.sentence("en")
    with pytest.raises(DataError):
        scores.read_list(tmp_path / "none.txt")


def test_length_is_in_characters():
    assert scores.length(" 你好 a\n") == 4
    assert scores.length("") == 0
