"""GGUF, the one file that llama.cpp, Ollama and OpenVINO read, written from a merged folder.

Tensors are read, converted and written one by one. Matrices are F16, Q8_0 or Q4_0 (32 weights
of a row share a scale), embeddings and head never below Q8_0; norms and biases are F32.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from math import pi, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from transformers import AutoConfig

from weitiao.errors import ModelError
from weitiao.export.tokenizer_gguf import Vocabulary, read_vocabulary
from weitiao.models.load import ModelSource, read_config
from weitiao.plan.shape import ModelShape
from weitiao.records.record import Message
from weitiao.records.render import ChatFormat

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter

GgufType = Literal["f16", "q8_0", "q4_0"]

ARCHITECTURES = {
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "LlamaForCausalLM": "llama",
}
"""transformers' name of what can be written → GGUF's."""

_ALWAYS_FINE = ("token_embd.weight", "output.weight")
_BLOCK = 32
_ROPES = {"default", "linear", "yarn", "llama3"}

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor of the file: its name, its shape as transformers has it, and how to read it."""

    name: str
    shape: tuple[int, ...]
    type: "GGMLQuantizationType"
    read: Callable[[], npt.NDArray[np.float32]]


def require_gguf(config: Mapping[str, Any], model: str) -> None:
    """Raise where a model of this ``config.json`` cannot be written; nothing heavy is read.

    Raises:
        ModelError: the package gguf is missing, or the architecture, a sliding window or the
            scaling of positions is none that GGUF is written for here.
    """
    if find_spec("gguf") is None:
        raise ModelError("error.gguf_missing")
    named = (config.get("architectures") or ["?"])[0]
    if named not in ARCHITECTURES or config.get("use_sliding_window"):
        known = ", ".join(kind.removesuffix("ForCausalLM") for kind in ARCHITECTURES)
        raise ModelError("error.gguf_architecture", model=model, architecture=named, known=known)
    if (rope := _rope(config)["rope_type"]) not in _ROPES:
        raise ModelError("error.gguf_rope", model=model, rope=rope)


def require_plain_base(source: ModelSource) -> None:
    """Raise for a base stored in few bits: a merge into it would be wrong, or fail.

    Raises:
        ModelError: it is.
    """
    if "quantization_config" in read_config(source):
        raise ModelError("error.export_quantized_base", model=source.name)


def write_gguf(
    folder: Path,
    out: Path,
    kind: GgufType,
    chat: ChatFormat,
    name: str,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write the merged model of ``folder`` as the file ``out``; ``name`` is shown by programs.

    Raises:
        ModelError: the architecture or the tokenizer has no form in GGUF, or a weight is no
            number in the new type.
    """
    from gguf.quants import quant_shape_to_byte_shape, quantize

    from weitiao.export.gguf_writer import Writer

    config = AutoConfig.from_pretrained(str(folder)).to_dict()
    require_gguf(config, name)
    vocabulary = read_vocabulary(folder, name)
    with ExitStack() as stack:
        tensors = list(_tensors(folder, config, kind, stack))
        rows = next(t.shape[0] for t in tensors if t.name == "token_embd.weight")
        writer = Writer(None, ARCHITECTURES[config["architectures"][0]])
        stack.callback(writer.close)
        _describe(writer, config, kind, name)
        _add_tokenizer(writer, vocabulary.padded(rows), chat)
        for tensor in tensors:
            size = prod(quant_shape_to_byte_shape(tensor.shape, tensor.type))
            writer.add_tensor_info(
                tensor.name, tensor.shape, np.dtype(np.float32), size, tensor.type
            )
        writer.write_header_to_file(out)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for done, tensor in enumerate(tensors, 1):
            # What fp16 cannot hold is found below, and told better than by numpy's warning.
            with np.errstate(over="ignore", invalid="ignore"):
                written = quantize(tensor.read(), tensor.type)
            if not np.isfinite(_numbers(written, tensor.type)).all():
                raise ModelError("error.export_not_finite", layer=tensor.name)
            writer.write_tensor_data(written)
            tell(done, len(tensors))


def _numbers(written: Array, kind: "GGMLQuantizationType") -> Array:
    """Return what may be no number: the values themselves, or the scales of their blocks."""
    from gguf import GGML_QUANT_SIZES

    if written.dtype != np.uint8:
        return written
    # A block of Q8_0 and of Q4_0 begins with its scale.
    blocks = written.reshape(-1, GGML_QUANT_SIZES[kind][1])
    return np.ascontiguousarray(blocks[:, :2]).view(np.float16)


def read_gguf_vocabulary(file: Path) -> Vocabulary:
    """Return the tokenizer that stands in a GGUF file.

    Its ids for the text of a prompt are those that a program finds which reads the file.
    """
    from gguf import GGUFReader

    reader = GGUFReader(file)

    def field(name: str) -> Any:
        found = reader.get_field(f"tokenizer.ggml.{name}")
        return None if found is None else found.contents()

    return Vocabulary(
        tuple(field("tokens")), tuple(field("token_type")), tuple(field("merges")), field("pre")
    )


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of positions in transformers 5's form, whichever the file has."""
    found = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    found.setdefault("rope_type", found.get("type", "default"))
    found.setdefault("rope_theta", config.get("rope_theta", 10000.0))
    return found


def _describe(writer: "GGUFWriter", config: Mapping[str, Any], kind: GgufType, name: str) -> None:
    from gguf import GGML_QUANT_VERSION, GGUFType, LlamaFileType, RopeScalingType

    shape, rope = ModelShape.from_config(config), _rope(config)
    types = {
        "f16": LlamaFileType.MOSTLY_F16,
        "q8_0": LlamaFileType.MOSTLY_Q8_0,
        "q4_0": LlamaFileType.MOSTLY_Q4_0,
    }
    writer.add_type(GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(types[kind])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.max_positions)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if original := rope.get("original_max_position_embeddings"):
        writer.add_rope_scaling_orig_ctx_len(original)


def _add_tokenizer(writer: "GGUFWriter", vocabulary: Vocabulary, chat: ChatFormat) -> None:
    tokenizer: Any = chat.tokenizer
    eos = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else chat.stop_ids[0]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_vocab_size(len(vocabulary.tokens))
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_eos_token_id(eos)
    # What else ends an answer is the end of a turn.
    for stop in set(chat.stop_ids) - {eos}:
        writer.add_eot_token_id(stop)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_add_bos_token(begins_with_bos(chat))
    writer.add_chat_template(tokenizer.chat_template)


def begins_with_bos(chat: ChatFormat) -> bool:
    """Return whether prompts begin with the tokenizer's bos, as the chat template has them.

    Programs put it there by themselves where the file says so, and leave out the template's.
    """
    bos: int | None = getattr(chat.tokenizer, "bos_token_id", None)
    return bos is not None and chat.prompt_ids([Message("user", "?")])[0] == bos


def _tensors(
    folder: Path, config: Mapping[str, Any], kind: GgufType, stack: ExitStack
) -> Iterator[_Tensor]:
    from gguf import MODEL_ARCH, GGMLQuantizationType, get_tensor_name_map

    shape = ModelShape.from_config(config)
    architecture = ARCHITECTURES[config["architectures"][0]]
    names = get_tensor_name_map(MODEL_ARCH[architecture.upper()], shape.layers)
    for file in sorted(folder.glob("*.safetensors")):
        tensors = stack.enter_context(safe_open(file, framework="pt"))
        for own in tensors.keys():  # noqa: SIM118  (a safe_open is no mapping)
            if own == "lm_head.weight" and shape.tied:
                continue
            name = names.get_name(own, try_suffixes=(".weight", ".bias"))
            if name is None:
                raise ModelError("error.gguf_tensor", tensor=own)
            size = tuple(tensors.get_slice(own).get_shape())
            heads = _rotated_heads(own, shape) if architecture == "llama" else 0
            yield _Tensor(name, size, _type(name, size, kind), _reader(tensors, own, heads))
    rope = _rope(config)
    if rope["rope_type"] == "llama3":
        factors = _llama3_factors(rope, shape.head_dim)
        name, exact = "rope_freqs.weight", GGMLQuantizationType.F32
        yield _Tensor(name, factors.shape, exact, lambda: factors)


def _type(name: str, shape: tuple[int, ...], kind: GgufType) -> "GGMLQuantizationType":
    from gguf import GGMLQuantizationType as Type

    if len(shape) == 1:
        return Type.F32
    if shape[-1] % _BLOCK:
        return Type.F16
    return Type.Q8_0 if kind == "q4_0" and name in _ALWAYS_FINE else Type[kind.upper()]


def _rotated_heads(name: str, shape: ModelShape) -> int:
    """Return over how many heads positions rotate the rows of this tensor; 0: none."""
    if ".q_proj." in name:
        return shape.heads
    return shape.kv_heads if ".k_proj." in name else 0


def _reader(tensors: Any, name: str, heads: int) -> Callable[[], npt.NDArray[np.float32]]:
    def read() -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = tensors.get_tensor(name).float().numpy()
        if heads:
            # Llama's rotation in GGUF turns neighbours, in transformers the halves of a head.
            halves = found.reshape(heads, 2, -1, *found.shape[1:])
            found = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(found.shape)
        return found

    return read


def _llama3_factors(rope: Mapping[str, Any], width: int) -> npt.NDArray[np.float32]:
    """Return by what each pair's frequency is divided [width / 2] (Llama 3.1's long context)."""
    pairs = np.arange(0, width, 2, dtype=np.float64) / width
    lengths = 2 * pi * rope["rope_theta"] ** pairs
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    turns = rope["original_max_position_embeddings"] / lengths
    part = np.clip((turns - low) / (high - low), 0, 1)
    factors: npt.NDArray[np.float32] = (1 / ((1 - part) / rope["factor"] + part)).astype(np.float32)
    return factors
