"""A batch of samples as it grows: plan by plan, each compared with those accepted before it.

In: painted samples in the order of their plans, and what earlier runs stored. Out: `Sample`s in the Store,
and what became of the plans so far.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from curator.jobs.base import Done
from curator.synthesize.gate.base import checks_among
from curator.synthesize.gate.calibrate import Gate
from curator.synthesize.work import Painted, SynthesisItem
from curator.tensors import image_tensor
from store.images import read_bytes_as_pixels
from store.records import Sample

if TYPE_CHECKING:
    from store.store import Store


class Batch:
    """The samples of one name and configuration.

    Whether a sample is stored already or painted now makes no difference to the verdicts on those after it:
    before one is judged, `consider` counts all that is stored of the plans before it.

    Args:
        keys: of the plans, in their order.
        stored: the batch's samples so far. gate: has the bounds.

    Attributes:
        accepted: number of accepted samples of the plans considered.
        unplaced: reasons why plans found no place, with their numbers; of this run alone.
        unreadable: why scenes were passed over that could not be read; of this run alone.
    """

    def __init__(
        self,
        store: Store,
        *,
        name: str,
        run_id: int,
        keys: Sequence[str],
        stored: Sequence[Sample],
        gate: Gate,
    ) -> None:
        self._store = store
        self._name = name
        self._run_id = run_id
        self._keys = keys
        self._stored = {sample.key: sample for sample in stored}
        self._checks = checks_among()
        self._gate = gate
        self._signatures: list[list[Any]] = [[] for _ in self._checks]  # per check, of accepted samples
        self._considered = 0  # plans
        self.accepted = 0
        self.unplaced: Counter[str] = Counter()
        self.unreadable: set[str] = set()

    def consider(self, upto: int) -> None:
        """Count what is stored of the plans before number `upto`, in their order."""
        for key in self._keys[self._considered : upto]:
            sample = self._stored.get(key)
            if sample is not None and sample.passed:
                pixels = read_bytes_as_pixels(self._store.blob(sample.blob))
                self._accept(self._signatures_of(pixels, sample.painted))
        self._considered = upto

    def save(self, done: Done) -> None:
        """Judge a plan's result among those before it and store it; a plan without a place leaves nothing."""
        item, value = cast(SynthesisItem, done.item), cast(Painted, done.value)
        self.consider(item.number)
        self._considered = item.number + 1
        self.unreadable.update(value.unreadable)
        if value.png is None:
            self.unplaced[value.reason] += 1
            return
        pixels = read_bytes_as_pixels(value.png)
        own = self._signatures_of(pixels, value.painted)
        compared = (
            check.judge(signature, kept, self._gate.bounds[check.name])
            for check, signature, kept in zip(self._checks, own, self._signatures, strict=True)
        )
        sample = Sample(
            name=self._name,
            blob=self._store.put_blob(value.png),
            width=pixels.shape[1],
            height=pixels.shape[0],
            recipe=item.recipe,
            group=item.failure.group,
            scene_image_id=value.scene_image_id,
            exemplar_image_id=item.failure.image.id,
            outcome_id=item.failure.outcome.id,
            painted=value.painted,
            annotations=value.annotations,
            seed=value.seed,
            number=item.number,
            key=done.key,
            verdicts=(*value.verdicts, *compared),
        )
        self._store.put_sample(self._run_id, sample)
        self._stored[done.key] = sample
        if sample.passed:
            self._accept(own)

    def samples(self, upto: int) -> list[Sample]:
        """The samples of the plans before number `upto`, in their order."""
        return [self._stored[key] for key in self._keys[:upto] if key in self._stored]

    def _signatures_of(self, pixels: Any, painted: Any) -> list[Any]:
        image = image_tensor(pixels)
        return [check.signature(image, painted) for check in self._checks]

    def _accept(self, signatures: Sequence[Any]) -> None:
        self.accepted += 1
        for kept, signature in zip(self._signatures, signatures, strict=True):
            kept.append(signature)
