"""Boxes and arrays as the other nouns spell them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BoxTuple = tuple[float, float, float, float]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
