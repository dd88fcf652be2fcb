"""The ways out: what was trained, in the formats that other programs read."""

from weitiao.export.card import CardFacts, Score, license_of, model_card
from weitiao.export.gguf_file import GgufType, read_gguf_vocabulary, require_gguf, write_gguf
from weitiao.export.merge import Trained, write_adapter, write_merged
from weitiao.export.ollama import modelfile
from weitiao.export.tokenizer_gguf import Vocabulary, ids_of
from weitiao.export.write import (
    TARGETS,
    Exported,
    Material,
    Target,
    require_target,
    write_export,
)

__all__ = [
    "TARGETS",
    "CardFacts",
    "Exported",
    "GgufType",
    "Material",
    "Score",
    "Target",
    "Trained",
    "Vocabulary",
    "ids_of",
    "license_of",
    "model_card",
    "modelfile",
    "read_gguf_vocabulary",
    "require_gguf",
    "require_target",
    "write_adapter",
    "write_export",
    "write_gguf",
    "write_merged",
]
