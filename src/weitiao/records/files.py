"""Writing that either happens whole or not at all."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from weitiao.errors import RunError


@contextmanager
def open_atomic(path: Path) -> Iterator[IO[bytes]]:
    """Yield a binary file that takes the name ``path`` when the block ends without an error.

    The bytes go to a temporary file beside ``path`` and are on the disk before the
    rename, so a kill at any moment leaves the old file or the new one, never a half.
    Folders that are missing are made.

    Raises:
        RunError: the disk is full, or the place cannot be written.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        with os.fdopen(handle, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        # mkstemp makes a file that only its owner reads; the user's umask decides here.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8) as the whole of ``path``; see :func:`open_atomic`."""
    with open_atomic(path) as out:
        out.write(content.encode("utf-8") if isinstance(content, str) else content)


def write_error(path: Path, error: OSError) -> RunError:
    """Return the sentence for a failed write: a full disk, or a place that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError("error.disk_full", path=path)
    return RunError("error.cannot_write", path=path, cause=error.strerror or str(error))


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
