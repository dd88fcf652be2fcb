"""``report.html``: one self-contained page, in English and Chinese, to read and to send on."""

from weitiao.evaluation.report.write import write_report

__all__ = ["write_report"]
