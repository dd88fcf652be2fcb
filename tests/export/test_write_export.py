"""The door: whole folders or none, nothing overwritten, no work begun that cannot end."""

import json
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
from trained import FACTS, base_folder, embedded_chat, trained_adapter
from transformers import AutoModelForCausalLM

from weitiao.errors import ModelError, RunError
from weitiao.export.manner import MANNER, Manner, read_manner
from weitiao.export.merge import Trained
from weitiao.export.write import TARGETS, Material, require_target, write_export

MANNER_OF_POET = Manner("你是诗人。", 0.3, 0.9, 1.1, "nf4", "base's")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    made = tmp_path_factory.mktemp("run")
    trained = trained_adapter(base_folder(made / "base"), made / "adapter")
    return Material(trained, embedded_chat(), FACTS, MANNER_OF_POET)


def test_each_form_is_a_folder_of_its_own(material: Material, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    adapter = write_export("adapter", material, tmp_path / "adapter")
    merged = write_export("merged", material, tmp_path / "merged")
    assert "adapter_model.safetensors" in adapter.files
    assert AutoModelForCausalLM.from_pretrained(merged.folder, dtype="auto") is not None
    done = write_export("ollama", material, tmp_path / "ollama")
    assert set(done.files) == {"model-q8_0.gguf", "Modelfile", "README.md", MANNER}
    assert done.files[0] == "model-q8_0.gguf"
    assert 'SYSTEM """你是诗人。"""' in (done.folder / "Modelfile").read_text(encoding="utf-8")
    assert "llama-cli -m model-q8_0.gguf" in (done.folder / "README.md").read_text("utf-8")
    assert done.size == sum(p.stat().st_size for p in done.folder.iterdir())
    assert done.size < merged.size
    # With each goes how it is asked, for programs and for people; bits and base, of an adapter.
    assert read_manner(adapter.folder / MANNER) == MANNER_OF_POET
    whole = replace(MANNER_OF_POET, quantization="none", base=None)
    assert read_manner(merged.folder / MANNER) == read_manner(done.folder / MANNER) == whole
    for form in (adapter, merged, done):
        assert "\n    你是诗人。\n" in (form.folder / "README.md").read_text(encoding="utf-8")
    # The same bytes from a merge that is there already.
    again = write_export("gguf-q8_0", replace(material, merged=merged.folder), tmp_path / "again")
    name = "model-q8_0.gguf"
    assert (again.folder / name).read_bytes() == (done.folder / name).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter", "again", "merged", "ollama"]


def test_a_template_that_ollama_cannot_say_leaves_the_gguf_alone(
    material: Material, tmp_path: Path
) -> None:
    pytest.importorskip("gguf")
    chat = embedded_chat()
    chat.tokenizer.chat_template += "{# strftime_now #}"
    other = replace(material, chat=chat)
    done = write_export("gguf-q4_0", other, tmp_path / "gguf")
    assert "Modelfile" not in done.files
    assert done.ollama_refused is not None
    with pytest.raises(ModelError, match="Modelfile"):
        write_export("ollama", other, tmp_path / "ollama")
    assert not (tmp_path / "ollama").exists()


def test_nothing_is_overwritten(material: Material, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(RunError, match="already"):
        write_export("adapter", material, tmp_path)
    with pytest.raises(RunError, match="already"):
        write_export("adapter", material, tmp_path / "mine")


def test_a_full_disk_is_told_beforehand(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6, 1000))
    for target in TARGETS:
        with pytest.raises(RunError, match="GB"):
            write_export(target, material, tmp_path / "deep" / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_go_together_is_told_before_any_work(
    material: Material, tmp_path: Path
) -> None:
    source = material.trained.source
    prefix = trained_adapter(source, tmp_path / "prefix", method="prefix")
    for target in TARGETS[1:]:
        with pytest.raises(ModelError, match="--to adapter"):
            require_target(target, replace(material, trained=prefix))
    require_target("adapter", replace(material, trained=prefix))
    whole = Trained(source, Path(source.location))
    with pytest.raises(ModelError, match="--to merged"):
        require_target("adapter", replace(material, trained=whole))
    mistral = tmp_path / "mistral"
    shutil.copytree(source.location, mistral)
    config = json.loads((mistral / "config.json").read_text())
    config |= {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
    (mistral / "config.json").write_text(json.dumps(config))
    other = Trained(replace(source, name="m", location=str(mistral)), material.trained.folder)
    for target in ("gguf-f16", "gguf-q8_0", "gguf-q4_0", "ollama"):
        with pytest.raises(ModelError, match="MistralForCausalLM"):
            require_target(target, replace(material, trained=other))
    require_target("merged", replace(material, trained=other))
