"""How many masked images fit into one forward pass.

In: a detector, one image, the device's free memory. Out: a batch size. What autograd keeps for one image is
counted on one forward pass (its saved tensors, the network's own weights aside); a quarter of the free memory
may hold twice that, since backward passes and temporary tensors need room too. On a processor a batch keeps
`MOST_KEPT` at most, however much is free: a larger one is no faster there.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from curator.detect.base import Detector
from store.records import Pin

MOST = {"cpu": 16, "cuda": 64}
"""Largest batch chosen per kind of device: beyond it nothing gets faster."""
MOST_KEPT = {"cpu": 512 << 20}
"""Bytes that the masked images of a batch may keep for their backward passes, per kind of device; the highest
memory of a pass is two to three times that."""
_SHARE = 4
_ROOM = 2
_UNKNOWN = 2 << 30  # bytes, where the system does not say how much is free


def saved_bytes(detector: Detector, image: Tensor, pin: Pin) -> int:
    """Bytes that one masked image keeps for its backward pass; 0 for a detector without gradients.

    Args:
        image: x (3, h, w) in the pin's input frame.
    """
    modules = detector.modules()
    if modules is None:
        return 0
    own = {parameter.untyped_storage().data_ptr() for parameter in modules.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    u = image[None].clone().requires_grad_(True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        candidates = detector.candidates(u, pin, index=torch.zeros(1, dtype=torch.int64, device=u.device))
        values = candidates.scores.sum()  # alive until here: storages must not be reused while counting
    del values
    return sum(kept.values())


def free_bytes(device: torch.device, *, meminfo: Path = Path("/proc/meminfo")) -> int:
    """Memory that is free on a device: CUDA's own figure, or the system's; a guess of 2 GiB elsewhere."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "cpu" and meminfo.is_file():
        for line in meminfo.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return _UNKNOWN


def fitting_batch(per_image: int, free: int, device: torch.device) -> int:
    """Masked images per pass: what fits into a quarter of `free` bytes and into `MOST_KEPT`, from 1 to
    `MOST`."""
    most = MOST.get(device.type, MOST["cpu"])
    if per_image <= 0:
        return most
    kept = min(free // (_SHARE * _ROOM), MOST_KEPT.get(device.type, free))
    return max(1, min(most, kept // per_image))
