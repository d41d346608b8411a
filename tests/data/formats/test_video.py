"""Videos: which frames become images, when and where they were taken, and that adding again adds nothing.

The videos are real and tiny, written with PyAV: frame n is grey of brightness 20 + 4 n, with a red block.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from curator.data.formats.base import Broken, LabelledImage
from curator.data.formats.video import VideoFormat
from curator.data.run_add import add
from curator.data.settings import AddConfig
from curator.errors import ConfigError, FormatError, RegistryError
from curator.jobs.stage import StageResult
from curator.registry import FORMATS
from store.images import read_pixels
from store.store import Store

SIZE = (96, 64)
START = "2024-05-01T10:00:00.000000Z"


def video(
    path: Path,
    *,
    count: int = 40,
    brighter: int = 0,
    rate: int = 10,
    times: list[int] | None = None,
    start: str | None = None,
    turn: int = 0,
    codec: str = "mpeg4",
) -> Path:
    """Write a video of `count` frames.

    Args:
        brighter: added to every frame, so that two videos share no picture.
        times: the frames' time stamps in milliseconds; None: one each 1 / rate seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        if start is not None:
            container.metadata["creation_time"] = start
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.bit_rate = 4_000_000
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if turn:
            stream.set_display_rotation(turn)
        for number in range(count):
            pixels = np.full((SIZE[1], SIZE[0], 3), 20 + brighter + 4 * number, np.uint8)
            pixels[8:24, 2 * number : 2 * number + 16] = (250, 30, 30)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def frames(path: Path, folder: Path, every: str = "1s") -> list[LabelledImage]:
    items = list(VideoFormat(frames=folder, every=every).open(path).items)
    assert all(isinstance(item, LabelledImage) for item in items), items
    return [item for item in items if isinstance(item, LabelledImage)]


def numbers(items: list[LabelledImage]) -> list[int]:
    return [int(item.path.stem) for item in items]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "workspace") as opened:
        yield opened


def run(store: Store, path: Path, **options: str) -> StageResult:
    return add(store, AddConfig(format="video", path=path, role="pool", **options))


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        ("1s", [0, 10, 20, 30]),
        ("0.5s", [0, 5, 10, 15, 20, 25, 30, 35]),
        ("0.25s", [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28, 30, 33, 35, 38]),
        ("1.5s", [0, 15, 30]),
        ("10f", [0, 10, 20, 30]),
        ("15f", [0, 15, 30]),
        ("100s", [0]),
        ("0.01s", list(range(40))),
        ("1f", list(range(40))),
    ],
)
def test_which_frames_become_images(tmp_path: Path, every: str, expected: list[int]) -> None:
    """The first frame of each span of time, or each n-th one; what is stored is that frame."""
    items = frames(video(tmp_path / "a.mp4"), tmp_path / "frames", every)
    assert numbers(items) == expected
    for item, number in zip(items, expected, strict=True):
        pixels = read_pixels(str(item.path)).astype(int)
        assert pixels.shape == (SIZE[1], SIZE[0], 3)
        assert abs(pixels[40:].mean() - (20 + 4 * number)) < 2.5


def test_frames_at_uneven_times(tmp_path: Path) -> None:
    """A phone's frames do not come at one rate: time stamps count, from the first frame on."""
    times = [500, 540, 1400, 1520, 1530, 3900, 4400, 4510]
    path = video(tmp_path / "a.mkv", count=len(times), times=times, rate=25)
    items = frames(path, tmp_path / "frames")
    assert numbers(items) == [0, 3, 5, 7]
    index = json.loads(next((tmp_path / "frames").glob("*/every_1s.json")).read_text())
    assert index["frames"] == [[0, 0.0], [3, 1.02], [5, 3.4], [7, 4.01]]


def test_facts_of_the_frames_reach_the_workspace(store: Store, tmp_path: Path) -> None:
    result = run(store, video(tmp_path / "trip/day 1.mov", start=START))
    assert (result.done, result.failed, result.exit_code) == (4, 0, 0)
    assert (result.summary["dataset"], result.summary["unlabelled"]) == ("trip", 4)
    start = datetime(2024, 5, 1, 10, tzinfo=UTC)
    images = {image.id: image for image in store.images(reader="index", role="pool")}
    for second, membership in enumerate(store.memberships()):
        assert membership.group_key == "day 1.mov"
        assert membership.captured_at == start + timedelta(seconds=second)
        assert membership.source == f"day 1.mov/{second * 10:06d}.jpg"
        image = images[membership.image_id]
        assert Path(image.uri).is_relative_to(store.path / "frames")
        assert (image.width, image.height) == SIZE
        assert store.pixels(image, reader="index").shape == (SIZE[1], SIZE[0], 3)


@pytest.mark.parametrize("start", [None, "1904-01-01T00:00:00.000000Z", "1970-01-01T00:00:00.000000Z"])
def test_no_time_is_made_up(tmp_path: Path, start: str | None) -> None:
    """A camera whose clock was never set says 1904 or 1970."""
    (item, *_) = frames(video(tmp_path / "a.mp4", start=start), tmp_path / "frames")
    assert item.captured_at is None


def test_the_same_video_twice_adds_nothing(store: Store, tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", start=START)
    run(store, path)
    before = store.counts()
    files = {file: file.stat().st_mtime_ns for file in (store.path / "frames").rglob("*")}
    again = run(store, path)
    assert (again.done, again.skipped) == (0, 4)
    assert {**store.counts(), "runs": 0} == {**before, "runs": 0}
    assert {file: file.stat().st_mtime_ns for file in (store.path / "frames").rglob("*")} == files


def test_more_frames_of_the_same_video_add_only_those(store: Store, tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4")
    run(store, path)
    more = run(store, path, every="5f")
    assert (more.done, more.skipped) == (4, 4)
    back = run(store, path, every="1.0s")
    assert (back.done, back.skipped) == (0, 4)


def test_what_a_stopped_run_left_is_used(tmp_path: Path) -> None:
    """Frames written before the stop stay as they are; a half-written one is none."""
    path, folder = video(tmp_path / "a.mp4"), tmp_path / "frames"
    whole = {item.path.name: item.path.read_bytes() for item in frames(path, folder)}
    place = next(folder.iterdir())
    (place / "every_1s.json").unlink()
    (place / "000020.jpg").rename(place / "000020.99.part")
    (place / "000030.jpg").unlink()
    old = (place / "000010.jpg").stat().st_mtime_ns
    stopped = VideoFormat(frames=folder).open(path).items
    next(stopped)
    next(stopped)
    stopped.close()  # type: ignore[attr-defined]
    assert not (place / "every_1s.json").exists()
    again = {item.path.name: item.path.read_bytes() for item in frames(path, folder)}
    assert again == whole
    assert (place / "000010.jpg").stat().st_mtime_ns == old


def test_a_lost_frame_is_made_again(tmp_path: Path) -> None:
    path, folder = video(tmp_path / "a.mp4"), tmp_path / "frames"
    items = frames(path, folder)
    data = items[2].path.read_bytes()
    items[2].path.unlink()
    assert numbers(frames(path, folder)) == [0, 10, 20, 30]
    assert items[2].path.read_bytes() == data


def test_a_folder_of_videos(store: Store, tmp_path: Path) -> None:
    """Each is a group of its own; one that is none is named, the others are read."""
    video(tmp_path / "trip/a.mp4")
    video(tmp_path / "trip/sub/b.avi", count=11, brighter=30)
    (tmp_path / "trip/c.mkv").write_bytes(b"no video")
    (tmp_path / "trip/notes.txt").write_text("x")
    result = run(store, tmp_path / "trip")
    assert [name for name, _ in result.failures] == ["c.mkv"]
    assert (result.done, result.failed, result.exit_code) == (6, 1, 3)
    assert [m.source for m in store.memberships() if m.group_key == "b.avi"] == [
        "sub/b.avi/000000.jpg",
        "sub/b.avi/000010.jpg",
    ]
    assert len([m for m in store.memberships() if m.group_key == "a.mp4"]) == 4


@pytest.mark.parametrize("turn", [0, 90, 180, -90])
def test_a_turned_phone_gives_upright_frames(tmp_path: Path, turn: int) -> None:
    """The file says by how many degrees counter-clockwise its pictures are turned for display."""
    path = video(tmp_path / "a.mp4", count=1, turn=turn)
    (item,) = frames(path, tmp_path / "frames")
    pixels = read_pixels(str(item.path)).astype(int)
    plain = np.full((SIZE[1], SIZE[0]), False)
    plain[8:24, 0:16] = True
    expected = np.rot90(plain, turn // 90 % 4)
    assert pixels.shape[:2] == expected.shape
    assert ((pixels[..., 0] > 135) == expected).mean() > 0.98


def test_what_is_no_video(tmp_path: Path) -> None:
    for name, data in (("a.mp4", b"no video"), ("b.mp4", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FormatError, match="expected a video"):
            VideoFormat(frames=tmp_path / "frames").open(tmp_path / name)
    with pytest.raises(FormatError, match="expected a video"):
        VideoFormat(frames=tmp_path / "frames").open(tmp_path / "none.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match=r"expected videos .*found none"):
        VideoFormat(frames=tmp_path / "frames").open(tmp_path / "empty")
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(FormatError, match="found none in it"):
        VideoFormat(frames=tmp_path / "frames").open(tmp_path / "sound.wav")


@pytest.mark.parametrize(
    ("name", "expected", "reason"),
    [
        ("a.avi", [0, 10], "cut off: expected 40 frames, found 11"),
        ("a.mkv", [0, 10], "cut off: expected 4.0 s, found 1.8 s"),
    ],
)
def test_a_video_that_was_cut_off(tmp_path: Path, name: str, expected: list[int], reason: str) -> None:
    """What can be decoded is added; that the rest is missing is said, each time."""
    path = video(tmp_path / name)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    for _ in range(2):
        *good, broken = VideoFormat(frames=tmp_path / "frames").open(path).items
        assert [int(item.path.stem) for item in good if isinstance(item, LabelledImage)] == expected
        assert isinstance(broken, Broken)
        assert broken.reason == f"{reason}; the frames that can be read are added"


def test_a_damaged_part_is_named(tmp_path: Path, store: Store) -> None:
    path = video(tmp_path / "a.mkv", codec="libx264")
    damage(path)
    items = list(VideoFormat(frames=tmp_path / "frames").open(path).items)
    assert any(isinstance(item, LabelledImage) for item in items)
    broken = [item for item in items if isinstance(item, Broken)]
    assert len(broken) == 1
    assert "damaged parts were passed over" in broken[0].reason
    result = run(store, path)
    assert result.exit_code == 3


def damage(path: Path) -> None:
    """Overwrite the compressed pictures 12 to 19."""
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(container.streams.video[0]) if packet.size]
    data = path.read_bytes()
    for packet in packets[12:20]:
        assert data.count(packet) == 1
        data = data.replace(packet, b"\xff" * len(packet))
    path.write_bytes(data)


@pytest.mark.parametrize("every", ["1", "0s", "0f", "1.5f", "-1s", "1m", "s", "0.0s", "1e3s", "nans"])
def test_every_is_checked(every: str) -> None:
    with pytest.raises(ConfigError, match="every: expected seconds such as 1s"):
        AddConfig(format="video", path=Path("a.mp4"), role="pool", every=every)


def test_every_belongs_to_videos(store: Store, tmp_path: Path, picture: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="every: the format images has no such setting"):
        add(store, AddConfig(format="images", path=picture("set/a.png").parent, role="pool", every="1s"))


def test_without_pyav_one_line_says_what_to_install(tmp_path: Path) -> None:
    """In a process of its own, where `av` cannot be imported."""
    script = (
        "import sys; sys.modules['av'] = None\n"
        "from curator.cli import main\n"
        f"sys.argv = ['curator', '-w', {str(tmp_path / 'ws')!r}, 'add', 'video', 'a.mp4', '--role', 'pool']\n"
        "main()"
    )
    Store.create(tmp_path / "ws").close()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ran = subprocess.run(
        [sys.executable, "-c", script], env=environment, text=True, capture_output=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.count("\n") == 1
    assert 'run `pip install "curator[video]"`' in ran.stderr


def test_the_registry_knows_videos() -> None:
    assert FORMATS.load("video") is VideoFormat
    with pytest.raises(RegistryError, match=r"deeppcb, images, .*video, voc, yolo"):
        FORMATS.load("movie")
