"""The model and outcomes that later stages start from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curator.errors import InputError
from store.records import ModelRecord, Outcome

if TYPE_CHECKING:
    from store.store import Store


def choose_model(store: Store, spec: str | None) -> ModelRecord:
    """The newest model of the workspace, or the newest that `spec` built.

    Raises:
        InputError: no such model; names `curator detect`.
    """
    models = [model for model in store.models() if spec in (None, model.spec)]
    if not models:
        wanted = f"by {spec}" if spec else "by any detector"
        raise InputError(
            f"no detections {wanted} in this workspace; "
            f"run `curator detect --detector {spec or 'SPEC'}` first"
        )
    return models[0]


def diagnosed(store: Store, spec: str | None) -> tuple[ModelRecord, list[Outcome]]:
    """The model and outcomes of the current diagnosis.

    Raises:
        InputError: there is none, or none with the detector `spec`.
    """
    outcomes = store.outcomes()
    known = {outcome.model_id for outcome in outcomes}
    for model in store.models():
        if model.id in known and spec in (None, model.spec):
            return model, [outcome for outcome in outcomes if outcome.model_id == model.id]
    named = f" of {spec}" if spec else ""
    raise InputError(f"explain: expected a stored diagnosis{named}, found none; run curator diagnose first")
