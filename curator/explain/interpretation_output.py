"""What `interpret` writes: the model, a JSON summary, average images as PNG and a page that shows them.

In: an `Interpretation` and its features' average images. Out: files in a folder; a page that loads nothing
from anywhere.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray

from curator.errors import InputError
from curator.explain.features.average_images import AverageImage
from curator.explain.features.base import MODEL_FILE, Interpretation
from curator.page import FailureCard, Picture, ReportData, Table, render
from curator.tensors import image_pixels
from store.images import encode_png

PICTURES = "average-images"
_GAP = 2  # px between the patches of a sheet


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureCard:
    """One relevant feature of one class.

    Attributes:
        rank: 0 for the class's strongest. weight: w of the class. contribution: mean of w o x over the
            class's samples. reach: half the patch's width and height, input px.
    """

    label: int
    rank: int
    layer: str
    channel: int
    weight: float
    contribution: float
    reach: tuple[float, float]
    average: AverageImage


def write_outputs(
    out: Path, spec: str, fitted: Interpretation, accuracy: float, cards: Sequence[FeatureCard]
) -> dict[str, Any]:
    """Write everything; the model last, so that an interrupted run is not taken for a finished one.

    Returns:
        the summary.
    Raises:
        InputError: the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / MODEL_FILE).unlink(missing_ok=True)
        if (out / PICTURES).is_dir():
            shutil.rmtree(out / PICTURES)
        (out / PICTURES).mkdir()
        names = [_picture_name(fitted, card) for card in cards]
        for card, name in zip(cards, names, strict=True):
            if card.average.count:
                (out / PICTURES / name).write_bytes(encode_png(image_pixels(card.average.mean())))
        summary = _summary(out, spec, fitted, accuracy, cards, names)
        _replace(out / "summary.json", json.dumps(summary, indent=2) + "\n")
        _replace(out / "index.html", _page(spec, fitted, accuracy, cards))
        fitted.save(out / MODEL_FILE)
    except OSError as error:
        raise InputError(f"--out {out}: expected a writable folder ({error.strerror})") from error
    return summary


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _picture_name(fitted: Interpretation, card: FeatureCard) -> str:
    readable = re.sub(r"[^\w-]+", "-", fitted.classes[card.label])
    return f"{card.label:03d}-{readable}-{card.rank + 1}.png"


def _summary(
    out: Path,
    spec: str,
    fitted: Interpretation,
    accuracy: float,
    cards: Sequence[FeatureCard],
    names: Sequence[str],
) -> dict[str, Any]:
    relevant = (fitted.weights != 0).sum(0)
    return {
        "detector": spec,
        "fingerprint": fitted.fingerprint,
        "model": str(out / MODEL_FILE),
        "page": str(out / "index.html"),
        "mu": fitted.mu,
        "layers": fitted.source,
        "pooling": fitted.pooling,
        "filters": int(sum(fitted.channels)),
        "samples": int(sum(fitted.samples)),
        "accuracy": round(accuracy, 4),
        "relevant": int((fitted.weights != 0).any(1).sum()),
        "classes": [
            {
                "class": name,
                "samples": fitted.samples[label],
                "relevant": int(relevant[label]),
                "l1_norm": round(float(np.abs(fitted.weights[:, label]).sum()), 6),
                "features": [
                    {
                        "layer": card.layer,
                        "channel": card.channel,
                        "weight": round(card.weight, 6),
                        "contribution": round(card.contribution, 6),
                        "patches": card.average.count,
                        "receptive_field": [round(2 * reach, 1) for reach in card.reach],
                        "average_image": f"{PICTURES}/{picture}" if card.average.count else None,
                    }
                    for card, picture in zip(cards, names, strict=True)
                    if card.label == label
                ],
            }
            for label, name in enumerate(fitted.classes)
        ],
    }


def _page(spec: str, fitted: Interpretation, accuracy: float, cards: Sequence[FeatureCard]) -> str:
    relevant = (fitted.weights != 0).sum(0)
    kept = int((fitted.weights != 0).any(1).sum())
    rows = tuple(
        (name, str(fitted.samples[label]), str(int(relevant[label])))
        for label, name in enumerate(fitted.classes)
    )
    sections = []
    for label, name in enumerate(fitted.classes):
        own = tuple(_card(fitted, card) for card in cards if card.label == label)
        if own:
            sections.append((f"{name}: its {len(own)} strongest features", own))
    return render(
        ReportData(
            title="What the detector's features respond to",
            facts=(
                f"detector {spec} (fingerprint {fitted.fingerprint[:12]})",
                f"{sum(fitted.samples)} objects; {sum(fitted.channels)} filters in "
                f"{len(fitted.layers)} layers, of which mu = {fitted.mu:g} keeps {kept}",
                f"the weights alone tell the class of {100 * accuracy:.0f}% of these objects",
                "left: mean of the patches with the strongest response; right: the strongest patches",
            ),
            tables=(
                Table(
                    title="Relevant features",
                    columns=("class", "objects", "features with a weight"),
                    rows=rows,
                ),
            ),
            failures=tuple(sections),
        )
    )


def _card(fitted: Interpretation, card: FeatureCard) -> FailureCard:
    title = f"{card.layer}, filter {card.channel}"
    facts = (
        f"weight {card.weight:.3g}, mean contribution {card.contribution:.3g}; receptive field "
        f"{2 * card.reach[0]:.0f} x {2 * card.reach[1]:.0f} px",
    )
    if not card.average.count:
        return FailureCard(title=title, facts=(*facts, "it does not respond inside the boxes"), pictures=())
    name = fitted.classes[card.label]
    pictures = (
        Picture(
            pixels=image_pixels(card.average.mean()),
            caption=f"average of {card.average.count} patches of {name}",
        ),
        Picture(pixels=_sheet(card.average), caption=f"its {len(card.average.shown)} strongest patches"),
    )
    return FailureCard(title=title, facts=facts, pictures=pictures)


def _sheet(average: AverageImage, columns: int = 3) -> NDArray[np.uint8]:
    """The strongest patches side by side on white, (H, W, 3)."""
    tiles = [F.pad(pixels, (0, _GAP, 0, _GAP), value=1.0) for _, pixels in average.shown]
    height, width = tiles[0].shape[1:]
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for number, tile in enumerate(tiles):
        y, x = number // columns * height, number % columns * width
        sheet[y : y + height, x : x + width] = image_pixels(tile)
    return sheet
