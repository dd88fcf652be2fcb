"""Two untrained models of the embedded tokenizer, the second moved away from the first."""

from importlib import resources

import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from weitiao.evaluation.beside import Both
from weitiao.models.pair import Voice
from weitiao.records.render import ChatFormat


def made_pair(moved: float = 0.0) -> Both:
    """Return both models; ``moved``: how far the tuned one is from its base."""
    folder = resources.files("weitiao.models") / "embedded"
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    base, tuned = _model(len(tokenizer)), _model(len(tokenizer))
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in tuned.parameters():
            weight += moved * torch.randn_like(weight)
    return Both(Voice(base), Voice(tuned), ChatFormat(tokenizer), batch_size=16, budget=2048)


def _model(words: int) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=words,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config).eval()
