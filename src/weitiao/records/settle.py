"""What only all rows together can tell: near duplicates, the split, the balance."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from weitiao.records import report
from weitiao.records.balance import balance, mix
from weitiao.records.folding import folded
from weitiao.records.gathered import Gathered
from weitiao.records.options import DataOptions, SimilarOptions
from weitiao.records.record import Reason
from weitiao.records.report import Balanced, Note, Similarities
from weitiao.records.similar import (
    Cluster,
    Groups,
    NearIndex,
    contradictions,
    is_label,
    leaking_rows,
    survivor,
)
from weitiao.records.split import PARTS, split

Ints = npt.NDArray[np.int64]

TRAIN = PARTS.index("train")
_BATCH = 20_000
_EXAMPLES, _MEMBERS, _TEXT = 50, 10, 200


@dataclass(slots=True)
class Settled:
    """``part`` [N]: each row's part, a place in PARTS; ``copies`` [N]: how often it is used.

    ``refused``: rows that are not used after all, and why; ``near``: near duplicates by
    prompt or by answer.
    """

    part: npt.NDArray[np.uint8]
    copies: Ints
    refused: dict[int, Reason] = field(default_factory=dict)
    near: tuple[Cluster, ...] = ()
    similar: Similarities | None = None
    balance: list[Balanced] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    @property
    def used(self) -> Ints:
        """The rows that are used, ascending."""
        used = np.ones(len(self.part), dtype=bool)
        used[list(self.refused)] = False
        return np.flatnonzero(used)


def settle(gathered: Gathered, options: DataOptions) -> Settled:
    """Decide what becomes of each usable row."""
    rows = len(gathered.kept)
    settled = Settled(np.full(rows, TRAIN, dtype=np.uint8), np.ones(rows, dtype=np.int64))
    groups = Groups(rows)
    groups.join_equal(np.frombuffer(gathered.group, dtype=np.uint64))
    _join_families(groups, gathered)
    if options.similar.near != "ignore" or options.similar.leakage:
        _compare(gathered, options.similar, groups, settled)
    labels = groups.labels()
    _divide(gathered, options, labels, settled)
    _balance(gathered, options, settled)
    _mix(gathered, options, labels, settled)
    if settled.similar is not None and not options.similar.leakage:
        training = settled.part == TRAIN
        training[list(settled.refused)] = False
        leaks = np.setdiff1d(leaking_rows(settled.near, training), list(settled.refused))
        settled.similar = settled.similar.model_copy(update={"leaks": len(leaks)})
    return settled


def _join_families(groups: Groups, gathered: Gathered) -> None:
    """A grown row stays with its parent; where that is missing, with its siblings."""
    if not gathered.parents:
        return
    known = np.frombuffer(gathered.read, dtype=np.uint64)
    order = np.argsort(known, kind="stable")
    ordered = known[order]
    first: dict[int, int] = {}
    for child, parent in gathered.parents.items():
        key = int(parent[:16], 16) if _is_id(parent) else hash(parent) & (2**64 - 1)
        place = int(np.searchsorted(ordered, np.uint64(key)))
        if place < len(order) and int(ordered[place]) == key:
            groups.join(int(order[place]), child)
        else:
            groups.join(first.setdefault(key, child), child)


def _is_id(parent: str) -> bool:
    return len(parent) == 32 and all(char in "0123456789abcdef" for char in parent)


def _compare(gathered: Gathered, options: SimilarOptions, groups: Groups, settled: Settled) -> None:
    """Find near duplicates and contradictions; join, report and refuse as asked."""
    near = {"prompt": NearIndex(options.threshold), "answer": NearIndex(options.threshold)}
    hashes: dict[str, list[Ints]] = {"prompt": [], "answer": []}
    lines = map(gathered.kept.line, range(len(gathered.kept)))
    while batch := [_texts(line) for line in islice(lines, _BATCH)]:
        prompts, answers = zip(*batch, strict=True)
        for name, said in (("prompt", prompts), ("answer", answers)):
            hashes[name].append(
                np.fromiter(map(hash, map(folded, said)), dtype=np.int64, count=len(said))
            )
        near["prompt"].add(prompts)
        near["answer"].add(["" if is_label(answer) else answer for answer in answers])

    def texts_of(part: int) -> Callable[[Sequence[int]], list[str]]:
        return lambda rows: [_texts(gathered.kept.line(int(row)))[part] for row in rows]

    prompts_hash, answers_hash = (np.concatenate(hashes[name]) for name in ("prompt", "answer"))
    by_prompt = near["prompt"].clusters(texts_of(0))
    by_answer = near["answer"].clusters(texts_of(1))
    if options.leakage:
        for cluster in (*by_prompt, *by_answer):
            for one, other in pairwise(cluster.rows):
                groups.join(int(one), int(other))
    if options.near == "ignore":
        return
    clusters = {
        "prompt": lambda: by_prompt,
        "answer": lambda: by_answer,
        "both": lambda: _in_both(by_prompt, by_answer, prompts_hash, answers_hash),
    }[options.compare]()
    if options.near == "reject":
        _keep_one(clusters, gathered, options, settled)
    against = contradictions(prompts_hash, answers_hash)
    settled.near = (*by_prompt, *by_answer)
    settled.similar = Similarities(
        threshold=options.threshold,
        clusters=len(clusters),
        rows=sum(len(cluster.rows) for cluster in clusters),
        examples=_shown(clusters, gathered, settled.refused),
        contradicting=len(against),
        contradictions=_shown(against, gathered, settled.refused, answers_alone=True),
        leaks=0,
    )


def _texts(line: bytes) -> tuple[str, str]:
    """Return what is asked (without the system prompt) and what is answered in a kept row."""
    row = orjson.loads(line)
    messages: list[dict[str, Any]] = row.get("messages", [])
    answers = [i for i, turn in enumerate(messages) if turn["role"] == "assistant"]
    if not answers:
        return "", row.get("text", "")
    asked = [turn["content"] for turn in messages[: answers[-1]] if turn["role"] != "system"]
    return "\n".join(asked), messages[answers[-1]]["content"]


def _in_both(
    by_prompt: Sequence[Cluster], by_answer: Sequence[Cluster], prompts: Ints, answers: Ints
) -> list[Cluster]:
    """Return the clusters of rows that are near by prompt and by answer (equal counts as near)."""
    labels = [prompts.copy(), answers.copy()]
    lowest = [np.ones(len(prompts)), np.ones(len(prompts))]
    for side, clusters in enumerate((by_prompt, by_answer)):
        for cluster in clusters:
            # A cluster goes by the text of its first row, which no row outside of it has.
            labels[side][cluster.rows] = labels[side][cluster.rows[0]]
            lowest[side][cluster.rows] = cluster.similarity
    order = np.lexsort((np.arange(len(prompts)), labels[1], labels[0]))
    pairs = np.stack(labels)[:, order]
    borders = np.flatnonzero(np.any(pairs[:, 1:] != pairs[:, :-1], axis=0)) + 1
    found = [part for part in np.split(order, borders) if len(part) > 1]
    return [Cluster(part, float(np.min([side[part].min() for side in lowest]))) for part in found]


def _keep_one(
    clusters: Sequence[Cluster], gathered: Gathered, options: SimilarOptions, settled: Settled
) -> None:
    names = list(gathered.names)
    for cluster in clusters:
        # A grown row is meant to be like its parent.
        rows = [row for row in cluster.rows.tolist() if row not in gathered.parents]
        if len(rows) < 2:
            continue
        # A row of the task never makes way for one of ``mix``, which may not even be drawn.
        own = [row for row in rows if gathered.sources[gathered.file[row]] == 0] or rows
        kept = survivor(
            own,
            options.keep_rule,
            lengths=[len(gathered.kept.line(row)) for row in own],
            times=[names[gathered.time[row]] for row in own],
            votes=[gathered.votes[row] for row in own],
        )
        place = gathered.origin(kept)
        values = {
            "file": place.file,
            "line": place.line,
            "similarity": round(cluster.similarity, 2),
        }
        settled.refused |= {row: Reason("near_duplicate", values) for row in rows if row != kept}


def _shown(
    clusters: Sequence[Cluster],
    gathered: Gathered,
    refused: Mapping[int, Reason],
    *,
    answers_alone: bool = False,
) -> tuple[report.Cluster, ...]:
    """Return the largest clusters with what their first rows say, the row that stays first."""
    largest = sorted(clusters, key=lambda c: (-len(c.rows), int(c.rows[0])))[:_EXAMPLES]
    found = []
    for cluster in largest:
        rows = sorted(cluster.rows.tolist(), key=lambda row: (row in refused, row))
        shown = tuple(_place(gathered, row, answers_alone) for row in rows[:_MEMBERS])
        similarity = round(cluster.similarity, 3)
        found.append(report.Cluster(rows=shown, size=len(rows), similarity=similarity))
    return tuple(found)


def _place(gathered: Gathered, row: int, answer_alone: bool) -> report.Place:
    origin = gathered.origin(row)
    prompt, answer = _texts(gathered.kept.line(row))
    text = answer if answer_alone or not prompt else f"{prompt} → {answer}"
    return report.Place(file=origin.file, line=origin.line, text=text[:_TEXT])


def _divide(gathered: Gathered, options: DataOptions, labels: Ints, settled: Settled) -> None:
    """Divide the rows of the task itself; those of ``mix`` are for training alone."""
    rows = _used_of_source(gathered, settled, 0)
    if not len(rows):
        return
    order = np.frombuffer(gathered.group, dtype=np.uint64)[rows]
    settled.part[rows] = split(labels[rows], order, options.split)
    found = np.bincount(settled.part[rows], minlength=len(PARTS))
    largest = int(np.bincount(labels[rows]).max())
    if any(ratio > 0 and not found[i] for i, ratio in enumerate(options.split)):
        settled.notes.append(Note(name="few_groups"))
    elif (
        options.similar.leakage and largest * sum(options.split) > len(rows) * options.split[TRAIN]
    ):
        values = {"rows": largest, "total": len(rows)}
        settled.notes.append(Note(name="large_group", values=values))


def _used_of_source(gathered: Gathered, settled: Settled, source: int) -> Ints:
    """Return the used rows of the task (0) or of an entry of ``mix`` (from 1)."""
    used = settled.used
    sources = np.array(gathered.sources)[np.frombuffer(gathered.file, dtype=np.int32)[used]]
    rows: Ints = used[sources == source]
    return rows


def _mix(gathered: Gathered, options: DataOptions, labels: Ints, settled: Settled) -> None:
    """Draw rows of the files of ``mix``, none of them like a row that is held out."""
    if not options.mix:
        return
    task = _used_of_source(gathered, settled, 0)
    held_out = labels[task[settled.part[task] != TRAIN]]
    available: dict[str, Ints] = {}
    for source, name in enumerate(options.mix, start=1):
        rows = _used_of_source(gathered, settled, source)
        leaking = np.isin(labels[rows], held_out)
        settled.refused |= {int(row): Reason("mix_leaks") for row in rows[leaking]}
        available[name] = rows[~leaking]
    sizes = {name: len(rows) for name, rows in available.items()}
    training = task[settled.part[task] == TRAIN]
    drawn = mix(int(settled.copies[training].sum()), sizes, options.mix, options.seed)
    for name, places in drawn.items():
        rows = available[name]
        copies = np.bincount(places, minlength=len(rows))
        settled.copies[rows] = copies
        reason = Reason("mix_not_drawn", {"file": name})
        settled.refused |= {int(row): reason for row in rows[copies == 0]}
        settled.balance.append(Balanced(value=name, before=len(rows), after=len(places)))


def _balance(gathered: Gathered, options: DataOptions, settled: Settled) -> None:
    """Cap and repeat the training rows of each value."""
    rows = _used_of_source(gathered, settled, 0)
    rows = rows[settled.part[rows] == TRAIN]
    names = list(gathered.names)
    values = [names[gathered.value[row]] for row in rows]
    balanced = balance(values, options.balance, options.seed)
    settled.copies[rows] = balanced.copies
    for row in rows[balanced.copies == 0]:
        value = names[gathered.value[row]]
        reason = Reason("balanced_away", {"column": options.balance.by, "value": value})
        settled.refused[int(row)] = reason
    settled.balance += balanced.table


def parts_of(settled: Settled) -> Iterator[tuple[str, Ints]]:
    """Yield each part's name and its rows, ascending, repeated as they are used."""
    used = settled.used
    for place, name in enumerate(PARTS):
        rows = used[settled.part[used] == place]
        yield name, np.repeat(rows, settled.copies[rows])
