"""VEBI: visual explanation by interpretation (Oramas, Wang & Tuytelaars, ICLR 2019, section 3.2).

In: an image and the interpretation that `curator interpret` fitted (`vebi?model=DIR`). Out: a map per target.

    1. x (m,)      the filters' responses, inside the target's box where the interpretation was fitted so
    2. r = w_j o x with j the target's class; the features (p*, q*) of largest r > 0 are relevant
    3. h_f (h, w)  a relevant feature's picture, scaled to a maximum of 1: its activation a, inside the box,
                   sent back to the input by guided backpropagation with the stride fix (section 3.3)
    4. values      sum_f r_f h_f over the `features` strongest

Settings: `model` (needed), `features` (1: the paper shows them one by one), `visual`: fixed (the paper's),
guided (its baseline "Deconv+GB", without the stride fix), activation (its baseline "upsampled activation").
The map says where the class's relevant features are seen; it is no share of the score, so no gap is claimed.
The arithmetic that fitting shares is in `curator.explain.features.base`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector
from curator.errors import ConfigError, InputError
from curator.explain.base import AttributionOptions, Fill, FillKind, Target
from curator.explain.features.base import Interpretation, cover, descriptors, input_boxes, responses
from curator.explain.game import coalition_game, ends_of
from curator.explain.methods.guided import GuidedBackward, heat_map, pixel_map
from curator.explain.target import TargetScores
from store.records import GridMap, Pin, SegmentMap

LEAST_CONTRIBUTION = 1e-3
"""A feature is evidence when its r exceeds this; the labels that eq. (1) fits are 0 and 1."""


class Vebi:
    """Visual explanation by interpretation."""

    name = "vebi"
    takes: tuple[FillKind, ...] = ("continuous", "hole")
    gradients = True

    def __init__(self, options: AttributionOptions | None = None) -> None:
        self.options = options or AttributionOptions()
        self.options.only(self.name, ("model", "features", "visual"))
        model = self.options.settings.get("model")
        if not model:
            raise ConfigError(
                "--method vebi: expected a fitted interpretation, got none; run `curator interpret "
                "--detector SPEC --out DIR`, then use --method 'vebi?model=DIR'"
            )
        self.features = self.options.whole("features", 1, low=1)
        self.visual = self.options.choice("visual", "fixed", ("fixed", "guided", "activation"))
        try:
            self.interpretation = Interpretation.load(Path(model))
        except InputError as error:
            raise ConfigError(f"--method vebi: {error}") from error

    def explain(
        self,
        detector: Detector,
        image: Tensor,
        pin: Pin,
        segments: NDArray[np.uint16],
        fill: Fill,
        targets: Sequence[Target],
        *,
        seed: int,
        image_key: str,
    ) -> list[SegmentMap | GridMap]:
        """Explain every target of an image; see `curator.explain.base.AttributionMethod`.

        Returns:
            a `GridMap` of the input's size per target, values in units of r. `evidence` is False when no
            relevant feature answers. `extra` names the strongest: "feature" (number in x), "channel" and
            "contribution" (r).
        Raises:
            ConfigError: a black box, or an interpretation of another detector.
            InputError: a target without the box that the interpretation pools in.
        """
        fitted = self.interpretation
        scores = TargetScores(detector, pin, targets)
        if fitted.fingerprint != detector.fingerprint:
            raise ConfigError(
                f"--method vebi: expected an interpretation of {detector.spec} "
                f"({detector.fingerprint[:12]}), got one of {fitted.fingerprint[:12]}; run curator interpret"
            )
        boxes = self._boxes(targets, pin)  # (T, 4)
        u = image[None].detach().clone().requires_grad_(True)
        with torch.enable_grad(), GuidedBackward(stride_fix=self.visual == "fixed"):
            values = responses(detector, u, pin, source=fitted.source, layers=fitted.layers)
        x = descriptors(values, boxes, pin.input_size)  # (T, m)
        game = coalition_game(scores, detector, image, segments, fill, seed=seed, options=self.options)
        full, empty = ends_of(game, int(segments.max()) + 1)
        maps: list[SegmentMap | GridMap] = []
        for t, target in enumerate(targets):
            relevant = fitted.relevant(target.label, x[t], self.features)
            picture = np.zeros(pin.input_size, dtype=np.float32)
            for feature, contribution in relevant:
                shown = self._picture(u, values, feature, boxes[t])
                if shown.any():
                    picture += contribution * shown / shown.max()
            strongest, contribution = relevant[0] if relevant else (-1, 0.0)
            extra = {"feature": float(strongest), "contribution": contribution}
            if relevant:
                extra["channel"] = float(fitted.filter_of(strongest)[1])
            maps.append(
                pixel_map(
                    self.name,
                    picture,
                    full=float(full[t]),
                    empty=float(empty[t]),
                    passes=3 + (len(relevant) if self.visual != "activation" else 0),
                    evidence=contribution > LEAST_CONTRIBUTION and bool(picture.any()),
                    extra=extra,
                )
            )
        return maps

    def _boxes(self, targets: Sequence[Target], pin: Pin) -> NDArray[np.float32]:
        """Where each target's features are pooled, (T, 4) in the input frame."""
        given = [target.box for target in targets]
        if self.interpretation.pooling == "box" and None in given:
            raise InputError(
                "vebi: expected the targets' boxes, in which this interpretation pools; use "
                "curator interpret --pooling image for targets without one"
            )
        return input_boxes(
            np.array([box or (0, 0, 0, 0) for box in given], dtype=np.float64),
            pin,
            self.interpretation.pooling,
        )

    def _picture(
        self, u: Tensor, values: Mapping[str, Tensor], feature: int, box: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """h_f before scaling: a filter's activation inside the box as (h, w) of the input, >= 0."""
        layer, channel = self.interpretation.filter_of(feature)
        value = values[layer]
        size = (int(u.shape[-2]), int(u.shape[-1]))
        rows, columns = cover(box[None], (int(value.shape[-2]), int(value.shape[-1])), size)
        inside = (rows[0, :, None] * columns[0, None, :]).to(value.device)  # (h', w')
        activation = value[0, channel].detach() * inside
        if self.visual == "activation":
            spread = F.interpolate(
                activation[None, None].clamp_min(0), size=size, mode="bilinear", align_corners=False
            )
            up: NDArray[np.float32] = spread[0, 0].float().cpu().numpy()
            return up
        start = torch.zeros_like(value)
        start[0, channel] = activation
        (gradient,) = torch.autograd.grad(value, u, start, retain_graph=True)
        return heat_map(gradient)
