"""The pictures of docs/review.md: `curator demo` in a folder, then
`python benchmarks/review_pictures.py curator-demo/workspace`.

Makes docs/pictures/review_*.jpg of a copy of the workspace.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from review_browser import page_of

from store.store import Store

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
SIZE = {"width": 1280, "height": 760}


def main(workspace: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(workspace, Path(folder) / "ws")
        with Store.open(Path(folder) / "ws") as store, page_of(store, viewport=SIZE) as (page, _):
            asked = {hit.outcome_id for hit in store.selection("query").hits}
            explained = {a.outcome_id for a in store.attribution_keys() if a.evidence}
            shown = [o for o in store.outcomes(kind="FN") if o.id in asked & explained and o.score > 0.05]
            best = max(shown, key=lambda o: o.score)

            def take(name: str) -> None:
                page.wait_for_load_state("networkidle")
                page.wait_for_timeout(400)
                page.screenshot(path=PICTURES / f"review_{name}.jpg", type="jpeg", quality=72)

            page.goto("/failures?kind=FN")
            take("failures")
            page.goto(f"/failures/{best.id}?kind=FN")
            page.wait_for_selector("img.heat")
            take("failure")
            page.goto("/queries")
            page.wait_for_selector(".tile img")
            for key in ("a", "ArrowRight", "ArrowRight", "x", "ArrowRight", "a"):
                page.keyboard.press(key)
                page.wait_for_load_state("networkidle")
            page.get_by_role("button", name="Close").click()
            take("queries")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
