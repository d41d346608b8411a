"""What the parts of `explain_papers.py` share: scenes with targets, tables with captions, picture sheets.

In: a `Setting`. Out: `SceneCase`s on the built-in SSD and rendered scenes; a `Part` of tables and claims.
A claim is one sentence of a paper as it can be measured here; `ok` says whether it holds, whatever we wish.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from explain_cases import BATCH
from explain_groundtruth import open_scenes, target_of
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from curator.detect.base import Detector
from curator.detect.load import load_detector
from curator.example.dataset import GapRates, draw_gaps
from curator.example.scene import RenderedScene, SceneParams, render_scene
from curator.explain.base import AttributionOptions, Fill, Target
from curator.explain.fills.fill import make_fill
from curator.registry import ATTRIBUTIONS, Spec
from curator.represent.heatmap import overlay_density
from curator.represent.pixel_maps import Array, Labels, Map, map_pixels
from curator.tensors import image_pixels, image_tensor
from store.images import read_pixels
from store.records import Outcome, Pin

DATA = "built-in SSD (about 1 M parameters) on rendered flower scenes of 192 px"
_LARGEST = 400_000  # bytes of a picture
_MARGIN = 16  # px above a panel, for its title


@dataclass(frozen=True, slots=True)
class Setting:
    """One run: where it works, how much it does."""

    work: Path
    seed: int
    quick: bool
    pictures: Path | None

    def pick(self, quick: int, full: int) -> int:
        """A size: the smaller one for --quick."""
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a caption that states data and departures from the paper."""

    caption: str
    rows: list[dict[str, Any]]


@dataclass(slots=True)
class Part:
    """One paper's tables and the claims that they test."""

    tables: dict[str, Table] = field(default_factory=dict)
    acceptance: list[dict[str, Any]] = field(default_factory=list)

    def claim(self, text: str, target: str, value: float | None, ok: bool) -> None:
        """Note a claim: what the paper says (target), what was measured (value; None: not measurable)."""
        known = value is not None and np.isfinite(value)
        self.acceptance.append(
            {
                "claim": text,
                "target": target,
                "value": round(float(value), 4) if known and value is not None else None,
                "ok": bool(ok and known),
            }
        )


@dataclass(frozen=True, slots=True)
class SceneCase:
    """One scene, ready to be explained.

    Attributes:
        gap: what is planted; None is a clean scene. image: x (3, h, w). outcomes: all of them.
    """

    scene: RenderedScene
    gap: str | None
    key: str
    image: Tensor
    pin: Pin
    outcomes: tuple[Outcome, ...]

    def of_kind(self, kind: str) -> list[Outcome]:
        """The TP, FP or FN."""
        return [outcome for outcome in self.outcomes if outcome.kind == kind]


def detector_of() -> Detector:
    """The built-in SSD."""
    loaded: Detector = load_detector("builtin:", "cpu")
    return loaded


def scene_cases(setting: Setting, detector: Detector, count: int, *, clean: bool) -> list[SceneCase]:
    """The scenes with outcomes among `count` rendered ones, in order; those without gap alone if `clean`."""
    gaps = draw_gaps("mine", count, setting.seed, GapRates())
    with open_scenes(setting.work, count, setting.seed) as store:
        model = store.models()[0]
        by_image: dict[int, list[Outcome]] = {}
        for outcome in store.outcomes():
            by_image.setdefault(outcome.image_id, []).append(outcome)
        records = {image.id: image for image in store.images(reader="explain", ids=sorted(by_image))}
        found = store.detections(model.id, sorted(by_image))
    cases = []
    for image_id, outcomes in sorted(by_image.items()):
        record, pin = records[image_id], found[image_id].pin
        index = int(Path(record.uri).stem.rsplit("-", 1)[1])
        if clean and gaps[index] is not None:
            continue
        scene = render_scene(
            SceneParams(role="mine", index=index, seed=setting.seed, size=192, gap=gaps[index])
        )
        image = detector.prepare(image_tensor(read_pixels(record.uri, record.sha256)), pin)
        cases.append(SceneCase(scene, gaps[index], record.sha256, image, pin, tuple(outcomes)))
    return cases


def targets_of(outcomes: Sequence[Outcome]) -> list[Target]:
    """What is explained, one per outcome."""
    return [target_of(outcome) for outcome in outcomes]


def maps_of(
    method: str,
    detector: Detector,
    image: Tensor,
    pin: Pin,
    key: str,
    segments: Labels,
    targets: Sequence[Target],
    *,
    samples: int = 1,
    fill: Fill | str = "mean",
    seed: int = 0,
) -> tuple[list[Map], float]:
    """Maps of all targets by `NAME?setting=value`, and seconds per target."""
    spec = Spec.of_method(method)
    options = AttributionOptions(samples=samples, batch_size=BATCH, settings=spec.options)
    built = ATTRIBUTIONS.load(spec.name)(options)
    if isinstance(fill, str):
        fill = make_fill(fill, detector, method=spec.name, takes=built.takes)
    start = time.perf_counter()
    maps = built.explain(detector, image, pin, segments, fill, targets, seed=seed, image_key=key)
    return list(maps), (time.perf_counter() - start) / len(targets)


def mean_of(values: Sequence[float]) -> float | None:
    """Mean of what is not nan; None where nothing is left."""
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else None


def difference(a: float | None, b: float | None) -> float | None:
    """a - b where both are known."""
    return None if a is None or b is None else a - b


# ------------------------------------------------------------------- pictures


def shown(image: Tensor, found: Map, labels: Labels) -> NDArray[np.uint8]:
    """x (3, h, w) -> (h, w, 3) with a map over it: red raises the score, blue lowers it."""
    return shown_pixels(image, map_pixels(found, labels, (labels.shape[0], labels.shape[1])))


def shown_pixels(image: Tensor, density: Array) -> NDArray[np.uint8]:
    """As `shown`, of a density (h, w); the picture is grey, so that nothing in it looks like a map."""
    grey = image_pixels(image).mean(2, keepdims=True).round().astype(np.uint8).repeat(3, axis=2)
    size = (density.shape[0], density.shape[1])
    frame = Pin(image_size=size, input_size=size, scale=(1.0, 1.0), offset=(0.0, 0.0))
    return overlay_density(grey, density, frame, opacity=0.85)


def sheet(folder: Path | None, name: str, rows: Sequence[Mapping[str, NDArray[np.uint8]]]) -> str | None:
    """Write rows of titled pictures (h, w, 3) as one PNG of at most 400 kB; nothing without a folder."""
    if folder is None or not rows:
        return None
    side = 128
    across = max(len(row) for row in rows)
    canvas = Image.new("RGB", (across * (side + 4), len(rows) * (side + _MARGIN + 4)), "white")
    draw = ImageDraw.Draw(canvas)
    for i, row in enumerate(rows):
        for j, (title, pixels) in enumerate(row.items()):
            x, y = j * (side + 4), i * (side + _MARGIN + 4)
            draw.text((x + 2, y + 2), title, fill="black")
            canvas.paste(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR), (x, y + 16))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    written = _png(canvas)
    while len(written) > _LARGEST:
        canvas = canvas.resize((canvas.width * 4 // 5, canvas.height * 4 // 5), Image.Resampling.LANCZOS)
        written = _png(canvas)
    path.write_bytes(written)
    return str(path)


def _png(canvas: Image.Image) -> bytes:
    """With a palette of 128 colours: a third of the bytes."""
    buffer = io.BytesIO()
    canvas.quantize(128).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
