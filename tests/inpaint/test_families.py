"""One suite for every inpainter: tiny models of the real classes, built and saved here.

Bit-identity outside the hole, seeds, batch mates, odd sizes, a hole of one pixel and one over the whole
image, the exemplar's influence, and the scale of strengths from the composition itself to painting from
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from curator.errors import InputError
from curator.inpaint.backends import build_inpainter
from curator.inpaint.base import Inpainter
from curator.inpaint.families import FAMILIES as TABLE
from curator.inpaint.families import family_of

pytest.importorskip("transformers")
from tests.inpaint.tiny_families import FAMILIES, SIZE, save

BY_EXEMPLAR = {"curator", "flux-kontext", "flux2-klein", "paint-by-example"}
OURS = {"compose", "poisson", "curator"}


@dataclass
class Case:
    """An inpainter, and a problem of odd size: a usual hole, one of one pixel, the whole image."""

    name: str
    inpainter: Inpainter
    images: torch.Tensor
    masks: torch.Tensor
    initial: torch.Tensor
    exemplars: list[torch.Tensor]
    seeds = (1, 2, 3)

    def paint(
        self,
        *numbers: int,
        strength: float = 1.0,
        shift: int = 0,
        exemplars: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Paint some of the images."""
        shown = self.exemplars if exemplars is None else exemplars
        chosen = list(numbers)
        return self.inpainter.inpaint(
            self.images[chosen],
            self.masks[chosen],
            initial=self.initial[chosen],
            strength=strength,
            prompts=["a cat" for _ in chosen],
            exemplars=[shown[i] for i in chosen],
            seeds=[self.seeds[i] + shift for i in chosen],
        )

    def far(self, painted: torch.Tensor) -> float:
        """Mean distance of image 0 from its composition inside the hole."""
        return float((painted[0] - self.initial[0]).abs()[:, self.masks[0]].mean())


@pytest.fixture(scope="module", params=["compose", "poisson", "curator", *FAMILIES])
def case(request: pytest.FixtureRequest, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Every inpainter in turn."""
    name: str = request.param
    if name in OURS:
        spec = {"compose": "compose:", "poisson": "compose:?blend=poisson"}.get(
            name, f"curator:{tiny_folder}"
        )
    else:
        spec = f"auto:{save(name, tmp_path_factory.mktemp(name))}?size={SIZE}"
    random = torch.Generator().manual_seed(2)
    images = torch.rand(3, 3, 51, 62, generator=random) * 0.5 + 0.25
    masks = torch.zeros(3, 51, 62, dtype=torch.bool)
    masks[0, 8:30, 20:45] = True
    masks[0, :4, 57:] = True  # far away, at the image's corner
    masks[1, 50, 61] = True
    masks[2] = True
    initial = images.clone()
    initial[:, :, 12:26, 24:40] = torch.tensor([0.9, 0.1, 0.1])[None, :, None, None]
    initial[1, :, 50, 61] = 0.1
    exemplars = [torch.rand(3, h, w, generator=random) for h, w in ((24, 40), (33, 8), (17, 17))]
    return Case(name, build_inpainter(spec, steps=3, device="cpu"), images, masks, initial, exemplars)


def test_outside_stays_bit_for_bit_and_inside_changes(case: Case) -> None:
    before = case.images.clone()
    painted = case.paint(0, 1, 2)
    assert torch.equal(case.images, before)
    outside = ~case.masks[:, None].expand_as(painted)
    assert torch.equal(painted[outside], case.images[outside])
    assert bool(torch.isfinite(painted).all())
    assert float(painted.min()) >= 0
    assert float(painted.max()) <= 1
    for i in range(3):
        assert not torch.equal(painted[i], case.images[i])
    # A result is its own seed's, whatever its batch mates are.
    assert torch.equal(painted[0], case.paint(0)[0])
    if case.name not in ("compose", "poisson"):
        assert not torch.equal(painted[0], case.paint(0, shift=5)[0])


def test_the_scale_of_strengths_begins_at_the_composition(case: Case) -> None:
    kept = case.paint(0, 1, 2, strength=0)
    if case.name == "poisson":  # its business is to change colours
        assert case.far(kept) > 0.05
        return
    assert torch.equal(kept, torch.where(case.masks[:, None], case.initial, case.images))
    if case.name == "compose":
        return
    some, all_of_it = case.paint(0, strength=0.34), case.paint(0)
    outside = ~case.masks[0].expand_as(some[0])
    assert torch.equal(some[0][outside], case.images[0][outside])
    assert case.far(kept) < case.far(some) < case.far(all_of_it)


def test_the_exemplar_matters_where_the_family_takes_one(case: Case) -> None:
    one = case.paint(0)
    other = case.paint(0, exemplars=[1 - exemplar for exemplar in case.exemplars])
    assert torch.equal(one, other) == (case.name not in BY_EXEMPLAR)


def test_the_table_of_families_names_classes_of_diffusers() -> None:
    import diffusers

    for family in TABLE:
        kind = getattr(diffusers, family.pipeline)
        assert family_of(kind) is family
        for model in family.models:
            assert family_of(getattr(diffusers, model)) is family


def test_a_family_without_a_strength_says_so(tmp_path: Path) -> None:
    """Paint-by-Example, asked as if nothing were known of its latents."""
    folder = save("paint-by-example", tmp_path)
    inpainter = build_inpainter(f"auto:{folder}?size={SIZE}", steps=2, device="cpu")
    inpainter.family = replace(inpainter.family, restarts=False)  # type: ignore[attr-defined]
    image, mask = torch.rand(1, 3, 40, 40), torch.zeros(1, 40, 40, dtype=torch.bool)
    mask[0, 10:20, 10:20] = True
    with pytest.raises(InputError, match=r"has no strength; expected strength 0 .* or 1") as caught:
        inpainter.inpaint(image, mask, initial=1 - image, strength=0.5, exemplars=[image[0]], seeds=[1])
    assert "\n" not in str(caught.value)
