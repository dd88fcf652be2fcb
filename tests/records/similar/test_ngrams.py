import unicodedata
from itertools import combinations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from weitiao.records.similar.ngrams import LONGEST, grams, pieces

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=30)
MIXED = st.text("aab cd，。！1今天气 好ＡＢがé한\u0301-", max_size=30)


def plain(text: str) -> set[str]:
    """The n-grams as the docstring of the module tells them, in plain Python."""
    text = "".join(c for c in text if unicodedata.category(c)[0] not in "PZC")
    text = unicodedata.normalize("NFKC", text).casefold()
    text = "".join(c for c in text if unicodedata.category(c)[0] not in "PZC")
    dense = [
        "\u2e80" <= c <= "\u9fff"
        or "\ua960" <= c <= "\ua97f"
        or "\uac00" <= c <= "\ud7ff"
        or "\uf900" <= c <= "\ufaff"
        or "\U00020000" <= c <= "\U0003ffff"
        for c in text
    ]
    return {text[i : i + (2 if dense[i] else 4)] for i in range(len(text))}


def sets(texts: list[str]) -> list[set[int]]:
    found = grams(texts)
    owners = found.owners.tolist()
    out: list[set[int]] = [set() for _ in texts]
    for owner, value in zip(owners, found.hashes.tolist(), strict=True):
        out[owner].add(value)
    return out


@settings(max_examples=150, deadline=None)
@given(st.lists(ANY_TEXT | MIXED, min_size=1, max_size=8))
@example(["a\0b", "", "\ud800é", "，。", "e\u0301", "\u0301e"])
def test_the_hashes_are_those_of_the_plain_sets(texts):
    found, told = sets(texts), [plain(text) for text in texts]
    assert [len(s) for s in found] == [len(s) for s in told]
    for (one, other), (a, b) in zip(combinations(found, 2), combinations(told, 2), strict=True):
        assert len(one & other) == len(a & b)


@settings(max_examples=100, deadline=None)
@given(st.lists(MIXED, min_size=1, max_size=8))
def test_whole_is_equal_for_equal_texts_and_zero_for_none(texts):
    whole = grams(texts).whole.tolist()
    said = ["".join(_said(text)) for text in texts]
    for i, j in combinations(range(len(texts)), 2):
        assert (whole[i] == whole[j]) == (said[i] == said[j])
    assert [w == 0 for w in whole] == [not s for s in said]


def _said(text: str) -> list[str]:
    text = "".join(c for c in text if unicodedata.category(c)[0] not in "PZC")
    text = unicodedata.normalize("NFKC", text).casefold()
    return [c for c in text if unicodedata.category(c)[0] not in "PZC"]


def test_pieces_are_all_texts_in_order_and_no_piece_is_large():
    texts = ["字" * n for n in (3, 400_000, 200_000, 0, 10, 2_000_000, 1)]
    found = list(pieces(texts))
    assert [text for piece in found for text in piece] == texts
    assert max(sum(min(len(t), LONGEST) for t in piece) for piece in found) <= 500_000
    assert list(pieces([])) == []


def test_only_the_beginning_of_an_endless_text_is_compared():
    one, other = grams(["天地" * LONGEST, "天地" * (LONGEST // 2)]).whole.tolist()
    assert one == other
