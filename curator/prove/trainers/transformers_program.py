"""Train a detection model of `transformers` on a COCO folder; what `--trainer hf:` runs.

    python -m curator.prove.trainers.transformers_program --data FOLDER --spec hf:FOLDER --out FOLDER ...

In: a folder with `annotations.json` and `images/`, a folder of `save_pretrained`. Out: `OUT/model`, the same
with trained weights (safetensors). Nothing is downloaded, reported or evaluated on the way.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from curator.prove.trainers.program_arguments import program_arguments, read_settings
from curator.registry import Spec


def main(arguments: Sequence[str] | None = None) -> None:
    """Train."""
    given = program_arguments(arguments, __doc__ or "")
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    train(given)


def train(given: argparse.Namespace) -> None:
    """Read, train, write."""
    from transformers import (
        AutoImageProcessor,
        AutoModelForObjectDetection,
        Trainer,
        TrainingArguments,
    )

    weights = Spec.parse(given.spec).name
    model = AutoModelForObjectDetection.from_pretrained(
        weights, use_safetensors=True, trust_remote_code=False
    )
    processor: Any = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
        weights, trust_remote_code=False
    )
    data = CocoImages(given.data, processor, model.config.label2id)
    settings = {
        "output_dir": str(given.out / "trainer"),
        "max_steps": given.steps,
        "per_device_train_batch_size": given.batch,
        "learning_rate": given.learning_rate,
        "seed": given.seed,
        "data_seed": given.seed,
        "save_strategy": "no",
        "report_to": [],
        "remove_unused_columns": False,
        "use_cpu": given.device == "cpu",
        "logging_steps": 10,
        "disable_tqdm": True,
        "max_grad_norm": 0.1,
        **read_settings(given.set),
    }
    trainer = Trainer(
        model=model, args=TrainingArguments(**settings), train_dataset=data, data_collator=data.collate
    )
    trainer.train()
    folder = given.out / "model"
    model.save_pretrained(folder, safe_serialization=True)
    processor.save_pretrained(folder)
    shutil.rmtree(given.out / "trainer", ignore_errors=True)


class CocoImages:
    """A map-style data set of what a model's `forward` takes.

    Args:
        folder: with annotations.json and images/. label_ids: class name -> the model's class.
    """

    def __init__(self, folder: Path, processor: Any, label_ids: Mapping[str, int]) -> None:
        table = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
        names = {category["id"]: category["name"] for category in table["categories"]}
        self.folder, self.processor = folder, processor
        self.images = table["images"]
        self.objects: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in self.images}
        for annotation in table["annotations"]:
            self.objects[annotation["image_id"]].append(
                {
                    "image_id": annotation["image_id"],
                    "category_id": label_ids[names[annotation["category_id"]]],
                    "bbox": annotation["bbox"],
                    "area": annotation["bbox"][2] * annotation["bbox"][3],
                    "iscrowd": 0,
                }
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Any]]:
        """An RGB picture and its objects as COCO writes them."""
        from PIL import Image

        image = self.images[index]
        with Image.open(self.folder / "images" / image["file_name"]) as opened:
            picture = opened.convert("RGB")
        return picture, {"image_id": image["id"], "annotations": self.objects[image["id"]]}

    def collate(self, batch: Sequence[tuple[Any, dict[str, Any]]]) -> dict[str, Any]:
        """A batch as the model's own processor makes it."""
        pictures, targets = zip(*batch, strict=True)
        made = self.processor(images=list(pictures), annotations=list(targets), return_tensors="pt")
        return dict(made)


if __name__ == "__main__":
    main()
