"""The page: whole in both languages, safe with what models say, loading nothing."""

import json
import re
from html.parser import HTMLParser

import pytest
from made_measures import HOSTILE as MEASURES_HOSTILE
from made_measures import made_measures
from made_run import HOSTILE, made_run

from weitiao.errors import RunError
from weitiao.evaluation.report import write_report
from weitiao.evaluation.report.draw import _nice, interval_bars, loss_curve
from weitiao.evaluation.resample import Estimate
from weitiao.plan.plan import read_plan
from weitiao.runs import Run
from weitiao.words import set_language


@pytest.fixture(autouse=True)
def _english():
    set_language("en")


class Page(HTMLParser):
    """Gathers the words of each language, the tags, and what the page would load."""

    VOID = frozenset(("meta", "br", "path", "img", "link", "input"))

    def __init__(self, html):
        super().__init__()
        self.open, self.words, self.tags, self.loads = [], {"en": [], "zh": [], "": []}, [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.loads += [attrs[a] for a in ("src", "href", "srcset", "data", "action") if a in attrs]
        if tag not in self.VOID:
            classes = (attrs.get("class") or "").split()
            self.open.append((tag, next((c for c in classes if c in ("en", "zh")), "")))

    def handle_endtag(self, tag):
        assert self.open[-1][0] == tag, f"</{tag}> closes {self.open[-1]}"
        self.open.pop()

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        tags = {tag for tag, _ in self.open}
        if data.strip() and not tags & {"style", "script"}:
            language = next((word for _, word in reversed(self.open) if word), "")
            self.words[language].append(data.strip())


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    run = made_run(tmp_path_factory.mktemp("runs") / "bank-1")
    set_language("en")
    return write_report(run).read_text(encoding="utf-8")


def test_every_section_is_there_in_both_languages(page):
    found = Page(page)
    assert found.open == []
    assert len(found.words["en"]) == len(found.words["zh"]) > 100
    english, chinese = " ".join(found.words["en"]), " ".join(found.words["zh"])
    for heading in ("Before and after", "Answers side by side", "How training went", "The data"):
        assert heading in english
    for heading in ("微调前后", "回答对照", "训练过程", "数据", "如何重现", "设置与理由"):
        assert heading in chinese
    assert "Better: on 120 rows" in english
    assert "变好了：在 120 条" in chinese
    assert not re.search(r"[\u4e00-\u9fff]", english.replace("中文", ""))


def test_what_models_and_users_say_is_escaped(page):
    assert "<b>{{" not in page
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt; &amp; &lt;b&gt;{{ 7 * 7 }}" in page
    assert HOSTILE.split()[0] not in page
    assert Page(page).tags.count("script") == 1


def test_the_page_loads_nothing(page):
    found = Page(page)
    assert found.loads == []
    assert not {"link", "img", "iframe", "object"} & set(found.tags)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", page)


def test_what_happened_stands_beside_what_was_predicted(page):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "1.32 GB" in text
    assert "2.5 min" in text
    assert "3,846 tokens/s" in text
    assert "42 s" in text


def test_every_setting_has_its_reason(page, tmp_path):
    plan = read_plan(made_run(tmp_path / "r").plan)
    assert len(plan.reasons) > 20
    for reason in plan.reasons.values():
        for language in ("en", "zh"):
            assert reason.sentence(language) in page


def test_losses_are_shown_as_well_as_gains(page):
    places = [page.index(h) for h in ("The worst losses", "The largest gains", "Drawn by lot")]
    assert places == sorted(places)
    assert page.count('class="example"') == 7 + 3 + 3
    assert "Base right, tuned wrong: 7 of 120 rows; the other way round: 80." in page


def test_the_verdict_comes_first(page):
    english = Page(page).words["en"]
    assert english.index("The tuned model is better.") < english.index("What changed")
    assert 'class="hero better"' in page


def test_every_score_has_its_chance_its_effect_and_what_it_counts(page):
    line = re.sub(r"<[^>]+>", " ", page[page.index("<strong>ROUGE-L") :][:1500])
    assert re.search(r"p = 0\.\d{3} · +effect 3\.\d\d .* · +by characters \(Chinese\)", line)


def test_the_categories_stand_in_a_table_of_their_own(page):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "for each value of the column “intent”" in text
    assert page.index("<strong>check_balance") < page.index("<strong>transfer_money")
    assert page.index("<strong>transfer_money") < page.index("the others together")


def test_the_page_opens_in_the_language_spoken(tmp_path):
    run = made_run(tmp_path / "r", measured=False)
    set_language("zh")
    assert '<html lang="zh">' in write_report(run).read_text(encoding="utf-8")
    set_language("en")
    assert '<html lang="en">' in write_report(run).read_text(encoding="utf-8")


@pytest.mark.parametrize(("trained", "rows"), [(True, 0), (False, 0), (True, 3), (True, 20)])
def test_a_run_that_came_part_of_the_way(tmp_path, trained, rows):
    run = made_run(tmp_path / "r", measured=rows > 0, trained=trained, rows=rows)
    html = write_report(run).read_text(encoding="utf-8")
    assert Page(html).open == []
    assert ("Not measured yet" in html) == (rows == 0)
    assert ("It cannot be told" in html) == (rows == 3)
    assert ("How training went" in html) == trained


def test_what_was_measured_beside_the_scores_has_a_section_each(page, tmp_path):
    titles = {"Forgetting", "Memorising", "Speed", "What a judge says", "What people say"}
    titles.add("Public benchmarks")
    assert not titles & set(Page(page).words["en"])
    run = made_run(tmp_path / "r")
    made_measures(run.evaluation)
    html = write_report(run).read_text(encoding="utf-8")
    found = Page(html)
    assert titles <= set(found.words["en"])
    assert {"遗忘", "死记硬背", "速度", "评委的看法", "人的看法", "公开基准"} <= set(
        found.words["zh"]
    )
    assert len(found.words["en"]) == len(found.words["zh"])
    assert found.loads == []
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))
    # Interval, both models' rows, an extrapolated time, the shares of the judge's votes.
    for said in (
        "33% 29% … 37%",
        "33 1 17",
        "≈ 1.1",
        "tuned better 微调后更好 78",
        "4 of them",
        "0.430 ± 0.035",
    ):
        assert said in text, said
    assert "lost much of what the base could do; see" in text
    assert MEASURES_HOSTILE not in html
    assert found.tags.count("script") == 1


def test_a_broken_measure_is_a_sentence(tmp_path):
    run = made_run(tmp_path / "r")
    (run.evaluation / "speed.json").write_text('{"base": 1}')
    with pytest.raises(RunError, match=r"speed\.json"):
        write_report(run)


def test_results_of_before_there_were_categories_are_a_page_too(tmp_path):
    run = made_run(tmp_path / "r")
    path = run.evaluation / "results.json"
    old = json.loads(path.read_text())
    for name in ("categories", "category_column", "turned", "overlap"):
        del old[name]
    path.write_text(json.dumps(old))
    html = write_report(run).read_text(encoding="utf-8")
    assert "By category" not in html
    assert "Base right" not in html


def test_rows_that_may_have_been_trained_on_are_not_said_to_be_new(page, tmp_path):
    assert "none of which were trained on" in page
    run = made_run(tmp_path / "r")
    path = run.evaluation / "results.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "overlap": True}))
    html = write_report(run).read_text(encoding="utf-8")
    for said in ("none of which were trained on", "kept out of training", "没有参加训练"):
        assert said not in html
    assert html.count("may have been trained on") == html.count("参加过训练") == 2


def test_poems_have_their_marks_only_where_the_suite_is_about_poems(page, tmp_path):
    assert "Tones and rhyme" not in page
    run = made_run(tmp_path / "r")
    path = run.evaluation / "results.json"
    results = json.loads(path.read_text())
    results["suite"]["scores"] = ["poem_rhymes"]
    results["examples"][0]["tuned"] = "白日依山尽，黄河入海流。\n欲穷千里目，更上一层楼。"
    path.write_text(json.dumps(results))
    html = write_report(run).read_text(encoding="utf-8")
    assert "白日依山尽  ●●○○●" in html
    assert "Pingshui" in html


def test_an_empty_run_is_a_page_too(tmp_path):
    (tmp_path / "r").mkdir()
    assert Page(write_report(Run(tmp_path / "r")).read_text(encoding="utf-8")).open == []


def test_a_broken_file_is_a_sentence(tmp_path):
    run = made_run(tmp_path / "r")
    (run.evaluation / "results.json").write_text("{")
    with pytest.raises(RunError, match=r"results\.json"):
        write_report(run)


def test_steps_told_twice_after_a_resume_count_once(tmp_path):
    run = made_run(tmp_path / "r")
    with run.events.open("a", encoding="utf-8") as out:
        event = {"kind": "train.step", "time": 1, "step": 10, "loss": 9.0}
        out.write(json.dumps(event) + "\n")
    from weitiao.evaluation.report.facts import read_facts

    training = read_facts(run).training
    assert len(training.steps) == 315
    assert training.steps[9] == (10, 9.0)


def test_round_numbers_enclose_the_range():
    for low, high in ((0.21, 4.3), (0, 315), (0.999, 1.001), (2.0, 2.0), (0, 0), (1e-5, 3e-5)):
        marks = _nice(low, high, 5)
        assert marks[0] <= low
        assert marks[-1] >= high
        assert 2 <= len(marks) <= 8


def test_a_curve_of_one_point_and_of_many():
    one = loss_curve([(1, 2.5)], [], None)
    assert "nan" not in one.svg
    many = loss_curve([(i, 5 / i) for i in range(1, 5001)], [(5000, 0.1)], 5000)
    assert len(many.svg) < 25_000
    assert [tick.label for tick in many.across][-1] == "5,000"


def test_bars_stay_inside():
    svg = interval_bars(Estimate(0.5, 0.4, 0.6), Estimate(2.0, 1.9, 2.1), 1.0)
    assert "M40.00 30H60.00" in svg
    assert max(float(x) for x in re.findall(r"[MH](\d+\.\d+)", svg)) <= 100
    assert "nan" not in interval_bars(Estimate(0.0), Estimate(0.0), 0.0)


def with_losses(run: Run, losses: int) -> str:
    """Return the page of ``run`` with so many losses, and no other examples."""
    path = run.evaluation / "results.json"
    results = json.loads(path.read_text())
    loss = {**results["examples"][0], "why": "loss"}
    results["examples"] = [{**loss, "row": i, "question": f"loss {i}"} for i in range(losses)]
    path.write_text(json.dumps(results))
    return write_report(run).read_text(encoding="utf-8")


def test_of_many_losses_it_is_said_how_many_are_shown_and_where_the_rest_is(tmp_path):
    run = made_run(tmp_path / "r")
    html = with_losses(run, 23)
    assert html.count('class="example"') == 8
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", html))
    assert "The worst losses退步最大的 (8 of 2323 条中的 8 条)" in text
    assert "All 23 are in the run's evaluation/results.json" in html.replace("&#39;", "'")
    few = with_losses(run, 8)
    assert few.count('class="example"') == 8
    assert "results.json" not in few


@pytest.mark.parametrize(("level", "said"), [("some", "Some of what the base"), ("none", "")])
def test_what_was_forgotten_in_part_is_noted_at_the_top(tmp_path, level, said):
    run = made_run(tmp_path / "r")
    made_measures(run.evaluation)
    path = run.evaluation / "forgetting.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "level": level}))
    html = write_report(run).read_text(encoding="utf-8")
    hero = html[html.index('class="hero') : html.index('<dl class="tiles">')]
    assert ("see “Forgetting” below" in hero) == bool(said)
    assert said in hero
    assert "lost much" not in hero
