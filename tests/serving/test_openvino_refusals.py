"""What OpenVINO's engine cannot run is told in a sentence, so that another engine is taken."""

import asyncio
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from weitiao.errors import ModelError
from weitiao.serving.openvino import OpenVinoEngine, require_openvino
from weitiao.serving.openvino.header import read_header

# Looked for, not imported: imported here it would count its use in the home folder.
if find_spec("openvino_genai") is None:
    pytest.skip("OpenVINO GenAI is not installed", allow_module_level=True)
gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")


def refused(file: Path, tmp_path: Path) -> ModelError:
    async def start() -> None:
        await OpenVinoEngine({"tuned": file}, tmp_path / "cache", 512).start()

    with pytest.raises(ModelError) as told:
        asyncio.run(start())
    assert not list((tmp_path / "cache").glob("*"))
    return told.value


def test_what_openvino_cannot_run_is_told(tmp_path: Path) -> None:
    def file(name: str, architecture: str, **more: Any) -> Path:
        writer = gguf.GGUFWriter(tmp_path / name, architecture)
        if scaling := more.get("scaling"):
            writer.add_rope_scaling_type(scaling)
        kind = more.get("type", gguf.GGMLQuantizationType.F32)
        data = gguf.quants.quantize(np.ones((32, 32), dtype=np.float32), kind)
        writer.add_tensor(more.get("tensor", "token_embd.weight"), data, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return tmp_path / name

    gemma = refused(file("a.gguf", "gemma"), tmp_path)
    assert (gemma.key, gemma.values["kind"]) == ("error.openvino_architecture", "gemma")
    bf16 = file("b.gguf", "qwen2", type=gguf.GGMLQuantizationType.BF16)
    assert refused(bf16, tmp_path).values["types"] == "BF16"
    yarn = file("c.gguf", "qwen2", scaling=gguf.RopeScalingType.YARN)
    assert refused(yarn, tmp_path).key == "error.openvino_positions"
    llama3 = file("d.gguf", "llama", tensor="rope_freqs.weight")
    assert refused(llama3, tmp_path).key == "error.openvino_positions"
    assert refused(file("e.gguf", "qwen2"), tmp_path).key == "error.openvino_cannot_load"
    (tmp_path / "f.gguf").write_bytes(b"no model")
    assert refused(tmp_path / "f.gguf", tmp_path).key == "error.openvino_no_gguf"


def test_the_header_is_what_the_package_reads(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(file, "qwen2")
    writer.add_context_length(512)
    writer.add_rope_freq_base(0.1)
    writer.add_name("名字")
    writer.add_bool("flag", True)
    for name, values in (("texts", ["a", "名"]), ("lists", [[1, 2], [3]]), ("numbers", [1.5, 2.5])):
        writer.add_array(name, values)
    for name, kind in (("one", "Q8_0"), ("two", "F16")):
        data = gguf.quants.quantize(np.ones((3, 64), np.float32), gguf.GGMLQuantizationType[kind])
        writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    reader, header = gguf.GGUFReader(file), read_header(file)
    told = {n: f.contents() for n, f in reader.fields.items() if not n.startswith("GGUF.")}
    for name in ("texts", "lists", "numbers"):
        del told[name]
        assert header.fields[name] is None
    assert {n: v for n, v in header.fields.items() if v is not None} == pytest.approx(told)
    assert header.types == {t.name: t.tensor_type.name for t in reader.tensors}
    whole = file.read_bytes()
    for size in {*range(0, reader.data_offset, 7), reader.tensors[1].data_offset + 100}:
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError):  # noqa: PT011  (what it says is told to nobody)
            read_header(file)


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weitiao.serving.openvino.engine.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"openvino_genai.*pip install 'weitiao\[openvino\]'"):
        require_openvino()
