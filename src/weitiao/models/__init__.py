"""Base model, tokenizer and adapters: in, out, and token by token."""
