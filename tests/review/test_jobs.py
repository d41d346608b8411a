"""Jobs: the page starts the command line's own work, one at a time, and can stop it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from curator.data.settings import ExportConfig
from curator.explain.settings import ExplainConfig
from curator.prove.settings import TrainConfig, VerifyConfig
from curator.query.settings import QueryConfig
from curator.review.jobs import Jobs
from store.errors import ConflictError, NotFoundError
from store.store import Store


def start(client: TestClient, kind: str, **asked: Any) -> dict[str, Any]:
    answer = client.post(f"/api/jobs/{kind}", json=asked)
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()["job"]
    return job


def ended(client: TestClient, number: int) -> dict[str, Any]:
    """The job when it has ended."""
    for _ in range(600):
        job = next(job for job in client.get("/api/jobs").json()["jobs"] if job["number"] == number)
        if job["state"] != "running":
            return dict(job)
        time.sleep(0.1)
    pytest.fail("the job did not end")


def test_a_query_is_asked_as_the_command_line_asks(client: TestClient, store: Store) -> None:
    choices = client.get("/api/jobs/choices").json()
    assert "predictor" in choices["methods"]
    assert "FN" in choices["failures"]
    job = start(client, "query", failures="FN", budget=4, method="similarity", name="asked here")
    assert "--method=similarity" in job["command"]
    assert job["leads"] == "/queries?name=asked%20here"
    refused = client.post("/api/jobs/query", json={"name": "another", "budget": 3})
    assert refused.status_code == 409
    assert "still running" in refused.json()["error"]
    done = ended(client, job["number"])
    assert done["state"] == "done", done
    made = store.selection("asked here")
    assert (len(made.hits), made.arm, made.config["failures"]) == (4, "similarity", "FN")
    again = client.post("/api/jobs/query", json={"name": "asked here"})
    assert again.status_code == 409


def test_one_failure_is_explained_by_another_method(client: TestClient, store: Store) -> None:
    failure = store.outcomes(kind="FN")[0]
    before = {own.id for own in store.attributions()}
    job = start(client, "explain", failure=failure.id, method="occlusion")
    assert ended(client, job["number"])["state"] == "done"
    new = [own for own in store.attributions(outcome_ids=[failure.id or 0]) if own.id not in before]
    ways = client.get(f"/api/failures/{failure.id}").json()["explanations"]
    assert [way["method"] for way in ways] == ["e2x", "occlusion"]
    assert ways[0]["current"]
    assert [own.method for own in new] in ([], ["occlusion"])


def test_what_fails_is_told_in_one_line(client: TestClient) -> None:
    job = start(client, "verify", arms=["nowhere"], seeds=[0], name="none")
    done = ended(client, job["number"])
    assert done["state"] == "failed"
    assert "nowhere" in done["said"]
    assert "\n" not in done["said"]


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("query", {"name": "-x"}),
        ("query", {"name": ""}),
        ("query", {"name": "a", "budget": 0}),
        ("query", {"name": "a", "method": "nowhere"}),
        ("query", {"name": "a", "more": 1, "budget": "many"}),
        ("explain", {"failure": 10**9, "method": "e2x"}),
        ("explain", {"failure": 1, "method": "nowhere"}),
        ("synthesize", {"name": "synthesis"}),
        ("synthesize", {"name": "new", "recipes": ["-x"]}),
        ("export", {"format": "coco", "folder": "../out"}),
        ("export", {"format": "coco", "folder": "/etc/out"}),
        ("export", {"format": "coco", "folder": ".ssh"}),
        ("export", {"format": "nowhere", "folder": "out"}),
        ("export", {"format": "coco", "folder": "ws"}),
        ("train", {"file": "a/b.safetensors"}),
        ("verify", {"arms": ["nothing"], "seeds": []}),
        ("cancel", {"number": 7}),
    ],
)
def test_wrong_requests_start_nothing(client: TestClient, kind: str, asked: dict[str, Any]) -> None:
    answer = client.post(f"/api/jobs/{kind}", json=asked)
    assert 400 <= answer.status_code < 500, answer.text
    assert "\n" not in answer.json()["error"]
    assert client.get("/api/jobs").json()["jobs"] == []


def test_a_job_is_cancelled_and_what_it_stored_stays(client: TestClient, store: Store) -> None:
    job = start(client, "verify", arms=["nothing"], seeds=[5, 6, 7], steps=5000, name="long")
    for _ in range(300):
        time.sleep(0.1)
        if (store.path / "training").exists() and client.get("/api/jobs").json()["jobs"][0]["log"]:
            break
    answer = client.post("/api/jobs/cancel", json={"number": job["number"]})
    assert answer.status_code == 200
    done = ended(client, job["number"])
    assert done["state"] == "stopped"
    assert client.post("/api/jobs/cancel", json={"number": job["number"]}).status_code == 409


def test_jobs_end_with_the_server(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path / "ws")
    job = jobs.start("init", [], about="a workspace", leads="/")
    jobs.close()
    assert job.process.poll() is not None
    with pytest.raises(NotFoundError):
        jobs.cancel(9)
    job.state = "running"
    with pytest.raises(ConflictError, match="still running"):
        jobs.start("init", [], about="another", leads="/")


def test_settings_are_written_as_the_command_reads_them() -> None:
    query = QueryConfig(failures="FN,class=a b", budget=3, unlike=(4, 5), without=("x", "y"), refine=True)
    assert query.words() == [
        "--failures=FN,class=a b",
        "--budget=3",
        "--without=x",
        "--without=y",
        "--unlike=4,5",
        "--refine",
    ]
    export = ExportConfig(format="coco", out=Path("-o"), selections=("q",), class_map={"car": "Car"})
    assert export.words() == ["--selection=q", "--map=car=Car", "--", "coco", "-o"]
    assert VerifyConfig(seeds=(0, 1)).words() == ["--seeds=0,1"]
    assert TrainConfig(detector="builtin:", out=Path("a"), flip=False).words()[-1] == "--no-flip"
    assert ExplainConfig().words() == []
