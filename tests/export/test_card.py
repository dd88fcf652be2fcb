"""The model card: front matter that the hub takes, both languages, nothing invented."""

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from trained import FACTS

from weitiao.export.card import Score, license_of, model_card
from weitiao.models.load import ModelSource, find_model

ON_HUB = replace(FACTS, base="Qwen/Qwen2.5-0.5B-Instruct", method="qlora", quantization="nf4")


def test_the_front_matter_is_the_hubs(tmp_path: Path) -> None:
    data = ModelCard(model_card(ON_HUB, "adapter", ["adapter_model.safetensors"])).data
    assert data.base_model == "Qwen/Qwen2.5-0.5B-Instruct"
    assert data.base_model_relation == "adapter"
    assert (data.license, data.library_name) == ("apache-2.0", "peft")
    assert data.language == ["zh", "en"]
    # Nobody else finds a base of this name.
    assert ModelCard(model_card(FACTS, "merged", [])).data.base_model is None
    assert ModelCard(model_card(replace(FACTS, base=str(tmp_path)), "gguf", ["m"])).data.tags == [
        "weitiao", "lora", "gguf",
    ]  # fmt: skip


def test_the_body_tells_in_both_languages_what_is_known() -> None:
    scores = (Score("chrF", 21.4, 48.25, 22.1, 31.0, 64),)
    text = model_card(replace(ON_HUB, scores=scores, notes=("注意甲",)), "adapter", [])
    for told in ("90 rows", "90 行", "nf4", "0.0002", "| chrF | 21.4 | 48.25 |", "注意甲"):
        assert told in text
    assert text.count("[+22.1, +31]") == 2
    assert 'PeftModel.from_pretrained(model, ".")' in text
    unknown = model_card(replace(FACTS, license=None, rank=None), "merged", [])
    assert "license: unknown" in unknown
    assert "find out before" in unknown
    assert "没有评测过" in unknown
    assert "| rank |" not in unknown


@pytest.mark.parametrize("form", ["merged", "gguf", "compressed", "adapter"])
def test_the_card_says_how_to_load_it(form: str) -> None:
    files = ["model-q8_0.gguf", "Modelfile"]
    text = model_card(FACTS, form, files)  # type: ignore[arg-type]
    expected = {
        "merged": 'from_pretrained(".", dtype="auto")',
        "gguf": "ollama create my-model -f Modelfile",
        "compressed": "vllm serve .",
        "adapter": 'from_pretrained("base", dtype="auto")',
    }
    assert expected[form] in text
    assert ("beside the adapter" in text) == (form == "adapter")


def test_the_licence_is_read_where_the_base_tells_it(tmp_path: Path) -> None:
    assert license_of(find_model("embedded")) == "apache-2.0"
    source = ModelSource("m", str(tmp_path))
    assert license_of(source) is None
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# M\n", encoding="utf-8")
    assert license_of(source) == "mit"
    (tmp_path / "README.md").write_text("# no front matter\n", encoding="utf-8")
    assert license_of(source) is None
