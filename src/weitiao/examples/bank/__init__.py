"""Customers of an imaginary bank: ``bank.jsonl`` and the generator that wrote it."""
