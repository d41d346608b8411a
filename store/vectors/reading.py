"""Rows of the columns as `BoxRows`.

In: places and row numbers. Out: records.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.records import CLASSES, BoxesKind, BoxRows, ClassRows, Ints, SpaceShape
from store.vectors.codes import columns, decode_boxes, decode_classes
from store.vectors.places import Places


class BoxReader:
    """The files of a kind of a space, as far as they count.

    Args:
        folder: of the space.
    """

    def __init__(self, folder: Path, shape: SpaceShape, kind: BoxesKind, places: Places) -> None:
        self.places = places
        self._shape = shape
        self._files = {
            column.name: (column.file(folder, kind), places.committed(column.group))
            for column in columns(shape, kind)
        }

    def read(self, rows: Ints, owners: Ints) -> BoxRows:
        """Boxes by row number.

        Args:
            rows: (N,) numbers of rows. owners: (N,) the places of their images.
        Raises:
            CorruptionError: a file is shorter than recorded.
        """
        images, image_places = np.unique(owners, return_inverse=True)
        sizes = np.stack([self.places.heights[owners], self.places.widths[owners]], axis=1)
        offset = rows - self.places.first[owners]
        chosen = offset < self.places.candidates[owners]
        labels = np.full((len(rows), CLASSES), -1, np.int64)
        scores = np.zeros((len(rows), CLASSES), np.float32)
        candidates = (self.places.first_candidate[owners] + offset)[chosen]
        labels[chosen], scores[chosen] = decode_classes(
            *(self._column(name, candidates) for name in ("classes", "best", "others"))
        )
        return BoxRows(
            image_ids=self.places.image_ids[owners],
            sizes=sizes,
            boxes=decode_boxes(self._column("corners", rows), sizes),
            rows=rows,
            labels=labels,
            scores=scores,
            views={view: self._column(f"view.{view}", rows) for view in self._shape.views},
            image_views={view: self._column(f"image.{view}", images) for view in self._shape.image_views},
            image_places=image_places.astype(np.int64),
            outcome_ids=self._ids("outcome", rows),
            attribution_ids=self._ids("attribution", rows),
        )

    def classes(self, owners: Ints) -> ClassRows:
        """What the detector says of all candidates of the images at some places (M,).

        Raises:
            CorruptionError: a file is shorter than recorded.
        """
        rows = self.places.rows(owners, candidates=True)
        labels, scores = decode_classes(*(self._column(name, rows) for name in ("classes", "best", "others")))
        image_ids = np.repeat(self.places.image_ids[owners], self.places.candidates[owners])
        return ClassRows(image_ids=image_ids, labels=labels, scores=scores)

    def _column(self, name: str, rows: Ints) -> NDArray[Any]:
        file, count = self._files[name]
        return file.read(rows, count)

    def _ids(self, name: str, rows: Ints) -> Ints:
        if name not in self._files:
            return np.full(len(rows), -1, np.int64)
        return self._column(name, rows)[:, 0].astype(np.int64)
