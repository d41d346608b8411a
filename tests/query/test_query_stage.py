"""`index` and `query` on a small rendered workspace with a real, untrained detector."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curator import pipeline
from curator.data.settings import AddConfig
from curator.detect.settings import DetectConfig
from curator.diagnose.run_current import read_current
from curator.diagnose.settings import DiagnoseConfig
from curator.errors import InputError
from curator.example.dataset import write_dataset
from curator.example.flowers import CLASSES
from curator.query.run_answers import answers
from curator.query.run_indexed import indexed as indexed_state
from curator.query.run_indexed import read_mined
from curator.query.run_questions import questions
from curator.query.run_retrieval import retrieve
from curator.query.run_rows import built, index_folder
from curator.query.selection import Answers, choose
from curator.query.settings import IndexConfig, QueryConfig
from store.records import ROLES
from store.store import Store

DETECTOR = f"curator:ssd?classes={','.join(CLASSES)}&size=96&channels=8,8,16,16,16"
SIZES = {"train": 4, "mine": 16, "pool": 30, "holdout": 4}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("query")
    write_dataset(folder / "data", sizes=SIZES, seed=3, size=96)
    images = {role: sorted((folder / "data" / role / "images").iterdir()) for role in ("mine", "pool")}
    Image.open(images["mine"][0]).save(images["pool"][0], quality=80)  # a leak: other bytes, the same picture
    with Store.create(folder / "workspace") as store:
        for role in ROLES:
            pipeline.add(store, AddConfig(format="coco", path=folder / "data" / role, role=role))
        pipeline.detect(store, DetectConfig(detector=DETECTOR, device="cpu"))
        pipeline.diagnose(store, DiagnoseConfig(score_threshold=0.5))
    return folder / "workspace"


@pytest.fixture(scope="module")
def indexed(workspace: Path) -> Path:
    with Store.open(workspace) as store:
        with pytest.raises(InputError, match="curator index"):
            pipeline.query(store, QueryConfig(budget=5))
        result = pipeline.index(store, IndexConfig(device="cpu", batch_size=8))
        assert (result.done, result.failed) == (SIZES["mine"] + SIZES["pool"], 0)
    return workspace


def test_another_number_of_components_is_another_space_with_all_vectors(
    indexed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "workspace"
    shutil.copytree(indexed, folder)
    count = SIZES["mine"] + SIZES["pool"]
    with Store.open(folder) as store:
        usual = pipeline.index(store, IndexConfig(device="cpu"))
        other = pipeline.index(store, IndexConfig(device="cpu", components=8))
        assert (usual.done, other.done, other.failed) == (0, count, 0)
        rows, coarse = (store.boxes(result.summary["space"], "offered") for result in (usual, other))
        assert len(rows) == len(coarse)
        assert (rows.views["object"].shape[1], coarse.views["object"].shape[1]) == (24, 8)
        for config in (IndexConfig(device="cpu", components=8), IndexConfig(device="cpu")):
            assert pipeline.index(store, config).skipped == count


def test_index_twice_adds_nothing(indexed: Path) -> None:
    with Store.open(indexed) as store:
        space = pipeline.index(store, IndexConfig(device="cpu", batch_size=3)).summary["space"]
        before = store.boxes(space, "offered")
        again = pipeline.index(store, IndexConfig(device="cpu"))
        after = store.boxes(space, "offered")
        pool = store.boxes(space, "offered", role="pool")
    assert (again.done, again.skipped) == (0, SIZES["mine"] + SIZES["pool"])
    assert np.array_equal(before.views["object"], after.views["object"])
    assert 0 < (pool.labels[:, 0] >= 0).sum() < len(pool)  # candidates and windows
    assert np.unique(pool.image_ids, return_counts=True)[1].max() <= 52


def test_an_interrupted_index_continues_to_the_same_rows(indexed: Path, tmp_path: Path) -> None:
    def content(store: Store, space: str) -> dict[str, list[tuple[object, ...]]]:
        rows = store.boxes(space, "offered")
        return {
            view: [
                (int(image), tuple(box), vector.tobytes())
                for image, box, vector in zip(rows.image_ids, rows.boxes, vectors, strict=True)
            ]
            for view, vectors in rows.views.items()
        }

    class Interrupting:
        """Runs two batches, then stops as Ctrl-C would."""

        def run(self, work, items):  # type: ignore[no-untyped-def]
            from curator.jobs.local import LocalExecutor

            for number, batch in enumerate(LocalExecutor("cpu").run(work, items)):
                if number == 2:
                    raise KeyboardInterrupt
                yield batch

    config = IndexConfig(device="cpu", candidates=5, windows=4, batch_size=8)
    with Store.open(indexed) as store:
        with pytest.raises(KeyboardInterrupt):
            pipeline.index(store, config, executor=Interrupting())
        result = pipeline.index(store, config)
        assert (result.done, result.skipped) == (SIZES["mine"] + SIZES["pool"] - 16, 16)
        found = content(store, result.summary["space"])["object"]
        assert len({image for image, _, _ in found}) == SIZES["mine"] + SIZES["pool"]
        pipeline.index(store, IndexConfig(device="cpu"))  # the newest index is what queries read


@pytest.mark.parametrize(
    "method",
    ["predictor", "contrastive", "similarity", "uncertainty", "class-uncertainty", "diversity", "random"],
)
def test_query_is_deterministic_ranked_and_skipped_when_stored(indexed: Path, method: str) -> None:
    with Store.open(indexed) as store:
        results = [
            pipeline.query(store, QueryConfig(name=name, budget=8, method=method)) for name in ("a", "b", "a")
        ]
        pool = set(store.image_ids(role="pool"))
        failures = {o.id for o in store.outcomes() if o.kind != "TP"}
        selection = store.selection("a")
    first, second, third = (result.summary["hits"] for result in results)
    assert results[2].skipped == 1
    assert first == second == third
    assert [hit["rank"] for hit in first] == list(range(1, 9))
    assert {hit["image"] for hit in first} <= pool
    assert method == "random" or {hit["outcome"] for hit in first} <= failures
    assert all(hit["reason"] for hit in first)
    assert selection.arm == ("query" if method == "predictor" else method)


def test_leaks_are_refused_a_dry_pool_is_told_and_bad_selectors_are_refused(indexed: Path) -> None:
    with Store.open(indexed) as store:
        summary = pipeline.query(store, QueryConfig(name="all", budget=1000)).summary
        (leak,) = store.leaks(store.image_ids(role="pool"))
        assert 0 < len(summary["hits"]) < SIZES["pool"]
        assert leak not in {hit["image"] for hit in summary["hits"]}
        assert any("1000" in warning for warning in summary["warnings"])
        assert any("1 answers refused" in warning for warning in summary["warnings"])
        with pytest.raises(InputError, match="no failure matches"):
            pipeline.query(store, QueryConfig(failures="FN,class=no-such-class"))
        with pytest.raises(InputError, match="object"):
            pipeline.query(store, QueryConfig(view="sideways"))


def test_leaks_are_refused_as_if_all_of_the_pool_had_been_compared(indexed: Path) -> None:
    """Only what would be taken is compared; the whole pool, compared beforehand, gives the same hits."""
    with Store.open(indexed) as store:
        pool = store.image_ids(role="pool")
        known, asked = store.leaks(pool), []

        def beforehand(ids: Sequence[int]) -> Mapping[int, object]:
            return {i: known[i] for i in ids if i in known}

        def counted(ids: Sequence[int]) -> Mapping[int, object]:
            asked.extend(ids)
            return store.leaks(ids)

        values = np.random.default_rng(0).random((len(pool), 2))
        given = Answers(groups=("a", "b"), image_ids=np.array(pool), expected=values)
        for budget in (1, 5, len(pool)):
            now = choose(given, budget=budget, refusals=[counted])
            assert now == choose(given, budget=budget, refusals=[beforehand])
        assert set(known) <= set(asked)


def test_what_gets_into_the_holdout_later_is_not_selected_again(indexed: Path, tmp_path: Path) -> None:
    shutil.copytree(indexed, tmp_path / "workspace")
    with Store.open(tmp_path / "workspace") as store:
        config = QueryConfig(name="early", budget=5)
        before = pipeline.query(store, config)
        assert pipeline.query(store, config).skipped == 1
        first, second = before.summary["hits"][:2]
        images = tmp_path / "late" / "images"
        images.mkdir(parents=True)
        shutil.copyfile(first["uri"], images / "same.jpg")
        Image.open(second["uri"]).resize((128, 128)).save(images / "near.jpg", quality=85)
        table = {
            "images": [
                {"id": n, "file_name": f"images/{name}.jpg", "width": side, "height": side}
                for n, (name, side) in enumerate((("same", 96), ("near", 128)))
            ],
            "annotations": [],
            "categories": [{"id": n, "name": name} for n, name in enumerate(CLASSES)],
        }
        (tmp_path / "late" / "annotations.json").write_text(json.dumps(table))
        pipeline.add(store, AddConfig(format="coco", path=tmp_path / "late", role="holdout"))
        after = pipeline.query(store, config)
    assert (after.done, after.skipped) == (1, 0)
    assert len(after.summary["hits"]) == 5
    assert not {hit["image"] for hit in after.summary["hits"]} & {first["image"], second["image"]}


def test_a_large_pool_answers_through_faiss(indexed: Path) -> None:
    """What FAISS names holds what scoring the whole pool chooses; a lost or damaged file changes nothing."""
    with Store.open(indexed) as store:
        current = read_current(store, "test")
        pool = store.image_ids(role="pool")
        state = indexed_state(store, "detector:", current, pool)
        mined = read_mined(store, current, state)
        failures = [o for o in current.outcomes if o.kind == "FN"]
        asking = questions(QueryConfig(diversity=0), current, failures, mined, state)
        whole = answers(store, state.space, asking, pool, 0.5)
        best = set(whole.image_ids[np.argsort(-whole.scores.sum(1))[:3]].tolist())

        def named(among: list[int]) -> list[int]:
            found = retrieve(
                store, state.space, state.shape, asking, mined, among, 1, exact_rows=10, least=20
            )
            assert not found.whole
            assert "FAISS" in found.how
            assert set(found.image_ids) <= set(among)
            return found.image_ids

        assert (built(store, state.space), built(store, state.space, exact_rows=10)) == ("", "flat")
        first = named(pool)
        assert best <= set(first)
        folder = index_folder(store, state.space)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if files:
            files[0].write_bytes(b"nothing")
        assert named(pool) == first
        shutil.rmtree(folder, ignore_errors=True)
        assert named(pool) == first
        named(pool[::2] + pool[1::2][:10])
