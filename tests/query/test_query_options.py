"""What a query can be asked besides failures, through the command line and the stage."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from curator import pipeline
from curator.cli import app
from curator.cli.fix import query_lines
from curator.data.settings import AddConfig
from curator.diagnose.run_current import read_current
from curator.errors import ConfigError, InputError
from curator.query.run_answers import answers
from curator.query.run_coverage import covered
from curator.query.run_examples import parse_like
from curator.query.run_indexed import indexed, read_mined
from curator.query.run_questions import questions
from curator.query.run_retrieval import Named, evidence_of
from curator.query.settings import QueryConfig
from store.records import Role
from store.store import Store
from tests.query.rendered import make_rendered

SIZES: dict[Role, int] = {"train": 4, "mine": 20, "pool": 24, "holdout": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rendered(tmp_path_factory.mktemp("options"), SIZES)


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    with Store.open(folder / "ws") as opened:
        yield opened


def curator(folder: Path, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["-w", str(folder / "ws"), *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_preview_prints_the_table_and_stores_nothing(folder: Path, store: Store) -> None:
    before = [s.name for s in store.selections()]
    text = curator(folder, "query", "--failures", "FN", "--preview")
    for word in ("out of fold", "predictor", "class-uncertainty", "similarity", "random", "expected"):
        assert word in text
    assert [s.name for s in store.selections()] == before
    told = json.loads(curator(folder, "query", "--failures", "FN", "--preview", "--json"))
    stored = pipeline.query(store, QueryConfig(name="judged", failures="FN", budget=3)).summary
    assert told["judged"] == stored["judged"]
    with pytest.raises(InputError, match="nothing to preview"):
        pipeline.query(store, QueryConfig(method="random", preview=True))


def test_the_plan_names_an_index_and_its_cost(folder: Path) -> None:
    text = curator(folder, "index", "--plan")
    assert f"at most {52 * 44} boxes of at most 64 numbers" in text
    assert "without an index" in text


def test_reasons_say_expectations_only_where_they_are_some(store: Store) -> None:
    counted = pipeline.query(store, QueryConfig(name="counted", failures="FN", budget=4)).summary
    ranked = pipeline.query(
        store, QueryConfig(name="ranked", failures="FN", budget=4, method="similarity")
    ).summary
    assert all(" expected: " in hit["reason"] for hit in counted["hits"])
    for hit in ranked["hits"]:
        assert "expected" not in hit["reason"]
        assert f" by similarity {hit['score']:.2f}: " in hit["reason"]
        assert -1 <= hit["score"] <= 1  # a cosine, not a place in a ranking
    assert all(group["expected"] is None for group in ranked["groups"])
    assert all(group["coverage"]["low"] <= group["coverage"]["high"] for group in counted["groups"])


def test_a_picture_of_the_pool_finds_itself_first(folder: Path, store: Store) -> None:
    pool = store.images(reader="query", role="pool")
    wanted = pool[5]
    whole = pipeline.query(store, QueryConfig(name="like", like=wanted.uri, budget=3)).summary
    assert whole["hits"][0]["image"] == wanted.id
    assert whole["hits"][0]["score"] == pytest.approx(1, abs=1e-3)
    assert whole["hits"][0]["reason"].startswith(f"like {Path(wanted.uri).name} 1.00: ")
    rows = store.boxes(space_of(store), "offered", image_ids=[wanted.id])
    corners = ",".join(f"{v:.3f}" for v in rows.boxes[-1])
    boxed = pipeline.query(store, QueryConfig(name="box", like=f"{wanted.uri}:{corners}", budget=3)).summary
    assert boxed["hits"][0]["image"] == wanted.id
    assert boxed["hits"][0]["score"] > 0.97
    again = pipeline.query(store, QueryConfig(name="box", like=f"{wanted.uri}:{corners}", budget=3))
    assert again.skipped == 1
    with pytest.raises(InputError, match="there is no file"):
        pipeline.query(store, QueryConfig(like="absent.jpg"))


def test_a_held_out_picture_asks_nothing(folder: Path, store: Store) -> None:
    pipeline.add(store, AddConfig(format="coco", path=folder / "data" / "holdout", role="holdout"))
    held = next((folder / "data" / "holdout" / "images").glob("*.jpg"))
    with pytest.raises(InputError, match="is a held-out image"):
        pipeline.query(store, QueryConfig(name="held", like=str(held), budget=3))
    with pytest.raises(InputError, match="is a held-out image"):
        pipeline.query(store, QueryConfig(like=str(held), preview=True))
    assert "held" not in [selection.name for selection in store.selections()]


def test_the_lines_of_a_query_by_a_picture_name_no_failures(store: Store) -> None:
    wanted = store.images(reader="query", role="pool")[5]
    lines = query_lines(pipeline.query(store, QueryConfig(name="like", like=wanted.uri, budget=3)).summary)
    assert any(line.strip() == f"like {Path(wanted.uri).name}: 3 images" for line in lines)
    lines = query_lines(pipeline.query(store, QueryConfig(name="asked", failures="FN", budget=3)).summary)
    assert any("failures asked, the pool holds about" in line and "mined images: " in line for line in lines)


def space_of(store: Store) -> str:
    current = read_current(store, "test")
    return indexed(store, "detector:", current, store.image_ids(role="pool")).space


@pytest.mark.parametrize("box", ["5,5,1,9", "-1,0,4,4", "0,0,inf,4"])
def test_a_box_that_is_none_is_refused(box: str) -> None:
    with pytest.raises(InputError, match="x1 < x2"):
        parse_like(f"a.jpg:{box}")
    assert parse_like("C:/a.jpg") == (Path("C:/a.jpg"), None)


@pytest.mark.parametrize("corners", ["1000,1000,1100,1100", "10,10,97,50", "1,1,1.5,1.5"])
def test_a_box_outside_the_picture_is_refused(folder: Path, store: Store, corners: str) -> None:
    picture = next((folder / "data" / "pool" / "images").glob("*.jpg"))
    with pytest.raises(InputError, match=r"inside the picture \(96 x 96\)"):
        pipeline.query(store, QueryConfig(name="outside", like=f"{picture}:{corners}"))
    assert "outside" not in [selection.name for selection in store.selections()]


def test_what_cannot_be_asked_together_is_refused() -> None:
    for other in ({"failures": "FN"}, {"method": "class-uncertainty"}):
        with pytest.raises(ConfigError, match="leave failures and method out"):
            QueryConfig(like="a.jpg", **other)
    with pytest.raises(ConfigError, match="expected a name"):
        QueryConfig(name=" ")


def test_reasons_tell_the_own_failures_apart_from_all(store: Store) -> None:
    found = pipeline.query(store, QueryConfig(name="several", budget=5)).summary
    assert len(found["groups"]) > 1
    for hit in found["hits"]:
        numbers = re.match(r"([\d.]+) .* of ([\d.]+) failures", hit["reason"])
        assert numbers
        own, every = map(float, numbers.groups())
        assert own <= every + 0.05
        assert every == pytest.approx(hit["score"], abs=0.051)


def test_words_need_an_embedder_that_reads_them(store: Store) -> None:
    with pytest.raises(InputError, match="reads text"):
        pipeline.query(store, QueryConfig(text="a red flower"))


def test_where_and_unlike_leave_images_out(store: Store) -> None:
    pool = store.image_ids(role="pool")
    first = pipeline.query(store, QueryConfig(name="first", failures="FN", budget=5)).summary["hits"]
    taken = {hit["image"] for hit in first}
    rest = pipeline.query(
        store, QueryConfig(name="rest", failures="FN", budget=5, where="selected=no,dataset=pool")
    ).summary["hits"]
    chosen = {i for s in store.selections() if s.name != "rest" for i in s.image_ids}
    assert {hit["image"] for hit in rest} <= set(pool) - chosen
    assert taken <= chosen
    with pytest.raises(InputError, match=r"none of 24 pool images passes.*'dataset=other': there is no"):
        pipeline.query(store, QueryConfig(where="dataset=other"))
    unwanted = first[0]["image"]
    summary = pipeline.query(
        store, QueryConfig(name="unlike", failures="FN", budget=24, unlike=(unwanted,))
    ).summary
    assert unwanted not in {hit["image"] for hit in summary["hits"]}
    assert any("not wanted" in warning for warning in summary["warnings"])
    with pytest.raises(InputError, match="99999"):
        pipeline.query(store, QueryConfig(unlike=(99999,)))


def test_boxes_limit_a_selection_and_groups_have_quotas(store: Store) -> None:
    free = pipeline.query(store, QueryConfig(name="free", failures="FN", budget=12)).summary["hits"]
    tight = pipeline.query(
        store, QueryConfig(name="tight", failures="FN", budget=12, budget_boxes=4)
    ).summary["hits"]
    assert 0 < len(tight) <= 4 < len(free)  # an image counts for one box at least
    summary = pipeline.query(store, QueryConfig(name="quota", failures="FN", budget=12, quota=1)).summary
    answered = [g for g in summary["groups"] if g["hits"]]
    told = " ".join(summary["warnings"])
    assert len(answered) == len(summary["groups"]) or "quota" in told


def test_what_was_not_scored_is_counted_from_a_sample(store: Store) -> None:
    """With the rest sampled whole, the pool's content is that of scoring all of it."""
    current = read_current(store, "test")
    pool = store.image_ids(role="pool")
    state = indexed(store, "detector:", current, pool)
    mined = read_mined(store, current, state)
    failures = [o for o in current.outcomes if o.kind == "FN"]
    asking = questions(QueryConfig(diversity=0), current, failures, mined, state)
    whole = answers(store, state.space, asking, pool, 0.4)
    half = answers(store, state.space, asking, pool[::2], 0.4)
    known = evidence_of(store, state.space, asking, np.array(pool), pool)
    all_named, half_named = (
        Named(image_ids=some, allowed=pool, whole=False, evidence=known, how="")
        for some in (pool, pool[::2])
    )
    for one, two in zip(
        covered(store, state.space, asking, whole, all_named, mined, 0),
        covered(store, state.space, asking, half, half_named, mined, 0),
        strict=True,
    ):
        assert one is not None
        assert two is not None
        assert two.expected == pytest.approx(one.expected, rel=1e-6)
        assert two.exact < one.exact
        assert np.isclose([two.low, two.high], [one.low, one.high], rtol=0.2).all()


def test_evidence_is_class_wise_uncertainty_of_every_image(store: Store) -> None:
    """So a large pool's answer to that method is exact, and the others start from it."""
    current = read_current(store, "test")
    pool = store.image_ids(role="pool")
    state = indexed(store, "detector:", current, pool)
    mined = read_mined(store, current, state)
    failures = [o for o in current.outcomes if o.kind != "TP"]
    asking = questions(QueryConfig(method="class-uncertainty"), current, failures, mined, state)
    whole = answers(store, state.space, asking, pool, 0.4)
    shuffled = np.array([*pool[1::2], *pool[::2]])
    found = evidence_of(store, state.space, asking, shuffled, pool)
    order = np.argsort(shuffled)
    columns = [[c for c, n in enumerate(whole.of) if n == q] for q in range(len(asking))]
    totals = [whole.scores[:, own].sum(1) for own in columns]
    np.testing.assert_allclose(found[order], np.stack(totals, axis=1), atol=1e-9)


def test_hints_name_what_is_missing(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no 'detector:\?dimension=8' vectors yet \(there are: detector:\)"):
        pipeline.query(store, QueryConfig(failures="FN", embedder="detector:?dimension=8"))
    no_pool = pytest.raises(InputError, match="no pool images; run: curator add images FOLDER --role pool")
    with Store.open(make_rendered(tmp_path, {"mine": 8}) / "ws") as empty, no_pool:
        pipeline.query(empty, QueryConfig(failures="FN"))
