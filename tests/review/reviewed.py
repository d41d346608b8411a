"""A small workspace with everything that the page shows, and the page served from it.

Its pool is labelled with a class that nothing else has: a page that shows its name shows hidden labels. One
class of the mined images is called by a piece of HTML.
"""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from curator import pipeline
from curator.data.settings import AddConfig
from curator.detect.settings import DetectConfig
from curator.diagnose.settings import DiagnoseConfig
from curator.example.dataset import GapRates, write_dataset
from curator.explain.settings import ExplainConfig
from curator.prove.settings import VerifyConfig
from curator.query.settings import IndexConfig, QueryConfig
from curator.review.app import create_app
from curator.review.server import bind, hosts_of
from curator.synthesize.settings import SynthesizeConfig
from store.records import Role
from store.store import Store

HIDDEN = "hidden-orchid"
EVIL = '<img src=x onerror="document.title=1">&'
SIZES: dict[Role, int] = {"train": 12, "mine": 12, "pool": 20, "holdout": 6}
TOKEN = "the-token-of-tests"
PAINTED = SynthesizeConfig(
    selection="query", budget=2, attempts=4, batch_size=2, gate_images=24, device="cpu"
)


def make_reviewed(root: Path) -> Path:
    """Data in root/data, the workspace in root/ws; returns the workspace."""
    made = write_dataset(root / "data", sizes=SIZES, seed=3, rates=GapRates(pool=0.1))
    for role, folder in made.items():
        path = folder / "annotations.json"
        labels = json.loads(path.read_text())
        for category in labels["categories"]:
            if category["name"] == "red-stem":
                category["name"] = EVIL
            elif category["name"] == "violet-blossom" and role == "pool":
                category["name"] = HIDDEN
        path.write_text(json.dumps(labels))
    with Store.create(root / "ws") as store:
        for role in SIZES:
            pipeline.add(store, AddConfig(format="coco", path=made[role], role=role))
        pipeline.detect(store, DetectConfig(detector="builtin:", device="cpu"))
        pipeline.diagnose(store, DiagnoseConfig(class_map={"red-stem": EVIL}))
        pipeline.explain(store, ExplainConfig(samples=4, segments=30, successes=2, device="cpu"))
        pipeline.index(store, IndexConfig(device="cpu"))
        pipeline.query(store, QueryConfig(failures="FN", budget=6, device="cpu"))
        pipeline.synthesize(store, PAINTED)
        arms = VerifyConfig(
            arms=("nothing", "query"), selection="query", seeds=(0,), steps=1, batch_size=2, device="cpu"
        )
        pipeline.verify(store, arms)
    return root / "ws"


def copied(workspace: Path, folder: Path) -> Path:
    """A copy of a workspace that a test may change."""
    shutil.copytree(workspace, folder / "ws")
    return folder / "ws"


@contextmanager
def served(store: Store, *, author: str = "ada") -> Iterator[str]:
    """The page of a workspace on a free port of this machine, in a thread; yields its address with the
    token."""
    listening: socket.socket = bind("127.0.0.1", 0)
    hosts = hosts_of(listening)
    app = create_app(store, token=TOKEN, hosts=hosts, author=author)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://{hosts[0]}/?token={TOKEN}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listening.close()
