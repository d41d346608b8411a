"""The one rule for what a detector may be trained on when the holdout is to judge it.

In: the leaks that the Store names (`Store.leaks`). Out: for each training image, selected image and sample
that is left out, why. `export`, `train` and `verify` leave out the same.

    training image   is none of the holdout, nearly equals none, shares its group key with none
    selected image   the same; and is no mined image, and nearly equals none
    sample           the first for its scene and its exemplar; its own pixels nearly equal no holdout image,
                     and no mined image but those that it was made from
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from store.records import Leak, Sample

ALLOW = "`curator add ... --near-duplicates 0` lets pass what is not equal pixel by pixel"


Part = Literal["image", "scene", "exemplar", "pixels"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why one image or sample is left out.

    Attributes:
        part: what leaks: the "image" itself, or a sample's "scene", "exemplar" or "pixels".
    """

    part: Part
    leak: Leak

    def __str__(self) -> str:
        """For people, such as "its scene nearly equals a holdout image"."""
        subject = {"image": "", "scene": "its scene ", "exemplar": "its exemplar ", "pixels": ""}[self.part]
        return f"{subject}{self.leak}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """What must not be trained on, because it would tell a detector about the holdout.

    Attributes:
        originals: training images by id. selected: per selection, images by id. samples: per batch, samples
            by the hash of their blob.
    """

    originals: Mapping[int, Refusal]
    selected: Mapping[str, Mapping[int, Refusal]]
    samples: Mapping[str, Mapping[str, Refusal]]

    def summary(self) -> dict[str, Any]:
        """Plain JSON: "left_out" (number of images), "left_out_by_reason", "warnings" (lines for people)."""
        counts = [
            ("of role train", len(self.originals)),
            *((f"of selection {name!r}", len(ids)) for name, ids in self.selected.items()),
            *((f"of samples {name!r}", len(blobs)) for name, blobs in self.samples.items()),
        ]
        total = sum(count for _, count in counts)
        every = dict(enumerate(self._refusals()))
        by_reason = Counter(str(refusal) for refusal in every.values())
        warnings = []
        if total:
            parts = ", ".join(f"{count} {what}" for what, count in counts if count)
            warnings = [f"left out of training ({reasons(every)}): {parts}"]
            if any(refusal.leak.reason == "nearly equal" for refusal in every.values()):
                warnings.append(f"where they show other things: {ALLOW}")
        return {
            "left_out": total,
            "left_out_by_reason": dict(sorted(by_reason.items())),
            "warnings": warnings,
        }

    def _refusals(self) -> Iterator[Refusal]:
        yield from self.originals.values()
        for images in self.selected.values():
            yield from images.values()
        for samples in self.samples.values():
            yield from samples.values()


def reasons(refusals: Mapping[Any, Refusal]) -> str:
    """How many for which reason, on one line: "2: nearly equals a holdout image; 1: ..."."""
    counts = Counter(str(refusal) for refusal in refusals.values())
    return "; ".join(f"{count}: {reason}" for reason, count in sorted(counts.items()))


def refused_images(leaks: Mapping[int, Leak]) -> dict[int, Refusal]:
    """Refusals of images by id."""
    return {image: Refusal(part="image", leak=leak) for image, leak in leaks.items()}


def refused_samples(
    samples: Sequence[Sample], sources: Mapping[int, Leak], pixels: Sequence[Sequence[Leak]]
) -> dict[str, Refusal]:
    """Refusals of samples by the hash of their blob.

    Args:
        sources: scenes and exemplars that the holdout closes. pixels: per sample, the holdout and mined
            images that its picture nearly equals.
    """
    found: dict[str, Refusal] = {}
    for sample, alike in zip(samples, pixels, strict=True):
        made_from: dict[Part, int | None] = {
            "scene": sample.scene_image_id,
            "exemplar": sample.exemplar_image_id,
        }
        for part, source in made_from.items():
            if source is not None and source in sources:
                found.setdefault(sample.blob, Refusal(part=part, leak=sources[source]))
        for leak in alike:
            if leak.role == "holdout" or leak.image_id not in made_from.values():
                found.setdefault(sample.blob, Refusal(part="pixels", leak=leak))
    return found
