// Run by `node --test tests/review/` (tests/review/test_scripts.py does).
import assert from "node:assert/strict";
import test from "node:test";
import { drawn, fit, fitBox, moved, pick, resized, toImage, toScreen, zoomAt } from "../../curator/review/static/js/geometry.js";
import { columnsOf, moveCursor, pagesOf, windowOf } from "../../curator/review/static/js/windowing.js";
import { formatQuery, only, parseQuery, toggled } from "../../curator/review/static/js/address.js";

test("a fitted image lies inside its frame, in the middle", () => {
  const view = fit(400, 200, 800, 600);
  assert.deepEqual(view, { scale: 2, x: 0, y: 100 });
  assert.deepEqual(toScreen(view, 400, 200), [800, 500]);
  assert.deepEqual(toImage(view, ...toScreen(view, 33, 44)), [33, 44]);
});

test("what lies under the pointer stays there while zooming", () => {
  const view = fit(400, 200, 800, 600);
  const [px, py] = [321, 222];
  const before = toImage(view, px, py);
  for (const factor of [1.3, 0.5, 7]) {
    const after = toImage(zoomAt(view, factor, px, py, 0.1), px, py);
    assert.ok(Math.hypot(after[0] - before[0], after[1] - before[1]) < 1e-9);
  }
  assert.equal(zoomAt(view, 1e9, 0, 0, 0.1).scale, 40);
  assert.equal(zoomAt(view, 1e-9, 0, 0, 0.1).scale, 0.1);
});

test("a box that is zoomed to lies in the middle", () => {
  const view = fitBox([100, 100, 120, 140], 800, 600);
  assert.deepEqual(toScreen(view, 110, 120), [400, 300]);
});

test("a moved box stays inside the image and keeps its size", () => {
  assert.deepEqual(moved([10, 10, 30, 20], -50, 500, 100, 80), [0, 70, 20, 80]);
  assert.deepEqual(moved([10, 10, 30, 20], 5, 5, 100, 80), [15, 15, 35, 25]);
});

test("a resized box keeps a smallest size and stays inside", () => {
  assert.deepEqual(resized([10, 10, 30, 20], "se", 500, 500, 100, 80), [10, 10, 100, 80]);
  assert.deepEqual(resized([10, 10, 30, 20], "nw", 500, 500, 100, 80), [28, 18, 30, 20]);
  assert.deepEqual(resized([10, 10, 30, 20], "e", 5, 99, 100, 80), [10, 10, 35, 20]);
});

test("a drawn box may be drawn from any corner; a click draws none", () => {
  assert.deepEqual(drawn([30, 20], [-5, 10], 100, 80), [0, 10, 30, 20]);
  assert.equal(drawn([30, 20], [30.5, 20.5], 100, 80), null);
});

test("the smaller of two boxes is picked", () => {
  const boxes = [[0, 0, 100, 100], [10, 10, 20, 20]];
  assert.equal(pick(boxes, 15, 15), 1);
  assert.equal(pick(boxes, 50, 50), 0);
  assert.equal(pick(boxes, 150, 50), -1);
});

test("the window holds what is in sight, and never more than a few rows beyond", () => {
  for (const total of [0, 1, 7, 100_000]) {
    for (const columns of [1, 6]) {
      for (const top of [0, 333, 1e6, 1e9]) {
        const { first, last, rows } = windowOf(top, 600, 100, total, columns);
        assert.ok(first >= 0 && last <= total && first <= Math.max(last, 0) + columns);
        assert.ok(last - first <= (7 + 2 * 2) * columns);
        assert.equal(rows, Math.ceil(total / columns));
        const inSight = Math.floor(top / 100) * columns;
        if (inSight < total) assert.ok(first <= inSight && inSight < last);
      }
    }
  }
});

test("pages cover the window", () => {
  assert.deepEqual(pagesOf(0, 0, 60), []);
  assert.deepEqual(pagesOf(59, 61, 60), [0, 1]);
  assert.deepEqual(pagesOf(120, 180, 60), [2]);
});

test("columns follow the width", () => {
  assert.equal(columnsOf(100, 156, 12), 1);
  assert.equal(columnsOf(1000, 156, 12), 6);
});

test("the cursor stays in the grid", () => {
  assert.equal(moveCursor("ArrowRight", 9, 10, 4, 2), 9);
  assert.equal(moveCursor("ArrowUp", 2, 10, 4, 2), 2);
  assert.equal(moveCursor("ArrowDown", 5, 10, 4, 2), 9);
  assert.equal(moveCursor("ArrowDown", 7, 10, 4, 2), 9);
  assert.equal(moveCursor("ArrowDown", 9, 10, 4, 2), 9);
  assert.equal(moveCursor("End", 0, 10, 4, 2), 9);
  assert.equal(moveCursor("Home", 7, 10, 4, 2), 0);
  assert.equal(moveCursor("x", 7, 10, 4, 2), null);
  assert.equal(moveCursor("End", 0, 0, 4, 2), null);
});

test("an address holds a filter, the token is no part of it", () => {
  const query = parseQuery("?token=secret&kind=FN&class=a%2Cb&class=%3Cimg%3E&cause=");
  assert.deepEqual(query, { kind: ["FN"], class: ["a,b", "<img>"] });
  assert.deepEqual(parseQuery(formatQuery(query)), query);
  assert.deepEqual(toggled(query, "class", "a,b").class, ["<img>"]);
  assert.deepEqual(toggled(query, "class", "c").class, ["a,b", "<img>", "c"]);
  assert.equal(formatQuery(only(query, ["kind"])), "?kind=FN");
  assert.equal(formatQuery({}), "");
});
