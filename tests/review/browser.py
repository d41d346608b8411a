"""A real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

PATHS = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")


def chromium() -> str:
    """Its path; a test that needs it is skipped where there is none."""
    named = os.environ.get("CURATOR_CHROMIUM", "")
    found = next((path for path in (named, *PATHS) if path and shutil.which(path)), None)
    if found is None:
        pytest.skip("no chromium here: apt-get install chromium, or CURATOR_CHROMIUM=PATH")
    return found


@contextmanager
def browsing() -> Iterator[object]:
    """A browser without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    path = chromium()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        try:
            yield browser
        finally:
            browser.close()
