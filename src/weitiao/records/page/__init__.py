"""The data page: what was found in the data, as one HTML file that loads nothing."""

from weitiao.records.page.write import page_html, write_page

__all__ = ["page_html", "write_page"]
