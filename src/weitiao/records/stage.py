"""What happens to each row by itself: read, reviewed, cleaned, checked, rendered.

A stage works on blocks of rows, so that several processes can share a large file. What
needs the other rows (duplicates, the split) is decided afterwards, from the few numbers
that are kept of each.
"""

import base64
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from weitiao.records import checks
from weitiao.records.cleaning import Cleaned, Cleaner, main_language, main_languages
from weitiao.records.cleaning.signs import has_reasoning
from weitiao.records.findings import Findings
from weitiao.records.kept import Kept, merged
from weitiao.records.options import DataOptions
from weitiao.records.pairs import Pairs, plain_pairs
from weitiao.records.reading import RawRow, Stretch, readable
from weitiao.records.reading.encoding import coding_of
from weitiao.records.record import OWN, Origin, Reason, Record
from weitiao.records.render import ChatFormat, Sample
from weitiao.records.review import Votes, apply, decide
from weitiao.records.shaping import Shape, reader_of
from weitiao.records.split import order_key, prompt_key
from weitiao.records.spool import dumps

_CATEGORY_LENGTH, _BEGINNING = 40, 200


class Block(NamedTuple):
    """Rows of one file, read or still to be read, with its shape and encoding."""

    rows: Sequence[RawRow] | Stretch
    shape: Shape
    encoding: str


Turned = tuple[int, str, bytes]
"""A row turned away: its line in the file, the reason's name, its line of ``rejected.jsonl``."""


class Done(NamedTuple):
    """A block of rows, done: the usable ones and the others."""

    kept: Kept
    rejected: list[Turned]
    findings: Findings


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that is not used: as it was (its text, if it could not be parsed), and why.

    ``raw``: the row's bytes where its text does not tell them.
    """

    origin: Origin
    row: Any
    reason: Reason
    raw: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the line of ``rejected.jsonl``."""
        line = {
            "row": self.row,
            "file": self.origin.file,
            "line": self.origin.line,
            "reason": self.reason.name,
            "values": dict(self.reason.values),
            "hint": self.reason.hint("en"),
        }
        return line if self.raw is None else {**line, "base64": self.raw}

    @staticmethod
    def from_json(line: Mapping[str, Any]) -> "Rejected":
        """Return what :meth:`to_json` wrote."""
        return Rejected(
            Origin(line["file"], line["line"]),
            line["row"],
            Reason(line["reason"], line["values"]),
            line.get("base64"),
        )


class Stage:
    """The work on each row by itself, made once for each process."""

    def __init__(self, options: DataOptions, chat: ChatFormat | None, votes: Votes) -> None:
        self._options, self._chat, self._votes = options, chat, votes
        self._clean = Cleaner(options.clean, options.system)
        # Where nothing is cleaned, looked for, put before or rendered, plain rows are themselves.
        self._untouched = (
            chat is None
            and not votes
            and not options.review.required
            and options.system is None
            and self._clean.idle
        )
        self._control_token = chat.control_token if chat else checks.known_control_token

    def __call__(self, block: Block) -> Done:
        """Do a block of rows."""
        findings = Findings()
        found = plain_pairs(block.rows, block.shape) if self._untouched else None
        if found is None:
            rows = list(block.rows.rows()) if isinstance(block.rows, Stretch) else block.rows
            return self._done(rows, block, findings)
        pairs, others = found
        quick = self._kept_pairs(pairs, findings)
        done = self._done(others, block, findings)
        return done._replace(kept=merged(quick, done.kept) if len(done.kept) else quick)

    def _done(self, rows: Sequence[RawRow], block: Block, findings: Findings) -> Done:
        """Do rows one by one."""
        read = reader_of(block.shape)
        rejected: list[Turned] = []
        found: list[tuple[RawRow, Record, bytes]] = []
        for row in rows:
            if row.data is None:
                reason = row.problem or Reason("not_an_object")
                rejected.append(_turned(row, block.encoding, reason))
                continue
            record = read(row.data, row.origin)
            outcome = record if isinstance(record, Reason) else self._ready(record, findings)
            if isinstance(outcome, Reason):
                rejected.append(_turned(row, block.encoding, outcome))
            else:
                found.append((row, *outcome))
        return Done(self._rendered(found, rejected, findings), rejected, findings)

    def _kept_pairs(self, pairs: Pairs, findings: Findings) -> Kept:
        """Return what :meth:`_done` would, for rows that nothing need be done to."""
        beginnings = [answer[:_BEGINNING] for answer in pairs.answers]
        findings.languages.update(main_languages(beginnings))
        findings.kinds["conversation"] += len(beginnings)
        said, none = pairs.fingerprints(), [""] * len(beginnings)
        zeros = array("q", bytes(8 * len(beginnings)))
        return Kept(
            json=pairs.jsons(),
            said=said,
            read=said,
            group=array("Q", pairs.groups(self._options.seed)),
            line=array("q", pairs.lines),
            samples=zeros,
            tokens=zeros,
            scored=zeros,
            shortened=zeros,
            votes=zeros,
            value=none if self._options.balance.by else [],
            time=none if self._options.similar.time_column else [],
            parent=none,
        )

    def _ready(self, record: Record, findings: Findings) -> tuple[Record, bytes] | Reason:
        """Return the record as it will be learnt, and its fingerprint as read if that differs."""
        options, read = self._options, b""
        lineage = record.lineage if OWN in record.metadata else None
        if lineage and lineage.method and not lineage.draft and options.grown == "drop":
            return Reason("grown_dropped", {"method": lineage.method})
        if self._votes or lineage or options.review.required:
            read = record.fingerprint()
            reviewed = self._reviewed(record, read.hex(), findings)
            if isinstance(reviewed, Reason):
                return reviewed
            record = reviewed
        said = checks.without_unanswered(record)
        findings.kinds["unanswered"] += len(said.messages) < len(record.messages)
        cleaned = self._clean(said)
        ready = checks.with_system(cleaned.record, options.system)
        reason = cleaned.reason or checks.first_reason(ready, self._control_token)
        if reason:
            return reason
        if cleaned.changes or cleaned.flags:
            _note(cleaned, record.origin, findings)
        return ready, read or (b"" if ready is record else record.fingerprint())

    def _reviewed(self, record: Record, read: str, findings: Findings) -> Record | Reason:
        votes = self._votes.get(read, ())
        decision = decide(votes, self._options.review.agreement)
        reviewed = apply(record, decision, required=self._options.review.required)
        if isinstance(reviewed, Reason):
            findings.verdicts[reviewed.name] += 1
        elif votes:
            findings.verdicts[decision.verdict] += 1
        return reviewed

    def _rendered(
        self,
        found: Sequence[tuple[RawRow, Record, bytes]],
        rejected: list[Turned],
        findings: Findings,
    ) -> Kept:
        """Count the tokens of all records at once; those that cannot be rendered are rejected."""
        options = self._options
        outcomes: Sequence[list[Sample] | Reason] = [[] for _ in found]
        if self._chat is not None:
            outcomes = self._chat.batch(
                [record for _, record, _ in found],
                max_tokens=options.max_tokens,
                too_long=options.too_long,
                score_turns=options.score_turns,
                reasoning=options.reasoning,
            )
        kept = Kept()
        for (row, record, read), samples in zip(found, outcomes, strict=True):
            if isinstance(samples, Reason):
                rejected.append(_turned(row, "utf-8", samples))
            else:
                self._keep(kept, record, read, samples)
                _count(record, findings)
        return kept

    def _keep(self, kept: Kept, record: Record, read: bytes, samples: Sequence[Sample]) -> None:
        options, metadata = self._options, record.metadata
        lineage = record.lineage if OWN in metadata else None
        said = record.fingerprint()
        kept.json.append(dumps(record.to_json()))
        kept.said.append(said)
        kept.read.append(read or said)
        kept.group.append(order_key(options.seed, prompt_key(record, options.group_by)))
        kept.line.append(record.origin.line)
        kept.samples.append(len(samples))
        kept.tokens.append(sum(len(sample.ids) for sample in samples))
        kept.scored.append(sum(int(np.count_nonzero(sample.scored)) for sample in samples))
        kept.shortened.append(any(sample.shortened for sample in samples))
        kept.votes.append(len(lineage.reviewers) if lineage else 0)
        if (column := options.balance.by) is not None:
            kept.value.append(str(metadata.get(column, "")))
        if (column := options.similar.time_column) is not None:
            kept.time.append(str(metadata.get(column, "")))
        kept.parent.append((lineage and lineage.parent) or "")


def _turned(row: RawRow, encoding: str, reason: Reason) -> Turned:
    return row.line, reason.name, rejected_line(row, encoding, reason)


def rejected_line(row: RawRow, encoding: str, reason: Reason) -> bytes:
    """Return the line of ``rejected.jsonl`` for a row as it stood, byte for byte."""
    if row.data is not None:
        return dumps(Rejected(row.origin, row.data, reason).to_json())
    text = readable(row.raw, encoding)
    exact = coding_of(encoding, b"").raw(text) == row.raw
    raw = None if exact else base64.b64encode(row.raw).decode()
    return dumps(Rejected(row.origin, text, reason, raw).to_json())


def _note(cleaned: Cleaned, origin: Origin, findings: Findings) -> None:
    for step in {change.step for change in cleaned.changes}:
        findings.steps[step] += 1
    for change in cleaned.changes:
        findings.example(f"step.{change.step}", origin, change.before, change.after)
    for flag in {found.flag for found in cleaned.flags}:
        findings.flags[flag] += 1
    for found in cleaned.flags:
        findings.example(f"flag.{found.flag}", origin, found.text)


def _count(record: Record, findings: Findings) -> None:
    said = record.text if record.text is not None else record.answer
    findings.languages[main_language(said[:_BEGINNING])] += 1
    if record.messages:
        reasons = any(has_reasoning(m.content) for m in record.messages if m.role == "assistant")
        findings.kinds["reasoning" if reasons else "conversation"] += 1
    for column, value in record.metadata.items():
        if column == OWN:
            if method := record.lineage.method:
                findings.grown[method] += 1
        elif isinstance(value, str) and len(value) <= _CATEGORY_LENGTH:
            findings.count_value(column, value)
        else:
            findings.categories[column] = None
