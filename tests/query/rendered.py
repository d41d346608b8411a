"""A small rendered workspace, diagnosed and indexed, that tests of queries start from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from curator import pipeline
from curator.data.settings import AddConfig
from curator.detect.settings import DetectConfig
from curator.diagnose.settings import DiagnoseConfig
from curator.example.dataset import write_dataset
from curator.example.flowers import CLASSES
from curator.query.settings import IndexConfig
from store.records import Role
from store.store import Store

DETECTOR = f"curator:ssd?classes={','.join(CLASSES)}&size=96&channels=8,8,16,16,16"


def make_rendered(root: Path, sizes: Mapping[Role, int], *, unlabelled: Collection[Role] = ()) -> Path:
    """Scenes of seed 4 in root/data, a workspace in root/ws; returns `root`.

    Args:
        unlabelled: roles whose images are added without their labels.
    """
    write_dataset(root / "data", sizes=sizes, seed=4, size=96)
    with Store.create(root / "ws") as store:
        for role in sizes:
            path, format = root / "data" / role, "coco"
            if role in unlabelled:
                path, format = path / "images", "images"
            pipeline.add(store, AddConfig(format=format, path=path, role=role))
        pipeline.detect(store, DetectConfig(detector=DETECTOR, device="cpu"))
        pipeline.diagnose(store, DiagnoseConfig(score_threshold=0.4))
        if "pool" in sizes:
            pipeline.index(store, IndexConfig(device="cpu"))
    return root
