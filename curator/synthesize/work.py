"""The work of `synthesize`: plan, paint and judge, without a database.

In: `SynthesisItem`s (plain data, so that they can be shipped). Out: `Painted`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from curator.detect.checking import Answer, predict_each
from curator.detect.load import load_same
from curator.detect.small_ssd import BUILTIN
from curator.detect.weights import read_description
from curator.errors import InputError, StageError
from curator.inpaint.backends import build_inpainter
from curator.inpaint.base import Inpainter
from curator.registry import RECIPES, Spec
from curator.synthesize.base import Exemplar, Recipe, SamplePlan, Scene
from curator.synthesize.gate.base import Bounds, Evidence, Found, checks_alone
from curator.synthesize.settings import SynthesizeConfig
from curator.tensors import image_pixels, image_tensor, resolve_device
from store.images import encode_png, read_pixels
from store.keys import content_key
from store.records import BoxTuple, ImageRecord, NewAnnotation, Outcome, Verdict

if TYPE_CHECKING:
    from curator.detect.base import Detector
STAGE = "synthesize"
STAGE_VERSION = 2  # 2: a batch's key is that of all its failures and scenes
SCORE_FLOOR = 0.02


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure as the worker needs it; `blamed` holds the culprit's mask, one bit per pixel."""

    outcome: Outcome
    group: str
    image: ImageRecord
    blamed: bytes | None
    blamed_key: str


@dataclass(frozen=True, slots=True)
class SceneImage:
    """A scene before it is decoded."""

    image: ImageRecord
    annotations: tuple[NewAnnotation, ...]
    version: str


@dataclass(frozen=True, slots=True)
class SynthesisItem:
    """One numbered plan."""

    number: int
    recipe: str
    failure: Failure
    scene: SceneImage


@dataclass(frozen=True, slots=True)
class Painted:
    """A sample before the driver has compared it with the others; or the reason why there is none."""

    png: bytes | None = None
    painted: BoxTuple = (0.0, 0.0, 0.0, 0.0)
    annotations: tuple[NewAnnotation, ...] = ()
    seed: int = 0
    verdicts: tuple[Verdict, ...] = ()
    reason: str = ""


@dataclass
class SynthesisWork:
    """Paints plans; plain data (`jobs.base.Work`).

    Attributes:
        fingerprint: of the detector. config_key: digest of all that the plans depend on (`config_key`).
        class_map: detector class -> data-set class.
    """

    config_key: str
    detector: str
    fingerprint: str
    inpainter: str
    steps: int
    seed: int
    batch_size: int
    class_map: dict[str, str]

    def key(self, item: SynthesisItem) -> str:
        """Content key of one plan."""
        return content_key(
            STAGE,
            STAGE_VERSION,
            self.config_key,
            item.number,
            item.recipe,
            item.failure.outcome.key,
            item.scene.image.sha256,
        )

    def setup(self, device: str) -> tuple[Detector, Inpainter, torch.device]:
        """Load the detector and the inpainter.

        Raises:
            InputError: the detector is another than the diagnosed one.
        """
        return (
            load_same(self.detector, self.fingerprint, device),
            load_inpainter(self.inpainter, self.steps, device),
            resolve_device(device),
        )

    def process(
        self, state: tuple[Detector, Inpainter, torch.device], batch: Sequence[SynthesisItem]
    ) -> list[Painted | Exception]:
        """Plan, paint and judge; a plan that does not fit its scene gives a `Painted` without picture."""
        detector, inpainter, device = state
        results: list[Painted | Exception] = [Painted()] * len(batch)
        plans: dict[int, SamplePlan] = {}
        for i, item in enumerate(batch):
            try:
                plans[i] = self._plan(item)
            except StageError as error:
                results[i] = Painted(reason=str(error))
            except Exception as error:  # a bad image must not stop its batch mates
                results[i] = error
        samples = paint(inpainter, plans)
        order = sorted(samples)
        found = detect(detector, [samples[i] for i in order], device, self.class_map)
        bounds = Bounds()
        for i, detections in zip(order, found, strict=True):
            try:
                results[i] = _judged(plans[i], samples[i], detections, batch[i].failure.outcome, bounds)
            except Exception as error:
                results[i] = error
        return results

    def _plan(self, item: SynthesisItem) -> SamplePlan:
        failure, scene = item.failure, item.scene
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
        )
        recipe: Recipe = RECIPES.load(item.recipe)()
        pixels = image_tensor(read_pixels(scene.image.uri, sha256=scene.image.sha256))
        seed = int(content_key(self.seed, item.number)[:8], 16)
        return recipe.plan(
            exemplar, Scene(image_id=scene.image.id, image=pixels, annotations=scene.annotations), seed=seed
        )


def config_key(
    config: SynthesizeConfig,
    fingerprints: tuple[str, str],
    class_map: dict[str, str],
    failures: Sequence[Failure],
    scenes: Sequence[SceneImage],
) -> str:
    """Digest of all that changes the plans and what is painted, but how many plans are worked off.

    Args:
        fingerprints: of the detector and the inpainter.
    """
    counting = ("budget", "attempts", "detector", "inpainter")
    settings = {name: value for name, value in config.results().items() if name not in counting}
    return content_key(
        STAGE,
        STAGE_VERSION,
        settings,
        fingerprints,
        class_map,
        sorted((f.outcome.key, f.group, f.blamed_key) for f in failures),
        sorted((scene.image.sha256, scene.version) for scene in scenes),
    )


def _judged(
    plan: SamplePlan, sample: torch.Tensor, detections: Found | Exception, outcome: Outcome, bounds: Bounds
) -> Painted:
    if isinstance(detections, Exception):
        raise detections
    evidence = Evidence(found=detections, kind=outcome.kind, category=outcome.category)
    verdicts = tuple(check.judge(plan, sample, evidence, bounds) for check in checks_alone())
    return Painted(
        png=encode_png(image_pixels(sample)),
        painted=plan.painted,
        annotations=plan.annotations,
        seed=plan.seed,
        verdicts=verdicts,
    )


def paint(inpainter: Inpainter, plans: dict[int, SamplePlan]) -> dict[int, torch.Tensor]:
    """Sample (3, H, W), in 8-bit steps, for every plan; plans of one image size are painted together."""
    samples = {i: plan.rendered for i, plan in plans.items() if plan.rendered is not None}
    by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, plan in plans.items():
        if plan.rendered is None:
            by_size[tuple(plan.scene.image.shape)].append(i)
    for members in by_size.values():
        # Exemplars differ in size: the seam takes one tensor, so they are brought to a common square.
        exemplars = torch.stack(
            [
                torch.nn.functional.interpolate(
                    plans[i].exemplar[None], (64, 64), mode="bilinear", antialias=True
                )[0]
                for i in members
            ]
        )
        painted = inpainter.inpaint(
            torch.stack([plans[i].scene.image for i in members]),
            torch.stack([plans[i].mask for i in members]),
            prompts=[plans[i].prompt or "" for i in members],
            exemplars=exemplars,
            seeds=[plans[i].seed for i in members],
        )
        samples.update(zip(members, painted, strict=True))
    return {i: image_tensor(image_pixels(sample)) for i, sample in samples.items()}


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


def refuse_foreign_inpainter(spec: str, classes: Sequence[str]) -> None:
    """`builtin:` was trained on the built-in example's flowers alone, and paints smears on anything else.

    Args:
        classes: of the diagnosed detector; it is of the example when all of them are.
    Raises:
        InputError: `builtin:` for a detector of other classes.
    """
    if Spec.parse(spec).scheme != "builtin":
        return
    flowers = read_description(BUILTIN)["options"]["classes"]
    others = [name for name in classes if name not in flowers]
    if others:
        raise InputError(
            "--inpainter builtin: paints the built-in example's flowers alone, and this detector finds "
            f"{', '.join(others[:3])}{', ...' if len(others) > 3 else ''}; choose auto:FOLDER_OR_ID, "
            "diffusers:ClassName:ID or curator:DIR (of an inpainter trained on images like these)"
        )


def load_inpainter(spec: str, steps: int, device: str = "auto") -> Inpainter:
    """Build the inpainter that `spec` names, once per process and state of its files."""
    folder = Path(Spec.parse(spec).name)
    state = (
        tuple(sorted((str(p), p.stat().st_mtime_ns) for p in folder.rglob("*.safetensors")))
        if Spec.parse(spec).name and folder.is_dir()
        else ()
    )
    return _load_inpainter(spec, steps, str(resolve_device(device)), state)


@lru_cache(maxsize=2)
def _load_inpainter(spec: str, steps: int, device: str, state: tuple[Any, ...]) -> Inpainter:
    return build_inpainter(spec, steps=steps, device=device)
