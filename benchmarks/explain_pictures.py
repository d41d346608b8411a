"""The picture of docs/explain.md: failures of rendered scenes through several methods (built-in SSD).

    python benchmarks/explain_pictures.py [--seed N] [--out docs/explain.png]

One row per planted cause (the first scene of the seed that shows it) and one for a found object; red raises
the score of the yellow box, blue lowers it. A miss's culprit must be blue, a false positive's red.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from explain_cases import SEGMENTS
from explain_groundtruth import explained, failures_of
from numpy.typing import NDArray
from papers_scenes import Setting, detector_of, scene_cases, sheet, shown_pixels
from PIL import Image, ImageDraw

from curator.explain.segments import slic_segments
from curator.represent.pixel_maps import map_pixels
from store.records import BoxTuple

METHODS = {
    "e2x": 16,
    "e2x_kernel": 64,
    "lime": 256,
    "odam": 1,
    "drise": 500,
    "sp?patch=29&stride=13": 1,
    "fido": 1,
    "permutation": 3,
}
ROWS = ("post", "beside", "dark", "lookalike", "found")


SIDE = 96  # px of a scene that are shown around the box


def boxed(pixels: NDArray[np.uint8], box: BoxTuple) -> NDArray[np.uint8]:
    """The surroundings (SIDE, SIDE, 3) of a box, framed in yellow."""
    picture = Image.fromarray(pixels)
    ImageDraw.Draw(picture).rectangle(box, outline=(255, 220, 0), width=1)
    height, width = pixels.shape[:2]
    x = int(np.clip((box[0] + box[2]) / 2 - SIDE / 2, 0, width - SIDE))
    y = int(np.clip((box[1] + box[3]) / 2 - SIDE / 2, 0, height - SIDE))
    return np.asarray(picture)[y : y + SIDE, x : x + SIDE]


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=515004)
    parser.add_argument("--out", type=Path, default=Path("docs/explain.png"))
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="explain-pictures-"))
    detector = detector_of()
    drawn: dict[str, dict[str, NDArray[np.uint8]]] = {}
    for case in scene_cases(
        Setting(work, options.seed, quick=True, pictures=None), detector, 120, clean=False
    ):
        name = case.gap or "found"
        outcomes = case.of_kind("TP") if case.gap is None else failures_of(case.scene, case.outcomes, name)
        if name in drawn or name not in ROWS or not outcomes:
            continue
        segments = slic_segments(case.image, case.pin, SEGMENTS)
        chosen = outcomes[:1]
        pixels = case.scene.pixels
        row = {f"{name}: {chosen[0].category}": boxed(pixels, chosen[0].box)}
        for method, samples in METHODS.items():
            (found,), _ = explained(
                method, samples, detector, case.image, case.pin, segments, chosen, case.key
            )
            values = map_pixels(found, segments, case.pin.input_size)
            title = method.partition("?")[0] + ("" if found.evidence else " (no evidence)")
            row[title] = boxed(shown_pixels(case.image, values), chosen[0].box)
        drawn[name] = row
    sheet(options.out.parent, options.out.name, [drawn[name] for name in ROWS if name in drawn])


if __name__ == "__main__":
    main()
