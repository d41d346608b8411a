"""The part of the Store for selections, samples, versions and trials, under the contract of `store.py`."""

from __future__ import annotations

from collections.abc import Sequence

from store import feedback, label_edits, products, sample_words, versions
from store.blobs import BlobStore
from store.label_edits import LabelVersion
from store.records import (
    Annotation,
    DatasetVersion,
    Feedback,
    NewAnnotation,
    Sample,
    Selection,
    Trial,
    Verdict,
)
from store.session import Database


class StoredProducts:
    """Reads and writes blobs, selections, samples, dataset versions and trials."""

    _database: Database
    _blobs: BlobStore

    def put_selection(self, run_id: int, selection: Selection) -> int:
        """Store or replace by name (a changed selection under the same name replaces it, atomically)."""
        return products.put_selection(self._database, run_id, selection)

    def selection(self, name: str) -> Selection:
        return products.selections(self._database, name)[0]

    def selections(self) -> list[Selection]:
        return products.selections(self._database)

    def put_feedback(self, run_id: int, said: Sequence[Feedback]) -> None:
        """Store what people say of hits; what was said of the same hit before is replaced."""
        feedback.put_feedback(self._database, run_id, said)

    def remove_feedback(self, selection: str, image_ids: Sequence[int]) -> None:
        """Forget what was said of some hits."""
        feedback.remove_feedback(self._database, selection, image_ids)

    def feedback(self, selection: str) -> list[Feedback]:
        """What was said of a selection's hits, past ones too, by image."""
        return feedback.feedback(self._database, selection)

    def put_blob(self, data: bytes) -> str:
        return self._blobs.put(data)

    def blob(self, sha256: str) -> bytes:
        return self._blobs.get(sha256)

    def put_sample(self, run_id: int, sample: Sample) -> int:
        return products.put_sample(self._database, run_id, sample)

    def put_verdicts(self, run_id: int, sample_key: str, verdicts: Sequence[Verdict]) -> None:
        products.put_verdicts(self._database, run_id, sample_key, verdicts)

    def put_word(self, run_id: int, sample_id: int, accepted: bool | None, reason: str = "") -> bool | None:
        """Store what a person says of a sample, which counts more than the gate's verdicts; None takes it
        back. Returns what was said before."""
        return sample_words.put_word(self._database, run_id, sample_id, accepted, reason)

    def samples(
        self, *, name: str | None = None, accepted: bool | None = None, config_key: str | None = None
    ) -> list[Sample]:
        """Samples of a named batch (`Sample.name`), all without a name, by plan: those of the batch's current
        run, which end where its budget is accepted; or all of one configuration."""
        return products.samples(self._database, name=name, accepted=accepted, config_key=config_key)

    def sample_blobs(self) -> set[str]:
        """The blobs of all samples, of whatever settings."""
        return products.sample_blobs(self._database)

    def put_version(self, run_id: int, version: DatasetVersion) -> int:
        return products.put_version(self._database, run_id, version)

    def version(self, name: str) -> DatasetVersion:
        return products.versions(self._database, name)[-1]

    def versions(self) -> list[DatasetVersion]:
        return products.versions(self._database)

    def version_heads(self, *, name: str | None = None, number: int | None = None) -> list[DatasetVersion]:
        """Versions without the ids of their images and samples: all, those of a name, or that of a number."""
        return versions.version_heads(self._database, name=name, number=number)

    def version_image_ids(self, number: int) -> tuple[int, ...]:
        return versions.version_image_ids(self._database, number)

    def put_labels(self, run_id: int, image_id: int, objects: Sequence[NewAnnotation], base: int) -> int:
        """A person's edit of the labels of a training or mined image, made from version `base`; returns the
        newest version. Raises `ConflictError` where there is a newer one, `AccessError` for other images."""
        return label_edits.put_labels(self._database, run_id, image_id, objects, base)

    def label_versions(self, image_id: int) -> list[LabelVersion]:
        """Versions of an image's labels with author and time, newest first; access as in `put_labels`."""
        return label_edits.label_versions(self._database, image_id)

    def labels_of_version(self, image_id: int, version: int) -> tuple[Annotation, ...]:
        return label_edits.labels_of_version(self._database, image_id, version)

    def put_trial(self, run_id: int, trial: Trial) -> int:
        return products.put_trial(self._database, run_id, trial)

    def trials(self, verification: str | None = None) -> list[Trial]:
        return products.trials(self._database, verification)
