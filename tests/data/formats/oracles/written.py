"""Two images that the tools' packages were given; a test writes them again."""

from __future__ import annotations

import numpy as np

from curator.data.formats.base import OutputImage
from store.images import encode_png
from store.records import NewAnnotation

NAMES = ("car", "lamp post", "größe & <b>")
OBJECTS = (
    NewAnnotation(category="car", box=(1.5, 2.25, 30.125, 20.0), attributes={"score": 0.75, "kind": "van"}),
    NewAnnotation(category="lamp post", box=(0.0, 0.0, 40.0, 30.0), difficult=True),
    NewAnnotation(category="größe & <b>", box=(10.333333, 5.1, 11.0, 29.9)),
)


def images() -> list[OutputImage]:
    data = encode_png(np.full((30, 40, 3), 7, np.uint8))
    return [
        OutputImage(
            name=name,
            data=data,
            suffix=".png",
            width=40,
            height=30,
            annotations=objects,
            lineage={"role": "train"},
        )
        for name, objects in (("a-0123456789ab", OBJECTS), ("b-ba9876543210", OBJECTS[:1]))
    ]
