"""What was trained goes out in other forms; what is not what was trained does not."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from cli.conftest import QUICK, one_sentence, write_rows
from weitiao import api, cli
from weitiao.api.begin import source_of
from weitiao.api.serving import fingerprint
from weitiao.export.parity import LOSS_MARGIN, Form, Parity, ScoreKept, load_parity
from weitiao.serving.settings import ServerSettings

SUITE = """\
name: by_loss
version: 1
verdict: answer_loss
scores: [answer_loss, exact_match]
"""
SYSTEM = "你是茶师。"


@pytest.fixture(scope="module")
def exporting(tiny_base, tmp_path_factory):
    """The folder of a run whose forms are judged by their loss."""
    home = tmp_path_factory.mktemp("exporting")
    (home / "by_loss.yaml").write_text(SUITE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        data = write_rows(home / "tea.jsonl", 240)
        asked = ["train", str(data), "--model", str(tiny_base), "--system", SYSTEM, *QUICK]
        suite = f"evaluate.suite={home / 'by_loss.yaml'}"
        assert cli.main([*asked, suite, "evaluate.top_p=0.9"]) == 0
    return home / "runs" / "tea"


@pytest.fixture
def run(exporting, tmp_path):
    shutil.copytree(exporting, tmp_path / "tea")
    return api.open_run(str(tmp_path / "tea"))


PASSAGE = "绿茶要用八十度的水泡{}分钟，红茶要用沸水，时间再长一些，这样茶汤才会又香又浓。"


def hold_out(run, questions: int, passages: int) -> None:
    """Let the held-out rows be so many of the run's own, and so many plain passages."""
    file = run.records / "test.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()[:questions]
    for i in range(passages):
        row = {"origin": {"file": "plain.jsonl", "line": i + 1}, "text": PASSAGE.format(i)}
        lines.append(json.dumps(row, ensure_ascii=False))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def damaged(monkeypatch):
    """Let every merge go wrong, as tools' merges do: other weights, another template."""
    from weitiao.export import write

    merge = write.write_merged

    def lossy(trained, out, *rest):
        merge(trained, out, *rest)
        file = next(out.glob("*.safetensors"))
        weights = load_file(file)
        weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"].flip(0) * 9
        save_file(weights, file, metadata={"format": "pt"})
        template = out / "chat_template.jinja"
        template.write_text("请" + template.read_text(encoding="utf-8"), encoding="utf-8")

    monkeypatch.setattr(write, "write_merged", lossy)


def test_a_merged_model_is_what_was_trained(weitiao, run):
    before = {f: f.read_bytes() for f in run.path.rglob("*") if f.is_file()}
    said = weitiao("export", run.path, "--to", "merged", "--prompts", "4", "--no-server")
    assert said.code == 0, said.err
    made = run.path / "exports" / "merged"
    found = load_parity(made / "parity.json")
    assert (found.prompts, found.prompts_differ, found.failures) == (4, 0, ())
    assert found.likeness is not None
    assert found.likeness.kl < 1e-4
    assert found.verdict_score == "answer_loss"
    # By this serving knows whose export it is.
    assert found.weights == fingerprint(source_of(api.recipe_of(run)), run.adapter)
    assert min(found.form.size, found.form.memory, found.form.tokens_per_second) > 0
    assert "4" in said.out
    assert str(made) in said.out
    # Served from its folder it is asked as the run is.
    ours, theirs = (
        api.serve(str(path), ServerSettings(), engine="transformers").service.served[0]
        for path in (run.path, made)
    )
    assert (theirs.system, theirs.defaults) == (ours.system, ours.defaults)
    assert (ours.system, ours.defaults.top_p) == (SYSTEM, 0.9)
    card = (made / "README.md").read_text(encoding="utf-8")
    assert card.count(SYSTEM) == 2
    assert "4 held-out prompts" in card
    assert "4 条留出问题" in card
    # Nothing of the run's own is touched but the log of what happened; nothing is left over.
    changed = {f.name for f, content in before.items() if f.read_bytes() != content}
    assert changed <= {"events.jsonl"}
    assert [f.name for f in made.parent.iterdir()] == ["merged"]


def test_what_reads_and_answers_otherwise_is_not_called_a_success(weitiao, run, damaged):
    said = weitiao("export", run.path, "--to", "merged", "--prompts", "12", "--no-server")
    assert said.code == 1
    assert "answer loss" in said.out.lower()
    assert "12 of 12 prompts" in said.out
    exports = run.path / "exports"
    assert sorted(f.name for f in exports.iterdir()) == ["merged.parity.json"]
    assert load_parity(exports / "merged.parity.json").failures == ("prompts", "score")


@pytest.mark.slow
def test_force_keeps_it_marked(weitiao, run, damaged):
    said = weitiao(
        "export", run.path, "--to", "merged", "--prompts", "12", "--force", "--no-server"
    )
    assert said.code == 1
    made = run.path / "exports" / "merged"
    assert load_parity(made / "parity.json").forced
    assert "fell" in (made / "README.md").read_text(encoding="utf-8")


def test_what_is_there_already_is_not_overwritten(weitiao, run):
    (run.path / "exports" / "merged").mkdir(parents=True)
    (run.path / "exports" / "merged" / "mine.txt").write_text("mine")
    said = weitiao("export", run.path, "--to", "merged")
    assert "exports/merged" in one_sentence(said)
    assert (run.path / "exports" / "merged" / "mine.txt").read_text() == "mine"


def test_several_forms_are_compared_on_one_page(weitiao, run, tmp_path):
    hold_out(run, 2, 2)
    out = tmp_path / "out"
    said = weitiao("export", run.path, "--to", "gguf-f16", "--table", "--out", out)
    assert said.code == 0, said.err + said.out
    assert {f.name for f in out.iterdir()} == {
        "gguf-f16",
        "server.parity.json",
        "table.html",
    }
    served = load_parity(out / "server.parity.json")
    file = load_parity(out / "gguf-f16" / "parity.json")
    for form in (served, file):
        assert (form.prompts, form.prompts_differ) == (4, 0)
        # Passages are gone on with; 8 bits of an untrained model may do so otherwise.
        assert form.answers_equal > 2
    assert file.answers_equal == 4
    assert file.likeness.tokens == 16
    page = (out / "table.html").read_text(encoding="utf-8")
    assert "gguf-f16" in page
    assert "weitiao serve" in page
    assert "训练所得" in page
    assert "as trained" in page
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.slow
def test_the_server_is_asked_of_passages_alone(run):
    hold_out(run, 0, 2)
    (served,) = api.export(run, [])
    assert (served.target, served.parity.prompts_differ) == ("server", 0)


@pytest.mark.parametrize("words", [(), ("--to", "gguff"), ("--to", "merged", "--prompts", "0")])
def test_what_cannot_be_understood_is_one_sentence(weitiao, run, words):
    one_sentence(weitiao("export", run.path, *words))


def test_a_run_that_was_not_trained_is_one_sentence(weitiao, run):
    shutil.rmtree(run.adapter)
    assert "train" in one_sentence(weitiao("export", run.path, "--to", "merged"))


def _parity(score: ScoreKept) -> Parity:
    costs = Form(1, 1, 1.0)
    return Parity("int4", "transformers", 9, 0, 9, None, score.name, (score,), costs, costs)


def test_only_the_score_that_decides_can_fail_it():
    lost = ScoreKept("rouge_l", 0.9, 0.5, -0.5, -0.3, lost=True)
    assert _parity(lost).failures == ("score",)
    other = ScoreKept("exact_match", 0.9, 0.9, -0.1, 0.1, lost=False)
    parity = _parity(other)
    assert parity.failures == ()
    assert parity.score() == other
    assert 0 < LOSS_MARGIN < 0.1
