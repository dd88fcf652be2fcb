"""Whether an error says that there is too little memory, and what can be given back then."""

import gc

import torch

_SAYINGS = ("out of memory", "can't allocate", "alloc_failed", "bad_alloc", "not enough memory")


def short_of_memory(error: BaseException) -> bool:
    """Return whether ``error`` says that memory is short: PyTorch's, its libraries', Python's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(saying in text for saying in _SAYINGS)


def give_back() -> None:
    """Return what is not in use to the GPU, so that smaller pieces can be cut from it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
