"""The work of `synthesize`: plan, paint and judge, without a database.

In: `SynthesisItem`s (plain data, so that they can be shipped). Out: `Painted`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from curator.boxes import iou
from curator.detect.checking import Answer, predict_each
from curator.detect.load import load_same
from curator.errors import StageError
from curator.inpaint.base import Inpainter
from curator.registry import RECIPES
from curator.synthesize.base import Exemplar, Recipe, SamplePlan, Scene
from curator.synthesize.context import Context
from curator.synthesize.gate.base import Found, Look, added_checks
from curator.synthesize.gate.calibrate import Gate, evidence_of
from curator.synthesize.gate.judge import Judge
from curator.synthesize.gate.looks import windowed
from curator.synthesize.painting import load_inpainter, paint
from curator.synthesize.settings import SynthesizeConfig
from curator.tensors import image_pixels, image_tensor, resolve_device
from store.errors import StoreError
from store.images import encode_png, read_pixels
from store.keys import content_key
from store.records import BoxTuple, ImageRecord, NewAnnotation, Outcome, Verdict

if TYPE_CHECKING:
    from curator.detect.base import Detector
STAGE = "synthesize"
# 3: composition, calibrated gate; 4: several scenes; 5: groups by what is wanted of them; 6: learnt context
STAGE_VERSION = 6
SCORE_FLOOR = 0.02


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure as the worker needs it.

    Attributes:
        blamed: the culprit's mask, one bit per pixel. neighbours: the other labelled objects of its image, of
            the labels with the key `labels_key`.
    """

    outcome: Outcome
    group: str
    image: ImageRecord
    blamed: bytes | None
    blamed_key: str
    polygon: tuple[tuple[float, ...], ...] | None = None
    neighbours: tuple[NewAnnotation, ...] = ()
    labels_key: str = ""


@dataclass(frozen=True, slots=True)
class SceneImage:
    """A scene before it is decoded."""

    image: ImageRecord
    annotations: tuple[NewAnnotation, ...]
    version: str


@dataclass(frozen=True, slots=True)
class SynthesisItem:
    """One numbered plan; of its scenes, at least one, the one that suits best is painted on."""

    number: int
    recipe: str
    failure: Failure
    scenes: tuple[SceneImage, ...]


@dataclass(frozen=True, slots=True)
class Painted:
    """A sample before the driver has compared it with the others; or the reason why there is none.

    Attributes:
        scene_image_id: the image painted on. unreadable: why scenes were passed over that could not be read.
    """

    png: bytes | None = None
    scene_image_id: int = 0
    painted: BoxTuple = (0.0, 0.0, 0.0, 0.0)
    annotations: tuple[NewAnnotation, ...] = ()
    seed: int = 0
    verdicts: tuple[Verdict, ...] = ()
    reason: str = ""
    unreadable: tuple[str, ...] = ()


@dataclass
class SynthesisWork:
    """Paints plans; plain data (`jobs.base.Work`).

    Attributes:
        fingerprint: of the detector. config_key: digest of all that the plans depend on (`config_key`).
        class_map: detector class -> data-set class.
        modal: see `convention.is_modal`. judge: spec of the gate's embedder.
        threshold: score from which on a detection counts, as the diagnosis had it.
        gate: `Gate.to_bytes`; b"" where nothing is worked off. context: `Context.to_bytes`.
    """

    config_key: str
    detector: str
    fingerprint: str
    inpainter: str
    strength: float
    steps: int
    seed: int
    batch_size: int
    class_map: dict[str, str]
    modal: bool = False
    judge: str = "pixels:"
    threshold: float = 0.5
    gate: bytes = b""
    context: bytes = b""

    def key(self, item: SynthesisItem) -> str:
        """Content key of one plan."""
        return content_key(
            STAGE,
            STAGE_VERSION,
            self.config_key,
            item.number,
            item.recipe,
            item.failure.outcome.key,
            [scene.image.sha256 for scene in item.scenes],
        )

    def setup(self, device: str) -> tuple[Detector, Inpainter, torch.device, Judge, Gate]:
        """Load the detector, the inpainter and the gate.

        Raises:
            InputError: the detector is another than the diagnosed one.
        """
        detector, target = load_same(self.detector, self.fingerprint, device), resolve_device(device)
        return (
            detector,
            load_inpainter(self.inpainter, self.steps, device),
            target,
            Judge(self.judge, detector, target),
            Gate.from_bytes(self.gate),
        )

    def process(
        self, state: tuple[Detector, Inpainter, torch.device, Judge, Gate], batch: Sequence[SynthesisItem]
    ) -> list[Painted | Exception]:
        """Plan, paint and judge; a plan that does not fit its scene gives a `Painted` without picture."""
        detector, inpainter, device, judge, gate = state
        results: list[Painted | Exception] = [Painted()] * len(batch)
        plans: dict[int, SamplePlan] = {}
        unreadable: dict[int, list[str]] = {i: [] for i in range(len(batch))}
        for i, item in enumerate(batch):
            try:
                plans[i] = self.plan(item, unreadable[i])
            except StageError as error:
                results[i] = Painted(reason=str(error), unreadable=tuple(unreadable[i]))
            except Exception as error:  # a bad image must not stop its batch mates
                results[i] = error
        painted = paint(inpainter, plans, self.strength)
        samples: dict[int, torch.Tensor] = {}
        for i, sample in painted.items():
            if isinstance(sample, Exception):
                results[i] = sample
            else:
                samples[i] = sample
        order = sorted(samples)
        found = detect(detector, [samples[i] for i in order], device, self.class_map)
        for i, detections in zip(order, found, strict=True):
            try:
                if isinstance(detections, Exception):
                    raise detections
                look = look_at(
                    plans[i], samples[i], detections, batch[i].failure.outcome, self.strength, self.threshold
                )
                results[i] = Painted(
                    png=encode_png(image_pixels(samples[i])),
                    scene_image_id=plans[i].scene.image_id,
                    unreadable=tuple(unreadable[i]),
                    painted=plans[i].painted,
                    annotations=plans[i].annotations,
                    seed=plans[i].seed,
                    verdicts=gate.judge(evidence_of([look], judge)[0]),
                )
            except Exception as error:
                results[i] = error
        return results

    def plan(self, item: SynthesisItem, unreadable: list[str] | None = None) -> SamplePlan:
        """What the recipe wants painted, in the scene with the place that suits best where the recipe
        compares them, else in the first with a place. `unreadable` takes a line per unreadable scene.

        Raises:
            StageError: no scene has a fitting place. StoreError, OSError: nor can all be read.
        """
        failure = item.failure
        image = image_tensor(read_pixels(failure.image.uri, sha256=failure.image.sha256))
        blamed = None
        if failure.blamed is not None:
            bits = np.unpackbits(np.frombuffer(failure.blamed, np.uint8), count=image[0].numel())
            blamed = torch.from_numpy(bits.reshape(image.shape[1:]).astype(bool))
        exemplar = Exemplar(
            image_id=failure.image.id,
            outcome_id=failure.outcome.id,
            group=failure.group,
            kind=failure.outcome.kind,
            category=failure.outcome.category,
            image=image,
            box=failure.outcome.box,
            blamed=blamed,
            polygon=failure.polygon,
            neighbours=failure.neighbours,
        )
        recipe: Recipe = RECIPES.load(item.recipe)()
        seed = int(content_key(self.seed, item.number)[:8], 16)
        best: SamplePlan | None = None
        refused: Exception = StageError("no scene was drawn")
        for scene in item.scenes:
            try:
                pixels = image_tensor(read_pixels(scene.image.uri, sha256=scene.image.sha256))
                shown = Scene(
                    image_id=scene.image.id,
                    image=pixels,
                    annotations=scene.annotations,
                    modal=self.modal,
                    context=context_of(self.context),
                )
                plan = recipe.plan(exemplar, shown, seed=seed)
                if "fit" not in plan.details:
                    return plan
                if best is None or plan.details["fit"] > best.details["fit"]:
                    best = plan
            except StageError as error:
                refused = refused if isinstance(refused, StoreError | OSError) else error
            except (StoreError, OSError) as error:
                refused = error  # to be tried again, when it can be read
                if unreadable is not None:
                    unreadable.append(" ".join(str(error).split()))
        if best is None:
            raise refused
        return best


def config_key(
    config: SynthesizeConfig,
    fingerprints: Sequence[str],
    class_map: dict[str, str],
    failures: Sequence[Failure],
    scenes: Sequence[SceneImage],
    judging: Sequence[SceneImage],
    strength: float,
    threshold: float,
) -> str:
    """Digest of all that changes the plans, what is painted and how it is judged, but how many plans are
    worked off.

    Args:
        fingerprints: of the detector, the inpainter and the judge. judging: mined images that bounds come
        from.
    """
    counting = ("budget", "attempts", "detector", "inpainter", "strength")
    settings = {name: value for name, value in config.results().items() if name not in counting}
    if added := added_checks():
        settings["checks"] = added
    return content_key(
        STAGE,
        STAGE_VERSION,
        settings,
        fingerprints,
        class_map,
        strength,
        threshold,
        sorted((f.outcome.key, f.group, f.blamed_key, f.polygon, f.labels_key) for f in failures),
        sorted((scene.image.sha256, scene.version) for scene in scenes),
        sorted((scene.image.sha256, scene.version) for scene in judging),
    )


def look_at(
    plan: SamplePlan,
    sample: torch.Tensor,
    found: Found,
    outcome: Outcome,
    strength: float,
    threshold: float = float("nan"),
) -> Look:
    """What the gate sees of a sample: of its labels the one object that was painted. Objects that are covered
    in part and left as they were are not judged; nor are more than one, since bounds are those of single
    objects.
    """
    made = () if float(plan.details.get("occlusion", 0.0)) > 0 else _judged(plan, outcome.category)
    labels = [(a.category, a.box) for a in plan.annotations if not a.crowd]
    numbers = [i for i, a in enumerate(plan.annotations) if not a.crowd]
    generated = plan.rendered is None and plan.composed is not None and strength > 0
    return Look(
        image=sample,
        mask=plan.mask.numpy(),
        made=tuple(label for i, label in zip(numbers, labels, strict=True) if i in made),
        kept=tuple(label for i, label in zip(numbers, labels, strict=True) if i not in made),
        found=found,
        kind=outcome.kind,
        category=outcome.category,
        before=plan.scene.image if plan.scene.image.shape == sample.shape else None,
        start=plan.composed if generated else None,
        home=_at_home(plan, outcome),
        touched=tuple(label for i, label in zip(numbers, labels, strict=True) if i in plan.made),
        threshold=threshold,
    )


def _at_home(plan: SamplePlan, outcome: Outcome) -> Look | None:
    """The look at what was pasted where it was."""
    if plan.home is None or not bool(plan.home.mask.any()):
        return None
    look = Look(
        image=plan.home.image,
        mask=plan.home.mask.numpy(),
        made=((outcome.category, outcome.box),) if plan.home.object else (),
        kind=outcome.kind,
        category=outcome.category,
    )
    return windowed(look)


def _judged(plan: SamplePlan, category: str) -> tuple[int, ...]:
    """Of the labels made, the one that fits what was painted best; of a whole picture that was changed, the
    first of the failure's class."""
    if not plan.made:
        return ()
    if plan.rendered is not None:
        own = [i for i in plan.made if plan.annotations[i].category == category]
        return tuple((own or list(plan.made))[:1])
    fits = iou([plan.annotations[i].box for i in plan.made], [plan.painted])[:, 0]
    return (plan.made[int(fits.argmax())],)


def detect(
    detector: Detector, images: Sequence[torch.Tensor], device: torch.device, class_map: dict[str, str]
) -> list[Found | Exception]:
    """Detections down to `SCORE_FLOOR` by data-set class name, one list per image, or why there is none."""
    names = [class_map.get(name, name) for name in detector.classes]

    def named(answer: Answer) -> Found:
        found = answer.detections
        return [
            (names[int(label)], float(score), cast(BoxTuple, tuple(map(float, box))))
            for label, score, box in zip(found.labels, found.scores, found.boxes, strict=True)
        ]

    answers = predict_each(detector, [image.to(device) for image in images], score_threshold=SCORE_FLOOR)
    return [answer if isinstance(answer, Exception) else named(answer) for answer in answers]


@lru_cache(maxsize=2)
def context_of(data: bytes) -> Context:
    """The context that a work brings along, read once."""
    return Context.from_bytes(data)
