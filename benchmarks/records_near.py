"""Near duplicates against datasketch, and both against an exact join, on the same rows.

    python benchmarks/records_near.py [rows.jsonl] [--rows 100000] [--repeats 3]

Compared are the field ``response`` of the first rows, at 0.85. Each side is a process of its
own, in turns; the shortest time counts, from the texts in memory to the pairs or clusters.
datasketch is used as its documentation shows it: a MinHash of 128 permutations of each row's
n-grams, all inserted into a MinHashLSH, then each row queried. What it gives are candidates; the
exact similarity that we check is not asked of it.

A pair is recalled if the side puts its two rows together; a row put together with another is
right if the exact join connects them too.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

THRESHOLD, PERMUTATIONS = 0.85, 128
Pairs = Iterable[tuple[int, int]]


def texts_of(path: Path, rows: int) -> list[str]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line)["response"] for line in islice(lines, rows)]


def gram_set(text: str) -> set[str]:
    """Return the n-grams that ``weitiao.records.similar`` compares, written plainly (Chinese)."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = "".join(char for char in text if unicodedata.category(char)[0] not in "PZC")
    return {text[i : i + 2] for i in range(len(text))}


def exact_join(texts: Sequence[str], threshold: float = THRESHOLD) -> Iterator[tuple[int, int]]:
    """Yield every pair of rows whose Jaccard similarity is at least ``threshold``.

    Prefix filter (Chaudhuri, Ganti and Kaushik 2006): with n-grams in one order, the rarest
    first, two sets that are near share one of their first n - ceil(threshold * n) + 1.
    """
    sets = [gram_set(text) for text in texts]
    counts = Counter(gram for grams in sets for gram in grams)
    seen: dict[str, list[int]] = defaultdict(list)
    for row, grams in enumerate(sets):
        ordered = sorted(grams, key=lambda gram: (counts[gram], gram))
        prefix = ordered[: len(ordered) - ceil(threshold * len(ordered) - 1e-9) + 1]
        for other in {other for gram in prefix for other in seen[gram]}:
            shared = len(grams & sets[other])
            if shared / (len(grams) + len(sets[other]) - shared) >= threshold:
                yield other, row
        for gram in prefix:
            seen[gram].append(row)


def ours(texts: list[str]) -> Pairs:
    from weitiao.records.similar import NearIndex

    index = NearIndex(THRESHOLD)
    for begin in range(0, len(texts), 2000):
        index.add(texts[begin : begin + 2000])
    clusters = index.clusters(lambda rows: [texts[row] for row in rows])
    return [
        (int(cluster.rows[0]), row) for cluster in clusters for row in cluster.rows[1:].tolist()
    ]


def peer(texts: list[str]) -> Pairs:
    from datasketch import MinHash, MinHashLSH

    lsh = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    hashed = []
    for row, text in enumerate(texts):
        minhash = MinHash(num_perm=PERMUTATIONS)
        minhash.update_batch([gram.encode() for gram in gram_set(text)])
        lsh.insert(row, minhash)
        hashed.append(minhash)
    found = (lsh.query(minhash) for minhash in hashed)
    return [(row, other) for row, others in enumerate(found) for other in others if other < row]


def child(side: str, path: Path, rows: int, out: Path) -> None:
    """Be one side; write its pairs to ``out`` and print seconds and memory."""
    import weitiao.records.similar  # noqa: F401

    if side == "peer":
        import datasketch  # noqa: F401
    texts = texts_of(path, rows)
    before, began = _peak(), time.perf_counter()
    pairs = {"ours": ours, "peer": peer}[side](texts)
    seconds = time.perf_counter() - began
    peak = _peak()
    out.write_text(json.dumps(list(pairs)))
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "more_mb": peak - before}))


def _peak() -> float:
    """Return this process's peak memory in MB; unlike ru_maxrss, without that of its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6


def labels(rows: int, pairs: Pairs) -> list[int]:
    """Return the lowest row that each row is connected with."""
    from weitiao.records.similar import Groups

    groups = Groups(rows)
    for a, b in pairs:
        groups.join(a, b)
    return groups.labels().tolist()


def together(pairs: Pairs, label: Sequence[int]) -> float:
    """Return the share of ``pairs`` whose rows have one label."""
    found = [label[a] == label[b] for a, b in pairs]
    return sum(found) / max(len(found), 1)


def known_pairs(path: Path, rows: int) -> Pairs:
    """Return the pairs that were made as duplicates, both among the first ``rows`` rows."""
    truth = path.with_suffix(".truth.jsonl")
    if not truth.exists():
        return []
    with truth.open(encoding="utf-8") as lines:
        known = [json.loads(line) for line in lines]
    return [(one["of"], one["row"]) for one in known if one["row"] < rows]


def measure(path: Path, rows: int = 100_000, repeats: int = 3) -> dict[str, Any]:
    """Return the figures of both sides on the first ``rows`` rows of ``path``."""
    best: dict[str, dict[str, Any]] = {}
    pairs: dict[str, list[tuple[int, int]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "pairs.json"
        for _ in range(repeats):
            for side in ("ours", "peer"):
                command = [
                    sys.executable,
                    __file__,
                    "--child",
                    side,
                    str(path),
                    str(rows),
                    str(out),
                ]
                told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                result = json.loads(told.splitlines()[-1])
                print(side, result, flush=True)
                if side not in best or result["seconds"] < best[side]["seconds"]:
                    best[side] = result
                pairs[side] = json.loads(out.read_text())
    texts = texts_of(path, rows)
    exact = list(exact_join(texts))
    true_labels = labels(len(texts), exact)
    figures: dict[str, Any] = {"rows": len(texts), "exact_pairs": len(exact)}
    for side in ("ours", "peer"):
        label = labels(len(texts), pairs[side])
        figures |= {
            f"{side}_seconds": round(best[side]["seconds"], 2),
            f"{side}_peak_mb": round(best[side]["peak_mb"]),
            f"{side}_more_mb": round(best[side]["more_mb"]),
            f"{side}_recall": round(together(exact, label), 5),
            f"{side}_precision": round(together(pairs[side], true_labels), 5),
            f"{side}_made_found": round(together(known_pairs(path, rows), label), 5),
        }
    figures["ratio"] = round(best["peer"]["seconds"] / best["ours"]["seconds"], 1)
    return figures


def main() -> None:
    import made_rows

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", type=Path, nargs="?")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = asked.path or Path(folder) / "rows.jsonl"
        if asked.path is None:
            made_rows.write(path, asked.rows)
        print(json.dumps(measure(path, asked.rows, asked.repeats), indent=2))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        side, path, rows, out = sys.argv[2:]
        child(side, Path(path), int(rows), Path(out))
    else:
        main()
