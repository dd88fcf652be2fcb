"""Write the untrained embedded model: its shape, random weights, and the tokenizer beside it."""

import argparse
import shutil
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

TOKENIZER = Path(__file__).parents[1] / "src" / "weitiao" / "models" / "embedded"


def make_config(tokenizer_folder: Path) -> Qwen2Config:
    """Return the shape: 7.3 million parameters, of which 2.1 million are the tied embedding."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    return Qwen2Config(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=7,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def main() -> None:
    """Write the folder given with ``--out``."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--out", type=Path, default=Path(__file__).parent / "build" / "init")
    arguments.add_argument("--seed", type=int, default=42)
    options = arguments.parse_args()
    torch.manual_seed(options.seed)
    model = Qwen2ForCausalLM(make_config(TOKENIZER))
    # Wide embeddings, with a small last norm to keep the first logits near 1: from the usual
    # 0.02, AdamW moves all rare characters one common way until they look the same.
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=0.2)
    torch.nn.init.constant_(model.model.norm.weight, 0.3)
    model.save_pretrained(options.out)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(TOKENIZER / name, options.out / name)


if __name__ == "__main__":
    main()
