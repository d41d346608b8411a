"""Every page is read by axe-core (tests/review/vendor, 4.x, MPL-2.0): no serious or critical fault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="pip install playwright")

from playwright.sync_api import expect

from store.store import Store
from tests.review.browser import browsing
from tests.review.reviewed import served

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text(encoding="utf-8")
PAGES = {
    "/": "",
    "/failures": "",
    "/failures/{failure}": "Explain otherwise…",
    "/map": "",
    "/queries": "Ask…",
    "/samples": "Synthesise…",
    "/suspects": "",
    "/boxes/{image}": "",
    "/proof": "Verify…",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing() as opened:
        yield opened


DARK = ("/", "/failures/{failure}", "/queries")  # the colours are those of all pages


@pytest.mark.parametrize(("colours", "paths"), [("light", tuple(PAGES)), ("dark", DARK)])
def test_axe_finds_no_serious_fault(browser: Any, store: Store, colours: Any, paths: tuple[str, ...]) -> None:
    failure = next(o for o in store.outcomes() if o.kind == "FN")
    found = []
    with served(store) as address:
        context = browser.new_context(
            viewport={"width": 1280, "height": 800},
            base_url=address.partition("/?")[0],
            color_scheme=colours,
            bypass_csp=True,  # axe is a script of the test, not of the page
            reduced_motion="reduce",
        )
        page = context.new_page()
        page.goto(address)
        for path in paths:
            form = PAGES[path]
            page.goto(path.format(failure=failure.id, image=failure.image_id))
            expect(page.get_by_role("heading").first).to_be_visible()
            page.wait_for_load_state("networkidle")
            if form:
                page.get_by_role("button", name=form).first.click()
                expect(page.get_by_role("form", name=form)).to_be_visible()
            page.evaluate(AXE)
            told = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
            for fault in told["violations"]:
                if fault["impact"] in ("serious", "critical"):
                    places = [node["target"] for node in fault["nodes"]][:3]
                    found.append((path, fault["id"], fault["help"], places))
        context.close()
    assert found == []
