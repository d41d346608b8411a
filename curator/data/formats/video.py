"""Videos: some of their frames become images of a data set, without labels.

In: a video file, or a folder of them. Out: one image a chosen frame, a JPEG of quality 95 under
`WORKSPACE/frames/<sha256 of the video>/`, turned upright as the file says. Its group is the video's file
name: frames of one video look alike and must not stand on both sides of a proof. `captured_at` is the video's
creation time plus the frame's offset, where the file names one; its source names video and frame.

Each chosen frame is written once. A list of the frames is written when the video has been read to its end, so
that adding it again, or continuing after a stop, decodes nothing twice and gives the same files.

Reading is PyAV's (FFmpeg's libraries; extra "video").
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import av
from av.container import InputContainer
from av.video.stream import VideoStream
from PIL import Image

from curator.data.formats.base import Broken, LabelledImage, OutputImage, Source
from curator.data.formats.pictures import VIDEO_SUFFIXES
from curator.errors import FormatError
from store.records import NewAnnotation

QUALITY = 95
_EPSILON = 1e-6  # seconds: time stamps are rounded to the stream's time base


@dataclass(frozen=True, slots=True)
class _Frame:
    """A chosen frame: its number in the video, from 0, and seconds after the first one."""

    number: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _End:
    """The end of a video; `lacks` says what could not be read of it, if anything."""

    lacks: str


class VideoFormat:
    """Reads frames of videos."""

    takes: ClassVar[tuple[str, ...]] = ("every", "frames")

    def __init__(self, *, frames: Path, every: str = "1s") -> None:
        """Make a reader.

        Args:
            frames: folder that the frames' files are written to.
            every: "0.5s": the first frame of each half second; "10f": each tenth frame.
        """
        self.frames = frames
        self.every = float(every[:-1])
        self.in_seconds = every.endswith("s")

    def open(
        self,
        path: Path,
        *,
        images: Path | None = None,
        classes: Sequence[str] | None = None,
        split: str | None = None,
    ) -> Source:
        """Open a video, or all videos under a folder.

        Raises:
            FormatError: no video there.
        """
        if path.is_dir():
            videos = sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in VIDEO_SUFFIXES and not file.name.startswith(".")
            )
            if not videos:
                raise FormatError(f"{path}: expected videos ({', '.join(VIDEO_SUFFIXES)}), found none")
        else:
            with _opened(path):
                videos = [path]
        return Source(
            categories=tuple(classes or ()),
            items=(item for video in videos for item in self._images(video, path, split)),
        )

    def write(
        self, out: Path, categories: Sequence[str], items: Iterable[OutputImage]
    ) -> Iterator[dict[str, Any]]:
        """Refused: images are no video.

        Raises:
            FormatError: always.
        """
        raise FormatError("video is read, not written; export as images, coco, voc or yolo")

    def carried(self, annotations: Sequence[NewAnnotation]) -> None:
        """Nothing is written."""
        return None

    def _images(self, video: Path, path: Path, split: str | None) -> Iterator[LabelledImage | Broken]:
        name = video.relative_to(path).as_posix() if path.is_dir() else video.name
        try:
            with video.open("rb") as handle:
                sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
            folder = self.frames / sha256[:16]
            listing = folder / f"every_{self.every:g}{'s' if self.in_seconds else 'f'}.json"
            with _opened(video) as container:
                start = _start(container)
                listed = _listed(listing, folder)
                chosen: list[_Frame] = []
                for found in listed or self._decoded(container, folder):
                    if isinstance(found, _End):
                        end = found
                        break
                    chosen.append(found)
                    yield LabelledImage(
                        path=_file(folder, found),
                        name=f"{name}/{found.number:06d}.jpg",
                        split=split,
                        group_key=video.name,
                        captured_at=_captured(start, found),
                    )
        except (FormatError, OSError, av.FFmpegError) as error:
            yield Broken(name=name, reason=" ".join(str(error).split()))
            return
        if listed is None:
            _write_listing(listing, chosen, end)
        if end.lacks:
            yield Broken(name=name, reason=f"{end.lacks}; the frames that can be read are added")

    def _decoded(self, container: InputContainer, folder: Path) -> Iterator[_Frame | _End]:
        """The chosen frames, each written to its file, then the end."""
        folder.mkdir(parents=True, exist_ok=True)
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        number, damaged, due, now = 0, 0, 0.0, 0.0
        first: float | None = None
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                damaged += 1
                continue
            for picture in decoded:
                seconds = _seconds(picture, number, stream)
                first = seconds if first is None else first
                now = seconds - first
                position = now if self.in_seconds else float(number)
                if position + _EPSILON >= due:
                    due = (position + _EPSILON) // self.every * self.every + self.every
                    frame = _Frame(number, round(now, 6))
                    _save(picture, _file(folder, frame))
                    yield frame
                number += 1
        yield _End(_what_it_lacks(container, number, now, damaged))


def _what_it_lacks(container: InputContainer, count: int, seconds: float, damaged: int) -> str:
    """Say what a video that was read to its end does not hold, though it should."""
    stream = container.streams.video[0]
    if damaged:
        return f"{damaged} damaged parts were passed over"
    if count < 0.95 * stream.frames:
        return f"cut off: expected {stream.frames} frames, found {count}"
    length = 0.0
    if stream.duration is not None and stream.time_base is not None:
        length = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        length = container.duration / av.time_base
    if seconds < 0.9 * length - 1:  # a sound track may be a little longer than the pictures
        return f"cut off: expected {length:.1f} s, found {seconds:.1f} s"
    return "" if count else "no frame can be decoded"


def _opened(video: Path) -> InputContainer:
    """Open a file that holds a video.

    Raises:
        FormatError: it holds none.
    """
    try:
        container = av.open(str(video))
    except (OSError, ValueError, av.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise FormatError(f"{video}: expected a video ({reason})") from error
    if not container.streams.video:
        container.close()
        raise FormatError(f"{video}: expected a video, found none in it")
    return container


def _seconds(picture: av.VideoFrame, number: int, stream: VideoStream) -> float:
    if picture.pts is not None and picture.time_base is not None:
        return float(picture.pts * picture.time_base)
    return number / float(stream.average_rate or 25)


def _save(picture: av.VideoFrame, file: Path) -> None:
    """Write a frame, upright; a file that is there is complete."""
    if file.exists():
        return
    image = Image.fromarray(picture.to_ndarray(format="rgb24"))
    if turn := getattr(picture, "rotation", 0):
        image = image.rotate(turn, expand=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    image.save(part, format="JPEG", quality=QUALITY, subsampling=0)
    os.replace(part, file)


def _file(folder: Path, frame: _Frame) -> Path:
    return folder / f"{frame.number:06d}.jpg"


def _start(container: InputContainer) -> datetime | None:
    """When the recording began, as the file says; cameras whose clock was never set say 1904 or 1970."""
    for metadata in (container.metadata, container.streams.video[0].metadata):
        try:
            start = datetime.fromisoformat(metadata.get("creation_time", ""))
        except ValueError:
            continue
        if start.year >= 1980:
            return start
    return None


def _captured(start: datetime | None, frame: _Frame) -> str | None:
    return None if start is None else (start + timedelta(seconds=frame.seconds)).isoformat()


def _listed(listing: Path, folder: Path) -> list[_Frame | _End] | None:
    """What an earlier run found; None where it did not come to the end or files are gone."""
    try:
        table = json.loads(listing.read_text(encoding="utf-8"))
        frames = [_Frame(int(number), float(seconds)) for number, seconds in table["frames"]]
        end = _End(str(table["lacks"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return [*frames, end] if all(_file(folder, frame).exists() for frame in frames) else None


def _write_listing(listing: Path, frames: Sequence[_Frame], end: _End) -> None:
    part = listing.with_suffix(f".{os.getpid()}.part")
    table = {"frames": [[frame.number, frame.seconds] for frame in frames], "lacks": end.lacks}
    part.write_text(json.dumps(table), encoding="utf-8")
    os.replace(part, listing)
