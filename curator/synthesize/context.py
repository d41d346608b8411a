"""Context: which places in a scene look like places where objects of a class stand.

In: the user's labelled pictures. Out: a `Context`, which ranks places for an object that is to be put into
another scene, and refuses those that look like none. (That context decides whether pasted objects help:
Dvornik, Mairal & Schmid, ECCV 2018, whose network sees a box's surroundings with the box masked; here the
surroundings are summed up in figures, which need no weights and no GPU.)

    figures   of the strips beside, above and below a box, a tenth of its side away from it (so that a box
              drawn too tight shows nothing of its object): mean L, a, b, spread of L, gradients across and
              down, fine texture; their differences from one another and from the whole image; where the
              feet stand, size, shape, borders of the image that it touches; the nearest labelled object of
              the class and of any, how far, how much lower, how much larger; the class
    learnt    gradient-boosted trees (Friedman, Annals of Statistics 2001; scikit-learn's histograms) tell the
              places of labelled objects from other places in the same images where `standing_places` could
              have put them
    bound     nine of ten labelled objects of the class stand at places that the trees, fitted without their
              images, give more (of all classes, where the class has few)

Whether the trees tell anything is measured out of fold: `rank` is the mean share of the other places that
score below an object's own (.5: nothing). Where they rank no better than likeness to the surroundings of
another object of the class does, and where there are too few objects, that likeness decides; its bound is the
upper quartile of such distances.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold
from torch import Tensor

from curator.boxes import clip
from curator.errors import StageError
from curator.synthesize.base import Exemplar, Scene
from curator.synthesize.recipes.standing import SMALLEST, standing_places
from curator.synthesize.surroundings import Surroundings, neighbours, unlikeness
from curator.synthesize.trees import fit, log_odds
from store.records import BoxTuple, NewAnnotation

FEWEST = 40
"""Objects below which no trees are fitted."""
OWN = 20
"""Objects of a class from which on its bound is its own."""
PASSED = 0.9  # share of labelled objects whose places lie above the bound
OBJECTS = 6  # of an image, and places beside each
PLACES = 25
_FOLDS = 3
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Context:
    """What the user's pictures say of places.

    Attributes:
        trees: arrays of `trees.fit`; empty where likeness decides. classes: that the trees know.
        bounds: class -> least log-odds of a place; "" for those with few objects.
        unlike: largest Lab distance of surroundings, where likeness decides.
        objects: learnt from. rank, rank_alike: of the trees and of likeness, see above; NaN: not measured.
    """

    trees: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    bounds: Mapping[str, float] = field(default_factory=dict)
    unlike: float = float("inf")
    objects: int = 0
    rank: float = float("nan")
    rank_alike: float = float("nan")

    def best(self, exemplar: Exemplar, scene: Scene, places: Array) -> tuple[int, float]:
        """The place (N, 4) in a scene that suits an object best: its number, and how far it lies above the
        bound (log-odds, or Lab units where likeness decides; without a bound minus the distance).

        Raises:
            StageError: none lies above it.
        """
        around = Surroundings(scene.image)
        if self.trees:
            x = rows_of(around, places, scene.annotations, exemplar.category, self.classes)
            above = log_odds(x, self.trees) - self.bounds.get(exemplar.category, self.bounds[""])
        else:
            bound = self.unlike if np.isfinite(self.unlike) else 0.0
            above = bound - unlikeness(exemplar.image, exemplar.box, around, places)
        best = int(above.argmax())
        if above[best] < 0 and (self.trees or np.isfinite(self.unlike)):
            raise StageError(
                f"scene {scene.image_id}: of {len(places)} places none looks like one where "
                + (f"a {exemplar.category} stands" if self.trees else "the object stood")
            )
        return best, float(above[best])

    def facts(self) -> dict[str, Any]:
        """For people and for the run's record."""
        if not self.objects:
            return {"objects": 0}
        return {
            "objects": self.objects,
            "decides": "trees" if self.trees else "likeness",
            "rank": round(self.rank, 3) if np.isfinite(self.rank) else None,
            "rank_alike": round(self.rank_alike, 3) if np.isfinite(self.rank_alike) else None,
        }

    def to_bytes(self) -> bytes:
        """An .npz file without pickles."""
        told = {
            "classes": self.classes,
            "bounds": dict(self.bounds),
            "unlike": self.unlike,
            "objects": self.objects,
            "rank": self.rank,
            "rank_alike": self.rank_alike,
        }
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {f"trees/{name}": values for name, values in self.trees.items()}
        arrays["told"] = np.frombuffer(json.dumps(told, sort_keys=True).encode(), np.uint8)
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Context:
        """What `to_bytes` wrote; b"" gives one that knows nothing and refuses nothing."""
        if not data:
            return cls()
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            told = json.loads(file["told"].tobytes())
            trees = {key.removeprefix("trees/"): file[key] for key in file.files if key != "told"}
        return cls(trees=trees, classes=tuple(told.pop("classes")), **told)


def learn(pictures: Iterable[tuple[Tensor, Sequence[NewAnnotation]]], seed: int = 0) -> Context:
    """Learn from labelled pictures: images (3, H, W) RGB [0, 1] with their labels."""
    seen = looked_at(pictures, np.random.default_rng([seed, 17]))
    if len(seen.own) < 2:
        return Context(objects=len(seen.own))
    unlike, alike = _likeness(seen, np.random.default_rng([seed, 18]))
    known = Context(unlike=unlike, objects=len(seen.own), rank_alike=alike)
    if len(seen.own) < FEWEST or len(np.unique(seen.image[seen.own])) < 2 * _FOLDS:
        return known
    classes = tuple(sorted(set(seen.category)))
    names = np.asarray(seen.category)
    x = with_classes(seen.figures, names, classes)
    y = np.zeros(len(x), dtype=int)
    y[seen.own] = 1
    out = np.zeros(len(x))
    for fitted, held in GroupKFold(_FOLDS).split(x, y, seen.image):
        out[held] = log_odds(x[held], fit(x[fitted], y[fitted]))
    rank = _rank(out, seen)
    if not rank > max(alike, 0.5):
        return Context(unlike=unlike, objects=len(seen.own), rank=rank, rank_alike=alike)
    own, own_names = out[seen.own], names[seen.own]
    bounds = {"": float(np.quantile(own, 1 - PASSED))}
    for name in classes:
        if (own_names == name).sum() >= OWN:
            bounds[name] = float(np.quantile(own[own_names == name], 1 - PASSED))
    return Context(
        trees=fit(x, y),
        classes=classes,
        bounds=bounds,
        unlike=unlike,
        objects=len(seen.own),
        rank=rank,
        rank_alike=alike,
    )


@dataclass(frozen=True)
class Seen:
    """Places of objects and others: rows; `own`: numbers of the rows of objects, each with its other places
    behind it."""

    figures: Array
    around: Array
    category: list[str]
    image: NDArray[np.int64]
    own: NDArray[np.int64]


def looked_at(pictures: Iterable[tuple[Tensor, Sequence[NewAnnotation]]], rng: np.random.Generator) -> Seen:
    figures: list[Array] = []
    around: list[Array] = []
    category: list[str] = []
    images: list[int] = []
    own: list[int] = []
    for number, (image, labels) in enumerate(pictures):
        objects = [a for a in labels if not a.crowd]
        surroundings = Surroundings(image)
        drawn = rng.permutation(len(objects))[:OBJECTS]
        boxes: list[Array] = []
        beside: list[Array] = []
        names: list[str] = []
        for i in sorted(int(d) for d in drawn):
            found = _other_places(image, objects, i, rng)
            if found is not None:
                own.append(len(category) + len(names))
                together = np.concatenate([np.asarray(objects[i].box)[None], found])
                others = [*objects[:i], *objects[i + 1 :]]
                beside.append(_neighbours(together, others, objects[i].category))
                boxes.append(together)
                names += [objects[i].category] * len(together)
        if boxes:
            together = np.concatenate(boxes)
            figures.append(np.concatenate([surroundings.figures(together), np.concatenate(beside)], axis=1))
            around.append(surroundings.around(together))
            category += names
            images += [number] * len(names)
    none = np.zeros((0, 1))
    return Seen(
        np.concatenate(figures) if figures else none,
        np.concatenate(around) if around else none,
        category,
        np.asarray(images, dtype=np.int64),
        np.asarray(own, dtype=np.int64),
    )


def _other_places(
    image: Tensor, objects: Sequence[NewAnnotation], i: int, rng: np.random.Generator
) -> Array | None:
    """Places (N, 4) where the object could have been put in its own image; None where there are too few."""
    height, width = image.shape[1:]
    box = clip(np.asarray(objects[i].box, dtype=np.float64), width, height)
    own: BoxTuple = (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
    if min(box[2:] - box[:2]) < SMALLEST:
        return None
    exemplar = Exemplar(
        image_id=0, outcome_id=None, group="", kind="FN", category=objects[i].category, image=image, box=own
    )
    scene = Scene(image_id=0, image=image, annotations=tuple(objects))  # its own place is taken, too
    try:
        places = rng.permutation(standing_places(exemplar, scene, box, False, rng))[:PLACES]
    except StageError:
        return None
    return places if len(places) >= PLACES // 5 else None


def _likeness(seen: Seen, rng: np.random.Generator) -> tuple[float, float]:
    """Upper quartile of the distances between surroundings of objects of one class in two images, and how
    well such a distance ranks an object's own place."""
    names, images = np.asarray(seen.category), seen.image
    score = np.full(len(names), np.nan)
    pairs = []
    ends = np.append(seen.own[1:], len(names))
    for start, end in zip(seen.own, ends, strict=True):
        others = seen.own[(names[seen.own] == names[start]) & (images[seen.own] != images[start])]
        if len(others):
            other = int(rng.choice(others))
            rows = slice(start, end)
            score[rows] = -np.linalg.norm(seen.around[rows] - seen.around[other], axis=1)
            pairs.append(-score[start])
    unlike = float(np.quantile(pairs, 0.75)) if len(pairs) > 1 else float("inf")
    return unlike, _rank(score, seen)


def ranks(score: Array, seen: Seen) -> Array:
    """(objects,) share of each object's other places that score below its own, ties half; NaN: no score."""
    ends = np.append(seen.own[1:], len(score))
    return np.array(
        [
            (score[a + 1 : b] < score[a]).mean() + 0.5 * (score[a + 1 : b] == score[a]).mean()
            if np.isfinite(score[a])
            else np.nan
            for a, b in zip(seen.own, ends, strict=True)
        ]
    )


def _rank(score: Array, seen: Seen) -> float:
    """Mean of `ranks`."""
    known = ranks(score, seen)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else float("nan")


def rows_of(
    around: Surroundings,
    places: Array,
    annotations: Sequence[NewAnnotation],
    category: str,
    classes: Sequence[str],
) -> Array:
    """(N, F) what the trees see of places (N, 4) for an object of a class in an image with these labels."""
    objects = [a for a in annotations if not a.crowd]
    figures = np.concatenate([around.figures(places), _neighbours(places, objects, category)], axis=1)
    return with_classes(figures, np.full(len(figures), category), classes)


def _neighbours(places: Array, objects: Sequence[NewAnnotation], category: str) -> Array:
    return neighbours(places, [a.box for a in objects], [a.category == category for a in objects])


def with_classes(figures: Array, names: NDArray[Any], classes: Sequence[str]) -> Array:
    return np.concatenate([figures, names[:, None] == np.asarray(classes)[None]], axis=1)
