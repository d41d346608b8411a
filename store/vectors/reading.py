"""Rows of the columns as `BoxRows`.

In: places, row numbers and the sizes of images. Out: records.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from store.records import CLASSES, BoxesKind, BoxRows, Ints, SpaceShape
from store.vectors.codes import columns, decode_boxes, decode_classes
from store.vectors.places import Places
from store.vectors.tables import image_sizes


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

    def read(self, connection: Connection, rows: Ints, owners: Ints) -> BoxRows:
        """Boxes by row number.

        Args:
            rows: (N,) numbers of rows. owners: (N,) the places of their images.
        Raises:
            CorruptionError: a file is shorter than recorded.
        """
        images, image_places = np.unique(owners, return_inverse=True)
        image_ids = self.places.image_ids[images]
        sizes = image_sizes(connection, image_ids)[image_places]
        offset = rows - self.places.first[owners]
        chosen = offset < self.places.candidates[owners]
        labels = np.full((len(rows), CLASSES), -1, np.int64)
        scores = np.zeros((len(rows), CLASSES), np.float32)
        candidates = (self.places.first_candidate[owners] + offset)[chosen]
        labels[chosen], scores[chosen] = decode_classes(
            *(self._column(name, candidates) for name in ("classes", "best", "others"))
        )
        return BoxRows(
            image_ids=image_ids[image_places],
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

    def _column(self, name: str, rows: Ints) -> NDArray[Any]:
        file, count = self._files[name]
        return file.read(rows, count)

    def _ids(self, name: str, rows: Ints) -> Ints:
        if name not in self._files:
            return np.full(len(rows), -1, np.int64)
        return self._column(name, rows)[:, 0].astype(np.int64)
