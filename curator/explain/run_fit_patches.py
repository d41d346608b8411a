"""Fit patches: the Gaussian over image patches that PDA draws from (Zintgraf et al., ICLR 2017, section 3.1).

In: a `FitPatchesConfig` and images of role train (mine too, where asked). Out: one file for
`--method "pda?model=FILE"`. Images are drawn by the seed, read one at a time, prepared as the detector sees
them and cut to the picture, so that no padding is learnt. The same command writes the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from torch import Tensor

from curator.detect.base import Detector
from curator.detect.checking import predict_all
from curator.detect.load import load_detector
from curator.diagnose.run_current import working_spec
from curator.errors import InputError
from curator.explain.patch_gaussian import fit_patches as fit
from curator.explain.segments import picture_box
from curator.explain.settings import FitPatchesConfig
from curator.jobs.outputs import require_file
from curator.jobs.stage import StageResult, recorded_run
from curator.progress import Advance, progress
from curator.tensors import image_tensor
from store.errors import StoreError
from store.images import read_pixels
from store.keys import content_key
from store.records import ImageRecord, Role

if TYPE_CHECKING:
    from store.store import Store

STAGE = "fit-patches"
PER_IMAGE = 200  # squares


def fit_patches(store: Store, config: FitPatchesConfig) -> StageResult:
    """Fit a `PatchGaussian` and write it to `config.out`.

    Returns:
        with the summary {"model" (the file), "detector" (spec), "images", "squares", "patch", "pad"}; an
        image that cannot be read, or is smaller than a padded patch, is listed as failed.
    Raises:
        InputError: no image of these roles, none that could be used, no detector, or a file that cannot be
            written.
    """
    require_file(config.out)
    spec = working_spec(store, config.detector)
    detector = load_detector(spec, config.device)
    chosen = _chosen(store, config)
    failures: list[tuple[str, str]] = []
    with recorded_run(store, STAGE, config, models=[detector.fingerprint]) as (run_id, counts):
        with progress(STAGE, len(chosen)) as advance:
            pictures = _pictures(detector, chosen, config, failures, advance)
            fitted = fit(pictures, patch=config.patch, pad=config.pad, per_image=PER_IMAGE, seed=config.seed)
        fitted.save(config.out)
        done = len(chosen) - len(failures)
        counts.update(done=done, skipped=0, failed=len(failures))
    return StageResult(
        stage=STAGE,
        run_id=run_id,
        done=done,
        failed=len(failures),
        failures=tuple(failures),
        summary={
            "model": str(config.out),
            "detector": spec,
            "images": done,
            "squares": done * PER_IMAGE,
            "patch": config.patch,
            "pad": config.pad,
        },
    )


def _chosen(store: Store, config: FitPatchesConfig) -> list[ImageRecord]:
    """At most `config.images` of the roles' images, in an order keyed by seed and content."""
    roles = [cast(Role, role) for role in config.roles]
    found = {image.id: image for role in roles for image in store.images(reader="explain", role=role)}
    if not found:
        raise InputError(
            f"fit-patches: expected images of role {' or '.join(config.roles)}, found none; add some with "
            "curator add FORMAT PATH --role train"
        )
    keyed = sorted(found.values(), key=lambda image: content_key(STAGE, config.seed, image.sha256))
    return keyed[: config.images]


def _pictures(
    detector: Detector,
    images: list[ImageRecord],
    config: FitPatchesConfig,
    failures: list[tuple[str, str]],
    advance: Advance,
) -> Iterator[Tensor]:
    """Yield (3, h, w) per image, without padding; list those that cannot be used.

    Raises:
        InputError: at the end, when there was none.
    """
    for image in images:
        try:
            picture = _picture(detector, image, config)
        except (InputError, StoreError) as error:
            failures.append((image.uri, str(error)))
        else:
            yield picture
        advance(1)
    if len(failures) == len(images):
        raise InputError(
            f"fit-patches: none of {len(images)} images could be used; first: {failures[0][0]}: "
            f"{failures[0][1]}"
        )


def _picture(detector: Detector, image: ImageRecord, config: FitPatchesConfig) -> Tensor:
    stored = image_tensor(read_pixels(image.uri, image.sha256))
    pin = predict_all(detector, [stored], score_threshold=0.99)[0].pin
    x1, y1, x2, y2 = picture_box(pin)
    if min(x2 - x1, y2 - y1) < config.side:
        raise InputError(
            f"expected a picture of at least {config.side} px a side, got {x2 - x1} x {y2 - y1}; "
            "fit smaller patches"
        )
    return detector.prepare(stored, pin)[:, y1:y2, x1:x2]
