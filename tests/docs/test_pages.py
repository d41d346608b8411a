"""The blocks of the pages are run, as a user would, on a little of the built-in example's data.

What a page takes as given (its data, the detector `best.pt`, image numbers) is made here, and numbers of
images, steps and samples are made smaller. The README and the pages of `ELSEWHERE` have tests
of their own.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from curator.cli.app import main
from curator.example.dataset import GapRates, write_dataset
from store.store import Store

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ELSEWHERE = {
    "detectors.md": "tests/detect/test_remote_detector.py",
    "labelling.md": "tests/data/test_labelling_round_trip.py",
    "plugins.md": "tests/docs/test_plugins.py",
    "scale.md": "tests/jobs/test_ray_nodes.py",
}
RUN_HERE = (
    "query.md",
    "quickstart.md",
    "suspects.md",
    "synthesize.md",
    "training.md",
    "workspace.md",
    "yolo.md",
)
SIZES = {"train": 12, "mine": 12, "pool": 14, "holdout": 8}
Run = Callable[[str], str]


def blocks(page: str) -> list[str]:
    """The page's blocks of commands; set-up blocks, which make an environment, apart."""
    found = BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))
    return [text for language, text in found if language in ("", "sh") and "pip install" not in text]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/train, mine, pool and holdout in COCO format."""
    folder = tmp_path_factory.mktemp("pages")
    write_dataset(folder / "data", sizes=SIZES, seed=3, rates=GapRates(pool=0.1, mine=0.5))
    return folder / "data"


@pytest.fixture
def run(
    tmp_path: Path, rendered: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """A command line, in a folder that holds `data`; returns what it printed."""
    (tmp_path / "data").symlink_to(rendered)
    monkeypatch.chdir(tmp_path)

    def command(text: str) -> str:
        words = shlex.split(text, comments=True)
        assert words[0] == "curator", text
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as end:
            main()
        shown = capsys.readouterr()
        assert end.value.code in (0, None), f"{text}: {shown.err}"
        return shown.out

    return command


@pytest.fixture
def mended(run: Run) -> Run:
    """`run` in a workspace `ws` with failures, an index and a query."""
    run("curator -w ws init")
    for role in SIZES:
        run(f"curator -w ws add coco data/{role} --role {role}")
    for text in ("detect --detector builtin:", "diagnose", "index", "query --budget 4"):
        run(f"curator -w ws {text}")
    return run


def lines_of(page: str, instead: dict[str, str]) -> list[str]:
    """The page's command lines with some words replaced, each of which it must hold."""
    text = "".join(blocks(page)).replace("\\\n", " ")
    for said, other in instead.items():
        assert said in text, f"{page} does not say {said!r}"
        text = text.replace(said, other)
    return [line for line in text.splitlines() if line.startswith("curator ")]


def test_every_block_has_its_test() -> None:
    pages = {p.name for p in (ROOT / "docs").glob("*.md") if BLOCK.search(p.read_text(encoding="utf-8"))}
    assert pages == {*ELSEWHERE, *RUN_HERE}
    assert all((ROOT / place).exists() for place in ELSEWHERE.values())


def test_quick_start(run: Run, tmp_path: Path) -> None:
    small = {
        "--train 200 --mine 200 --pool 600 --holdout 200": "--train 6 --mine 8 --pool 10 --holdout 4",
        "render data": "render shown",
        "coco data/": "coco shown/",
        "--samples 8": "--samples 4 --segments 30 --successes 2",
        "--budget 20": "--budget 1 --attempts 16 --batch-size 2",
        "--steps 60 --budget 50": "--budget 2 --steps 1 --batch-size 2",
    }
    for line in lines_of("quickstart.md", small):
        run(line)
    assert json.loads((tmp_path / "augmented" / "manifest.json").read_text())
    assert (tmp_path / "report.html").stat().st_size > 10_000


def as_yolo(data: Path, out: Path) -> None:
    """The rendered scenes in the layout of Roboflow's YOLO export."""
    names: list[str] = []
    for role, split in {"train": "train", "mine": "valid", "holdout": "test"}.items():
        table = json.loads(next((data / role).glob("*.json")).read_text())
        names = [category["name"] for category in sorted(table["categories"], key=lambda c: c["id"])]
        number = {category["id"]: names.index(category["name"]) for category in table["categories"]}
        for kind in ("images", "labels"):
            (out / split / kind).mkdir(parents=True)
        for image in table["images"]:
            picture = next(path for path in (data / role).rglob(Path(image["file_name"]).name))
            shutil.copy(picture, out / split / "images")
            rows = [a for a in table["annotations"] if a["image_id"] == image["id"]]
            lines = []
            for row in rows:
                x, y, w, h = row["bbox"]
                box = ((x + w / 2) / image["width"], (y + h / 2) / image["height"])
                size = (w / image["width"], h / image["height"])
                lines.append(" ".join(map(str, (number[row["category_id"]], *box, *size))))
            (out / split / "labels" / f"{picture.stem}.txt").write_text("\n".join(lines))
    places = {"train": "train/images", "val": "valid/images", "test": "test/images", "nc": len(names)}
    (out / "data.yaml").write_text(json.dumps({**places, "names": names}))


def test_mend_your_yolo(run: Run, tmp_path: Path, rendered: Path) -> None:
    as_yolo(rendered, tmp_path / "vehicles")
    small = {
        "--detector ultralytics:best.pt --trust-pickle": "--detector builtin:",
        "--detector ultralytics:best.pt": "--detector builtin:",
        "--samples 8 --segments 100": "--samples 4 --segments 30 --successes 2",
        "--budget 20": "--budget 2",
        "--seeds 0,1,2 --steps 200": "--seeds 0 --steps 1 --batch-size 2",
    }
    for line in lines_of("yolo.md", small):
        if "--confirm" not in line:
            run(line)
    assert (tmp_path / "augmented" / "data.yaml").exists()


def test_query(mended: Run, tmp_path: Path) -> None:
    with Store.open(tmp_path / "ws") as store:
        name = store.outcomes(kind="FN", cause="miss")[0].category
    for line in lines_of("query.md", {"class=Car": f"class={name}", "--budget 100": "--budget 4"}):
        hits = json.loads(mended("curator -w ws feedback query --json"))["hits"]
        first, second, third = (str(hit["image"]) for hit in hits[:3])
        mended(line.replace("12,40", f"{first},{second}").replace("--reject 7", f"--reject {third}"))


def test_suspects(mended: Run) -> None:
    lines = lines_of("suspects.md", {"--budget 100": "--budget 4"})
    for line in lines:
        if "--confirm" not in line:
            mended(line)


def test_synthesize(mended: Run) -> None:
    lines = lines_of("synthesize.md", {"--budget 50": "--budget 1 --attempts 16 --batch-size 2"})
    for line in lines[:-1]:
        mended(line)
    sample = str(json.loads(mended("curator -w ws samples --json"))["samples"][0]["id"])
    mended(lines[-1].replace("reproduce 17", f"reproduce {sample}"))


def test_workspace(mended: Run, tmp_path: Path) -> None:
    lines = lines_of("workspace.md", {" | samples NAME | verification NAME | index NAME | model SPEC": ""})
    with Store.open(tmp_path / "ws") as store:
        first, second, *_ = store.image_ids(role="mine")
    for line in lines:
        words = line.partition("#")[0].replace("17 18", f"{first} {second}").replace(" NAME", " query")
        words = words.replace("--dataset field", "--dataset pool").replace("field", "holdout")
        words = words.replace("curator", "curator -w ws", 1)
        mended(words if "gc" in words else f"{words} --yes")


def test_training_is_refused_in_one_line_without_its_files(
    mended: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page's own program is run by tests/prove/test_command_trainer.py; here its options are read."""
    (line,) = lines_of("training.md", {"curator verify": "curator -w ws verify"})
    monkeypatch.setattr(sys, "argv", shlex.split(line))
    with pytest.raises(SystemExit) as end:
        main()
    error = capsys.readouterr().err.strip()
    assert end.value.code == 2
    assert "best.pt" in error
    assert error.count("error:") == 1


def test_what_goes_wrong_is_said_so() -> None:
    """The messages of docs/troubleshooting.md are those of the code."""
    rows = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8").splitlines()
    said = [m[1] for row in rows if (m := re.match(r"\| `([^`]+)` \|", row))]
    files = [*(ROOT / "curator").rglob("*.py"), *(ROOT / "store").rglob("*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in files)
    assert len(said) > 6
    assert [text for text in said if text not in code] == []


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("zensical", reason='pip install -e ".[docs]"')
    command = [sys.executable, str(ROOT / "docs" / "site" / "build.py"), str(tmp_path / "site"), "--strict"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "arning" not in said
    assert "griffe:" not in said
    page = (tmp_path / "site" / "docs" / "api.html").read_text(encoding="utf-8")
    for name in ("diagnose.settings.DiagnoseConfig", "detect.base.Detector", "query.run.query"):
        assert f"curator.{name}" in page
    fetched = re.compile(r'(?:src|href)="(?:https?:)?//[^"]+\.(?:js|css|woff2?)"')
    pages = [path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("*.html")]
    assert not any(fetched.search(text) for text in pages)
