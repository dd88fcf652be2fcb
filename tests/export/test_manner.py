"""Two bases are told apart by their weights, whatever they are called and however parted."""

import json
import shutil
import time
from pathlib import Path

import pytest
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from trained import base_folder, trained_adapter

from weitiao.errors import ModelError
from weitiao.export.manner import base_of, require_base
from weitiao.export.merge import Trained
from weitiao.models.fingerprint import base_fingerprint
from weitiao.models.load import ModelSource

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    made = tmp_path_factory.mktemp("manner")
    return trained_adapter(base_folder(made / "base"), made / "adapter")


def changed(source: ModelSource, folder: Path, tensor: str) -> ModelSource:
    """Copy a base; one of its tensors is another one."""
    shutil.copytree(source.location, folder)
    weights = load_file(folder / WEIGHTS)
    weights[tensor] = -weights[tensor]
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    return ModelSource("other", str(folder))


def found_in(folder: Path) -> str | None:
    return base_fingerprint(ModelSource("some", str(folder)))


def test_the_fingerprint_is_the_weights(trained: Trained, tmp_path: Path) -> None:
    found = base_fingerprint(trained.source)
    assert found is not None
    parted = tmp_path / "parted"
    shutil.copytree(trained.source.location, parted)
    weights = load_file(parted / WEIGHTS)
    (parted / WEIGHTS).unlink()
    names = sorted(weights)
    places = {name: f"{i % 2}.safetensors" for i, name in enumerate(names)}
    for file in set(places.values()):
        save_file({n: weights[n] for n in names if places[n] == file}, parted / file)
    (parted / INDEX).write_text(json.dumps({"weight_map": places}))
    # What nobody loads is no part of it.
    save_file(weights, parted / "consolidated.safetensors")
    assert found_in(parted) == found
    for tensor in ("lm_head.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight"):
        other = changed(trained.source, tmp_path / tensor, tensor)
        assert base_fingerprint(other) != found
    (parted / "0.safetensors").unlink()
    assert found_in(parted) is None
    (tmp_path / "broken").mkdir()
    assert found_in(tmp_path / "broken") is None
    (tmp_path / "broken" / WEIGHTS).write_bytes(b"no weights at all")
    assert found_in(tmp_path / "broken") is None


def test_the_fingerprint_reads_little_of_a_large_model(tmp_path: Path) -> None:
    """14 GB as a 7B model parts them; nearly all of it is a hole in the file."""
    size, tensors = 40 << 20, 360
    places = {
        f"layer.{i}.weight": {
            "dtype": "BF16", "shape": [size // 2], "data_offsets": [i * size, (i + 1) * size],
        }
        for i in range(tensors)
    }  # fmt: skip
    header = json.dumps(places).encode()
    with (tmp_path / WEIGHTS).open("wb") as out:
        out.write(len(header).to_bytes(8, "little") + header)
        out.truncate(8 + len(header) + tensors * size)
    began = time.process_time()
    assert found_in(tmp_path) is not None
    assert time.process_time() - began < 0.5


def test_what_lies_in_the_hubs_cache_is_told_without_the_hub(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--some--base"
    shutil.copytree(trained.source.location, folder / "snapshots" / "abc")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    found = base_fingerprint(trained.source)
    assert base_fingerprint(ModelSource("b", "some/base"), fetch=False) == found
    assert base_fingerprint(ModelSource("b", "some/base", "def"), fetch=False) is None
    assert base_fingerprint(ModelSource("b", "some/other"), fetch=False) is None


def test_an_adapter_is_refused_by_another_base_of_its_shape(
    trained: Trained, tmp_path: Path
) -> None:
    same = tmp_path / "same"
    shutil.copytree(trained.source.location, same)
    other = changed(trained.source, tmp_path / "other", "model.layers.0.mlp.up_proj.weight")
    adapter = tmp_path / "adapter"
    shutil.copytree(trained.folder, adapter)
    assert base_of(adapter).location == trained.source.location
    require_base(trained.source, adapter, None)
    require_base(ModelSource("same", str(same)), adapter, None)
    with pytest.raises(ModelError, match="another model than 'other'"):
        require_base(other, adapter, None)
    # What its run or export says counts, also where another model took the base's place.
    require_base(other, adapter, base_fingerprint(other))
    with pytest.raises(ModelError, match="another model"):
        require_base(trained.source, adapter, base_fingerprint(other))
    # Nobody can tell once the base is gone.
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "gone")
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    require_base(other, adapter, None)


def test_the_revision_of_a_base_on_the_hub_is_kept(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.folder, tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    named = {"base_model_name_or_path": "Qwen/Qwen3-0.6B", "revision": "abc"}
    file.write_text(json.dumps(json.loads(file.read_text()) | named))
    found = base_of(tmp_path / "adapter")
    assert (found.location, found.revision) == ("Qwen/Qwen3-0.6B", "abc")
