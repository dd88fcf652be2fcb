"""Debian's Chromium, and what the tests of every page share."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-extensions",
    "--disable-component-update", "--disable-dev-shm-usage", "--no-first-run", "--disable-sync",
]  # fmt: skip
PICTURES = os.environ.get("WEITIAO_PICTURES")
"""A folder for pictures of the pages, for a person to look at."""

DESKTOP = {"viewport": {"width": 1280, "height": 800}}


def picture(page: Any, name: str) -> None:
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)


def is_dark(page: Any) -> bool:
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in color[4:-1].split(",")) < 150
