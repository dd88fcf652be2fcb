"""The data stage against its peers, each in a process of its own, in turns, in one run.

    python benchmarks/bench_records.py [--rows 1000000] [--repeats 3] [--only read,near,render]

read    read + check + exact duplicates, against ``datasets`` (load_dataset, map, filter) with
        the same checks; both must keep the same number of rows.
near    near duplicates at 0.85, against datasketch; recall and precision against an exact join.
render  rendering and tokenising, against the tokenizer library's own batch call.
whole   everything that is on by default, with tokens counted: what a user waits for.

The rows are made from Tang poems by a seeded mutator, with known duplicates. Results go to
benchmarks/results/records.csv with hardware, commit and date; the shortest time of the
repeats counts, and the peak memory is that of all processes of a side together.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from results_file import add_line

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "records.csv"


def ours_read(path: Path) -> dict[str, Any]:
    from weitiao.events import EventLog
    from weitiao.records.options import CleanOptions, DataOptions, SimilarOptions
    from weitiao.records.prepare import check

    clean = CleanOptions(mojibake=False, normalise=False, private="ignore", flags=False)
    options = DataOptions(clean=clean, similar=SimilarOptions(near="ignore", leakage=False))
    report = check(path, options, None, EventLog()).report
    return {"rows": report.rows, "kept": report.kept}


def ours_whole(path: Path) -> dict[str, Any]:
    from weitiao import api
    from weitiao.events import EventLog
    from weitiao.records.prepare import check

    recipe = api.recipe_for(path)
    chat = api.begin.chat_format(recipe)
    report = check(path, recipe.data, chat, EventLog()).report
    return {"rows": report.rows, "kept": report.kept}


def peer_read(path: Path) -> dict[str, Any]:
    import hashlib
    import re
    import tempfile

    import datasets

    datasets.disable_progress_bars()
    control = re.compile(r"<[|｜][^<>|｜\s]{1,40}[|｜]>")

    def checked(row: dict[str, Any]) -> dict[str, Any]:
        prompt, response = row["prompt"], row["response"]
        reason = None
        if not prompt.strip():
            reason = "empty_prompt"
        elif not response.rpartition("</think>")[2].strip():
            reason = "empty_answer"
        elif control.search(prompt) or control.search(response):
            reason = "special_token"
        said = "\0".join(" ".join(part.split()) for part in (prompt, response))
        key = hashlib.blake2b(said.encode(), digest_size=16).digest()
        return {"reason": reason, "key": key}

    seen: set[bytes] = set()

    def wanted(row: dict[str, Any]) -> bool:
        if row["reason"] is not None or row["key"] in seen:
            return False
        seen.add(row["key"])
        return True

    with tempfile.TemporaryDirectory() as cache:
        rows = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=cache)
        kept = rows.map(checked).filter(wanted)
        return {"rows": len(rows), "kept": len(kept)}


SIDES = {"ours_read": ours_read, "peer_read": peer_read, "ours_whole": ours_whole}


def child(side: str, path: Path) -> None:
    """Be one side: time it without the interpreter's start and the imports of libraries."""
    import weitiao.records.prepare  # noqa: F401

    if side.startswith("peer"):
        import datasets  # noqa: F401
    began, cpu = time.perf_counter(), os.times()
    result = SIDES[side](path)
    seconds, now = time.perf_counter() - began, os.times()
    used = sum(now[:4]) - sum(cpu[:4])
    print(json.dumps({**result, "seconds": seconds, "cpu_seconds": used}))


def run_side(side: str, path: Path) -> dict[str, Any]:
    """Run one side in a process of its own and watch the memory of it and its children."""
    command = [sys.executable, __file__, "--child", side, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = 0

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, _resident(process.pid))
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, _ = process.communicate()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{side} failed")
    return {**json.loads(out.splitlines()[-1]), "peak_mb": peak / 1e6}


def _resident(pid: int) -> int:
    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
        return sum(process.memory_info().rss for process in family)
    except psutil.NoSuchProcess:
        return 0


def compare(ours: str, peer: str | None, path: Path, repeats: int) -> dict[str, Any]:
    """Return the best of each side, the sides taken in turns."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in (ours, peer) if side}
    for _ in range(repeats):
        for side, results in found.items():
            results.append(run_side(side, path))
            print(side, results[-1], flush=True)
    best = {side: min(results, key=lambda r: r["seconds"]) for side, results in found.items()}
    mine = best[ours]
    row = {
        "rows": mine["rows"],
        "kept": mine["kept"],
        "ours_rows_per_second": round(mine["rows"] / mine["seconds"]),
        "ours_cpu_seconds": round(mine["cpu_seconds"], 1),
        "ours_peak_mb": round(mine["peak_mb"]),
    }
    if peer:
        theirs = best[peer]
        assert (theirs["rows"], theirs["kept"]) == (mine["rows"], mine["kept"]), "not the same work"
        row |= {
            "peer_rows_per_second": round(theirs["rows"] / theirs["seconds"]),
            "peer_cpu_seconds": round(theirs["cpu_seconds"], 1),
            "peer_peak_mb": round(theirs["peak_mb"]),
            "ratio": round(theirs["seconds"] / mine["seconds"], 2),
        }
    return row


def hardware() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory = psutil.virtual_memory().total / 2**30
    return f"{len(os.sched_getaffinity(0))} cores {names[0]}, {memory:.0f} GiB"


def save(section: str, row: dict[str, Any]) -> None:
    """Append a line to the results, one value a column."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True
    ).stdout.strip()
    line = {
        "date": datetime.date.today().isoformat(),
        "commit": commit,
        "hardware": hardware(),
        "python": platform.python_version(),
        "section": section,
        "figures": json.dumps(row, ensure_ascii=False),
    }
    print(section, row, flush=True)
    add_line(RESULTS, line)


def main() -> None:
    import made_rows
    import records_near
    import records_render

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="read,near,render,whole")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/weitiao-bench"))
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    path = asked.folder / f"rows-{asked.rows}.jsonl"
    if not path.exists():
        made_rows.write(path, asked.rows)
    sections = asked.only.split(",")
    if "read" in sections:
        save("read", compare("ours_read", "peer_read", path, asked.repeats))
    if "near" in sections:
        save("near", records_near.measure(path))
    if "render" in sections:
        tokenizer = HERE.parents[1] / "shared" / "tokenizers" / "qwen"
        poems = HERE.parents[1] / "shared" / "data" / "tang_quatrains.jsonl"
        save("render", records_render.measure(tokenizer, poems, 50_000))
    if "whole" in sections:
        save("whole", compare("ours_whole", None, path, 1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
