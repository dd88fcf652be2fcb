"""The loop: optimizer steps over flat micro-batches, checkpoints, resume."""
