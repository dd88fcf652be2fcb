"""A model's shape, from its configuration alone: what parameter counts and costs follow from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weitiao.errors import ModelError

KNOWN_ARCHITECTURES = tuple(
    f"{family}ForCausalLM" for family in ("Qwen2", "Qwen3", "Llama", "Mistral")
)
"""The architectures whose layers the engine computes in its own lean way."""


@dataclass(frozen=True, slots=True)
class Linear:
    """One linear layer of a decoder layer: its name and its widths."""

    name: str
    inputs: int
    outputs: int

    @property
    def most_rank(self) -> int:
        """The largest rank that its update can have."""
        return min(self.inputs, self.outputs)


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A decoder with grouped-query attention and a gated MLP: Qwen2, Qwen3, Llama, Mistral.

    ``max_positions`` is the longest row the model was made for, in tokens: its positions, or
    its attention window where that is shorter.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    tied: bool
    max_positions: int
    attention_bias: bool = False
    qk_norm: bool = False
    weight_bytes_on_disk: int | None = None

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], weight_bytes_on_disk: int | None = None
    ) -> "ModelShape":
        """Return the shape that a ``config.json`` describes.

        Raises:
            ModelError: a size is missing, so that nothing can be predicted for the model.
        """
        kind = str(config.get("model_type", ""))

        def size(name: str, otherwise: int | None = None) -> int:
            value = config.get(name)
            if value is None:
                value = otherwise
            if value is None:
                raise ModelError("error.config_size_missing", model_type=kind or "?", name=name)
            return int(value)

        hidden, heads = size("hidden_size"), size("num_attention_heads")
        named = config.get("architectures") or [kind]
        window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
        return cls(
            architecture=str(named[0]),
            vocab_size=size("vocab_size"),
            hidden_size=hidden,
            layers=size("num_hidden_layers"),
            heads=heads,
            kv_heads=size("num_key_value_heads", heads),
            head_dim=size("head_dim", hidden // heads),
            intermediate_size=size("intermediate_size"),
            tied=bool(config.get("tie_word_embeddings", False)),
            max_positions=min(size("max_position_embeddings", 2048), int(window or 2**62)),
            attention_bias=bool(config.get("attention_bias", kind == "qwen2")),
            qk_norm=kind.startswith("qwen3"),
            weight_bytes_on_disk=weight_bytes_on_disk,
        )

    @property
    def known(self) -> bool:
        """Whether what a layer keeps for its backward pass follows from these sizes."""
        return self.architecture in KNOWN_ARCHITECTURES

    @property
    def query_size(self) -> int:
        """The width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """The width of all key heads together; the values' is the same."""
        return self.kv_heads * self.head_dim

    @property
    def linears(self) -> tuple[Linear, ...]:
        """The linear layers of one decoder layer."""
        hidden, query, kv = self.hidden_size, self.query_size, self.kv_size
        return (
            Linear("q_proj", hidden, query),
            Linear("k_proj", hidden, kv),
            Linear("v_proj", hidden, kv),
            Linear("o_proj", query, hidden),
            Linear("gate_proj", hidden, self.intermediate_size),
            Linear("up_proj", hidden, self.intermediate_size),
            Linear("down_proj", self.intermediate_size, hidden),
        )

    @property
    def linear_params(self) -> int:
        """Parameters of all decoder layers' linears, without biases."""
        return self.layers * sum(linear.inputs * linear.outputs for linear in self.linears)

    @property
    def embedding_params(self) -> int:
        """Parameters of the token embedding."""
        return self.vocab_size * self.hidden_size

    @property
    def head_params(self) -> int:
        """Parameters that the head multiplies with; where ``tied``, the embedding's own."""
        return self.vocab_size * self.hidden_size

    @property
    def total_params(self) -> int:
        """All parameters, each counted once."""
        layer = 2 * self.hidden_size
        if self.attention_bias:
            layer += self.query_size + 2 * self.kv_size
        if self.qk_norm:
            layer += 2 * self.head_dim
        head = 0 if self.tied else self.head_params
        embedding = self.embedding_params + self.hidden_size
        return embedding + head + self.linear_params + self.layers * layer

    def lora_params(self, rank: int, targets: str | Sequence[str] = "all-linear") -> int:
        """Return the parameters of an adapter: ``rank * (inputs + outputs)`` for each target."""
        return self.layers * sum(
            rank * (linear.inputs + linear.outputs) for linear in self.targeted(targets)
        )

    def targeted(self, targets: str | Sequence[str]) -> tuple[Linear, ...]:
        """Return the linears of a decoder layer that ``targets`` name."""
        if isinstance(targets, str):
            return self.linears
        return tuple(linear for linear in self.linears if linear.name in targets)


def _qwen2(
    hidden: int, layers: int, heads: int, kv_heads: int, inner: int, tied: bool, vocabulary: int
) -> ModelShape:
    return ModelShape(
        architecture="Qwen2ForCausalLM",
        vocab_size=vocabulary,
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=hidden // heads,
        intermediate_size=inner,
        tied=tied,
        max_positions=32768,
        attention_bias=True,
    )


KNOWN_SHAPES: dict[str, ModelShape] = {
    "Qwen/Qwen2.5-0.5B-Instruct": _qwen2(896, 24, 14, 2, 4864, True, 151936),
    "Qwen/Qwen2.5-1.5B-Instruct": _qwen2(1536, 28, 12, 2, 8960, True, 151936),
    "Qwen/Qwen2.5-3B-Instruct": _qwen2(2048, 36, 16, 2, 11008, True, 151936),
    "Qwen/Qwen2.5-7B-Instruct": _qwen2(3584, 28, 28, 4, 18944, False, 152064),
}
"""Models to turn to where another is too large, smallest first (their published config.json)."""
