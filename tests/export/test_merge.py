"""Merging: bit for bit PEFT's own merge in fp32, rounded once; what leaves is complete."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from trained import CPU, EMBEDDED, base_folder, embedded_chat, trained_adapter
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

from weitiao.errors import ModelError
from weitiao.export.merge import Trained, write_adapter, write_merged
from weitiao.models.load import find_model, load_model
from weitiao.records.record import Message

# What is merged otherwise: the other methods are saved as one of these.
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"lora_targets": ("q_proj", "layers.1.mlp.up_proj")},
    "rslora, dora": {"lora_rslora": True, "lora_dora": True},
    "ia3": {"method": "ia3"},
}


@pytest.mark.parametrize("name", METHODS)
def test_a_merge_is_pefts_in_fp32_rounded_once(name: str, tmp_path: Path) -> None:
    source = base_folder(tmp_path / "base")
    trained = trained_adapter(source, tmp_path / "adapter", **METHODS[name])
    base = load_model(source, torch.float32, CPU)
    before = {n: p.clone() for n, p in base.named_parameters()}
    exact = PeftModel.from_pretrained(base, str(trained.folder)).merge_and_unload()
    told: list[tuple[int, int]] = []
    write_merged(trained, tmp_path / "out", embedded_chat(), lambda *x: told.append(x))
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert found.dtype == torch.bfloat16
    changed = 0
    for parameter, value in exact.named_parameters():
        assert torch.equal(found.get_parameter(parameter), value.to(torch.bfloat16)), parameter
        changed += not torch.equal(value, before[parameter])
    assert changed >= (2 if name == "lora" else 6)
    assert told[-1][0] == told[-1][1] == len(told)


def test_the_folder_says_how_answers_end_and_holds_the_tokenizer(tmp_path: Path) -> None:
    trained = trained_adapter(base_folder(tmp_path / "base"), tmp_path / "adapter")
    chat = embedded_chat()
    write_merged(trained, tmp_path / "out", chat)
    config = GenerationConfig.from_pretrained(tmp_path / "out")
    assert tuple(config.eos_token_id) == chat.stop_ids
    for file in ("tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / "out" / file).read_bytes() == (EMBEDDED / file).read_bytes()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "out")
    asked = [{"role": "user", "content": "你好 'same'"}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
    assert ids == chat.prompt_ids([Message("user", "你好 'same'")])


def test_a_base_that_samples_can_be_saved(tmp_path: Path) -> None:
    source = base_folder(tmp_path / "base")
    text = json.dumps({"temperature": 0.6, "top_p": 0.9})
    (tmp_path / "base" / "generation_config.json").write_text(text)
    write_merged(trained_adapter(source, tmp_path / "adapter"), tmp_path / "out", embedded_chat())
    config = GenerationConfig.from_pretrained(tmp_path / "out")
    assert (config.temperature, config.top_p, config.do_sample) == (0.6, 0.9, True)


def test_a_model_trained_whole_is_the_merged_one(tmp_path: Path) -> None:
    source = base_folder(tmp_path / "base")
    whole = base_folder(tmp_path / "model", dtype=torch.float32)
    write_merged(Trained(source, Path(whole.location)), tmp_path / "out", embedded_chat())
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    made = AutoModelForCausalLM.from_pretrained(whole.location)
    for name, value in made.named_parameters():
        assert torch.equal(found.get_parameter(name), value.to(torch.bfloat16)), name


def test_what_cannot_be_merged_is_refused(tmp_path: Path) -> None:
    source = base_folder(tmp_path / "base")
    prefix = trained_adapter(source, tmp_path / "prefix", method="prefix")
    with pytest.raises(ModelError, match="--to adapter"):
        write_merged(prefix, tmp_path / "out", embedded_chat())
    other = base_folder(tmp_path / "other", hidden_size=128)
    adapter = trained_adapter(source, tmp_path / "adapter")
    with pytest.raises(ModelError, match="does not fit its base"):
        write_merged(Trained(other, adapter.folder), tmp_path / "out", embedded_chat())
    with pytest.raises(ModelError, match="--to merged"):
        write_adapter(Trained(source, Path(source.location)), tmp_path / "out", embedded_chat())
    file = adapter.folder / "adapter_model.safetensors"
    save_file({n: t * 1e30 for n, t in load_file(file).items()}, file)
    with pytest.raises(ModelError, match="q_proj"):
        write_merged(adapter, tmp_path / "out", embedded_chat())


def test_an_adapter_leaves_as_trained_with_the_embedded_base_beside_it(tmp_path: Path) -> None:
    trained = trained_adapter(find_model("embedded"), tmp_path / "adapter")
    out = tmp_path / "out"
    write_adapter(trained, out, embedded_chat())
    weights = "adapter_model.safetensors"
    assert (out / weights).read_bytes() == (trained.folder / weights).read_bytes()
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == (
        "base"
    )
    base = AutoModelForCausalLM.from_pretrained(out / "base")
    ids = torch.arange(1, 20)[None]
    with torch.no_grad():
        plain = base(ids).logits
        tuned = PeftModel.from_pretrained(base, str(out))(ids).logits
    assert not torch.allclose(plain, tuned)
    local = base_folder(tmp_path / "base")
    write_adapter(trained_adapter(local, tmp_path / "second"), tmp_path / "two", embedded_chat())
    config = json.loads((tmp_path / "two" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == local.location
    assert not (tmp_path / "two" / "base").exists()
