"""`export`, `train` and `verify` leave out the same images and samples, for the same reasons."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ImageOps

from curator.data.run_add import add
from curator.data.run_additions import left_out
from curator.data.run_export import export
from curator.data.settings import AddConfig, ExportConfig
from curator.errors import InputError
from curator.prove.run_train import train
from curator.prove.run_verify import verify
from curator.prove.settings import TrainConfig, VerifyConfig
from store.images import encode_png
from store.records import Hit, NewAnnotation, Sample, Selection, Verdict
from store.store import Store
from tests.pictures import Camera, cropped, jpeg, scene, with_object

DETECTOR = "curator:ssd?classes=car&size=96&channels=4,6,8,8,8&anchors=16,32,56,80"
LABEL = (NewAnnotation(category="car", box=(4.0, 4.0, 30.0, 30.0)),)
SIZE = (96, 96)
HELD, MINED = 100, 200  # seeds of the scenes of the holdout and of the mined images

HOLDOUT, MINE = "nearly equals a holdout image", "nearly equals a mined image"
GROUP = "shares its group key with a holdout image"
TRAIN_KINDS = {"fine": None, "like holdout": HOLDOUT, "like mine": None, "group": GROUP}
POOL_KINDS = {**TRAIN_KINDS, "like mine": MINE}
SAMPLE_KINDS = {
    "fine": None,
    "like its scene": None,
    "scene": f"its scene {HOLDOUT}",
    "exemplar": f"its exemplar {GROUP}",
    "like holdout": HOLDOUT,
    "like mine": MINE,
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class World:
    """A workspace whose training images, selection "query" and samples "batch" leak as asked."""

    def __init__(self, store: Store, folder: Path) -> None:
        folder.mkdir()
        self.store, self.camera = store, Camera(store, folder)
        self.held = [self.add(scene(HELD + n, SIZE), "holdout", group_key=f"video {n}") for n in range(3)]
        self.mined = [self.add(scene(MINED + n, SIZE), "mine") for n in range(3)]
        self.closed = self.add(jpeg(scene(HELD + 2, SIZE)), "mine")  # a mined image like a holdout image
        self.count = 0

    def add(self, picture: Any, role: Any, **more: Any) -> int:
        return self.camera.add(picture, role, annotations=LABEL, **more)

    def image(self, kind: str, role: str) -> int:
        """An image that leaks as `kind` says."""
        self.count += 1
        pictures = {
            "like holdout": ImageOps.mirror(jpeg(scene(HELD, SIZE), 60 + self.count)),
            "like mine": jpeg(scene(MINED, SIZE), 60 + self.count),
        }
        picture = pictures.get(kind, scene(300 + self.count, SIZE))
        return self.add(picture, role, **({"group_key": "video 1"} if kind == "group" else {}))

    def select(self, kinds: list[str]) -> None:
        ids = [self.image(kind, "pool") for kind in kinds]
        hits = tuple(
            Hit(rank=k, image_id=i, outcome_id=None, group="g", box=(0, 0, 9, 9), score=0.0)
            for k, i in enumerate(ids, start=1)
        )
        run = self.store.begin_run("query", config={})
        self.store.put_selection(run, Selection(name="query", arm="query", hits=hits, config={}, key="s"))

    def sample(self, kind: str) -> None:
        self.count += 1
        scene_id, exemplar_id = self.mined[1], None
        picture = with_object(scene(MINED + 1, SIZE), (self.count * 9 % 70, 30), (250, 250, 20))
        if kind == "scene":
            scene_id = self.closed
        elif kind == "exemplar":
            exemplar_id = self.image("group", "mine")
        elif kind != "fine":
            seed = {"like its scene": MINED + 1, "like holdout": HELD + 1, "like mine": MINED + 2}[kind]
            picture = jpeg(scene(seed, SIZE), 60 + self.count)
        sample = Sample(
            name="batch",
            blob=self.store.put_blob(encode_png(np.asarray(picture))),
            width=96,
            height=96,
            recipe="culprit",
            group="g",
            scene_image_id=scene_id,
            exemplar_image_id=exemplar_id,
            outcome_id=None,
            painted=(0, 0, 4, 4),
            annotations=LABEL,
            seed=0,
            key=f"sample-{self.count}",
        )
        run = self.store.begin_run("synthesize", config={})
        self.store.put_sample(run, sample)
        verdict = Verdict(check="c", accepted=True, value=1.0, bound=0.0, reason="")
        self.store.put_verdicts(run, sample.key, [verdict])


def stages(store: Store, out: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Summaries of export, train and verify."""
    exported = export(
        store, ExportConfig(format="coco", out=out / "set", selections=("query",), samples=("batch",))
    )
    trained = train(
        store,
        TrainConfig(
            detector=DETECTOR,
            out=out / "weights.safetensors",
            selections=("query",),
            samples=("batch",),
            steps=1,
            batch_size=2,
            device="cpu",
        ),
    )
    verified = verify(
        store,
        VerifyConfig(
            detector=DETECTOR,
            arms=("query", "synthesis"),
            selection="query",
            samples="batch",
            budget=99,
            steps=1,
            batch_size=2,
            device="cpu",
        ),
    )
    assert len(json.loads((out / "set/manifest.json").read_text())["left_out"]) == exported.failed
    return exported.summary, trained.summary, verified.summary


@settings(
    deadline=None,
    max_examples=6,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(st.sampled_from(sorted(TRAIN_KINDS)), max_size=4),
    st.lists(st.sampled_from(sorted(POOL_KINDS)), max_size=4),
    st.lists(st.sampled_from(sorted(SAMPLE_KINDS)), max_size=4),
)
def test_the_three_stages_leave_out_the_same(
    tmp_path_factory: pytest.TempPathFactory, training: list[str], pool: list[str], samples: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("rule")
    with Store.create(folder / "ws") as store:
        world = World(store, folder / "files")
        training, pool, samples = (["fine", *kinds] for kinds in (training, pool, samples))
        for kind in training:
            world.image(kind, "train")
        world.select(pool)
        for kind in samples:
            world.sample(kind)
        exported, trained, verified = stages(store, folder)
    expected: Counter[str] = Counter()
    kept = []
    for kinds, table in ((training, TRAIN_KINDS), (pool, POOL_KINDS), (samples, SAMPLE_KINDS)):
        reasons = [table[kind] for kind in kinds]
        expected.update(reason for reason in reasons if reason)
        kept.append(reasons.count(None))
    for summary in (exported, trained, verified):
        assert summary["left_out_by_reason"] == dict(sorted(expected.items()))
        assert summary["left_out"] == expected.total()
    assert exported["images"] == {"train": kept[0], "pool": kept[1], "sample": kept[2]}
    assert (trained["images"], trained["added"]) == (kept[0], kept[1] + kept[2])
    assert verified["arms"]["query"]["n_added"] == [kept[1]]
    assert verified["arms"]["synthesis"]["n_added"] == [kept[2]]


def test_every_reason_is_named_in_the_manifest(tmp_path: Path) -> None:
    with Store.create(tmp_path / "ws") as store:
        world = World(store, tmp_path / "files")
        for kind in TRAIN_KINDS:
            world.image(kind, "train")
        world.select(list(POOL_KINDS))
        for kind in SAMPLE_KINDS:
            world.sample(kind)
        result = export(
            store,
            ExportConfig(format="coco", out=tmp_path / "set", selections=("query",), samples=("batch",)),
        )
    manifest = json.loads((tmp_path / "set/manifest.json").read_text())
    tables = (TRAIN_KINDS, POOL_KINDS, SAMPLE_KINDS)
    assert Counter(reason for _, reason in manifest["left_out"]) == Counter(
        f"leak: {reason}" for table in tables for reason in table.values() if reason
    )
    assert result.failures == tuple(tuple(entry) for entry in manifest["left_out"])
    assert len({name for name, _ in manifest["left_out"]}) == result.failed == 9


def test_what_is_refused_can_be_allowed(tmp_path: Path) -> None:
    with Store.create(tmp_path / "ws") as store:
        world = World(store, tmp_path / "files")
        world.image("like holdout", "train")
        world.image("group", "train")
        warnings = left_out(store, (), ()).summary()["warnings"]
        assert warnings[0].endswith("2 of role train")
        assert "--near-duplicates 0" in warnings[1]
        scene(700, SIZE).save(tmp_path / "files" / "new.png")
        add(store, AddConfig(format="images", path=tmp_path / "files", role="pool", near_duplicates=0))
        assert left_out(store, (), ()).summary() == {
            "left_out": 1,
            "left_out_by_reason": {GROUP: 1},
            "warnings": [f"left out of training (1: {GROUP}): 1 of role train"],
        }


def test_the_group_pattern_keeps_a_video_together(tmp_path: Path) -> None:
    with Store.create(tmp_path / "ws") as store:
        for number, (role, video) in enumerate([("train", "a"), ("train", "b"), ("holdout", "a")]):
            folder = tmp_path / f"{role}-{number}"
            folder.mkdir()
            scene(number, SIZE).save(folder / f"{video}_{number}.png")
            add(
                store,
                AddConfig(format="images", path=folder, role=role, group_pattern=r"^(\w)_"),  # type: ignore[arg-type]
            )
        first, _ = store.image_ids(role="train")
        without = left_out(store, (), ())
        assert {i: str(why) for i, why in without.originals.items()} == {first: GROUP}


def test_holdout_images_that_equal_mined_ones_are_not_scored(tmp_path: Path) -> None:
    config = VerifyConfig(detector=DETECTOR, arms=("nothing",), steps=1, batch_size=2, device="cpu")
    with Store.create(tmp_path / "ws") as store:
        world = World(store, tmp_path / "files")
        world.image("fine", "train")
        summary = verify(store, config).summary
        assert (summary["base"]["images"], summary["holdout_left_out"]) == (2, 1)
        assert summary["warnings"] == [f"holdout images not scored (1: {MINE})"]
        for n in range(2):
            world.add(jpeg(cropped(scene(HELD + n, SIZE), 0.2, 0.7)), "mine")
        with pytest.raises(InputError, match=rf"besides those left out \(3: {MINE}\), got none"):
            verify(store, config)
