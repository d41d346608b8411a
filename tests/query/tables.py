"""Tables of boxes with planted failures, for tests of what ranks them."""

from __future__ import annotations

import numpy as np

from curator.query.asked import Asked, Mined
from store.records import BoxRows, ImageBoxes, Outcome, TargetRecord

CLASSES = 3
CANDIDATES, WINDOWS, DIMENSION = 8, 6, 6
ASKED = Asked(kind="FN", categories=("c0",), labels=(0,), threshold=0.5)


def image(number: int, failures: int, rng: np.random.Generator) -> tuple[ImageBoxes, list[int]]:
    """An image whose failures stand at random boxes with three shifted components; and these boxes."""
    count = CANDIDATES + WINDOWS
    grid = np.arange(count)
    corner = np.stack([grid % 4 * 100.0, grid // 4 * 100.0], axis=1)  # no two overlap
    boxes = np.concatenate([corner, corner + rng.uniform(40, 90, (count, 2))], axis=1)
    scores = np.sort(rng.beta(0.3, 3, CANDIDATES))[::-1]
    first = rng.integers(0, CLASSES, CANDIDATES)
    labels = np.stack([(first + k) % CLASSES for k in range(CLASSES)], axis=1)
    vectors = rng.normal(size=(count, DIMENSION))
    at = rng.choice(np.arange(2, count), failures, replace=False).tolist()
    vectors[at, :3] += 2.5
    nothing = np.full((CANDIDATES, 5 - CLASSES), -1)
    return (
        ImageBoxes(
            image_id=number,
            key=str(number),
            size=(400, 400),
            boxes=boxes.astype(np.float32),
            labels=np.concatenate([labels, nothing], axis=1),
            scores=np.concatenate(
                [np.stack([scores, scores / 2, scores / 9], axis=1), np.zeros_like(nothing, float)], axis=1
            ).astype(np.float32),
            views={
                "object": _compact(vectors),
                "context": _compact(rng.normal(size=(count, DIMENSION))),
            },
            image_views={"image": _compact(rng.normal(size=DIMENSION))},
        ),
        at,
    )


def _compact(vectors: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(25 * vectors), -127, 127).astype(np.int8)


def outcome(number: int, image_id: int, box: np.ndarray, kind: str = "FN", category: str = "c0") -> Outcome:
    """An outcome at a box."""
    x1, y1, x2, y2 = map(float, box)
    return Outcome(
        image_id=image_id,
        model_id=1,
        kind=kind,  # type: ignore[arg-type]
        cause={"FN": "miss", "FP": "background"}.get(kind),
        category=category,
        box=(x1, y1, x2, y2),
        score=0.1,
        iou=0.0,
        target=TargetRecord(candidate=0, label=0, rule="raw", score=0.1, iou=0.0),
        id=number,
    )


def planted(mined: int, pool: int, *, share: float, seed: int = 0) -> tuple[Mined, BoxRows, np.ndarray]:
    """Mined images and a pool (numbered from 10,000), of each a share with one or two failures; and the
    failures of each pool image."""
    rng = np.random.default_rng(seed)

    def images(first: int, count: int) -> list[tuple[ImageBoxes, list[int]]]:
        failing = rng.random(count) < share
        return [image(first + i, int(failing[i] * rng.integers(1, 3)), rng) for i in range(count)]

    known: dict[int, Outcome] = {}
    rows = []
    found = images(0, mined)
    for shown, at in found:
        wrong = [outcome(len(known) + n, shown.image_id, shown.boxes[k]) for n, k in enumerate(at, start=1)]
        right = outcome(len(known) + len(at) + 1, shown.image_id, shown.boxes[0], "TP")
        every, places = [*wrong, right], [*at, 0]
        known.update((o.id or 0, o) for o in every)
        rows.append(
            ImageBoxes(
                image_id=shown.image_id,
                key=f"outcomes of {shown.image_id}",
                size=shown.size,
                boxes=shown.boxes[places],
                labels=np.zeros((0, 5), np.int64),
                scores=np.zeros((0, 5), np.float32),
                views={view: values[places] for view, values in shown.views.items()},
                image_views=shown.image_views,
                outcome_ids=np.array([o.id for o in every]),
            )
        )
    others = images(10_000, pool)
    return (
        Mined(
            offered=BoxRows.of([shown for shown, _ in found]),
            image_ids=np.arange(mined),
            outcomes=BoxRows.of(rows),
            culprits=None,
            known=known,
            units={},
        ),
        BoxRows.of([shown for shown, _ in others]),
        np.array([len(at) for _, at in others]),
    )
