"""Several runs compared: side by side, and row by row against the first of them."""

from weitiao.evaluation.comparing.page import write_page
from weitiao.evaluation.comparing.runs import RunsCompared, compare_runs

__all__ = ["RunsCompared", "compare_runs", "write_page"]
