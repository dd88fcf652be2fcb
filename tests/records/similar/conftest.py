import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from weitiao.records.similar import Cluster, NearIndex


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The scripts of the benchmarks can be imported; they hold the plain exact join."""
    known = set(sys.modules)
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[3] / "benchmarks")
    yield
    for name in {"made_rows", "records_near"} & (set(sys.modules) - known):
        del sys.modules[name]


@pytest.fixture
def clusters_of() -> Callable[..., list[Cluster]]:
    def find(texts: Sequence[str], threshold: float = 0.85, batch: int = 1000) -> list[Cluster]:
        index = NearIndex(threshold)
        for begin in range(0, len(texts), batch):
            index.add(texts[begin : begin + batch])
        return index.clusters(lambda rows: [texts[row] for row in rows])

    return find
