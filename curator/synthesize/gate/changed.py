"""The check `changed`: the painting differs from what was there."""

from __future__ import annotations

from torch import Tensor

from curator.synthesize.base import SamplePlan
from curator.synthesize.gate.base import Bounds, Evidence, verdict
from store.records import Verdict


class ChangedCheck:
    """Refuses a painting that left the scene almost as it was."""

    name = "changed"

    def judge(self, plan: SamplePlan, sample: Tensor, evidence: Evidence, bounds: Bounds) -> Verdict:
        """Mean absolute difference between scene and sample over the hole."""
        value = float((sample - plan.scene.image).abs().mean(0)[plan.mask].mean())
        return verdict(
            self.name,
            value >= bounds.changed,
            value,
            bounds.changed,
            "the painting differs from what was there",
            "the painting left the scene almost as it was",
        )
