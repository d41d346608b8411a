"""`export` with what it needs of the current diagnosis: the model that pre-annotates, and its class map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curator.data import run_export
from curator.data.run_additions import PreAnnotator
from curator.data.settings import ExportConfig
from curator.diagnose.run_current import class_map, working_model
from curator.jobs.stage import StageResult

if TYPE_CHECKING:
    from store.store import Store


def export(store: Store, config: ExportConfig) -> StageResult:
    """Write the augmented training set; see `curator.data.run_export.export`.

    The diagnosed model labels what no human has labelled, or where nothing is diagnosed the last that ran.

    Raises:
        InputError, StageError: as there, and a class map with unknown names.
    """
    model = working_model(store)
    if model is None:
        return run_export.export(store, config)
    annotator = PreAnnotator(model=model, classes=class_map(store, model.classes, config.class_map))
    return run_export.export(store, config, annotator=annotator)
