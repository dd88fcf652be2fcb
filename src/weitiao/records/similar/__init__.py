"""Rows that say nearly the same: clusters, contradictions and leakage."""

from weitiao.records.similar.contradictions import contradictions
from weitiao.records.similar.groups import Groups
from weitiao.records.similar.leakage import Leak, is_label, leaking_rows, leaks
from weitiao.records.similar.near import Cluster, NearIndex
from weitiao.records.similar.survivor import survivor

__all__ = [
    "Cluster",
    "Groups",
    "Leak",
    "NearIndex",
    "contradictions",
    "is_label",
    "leaking_rows",
    "leaks",
    "survivor",
]
