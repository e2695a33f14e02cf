"""Photograph the console for docs/console.md: four pages of the local cloud that `make run` left.

    python .ci/pictures.py

Playwright and a Chromium are needed (`make test` installs both); the pictures have 64 colours.
"""

import io
import sys
from pathlib import Path

ROOT = Path(__file__).absolute().parents[1]
sys.path.insert(0, str(ROOT))

from PIL import Image  # noqa: E402
from playwright.sync_api import Page  # noqa: E402

import helpers  # noqa: E402 - this checkout's own
from helpers.cloud.console import address  # noqa: E402
from tests.browser import open_browser  # noqa: E402

FOLDER, LIMIT_BYTES = ROOT / "docs", 300_000
WIDTH, HEIGHT, COLOURS = 1200, 760, 64
ENDPOINT = "earnings_prediction"


def take(page: Page, name: str, height: int = HEIGHT) -> int:
    """One picture of what the page shows; its bytes."""
    page.set_viewport_size({"width": WIDTH, "height": height})
    raw = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    path = FOLDER / f"console-{name}.png"
    raw.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE).save(path, optimize=True)
    return path.stat().st_size


def main() -> int:
    session = helpers.connect("local")
    endpoint = helpers.find_endpoint(session, ENDPOINT)
    ids = [one.resource_name.rsplit("/", 1)[-1].split("@")[0] for one in (endpoint, endpoint.model)]
    sizes = []
    with open_browser() as browser:
        page = browser.new_page(color_scheme="light")
        page.goto(address(session))
        page.wait_for_selector("h1")
        base = page.url
        sizes.append(take(page, "overview"))
        page.goto(f"{base}models/{ids[1]}")
        sizes.append(take(page, "model"))
        page.click("p:has-text('Made by job') a")
        page.wait_for_selector("polyline.line")
        sizes.append(take(page, "job", 840))
        page.goto(f"{base}endpoints/{ids[0]}/test")
        page.click("button:has-text('Ask the endpoint')")
        page.wait_for_selector("#answer")
        sizes.append(take(page, "test", 840))
    print(f"{len(sizes)} pictures in {FOLDER}, {sum(sizes) / 1000:.0f} kB")
    return int(sum(sizes) > LIMIT_BYTES)


if __name__ == "__main__":
    sys.exit(main())
