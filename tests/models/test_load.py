"""Finding a model by name, and what is said when it is not there."""

from pathlib import Path

import httpx2
import pytest
import torch
from huggingface_hub.errors import RepositoryNotFoundError

from tiny import tiny_model
from weitiao.errors import ModelError
from weitiao.models.adapters import save_trained
from weitiao.models.flat import answer_losses
from weitiao.models.load import EMBEDDED, find_model, load_model, load_tokenizer, read_config
from weitiao.plan.recipe import Quantization

NOT_FOUND = httpx2.Response(404, request=httpx2.Request("GET", "https://hub.invalid"))


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("deepseek-llm-1.5b", "deepseek-llm-7b-chat"),
        ("deepseek-r1-chat-7b", "DeepSeek-R1-Distill-Qwen-7B"),
        ("qwen2.5-1.5b-instruc", "Qwen2.5-1.5B-Instruct"),
    ],
)
def test_a_wrong_name_gets_near_ones(wrong: str, near: str) -> None:
    with pytest.raises(ModelError, match=near) as caught:
        find_model(wrong)
    assert wrong in str(caught.value)


def test_a_bare_name_is_completed() -> None:
    assert find_model("qwen2.5-1.5b-instruct").location == "Qwen/Qwen2.5-1.5B-Instruct"
    assert find_model("someone/else").location == "someone/else"


def test_a_missing_folder_and_one_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        find_model(str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match=r"config\.json"):
        find_model(str(tmp_path))


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host\nand more lines")

    monkeypatch.setattr("weitiao.models.load.HfApi.model_info", refuse)
    with pytest.raises(ModelError, match="nobody/such-a-model") as caught:
        read_config(find_model("nobody/such-a-model"))
    assert caught.value.key == "error.hub_unreachable"
    assert "\n" not in str(caught.value)


def test_a_model_the_hub_does_not_have_gets_near_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise RepositoryNotFoundError("404", response=NOT_FOUND)

    monkeypatch.setattr("weitiao.models.load.HfApi.model_info", missing)
    with pytest.raises(ModelError, match=r"Qwen/Qwen2\.5-1\.5B-Instruct") as caught:
        load_tokenizer(find_model("Qwen/Qwen2.5-1.5B-Instrukt"))
    assert caught.value.key == "error.model_not_on_hub"


def test_broken_weights_are_one_sentence(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not a model")
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(find_model(str(tmp_path)), torch.float32, torch.device("cpu"))


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="5000"):
        load_model(find_model(str(tmp_path)), torch.float32, torch.device("cpu"), tokens=5000)


def test_the_embedded_tokenizer_loads_offline() -> None:
    tokenizer = load_tokenizer(find_model(EMBEDDED))
    text = "床前明月光，疑是地上霜。Hello, 2026!"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert tokenizer.pad_token_id is not None


def test_a_whole_model_is_saved_in_its_precision(tmp_path: Path) -> None:
    from tiny import random_samples

    model, samples = tiny_model(), random_samples([9, 12], 1)
    save_trained(model, tmp_path, torch.bfloat16)
    again = load_model(find_model(str(tmp_path)), torch.float32, torch.device("cpu"))
    exact = [x for x, _ in answer_losses(model, samples)]
    assert [x for x, _ in answer_losses(again, samples)] == pytest.approx(exact, rel=0.01)
    parameters = sum(p.numel() for p in model.parameters())
    size = (tmp_path / "model.safetensors").stat().st_size
    assert size < 2 * parameters + 10_000, "the tied head is written once, in two bytes a weight"


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers_are_told(
    tmp_path: Path, bad: float, quantization: Quantization
) -> None:
    if quantization != "none":
        pytest.importorskip("bitsandbytes")
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 5] = bad
    model.save_pretrained(tmp_path)
    source = find_model(str(tmp_path))
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.down_proj\.weight") as caught:
        load_model(source, torch.bfloat16, torch.device("cpu"), quantization=quantization)
    assert caught.value.key == "error.model_not_finite"
    assert str(tmp_path) in caught.value.sentence("zh")


def test_large_weights_are_numbers(tmp_path: Path) -> None:
    """Their sum is beyond fp32; each of them is not."""
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[:, 0] = 3e38
    model.save_pretrained(tmp_path)
    load_model(find_model(str(tmp_path)), torch.float32, torch.device("cpu"))


def test_a_tokenizer_smaller_than_the_model_is_padding(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    load_model(find_model(str(tmp_path)), torch.float32, torch.device("cpu"), tokens=90)
