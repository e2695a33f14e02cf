"""A headless Chromium: the one on PATH, else the one `make test` lets playwright install."""

import contextlib
import functools
import shutil
import subprocess
from collections.abc import Iterator

import pytest

NAMES = ("chromium-headless-shell", "chromium", "google-chrome")


@contextlib.contextmanager
def open_browser() -> Iterator:
    """Playwright's browser, offline to all but files; the test is skipped where none can start."""
    subprocess.Popen(["true"]).wait()  # `--quick` leaves out what starts a process
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    with api.sync_playwright() as playwright:
        start = functools.partial(playwright.chromium.launch, args=["--no-sandbox"])
        try:
            browser = start(executable_path=found) if found else start()
        except api.Error as error:
            pytest.skip(f"no Chromium can start here: {str(error).splitlines()[0]}")
        yield browser
        browser.close()
