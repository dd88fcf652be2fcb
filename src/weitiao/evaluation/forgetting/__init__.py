"""Forgetting: how far the tuned model has moved from its base where it was not trained to."""

from weitiao.evaluation.forgetting.measure import (
    Forgetting,
    Level,
    Part,
    load_forgetting,
    measure_forgetting,
)
from weitiao.evaluation.forgetting.probe import PROBE_VERSION, Question, load_probe, probe_digest

__all__ = [
    "PROBE_VERSION",
    "Forgetting",
    "Level",
    "Part",
    "Question",
    "load_forgetting",
    "load_probe",
    "measure_forgetting",
    "probe_digest",
]
