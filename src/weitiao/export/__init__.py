"""The ways out: what was trained, in the formats that other programs read.

Nothing is imported here: a server writes a GGUF file without waiting for PEFT.
"""
