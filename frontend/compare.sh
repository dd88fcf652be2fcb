#!/bin/sh
# The committed chat page is, byte for byte, what its sources build. Without node that is not
# looked at, which one line says: neither a user nor `make demo` needs node.
set -eu
cd "$(dirname "$0")"
if ! command -v npm >/dev/null || ! node -e '
    const [major, minor] = process.versions.node.split(".").map(Number);
    process.exit(major > 20 || (major === 20 && minor >= 19) ? 0 : 1)'; then
    echo "The chat page was not rebuilt and compared: node 20.19 or newer is not here."
    exit 0
fi
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
npm ci --silent
npm run --silent build -- --outDir "$built" --logLevel warn
diff -rq "$built" ../src/weitiao/serving/web/built || {
    echo "The committed chat page is not what frontend/ builds: run make frontend." >&2
    exit 1
}
