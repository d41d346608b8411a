"""The part of the Store for detections, outcomes and explanations, under the contract of `store.py`."""

from __future__ import annotations

from collections.abc import Sequence

from store import evidence, findings, outcome_pages
from store.outcome_pages import Place
from store.records import (
    Attribution,
    AttributionKey,
    DetectionSet,
    ModelRecord,
    Outcome,
    OutcomeFilter,
    OutcomeKind,
    OutcomeSort,
    Region,
    Segmentation,
)
from store.session import Database


class StoredFindings:
    """Reads and writes detections, outcomes and explanations."""

    _database: Database
    _run_id: int | None

    def put_model(self, spec: str, fingerprint: str, classes: Sequence[str]) -> int:
        return findings.put_model(self._database, spec, fingerprint, classes)

    def model(self, model_id: int) -> ModelRecord:
        return findings.models(self._database, model_id)[0]

    def models(self) -> list[ModelRecord]:
        """Newest first."""
        return findings.models(self._database)

    def put_detections(self, run_id: int, sets: Sequence[DetectionSet]) -> list[int]:
        return findings.put_detections(self._database, run_id, sets)

    def detections(
        self, model_id: int, image_ids: Sequence[int], *, config_key: str | None = None
    ) -> dict[int, DetectionSet]:
        """The detection set of each image by this model's weights, whatever spec named them: of one
        configuration, or without `config_key` of the one that was run last."""
        return findings.detections(self._database, model_id, image_ids, config_key)

    def count_labels(self, model_id: int, image_ids: Sequence[int], *, config_key: str) -> dict[int, int]:
        """Class of the detector -> number of detections of these images, of one configuration; what
        `detections` gives, counted without reading more than labels."""
        return findings.count_labels(self._database, model_id, image_ids, config_key)

    def put_outcomes(
        self, run_id: int, image_id: int, outcomes: Sequence[Outcome], *, item_key: str
    ) -> list[int]:
        """`item_key` is the key of the "diagnose" item that made them; they are read once it is recorded as
        done."""
        return findings.put_outcomes(self._database, run_id, image_id, outcomes, item_key=item_key)

    def outcomes(
        self,
        *,
        run_id: int | None = None,
        model_id: int | None = None,
        kind: OutcomeKind | None = None,
        cause: str | None = None,
        category: str | None = None,
        ids: Sequence[int] | None = None,
    ) -> list[Outcome]:
        """Outcomes by image and id. Without `run_id` or `ids`: those of the current diagnosis, which is the
        configuration of the current "diagnose" run, over the images whose role is mine."""
        return findings.outcomes(
            self._database,
            run_id=run_id,
            model_id=model_id,
            kind=kind,
            cause=cause,
            category=category,
            ids=ids,
        )

    def outcome_counts(self) -> list[tuple[str, str | None, str, int]]:
        """(kind, cause, class, number) of the current diagnosis."""
        return outcome_pages.outcome_counts(self._database)

    def outcome_places(
        self, chosen: OutcomeFilter, sort: OutcomeSort, step: int
    ) -> tuple[int, list[Place]]:
        """How many outcomes of the current diagnosis there are, and where every page of `step` begins."""
        return outcome_pages.outcome_places(self._database, chosen, sort, step)

    def outcome_page(
        self,
        chosen: OutcomeFilter,
        sort: OutcomeSort,
        *,
        at: Place | None = None,
        limit: int,
        past: bool = False,
        backwards: bool = False,
    ) -> list[Outcome]:
        """One page of them, from a place on (see `store.outcome_pages`)."""
        return outcome_pages.outcome_page(
            self._database, chosen, sort, at=at, limit=limit, past=past, backwards=backwards
        )

    def put_segmentation(self, segmentation: Segmentation) -> int:
        return evidence.put_segmentation(self._database, segmentation, self._run_id)

    def segmentation(self, segmentation_id: int) -> Segmentation:
        return evidence.segmentation(self._database, segmentation_id)

    def put_attributions(self, run_id: int, attributions: Sequence[Attribution]) -> list[int]:
        return evidence.put_attributions(self._database, run_id, attributions)

    def attributions(
        self, *, outcome_ids: Sequence[int] | None = None, config_key: str | None = None
    ) -> list[Attribution]:
        """At most one per outcome, by outcome: of the current explain run's configuration, or of the one
        named. Without `outcome_ids` those of the current diagnosis."""
        return evidence.attributions(self._database, outcome_ids=outcome_ids, config_key=config_key)

    def attribution_keys(
        self, *, outcome_ids: Sequence[int] | None = None, config_key: str | None = None
    ) -> list[AttributionKey]:
        """As `attributions`, without the maps."""
        return evidence.attribution_keys(self._database, outcome_ids=outcome_ids, config_key=config_key)

    def put_regions(self, run_id: int, regions: Sequence[Region]) -> list[int]:
        return evidence.put_regions(self._database, run_id, regions)

    def regions(self, *, attribution_ids: Sequence[int] | None = None) -> list[Region]:
        """Regions of attributions, by attribution; without ids those of `attributions()`."""
        if attribution_ids is None:
            attribution_ids = [found.id for found in self.attribution_keys()]
        return evidence.regions(self._database, attribution_ids)
