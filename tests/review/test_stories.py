"""What a person does on the page, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="pip install playwright")

from playwright.sync_api import Page, expect

from curator import pipeline
from curator.diagnose.settings import SuspectsConfig
from store.records import ItemStatus
from store.store import Store
from tests.review.browser import browsing
from tests.review.reviewed import EVIL, copied, served

expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing() as opened:
        yield opened


@pytest.fixture
def opened(browser: Any, store: Store) -> Iterator[Callable[..., Page]]:
    """Opens the page of the workspace in a new browser profile; nothing may fail in its scripts, nor be asked
    of another server."""
    wrong: list[str] = []
    with ExitStack() as stack:
        address = stack.enter_context(served(store))
        base = address.partition("/?")[0]

        def open_page(path: str = "/", **how: Any) -> Page:
            context = browser.new_context(viewport={"width": 1280, "height": 800}, base_url=base, **how)
            stack.callback(context.close)
            page: Page = context.new_page()
            page.set_default_timeout(20_000)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("request", lambda r: None if r.url.startswith(base) else wrong.append(r.url))
            page.on("console", lambda said: wrong.append(said.text) if failed(said) else None)
            page.goto(address)
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            if path != "/":
                page.goto(path)
            return page

        yield open_page
    assert wrong == []


def failed(said: Any) -> bool:
    """An error in the console, but for an answer that refuses a change: that is told on the page."""
    return said.type == "error" and "409" not in said.text


def failures(store: Store) -> list[Any]:
    """By falling score, as the grid shows them."""
    found = [o for o in store.outcomes() if o.kind != "TP"]
    return sorted(found, key=lambda o: (-o.score, o.id))


def test_a_person_sees_the_loop_and_what_to_do_next(opened: Callable[..., Page], store: Store) -> None:
    page = opened()
    assert "token" not in page.url
    expect(page.locator(".stage")).to_have_count(7)
    expect(page.locator(".next li").first).to_contain_text("6 hits of 'query' wait")
    missed = len(store.outcomes(kind="FN"))
    page.get_by_role("link", name=re.compile(rf"^{missed} *missed objects")).click()
    expect(page).to_have_url(re.compile(r"/failures\?kind=FN$"))
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{missed} failures")


def test_a_person_finds_a_group_and_shares_its_address(opened: Callable[..., Page], store: Store) -> None:
    page = opened("/failures")
    own = failures(store)
    expect(page.locator(".tile")).to_have_count(len(own))
    page.get_by_role("button", name=re.compile("^missed")).click()
    cause = store.outcomes(kind="FN")[0].cause
    page.get_by_role("button", name=re.compile(rf"^{cause} *\d")).click()
    page.get_by_label("Sort by").select_option("-size")
    wanted = [o for o in own if (o.kind, o.cause) == ("FN", cause)]
    expect(page.locator(".tile")).to_have_count(len(wanted))
    expect(page).to_have_url(re.compile(r"cause=.*&kind=FN&sort=-size$"))
    another = opened(page.url)
    expect(another.locator(".tile")).to_have_count(len(wanted))
    expect(another.get_by_label("Sort by")).to_have_value("-size")
    pressed = another.get_by_role("button", name=re.compile("^missed"))
    expect(pressed).to_have_attribute("aria-pressed", "true")


def test_a_person_reads_a_map(opened: Callable[..., Page], store: Store) -> None:
    outcome = next(o for o in failures(store) if o.kind == "FN" and store.attributions(outcome_ids=[o.id]))
    page = opened(f"/failures/{outcome.id}")
    heat = page.locator("img.heat")
    expect(heat).to_have_js_property("complete", True)
    assert heat.evaluate("i => i.naturalWidth") > 0
    page.get_by_label("Opacity of the heat map").fill("0.25")
    assert heat.evaluate("i => getComputedStyle(i).opacity") == "0.25"
    page.keyboard.press("h")
    expect(heat).to_have_count(0)
    boxes = page.locator(".mark-detection")
    page.keyboard.press("d")
    expect(boxes).to_have_count(0)
    page.keyboard.press("d")
    slider = page.locator("label", has_text="score at least").locator("input")
    slider.fill(slider.get_attribute("min") or "0")
    found = store.detections(outcome.model_id, [outcome.image_id])[outcome.image_id].detections
    expect(page.locator(".side")).to_contain_text(f"of {len(found)}")
    scale = page.locator(".zoom .scale")
    before = scale.inner_text()
    page.keyboard.press("+")
    expect(scale).not_to_have_text(before)
    page.keyboard.press("0")
    expect(scale).to_have_text(before)
    expect(page.locator(".facts").first).to_contain_text("F(1)")


def test_a_person_works_without_a_mouse(opened: Callable[..., Page], store: Store) -> None:
    page = opened("/failures")
    own = failures(store)
    expect(page.locator(".tile img.crop")).to_have_count(len(own))
    page.get_by_role("listbox").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"/failures/{own[2].id}$"))
    expect(page.locator(".viewer img").first).to_be_visible()
    page.keyboard.press("n")
    expect(page).to_have_url(re.compile(f"/failures/{own[3].id}$"))
    expect(page.locator(".viewer img").first).to_be_visible()
    page.keyboard.press("p")
    expect(page).to_have_url(re.compile(f"/failures/{own[2].id}$"))
    page.keyboard.press("Escape")
    expect(page).to_have_url(re.compile("/failures$"))
    expect(page.locator("#tile-2")).to_have_attribute("aria-selected", "true")


def test_a_person_accepts_and_rejects_with_undo(opened: Callable[..., Page], store: Store) -> None:
    first, second, *_ = store.selection("query").image_ids
    page = opened("/queries")
    expect(page.locator(".tile")).to_have_count(6)
    page.get_by_role("listbox").focus()
    page.keyboard.press("a")
    expect(page.locator("#tile-0 .stamp.accepted")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".detail")).to_contain_text("No. 2")
    page.get_by_role("button", name="✕ Reject").click()
    expect(page.locator("#tile-1 .stamp.rejected")).to_be_visible()
    assert {f.image_id: f.accepted for f in store.feedback("query")} == {first: True, second: False}
    page.keyboard.press("Control+z")
    expect(page.locator("#tile-1 .stamp")).to_have_count(0)
    page.get_by_role("button", name="Undo", exact=True).first.click()
    expect(page.locator("#tile-0 .stamp")).to_have_count(0)
    assert store.feedback("query") == []


def test_a_person_refines_a_query_and_takes_it_back(opened: Callable[..., Page], store: Store) -> None:
    before = store.selection("query").key
    page = opened("/queries")
    expect(page.get_by_role("button", name="Refine…")).to_be_disabled()
    page.get_by_role("button", name="✕ Reject").click()
    page.get_by_role("button", name="Refine…").click()
    page.get_by_role("button", name="Ask anew").click()
    expect(page.get_by_role("status").last).to_contain_text("learned from", timeout=60_000)
    assert store.selection("query").key != before
    page.get_by_role("status").get_by_role("button", name="Undo").click()
    expect(page.get_by_role("status").last).to_contain_text("Undone")
    assert store.selection("query").key == before


def test_a_person_judges_samples(opened: Callable[..., Page], store: Store) -> None:
    samples = store.samples()
    page = opened("/samples")
    expect(page.locator(".tile")).to_have_count(len(samples))
    page.get_by_role("listbox").focus()
    page.keyboard.press(" ")
    expect(page.get_by_role("button", name="Before")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".detail .viewer img")).to_have_attribute("src", re.compile(r"/before\?"))
    word = "x" if samples[0].accepted else "a"
    page.keyboard.press(word)
    expect(page.locator(".detail")).to_contain_text("by ada")
    assert store.samples()[0].accepted != samples[0].accepted
    page.keyboard.press("Control+z")
    expect(page.locator(".detail")).to_contain_text("by the gate")
    assert store.samples() == samples


def test_a_person_mends_a_suspect_label(opened: Callable[..., Page], store: Store) -> None:
    listed = pipeline.suspects(store, SuspectsConfig(minimum=0.05)).summary["suspects"]
    page = opened("/suspects")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{len(listed)} suspect labels")
    page.get_by_role("button", name="The label is wrong").click()
    expect(page.locator("#tile-0 .stamp")).to_have_text("wrong")
    page.keyboard.press("Control+z")
    expect(page.locator("#tile-0 .stamp")).to_have_count(0)
    mend = page.get_by_role("button", name=re.compile("^Mend:"))
    page.get_by_role("listbox").focus()
    for _ in listed:
        if mend.count():
            break
        page.keyboard.press("ArrowRight")
    before = store.counts()["annotation_versions"]
    mend.click()
    expect(page.locator(".tile.at .stamp")).to_have_text("mended")
    assert store.counts()["annotation_versions"] == before + 1
    page.keyboard.press("Control+z")
    expect(page.locator(".tile.at .stamp")).to_have_count(0)


def test_a_person_edits_a_box_with_undo(opened: Callable[..., Page], store: Store) -> None:
    ids = store.image_ids(role="mine")
    labels = store.annotations(ids, reader="diagnose")
    image = next(i for i in ids if len(labels[i].annotations) >= 2)
    own = labels[image].annotations
    page = opened(f"/boxes/{image}")
    rows = page.locator(".side section").nth(1).get_by_role("button")
    expect(rows).to_have_count(len(own) + 1)
    page.keyboard.press("j")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    expect(rows).to_have_count(len(own))
    page.keyboard.press("Control+z")
    expect(rows).to_have_count(len(own) + 1)
    handle = page.locator(".handle.se")
    place = handle.bounding_box()
    assert place is not None
    page.mouse.move(place["x"] + 5, place["y"] + 5)
    page.mouse.down()
    page.mouse.move(place["x"] - 15, place["y"] - 15, steps=4)
    page.mouse.up()
    page.get_by_role("button", name="Draw a box").click()
    frame = page.locator(".frame")
    corner = frame.bounding_box()
    assert corner is not None
    x, y = corner["x"] + corner["width"] / 2, corner["y"] + corner["height"] / 2
    page.mouse.move(x - 30, y - 40)
    page.mouse.down()
    page.mouse.move(x + 30, y + 20, steps=4)
    page.mouse.up()
    expect(rows).to_have_count(len(own) + 2)
    page.keyboard.press("1")
    page.keyboard.press("s")
    expect(page.locator(".version")).to_have_count(2)
    expect(page.locator(".version").first).to_contain_text("ada")
    after = store.annotations([image], reader="diagnose")[image]
    assert after.version == 2
    assert len(after.annotations) == len(own) + 1
    x1, y1, x2, y2 = after.annotations[0].box
    was = own[0].box
    assert x1 == pytest.approx(was[0] + 3)
    assert (x2 - x1) < (was[2] - was[0])
    assert (y2 - y1) < (was[3] - was[1])
    page.get_by_role("button", name="Undo", exact=True).first.click()
    expect(page.locator(".version")).to_have_count(3)
    back = store.annotations([image], reader="diagnose")[image]
    assert [a.box for a in back.annotations] == [a.box for a in own]


def test_edits_are_not_lost_where_somebody_else_was_faster(opened: Callable[..., Page], store: Store) -> None:
    ids = store.image_ids(role="mine")
    labels = store.annotations(ids, reader="diagnose")
    image = next(i for i in ids if len(labels[i].annotations) >= 2)
    page = opened(f"/boxes/{image}")
    rows = page.locator(".side section").nth(1).get_by_role("button")
    expect(rows).to_have_count(len(labels[image].annotations) + 1)
    store.put_labels(store.begin_run("label", config={"author": "bob"}), image, [], 1)
    page.keyboard.press("j")
    page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("your edits are still here")
    expect(page.get_by_role("status").last).to_contain_text("changed meanwhile (version 2, yours is 1)")
    questions: list[str] = []
    page.once("dialog", lambda own: (questions.append(own.message), own.dismiss()))
    page.get_by_role("link", name="Overview").click()
    expect(page).to_have_url(re.compile(f"/boxes/{image}$"))
    assert "not saved" in questions[0]
    page.get_by_role("button", name="Drop them").click()
    expect(page.locator(".version").first).to_contain_text("bob")
    page.get_by_role("link", name="Overview").click()
    expect(page.locator(".stage")).to_have_count(7)


def test_names_are_text_on_every_page(opened: Callable[..., Page], store: Store) -> None:
    page = opened("/failures")
    expect(page.get_by_role("button", name=EVIL)).to_be_visible()
    evil = next(o for o in store.outcomes() if o.category == EVIL)
    for path in ("/", f"/failures/{evil.id}", f"/boxes/{evil.image_id}", "/queries", "/samples", "/proof"):
        page.goto(path)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert page.locator("img[src=x]").count() == 0
    assert page.title() != "1"


def test_arms_are_compared(opened: Callable[..., Page]) -> None:
    page = opened("/proof")
    table = page.locator("table").first
    expect(table.get_by_role("rowheader")).to_have_text(["base", "nothing", "query"])


def test_a_long_list_is_windowed(opened: Callable[..., Page], store: Store) -> None:
    """Two thousand failures more: few tiles are drawn, and the last is reached at once."""
    run = next(r for r in store.runs(stage="diagnose"))
    outcome = store.outcomes(kind="FN")[0]
    many = [
        replace(outcome, id=None, key=f"more-{i}", score=i / 4000, detection_index=None) for i in range(2000)
    ]
    with store.transaction():
        store.put_outcomes(run.id, outcome.image_id, many, item_key="more")
        store.record_items(run.id, [ItemStatus(key="more", status="done", image_id=outcome.image_id)])
    page = opened("/failures?kind=FN&sort=-score")
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(r"^2,0\d\d failures"))
    expect(page.locator(".tile img.crop").first).to_be_visible()
    assert page.locator(".tile").count() < 80
    page.get_by_role("listbox").focus()
    page.keyboard.press("End")
    expect(page.locator(".tile.at img.crop")).to_be_visible()
    assert page.locator(".tile").count() < 80


def test_a_page_of_a_stranger_tells_nothing(browser: Any, reviewed: Path, tmp_path: Path) -> None:
    with Store.open(copied(reviewed, tmp_path)) as store, served(store) as address:
        context = browser.new_context()
        page = context.new_page()
        answer = page.goto(address.partition("?")[0])
        assert answer is not None
        assert answer.status == 403
        assert "the address that `curator review` printed" in page.content()
        context.close()


def test_a_person_asks_the_pool_and_sees_the_hits(opened: Callable[..., Page], store: Store) -> None:
    page = opened("/queries")
    page.get_by_role("button", name="Ask…").click()
    form = page.get_by_role("form", name="Ask…")
    form.get_by_label("Failures").fill("FN")
    form.get_by_label("Images").fill("3")
    form.get_by_label("Method").select_option("similarity")
    expect(form.get_by_label("Name")).to_have_value("query-2")
    form.get_by_role("button", name="Start").click()
    job = page.get_by_label("Job", exact=True)
    expect(job).to_contain_text("running")
    expect(job).to_contain_text("done", timeout=60_000)
    job.get_by_role("link", name="Show").click()
    expect(page).to_have_url(re.compile("name=query-2"))
    expect(page.get_by_role("heading", level=1)).to_have_text("3 hits")
    assert store.selection("query-2").arm == "similarity"
    page.get_by_role("button", name="Lines").click()
    expect(job.locator("code")).to_contain_text("--budget=3")


def test_a_person_cancels_a_job(opened: Callable[..., Page], store: Store) -> None:
    page = opened("/proof")
    page.get_by_role("button", name="Verify…").click()
    form = page.get_by_role("form", name="Verify…")
    form.get_by_label("random").uncheck()
    form.get_by_label("Steps").fill("5000")
    form.get_by_role("button", name="Start").click()
    job = page.get_by_label("Job", exact=True)
    expect(job).to_contain_text("running")
    page.reload()
    expect(job).to_contain_text("running")
    page.wait_for_timeout(3000)
    job.get_by_role("button", name="Cancel").click()
    expect(job).to_contain_text("stopped", timeout=60_000)
    job.get_by_role("button", name="Close").click()
    expect(job).to_have_count(0)
    assert not [t for t in store.trials() if t.verification == "verify-2"]


def test_a_failure_is_explained_otherwise_from_its_page(opened: Callable[..., Page], store: Store) -> None:
    failure = next(o for o in store.outcomes() if o.kind == "FN")
    page = opened(f"/failures/{failure.id}")
    page.get_by_role("button", name="Explain otherwise…").click()
    form = page.get_by_role("form", name="Explain otherwise…")
    form.get_by_label("Method").select_option("occlusion")
    form.get_by_role("button", name="Start").click()
    expect(page.get_by_label("Job", exact=True)).to_contain_text("done", timeout=60_000)
    method = page.get_by_label("Method")
    expect(method.locator("option")).to_have_count(2)
    method.select_option(index=1)
    expect(page.locator(".facts").first).to_contain_text("occlusion")


def test_a_person_circles_points_on_the_map(opened: Callable[..., Page], store: Store) -> None:
    page = opened("/map")
    drawn = page.get_by_label("Map", exact=True).locator("canvas")
    box = drawn.bounding_box()
    assert box is not None
    x, y, w, h = box["x"], box["y"], box["width"], box["height"]
    page.mouse.move(x + 4, y + 4)
    page.mouse.down()
    for dx, dy in ((w - 4, 4), (w - 4, h - 4), (4, h - 4), (4, 8)):
        page.mouse.move(x + dx, y + dy, steps=3)
    page.mouse.up()
    circled = page.get_by_label("What is circled")
    missed = len(store.outcomes(kind="FN"))
    expect(circled).to_contain_text(f"{missed} missed objects")
    circled.get_by_label("Keep the pool images as").fill("round")
    circled.get_by_role("button", name=re.compile("^Keep ")).click()
    expect(page.locator(".notice")).to_contain_text("images kept as 'round'")
    kept = store.selection("round")
    assert set(kept.image_ids) <= set(store.image_ids(role="pool"))
    page.get_by_role("button", name="Undo").first.click()
    expect(page.locator(".notice")).to_contain_text("Undone")
    assert "round" not in [s.name for s in store.selections()]
    circled.get_by_role("button", name="Ask…").click()
    value = page.get_by_role("form", name="Ask…").get_by_label("Failures").input_value()
    assert value.startswith("id=")
    assert len(value.split("+")) == sum(o.kind != "TP" for o in store.outcomes())
