"""GGUF files, read back by transformers, by OpenVINO and, where it is there, by llama.cpp."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trained import EMBEDDED, base_folder, embedded_chat, trained_adapter
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from weitiao.errors import ModelError
from weitiao.export.gguf_file import (
    _llama3_factors,
    read_gguf_vocabulary,
    require_gguf,
    write_gguf,
)
from weitiao.export.merge import write_merged
from weitiao.export.tokenizer_gguf import UNUSED, ids_of
from weitiao.models.generate import Sampling, generate
from weitiao.models.load import find_model
from weitiao.records.record import Message

gguf = pytest.importorskip("gguf")
IDS = torch.tensor([[8189, 5, 600, 7, 4000, 9, 300, 12, 2222, 77]])
QUESTIONS = ("床前明月光", "How do I open an account?", "写一首关于秋天的诗。")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits.float()
    return found


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize(("kind", "most"), [("f16", 2e-3), ("q8_0", 0.02), ("q4_0", 0.3)])
def test_transformers_reads_the_model_back(
    family: str, kind: Any, most: float, tmp_path: Path
) -> None:
    # transformers does not read the width of Qwen3's heads, and takes them to have 128.
    width = {"head_dim": 128} if family == "qwen3" else {}
    folder, told = Path(base_folder(tmp_path / "base", family, **width).location), []
    write_gguf(
        folder, tmp_path / "model.gguf", kind, embedded_chat(), "m", lambda *x: told.append(x)
    )
    exact = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32
    )
    expected = logits(exact)
    difference = (logits(found) - expected).norm() / expected.norm()
    assert difference < most
    assert told[-1] == (len(list(exact.named_parameters())),) * 2
    assert found.config.rope_parameters["rope_theta"] == 500000.0
    assert found.config.rms_norm_eps == pytest.approx(1e-5)


def test_each_tensor_has_its_type(tmp_path: Path) -> None:
    folder = Path(base_folder(tmp_path / "base", intermediate_size=100).location)
    write_gguf(folder, tmp_path / "model.gguf", "q4_0", embedded_chat(), "m")
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert types["token_embd.weight"] == types["output.weight"] == "Q8_0"
    assert types["blk.0.attn_q.weight"] == types["blk.1.ffn_up.weight"] == "Q4_0"
    assert types["blk.0.attn_q.bias"] == types["blk.0.attn_norm.weight"] == "F32"
    # Rows of 100 weights do not divide into blocks of 32.
    assert types["blk.0.ffn_down.weight"] == "F16"
    tied = Path(base_folder(tmp_path / "tied", tie_word_embeddings=True).location)
    write_gguf(tied, tmp_path / "tied.gguf", "q8_0", embedded_chat(), "m")
    names = {t.name for t in gguf.GGUFReader(tmp_path / "tied.gguf").tensors}
    assert "output.weight" not in names
    assert "token_embd.weight" in names


def test_the_file_tells_what_programs_ask(tmp_path: Path) -> None:
    folder = Path(base_folder(tmp_path / "base").location)
    chat = embedded_chat()
    write_gguf(folder, tmp_path / "model.gguf", "f16", chat, "名字")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")

    def told(name: str) -> Any:
        field = reader.get_field(name)
        return None if field is None else field.contents()

    assert told("general.name") == "名字"
    assert told("general.architecture") == "qwen2"
    assert told("qwen2.context_length") == 512
    assert told("qwen2.attention.head_count_kv") == 2
    assert told("tokenizer.ggml.eos_token_id") == 8190
    assert told("tokenizer.ggml.add_bos_token") is False
    assert told("tokenizer.chat_template") == chat.tokenizer.chat_template
    vocabulary = read_gguf_vocabulary(tmp_path / "model.gguf")
    assert len(vocabulary.tokens) == 8192
    assert (vocabulary.tokens[8191], vocabulary.types[8191]) == ("[PAD8191]", UNUSED)
    asked = [Message("user", question) for question in QUESTIONS]
    texts = [
        chat.tokenizer.apply_chat_template(
            [{"role": m.role, "content": m.content}], tokenize=False, add_generation_prompt=True
        )
        for m in asked
    ]
    assert ids_of(vocabulary.tokenizer(), texts) == [chat.prompt_ids([m]) for m in asked]


def test_llama_3s_long_context_divides_as_transformers_does() -> None:
    rope = {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    }  # fmt: skip
    config = LlamaConfig(
        hidden_size=512, num_attention_heads=4, rope_parameters=rope, max_position_embeddings=65536
    )
    divided, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    whole = 1 / 500000.0 ** (np.arange(0, 128, 2) / 128)
    factors = _llama3_factors(rope, 128)
    np.testing.assert_allclose(whole / factors, divided.numpy(), rtol=1e-5)
    assert factors.max() == 8
    assert factors.min() == 1


def test_llama_3s_factors_stand_in_the_file(tmp_path: Path) -> None:
    rope = {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 256,
    }  # fmt: skip
    folder = Path(base_folder(tmp_path / "base", "llama", rope_parameters=rope).location)
    write_gguf(folder, tmp_path / "model.gguf", "q8_0", embedded_chat(), "m")
    tensors = {t.name: t for t in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert tensors["rope_freqs.weight"].data.shape == (16,)


def test_what_has_no_form_in_gguf_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"MistralForCausalLM.*Qwen2, Qwen3, Llama"):
        require_gguf({"architectures": ["MistralForCausalLM"]}, "m")
    stretched = {"architectures": ["LlamaForCausalLM"], "rope_scaling": {"type": "dynamic"}}
    with pytest.raises(ModelError, match="dynamic"):
        require_gguf(stretched, "m")


@pytest.mark.parametrize(("kind", "weight"), [("f16", 1e6), ("q8_0", 1e7), ("q4_0", float("nan"))])
def test_a_weight_that_is_no_number_in_the_file_is_refused(
    kind: Any, weight: float, tmp_path: Path
) -> None:
    folder = Path(base_folder(tmp_path / "base", dtype=torch.float32).location)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.model.layers[0].mlp.up_proj.weight.data[3, 3] = weight
    model.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"blk\.0\.ffn_up\.weight"):
        write_gguf(folder, tmp_path / "model.gguf", kind, embedded_chat(), "m")


def test_the_bytes_are_those_of_the_packages_own_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"
    packing = gguf.GGUFWriter._pack_val
    calls = []

    def counted(*values: Any, **how: Any) -> bytes:
        calls.append(None)
        return packing(*values, **how)  # type: ignore[no-any-return]

    monkeypatch.setattr(gguf.GGUFWriter, "_pack_val", counted)
    write_gguf(EMBEDDED, ours, "q8_0", embedded_chat(), "名字")
    assert len(calls) < 1000, "tokens were packed one by one"
    monkeypatch.setattr("weitiao.export.gguf_writer.Writer", gguf.GGUFWriter)
    write_gguf(EMBEDDED, theirs, "q8_0", embedded_chat(), "名字")
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("values", [[True, False], [0.5, 2.0], b"abc", [[1, 2], [3]]])
def test_arrays_of_other_kinds_are_the_packages(values: Any, tmp_path: Path) -> None:
    from weitiao.export.gguf_writer import Writer

    for kind, name in ((gguf.GGUFWriter, "theirs"), (Writer, "ours")):
        writer = kind(tmp_path / name, "qwen2")
        writer.add_array("values", values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with an adapter merged into it, and its GGUF (F16) in one folder."""
    made = tmp_path_factory.mktemp("tuned")
    adapter = trained_adapter(find_model("embedded"), made / "adapter", lora_rank=2)
    write_merged(adapter, made / "merged", embedded_chat())
    write_gguf(made / "merged", made / "model.gguf", "f16", embedded_chat(), "m")
    return made


def answers(folder: Path, prompts: list[list[int]]) -> list[list[int]]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = generate(model, prompts, Sampling(max_new_tokens=24), (8190,), 8188)
    return [g.ids for g in found]


def agreement(one: list[list[int]], other: list[list[int]]) -> float:
    """The share of tokens before the first that differs."""
    same = total = 0
    for a, b in zip(one, other, strict=True):
        differ = [i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y]
        same += differ[0] if differ else max(len(a), len(b))
        total += max(len(a), len(b))
    return same / max(total, 1)


def test_openvino_answers_as_transformers_does(tuned: Path) -> None:
    genai = pytest.importorskip("openvino_genai")
    openvino = pytest.importorskip("openvino")
    chat = embedded_chat()
    prompts = [chat.prompt_ids([Message("user", q)]) for q in QUESTIONS]
    pipeline = genai.LLMPipeline(str(tuned / "model.gguf"), "CPU", INFERENCE_PRECISION_HINT="f32")
    config = genai.GenerationConfig(max_new_tokens=24, do_sample=False, apply_chat_template=False)
    config.set_eos_token_id(8190)
    found = []
    for prompt in prompts:
        ids = openvino.Tensor(np.array([prompt], np.int64))
        mask = openvino.Tensor(np.ones((1, len(prompt)), np.int64))
        out = pipeline.generate(genai.TokenizedInputs(ids, mask), config)
        found.append([int(i) for i in out.tokens[0] if i != 8190])
    assert agreement(found, answers(tuned / "merged", prompts)) > 0.9


@pytest.mark.slow
def test_llama_cpp_reads_our_ids_and_answers_the_same(tuned: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is built from source")
    chat = embedded_chat()
    model = llama_cpp.Llama(str(tuned / "model.gguf"), n_ctx=512, verbose=False)
    prompts = [chat.prompt_ids([Message("user", q)]) for q in QUESTIONS]
    found = []
    for question, prompt in zip(QUESTIONS, prompts, strict=True):
        text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        assert model.tokenize(text.encode(), add_bos=True, special=True) == prompt
        model.reset()
        said: list[int] = []
        for token in model.generate(prompt, temp=0.0, repeat_penalty=1.0):
            if token == model.token_eos() or len(said) == 24:
                break
            said.append(token)
        found.append(said)
    assert agreement(found, answers(tuned / "merged", prompts)) > 0.9


def test_a_damaged_tokenizer_file_is_not_guessed_at(tmp_path: Path) -> None:
    folder = Path(base_folder(tmp_path / "base").location)
    shutil.copy(EMBEDDED / "tokenizer.json", folder)
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    data["pre_tokenizer"] = {"type": "Whitespace"}
    (folder / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ModelError, match=r"llama\.cpp has no name for"):
        write_gguf(folder, tmp_path / "model.gguf", "q8_0", embedded_chat(), "m")
