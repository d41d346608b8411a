"""The inpainter without a model: it keeps the composition that it is given, and may blend it.

In: images, holes, compositions. Out: the compositions in the holes; with `blend=poisson` their gradients,
with the colours of the image around them (Perez et al., Poisson Image Editing, SIGGRAPH 2003):

    Omega     what is pasted: the hole's pixels at which the composition differs from the image
    f         the result on Omega, one channel;  f* the image around Omega;  g the composition
    N_p       the 4-neighbours of p inside the image (at the image's border: Neumann)

    for all p in Omega:  sum_{q in N_p} (f_p - f_q)  =  sum_{q in N_p} v_pq   (eq. 7),   f = f* outside Omega
    v_pq = g_p - g_q   where the composition is known on both sides, 0 across an edge where it is cut off

A composition goes on outside the hole only where the caller gives it there; where it is cut off at Omega's
border, nothing says how it would go on, and colours are made equal across the border.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import splu
from torch import Tensor

from curator.errors import InputError, RegistryError
from curator.inpaint.base import Inpainter
from curator.inpaint.crops import check_request, compose
from curator.registry import Spec

BLENDS = ("alpha", "poisson")
_SAME = 1e-6  # below: the composition shows the image


class ComposeInpainter:
    """Returns `initial` in the holes, whatever the strength; prompts, exemplars and seeds change nothing.

    Args:
        blend: "alpha" as composed; "poisson" with its gradients alone.
    """

    def __init__(self, blend: str = "alpha") -> None:
        if blend not in BLENDS:
            raise RegistryError(f"compose: blend: expected one of {', '.join(BLENDS)}, got {blend!r}")
        self.blend = blend
        self.fingerprint = hashlib.sha256(f"compose 1 {blend}".encode()).hexdigest()

    def inpaint(
        self,
        images: Tensor,
        masks: Tensor,
        *,
        initial: Tensor | None = None,
        strength: float = 1.0,
        prompts: Sequence[str] | None = None,
        negative_prompts: Sequence[str] | None = None,
        exemplars: Sequence[Tensor] | None = None,
        seeds: Sequence[int],
    ) -> Tensor:
        """See `curator.inpaint.base.Inpainter`.

        Raises:
            InputError: no `initial`, or shapes that do not fit.
        """
        if initial is None:
            raise InputError(
                "compose: keeps a composition, and nothing is composed here; choose an inpainter that "
                "paints, such as auto:FOLDER_OR_ID or curator:DIR"
            )
        check_request(images, masks, initial=initial, strength=strength, exemplars=exemplars, seeds=seeds)
        if self.blend == "alpha":
            return compose(images, masks, initial)
        out = images.clone()
        for i, mask in enumerate(masks):
            solved = poisson(_array(images[i]), _array(initial[i]), mask.cpu().numpy())
            out[i] = torch.where(mask, torch.from_numpy(solved).to(images), images[i])
        return out


def poisson(
    image: NDArray[np.float64], composed: NDArray[np.float64], hole: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Seamless cloning of `composed` into `image` within `hole`.

    Args:
        image: (3, H, W) RGB [0, 1]. composed: (3, H, W), also outside the hole where it goes on there.
        hole: (H, W).
    Returns:
        (3, H, W) in [0, 1]; what covers the whole image has no border to fit, and comes back as composed.
    """
    out = np.where(hole, composed, image)
    differs = np.abs(composed - image).max(0) > _SAME  # (H, W)
    pasted = hole & differs
    count = int(pasted.sum())
    if count == 0 or pasted.all():
        return np.clip(out, 0, 1)
    number = np.full(hole.shape, -1)
    number[pasted] = np.arange(count)
    diagonal, right = np.zeros(count), np.zeros((count, 3))
    rows, columns = [], []
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
        there = np.roll(pasted, -step, axis)  # is the neighbour q of p in Omega?
        inside = np.ones(hole.shape, bool)
        edge = -1 if step == 1 else 0
        inside[(edge, slice(None)) if axis == 0 else (slice(None), edge)] = False
        p = pasted & inside
        at = number[p]
        diagonal[at] += 1
        guide = (composed - np.roll(composed, -step, axis + 1))[:, p].T  # g_p - g_q, (n, 3)
        known = there[p] | np.roll(differs, -step, axis)[p]
        right[at] += np.where(known[:, None], guide, 0)
        both = there[p]
        rows.append(at[both])
        columns.append(np.roll(number, -step, axis)[p][both])
        right[at[~both]] += np.roll(image, -step, axis + 1)[:, p].T[~both]
    i, j = (np.concatenate([np.arange(count), *parts]) for parts in (rows, columns))
    values = np.concatenate([diagonal, np.full(len(i) - count, -1.0)])
    matrix = coo_matrix((values, (i, j)), shape=(count, count)).tocsc()
    out[:, pasted] = splu(matrix, permc_spec="MMD_AT_PLUS_A").solve(right).T
    return np.clip(out, 0, 1)


def build(spec: Spec, *, steps: int | None = None, device: str = "auto") -> Inpainter:
    """`compose:`; option `blend`."""
    if spec.name:
        raise RegistryError(f"expected compose: or compose:?blend=poisson, without a name, got {spec.text!r}")
    return ComposeInpainter(spec.only(("blend",)).options.get("blend", "alpha"))


def _array(image: Tensor) -> NDArray[np.float64]:
    return image.detach().cpu().double().numpy()
