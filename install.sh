#!/bin/sh
# Puts weitiao and the locked versions of what it needs into $VENV.
#
# torch is apart from the hashed lock because its build depends on the machine: on Linux the
# package index holds the CUDA build with gigabytes of libraries that a laptop without an
# NVIDIA card does not need, and torch's own index the small one.
set -eu
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "weitiao needs Python 3.11 or newer; try: make demo PYTHON=python3.12" >&2
    echo "weitiao 需要 Python 3.11 或更新版本，可试：make demo PYTHON=python3.12" >&2
    exit 1
}
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
PIP="$VENV/bin/python -m pip --disable-pip-version-check"

torch=$(cat torch.lock)
if [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1; then
    $PIP install --quiet "$torch+cpu" 2>/dev/null ||
        $PIP install --quiet "$torch+cpu" --retries 1 \
            --extra-index-url https://download.pytorch.org/whl/cpu 2>/dev/null ||
        $PIP install --quiet "$torch"
else
    $PIP install --quiet "$torch"
fi
# --no-deps: the lock is complete, and pip would want a hash for torch too.
$PIP install --quiet --no-deps --require-hashes -r requirements.lock
$PIP install --quiet --no-deps --editable .
$PIP check
