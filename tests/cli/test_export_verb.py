"""What was trained goes out in other forms; what is not what was trained does not."""

import shutil

import pytest
from safetensors.torch import load_file, save_file

from cli.conftest import QUICK, one_sentence, write_rows
from weitiao import api, cli
from weitiao.export.parity import LOSS_MARGIN, Form, Parity, ScoreKept, load_parity

SUITE = """\
name: by_loss
version: 1
verdict: answer_loss
scores: [answer_loss, exact_match]
"""


@pytest.fixture(scope="session")
def exporting(tiny_base, tmp_path_factory):
    """The folder of a run whose forms are judged by their loss."""
    home = tmp_path_factory.mktemp("exporting")
    (home / "by_loss.yaml").write_text(SUITE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        data = write_rows(home / "tea.jsonl", 240)
        asked = ["run", str(data), "--model", str(tiny_base), *QUICK]
        assert cli.main([*asked, f"evaluate.suite={home / 'by_loss.yaml'}"]) == 0
    return home / "runs" / "tea"


@pytest.fixture
def run(exporting, tmp_path):
    shutil.copytree(exporting, tmp_path / "tea")
    return api.open_run(str(tmp_path / "tea"))


@pytest.fixture
def damaged(monkeypatch):
    """Let every merge go wrong, as tools' merges do."""
    from weitiao.export import write

    merge = write.write_merged

    def lossy(trained, out, *rest):
        merge(trained, out, *rest)
        file = next(out.glob("*.safetensors"))
        weights = load_file(file)
        weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"].flip(0) * 9
        save_file(weights, file, metadata={"format": "pt"})

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
    assert min(found.form.size, found.form.memory, found.form.tokens_per_second) > 0
    assert "4" in said.out
    assert str(made) in said.out
    card = (made / "README.md").read_text(encoding="utf-8")
    assert "4 held-out prompts" in card
    assert "4 条留出问题" in card
    # Nothing of the run's own is touched but the log of what happened; nothing is left over.
    changed = {f.name for f, content in before.items() if f.read_bytes() != content}
    assert changed <= {"events.jsonl"}
    assert [f.name for f in made.parent.iterdir()] == ["merged"]


def test_a_form_that_answers_otherwise_is_not_called_a_success(weitiao, run, damaged):
    said = weitiao("export", run.path, "--to", "merged", "--prompts", "12", "--no-server")
    assert said.code == 1
    assert "answer loss" in said.out.lower()
    exports = run.path / "exports"
    assert sorted(f.name for f in exports.iterdir()) == ["merged.parity.json"]
    assert load_parity(exports / "merged.parity.json").failures == ("score",)


@pytest.mark.slow
def test_force_keeps_it_marked(weitiao, run, damaged):
    said = weitiao(
        "export", run.path, "--to", "merged", "--prompts", "12", "--force", "--no-server"
    )
    assert said.code == 1
    made = run.path / "exports" / "merged"
    assert load_parity(made / "parity.json").forced
    assert "fell" in (made / "README.md").read_text(encoding="utf-8")


def test_other_token_ids_in_the_prompts_are_no_success(weitiao, run, monkeypatch):
    from weitiao.export import write

    merge = write.write_merged

    def retold(trained, out, *rest):
        merge(trained, out, *rest)
        file = out / "chat_template.jinja"
        file.write_text("请" + file.read_text(encoding="utf-8"), encoding="utf-8")

    monkeypatch.setattr(write, "write_merged", retold)
    said = weitiao("export", run.path, "--to", "merged", "--prompts", "4", "--no-server")
    assert said.code == 1
    found = load_parity(run.path / "exports" / "merged.parity.json")
    assert "prompts" in found.failures
    assert "4 of 4 prompts" in said.out


def test_what_is_there_already_is_not_overwritten(weitiao, run):
    (run.path / "exports" / "merged").mkdir(parents=True)
    (run.path / "exports" / "merged" / "mine.txt").write_text("mine")
    said = weitiao("export", run.path, "--to", "merged")
    assert "exports/merged" in one_sentence(said)
    assert (run.path / "exports" / "merged" / "mine.txt").read_text() == "mine"


def test_several_forms_are_compared_on_one_page(weitiao, run, tmp_path):
    out = tmp_path / "out"
    said = weitiao(
        "export", run.path, "--to", "gguf-f16", "--prompts", "3", "--table", "--out", out
    )
    assert said.code == 0, said.err + said.out
    assert {f.name for f in out.iterdir()} == {
        "gguf-f16",
        "server.parity.json",
        "table.html",
    }
    served = load_parity(out / "server.parity.json")
    assert (served.prompts, served.prompts_differ) == (3, 0)
    page = (out / "table.html").read_text(encoding="utf-8")
    assert "gguf-f16" in page
    assert "weitiao serve" in page
    assert "训练所得" in page
    assert "as trained" in page
    assert "http" not in page.replace("http-equiv", "")


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
