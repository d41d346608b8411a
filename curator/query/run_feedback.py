"""`feedback`: what people say of a selection's hits; `query --refine` learns from it.

In: a `FeedbackConfig`. Out: counts and the state of every hit.
"""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING, Any

from curator.errors import InputError
from curator.jobs.stage import StageResult, recorded_run
from curator.query.feedback import ACCEPTED, LABELLED, unmarked
from curator.query.settings import FeedbackConfig, QueryConfig
from store.records import Feedback, Hit, Selection

if TYPE_CHECKING:
    from store.store import Store

STAGE = "feedback"
OPEN = "open"


def feedback(store: Store, config: FeedbackConfig) -> StageResult:
    """Store what is said of hits; without ids it only tells what was said.

    Returns:
        with a summary: "selection", "accepted", "rejected" (image ids, of hits that went too), "hits" (rank,
        image, uri, box, verdict: accepted, rejected, labelled or open), "next": the command that refines.
    Raises:
        InputError: no such selection; an image that is no hit of it.
    """
    selection = store.selection(config.selection)
    known: dict[int, Hit | Feedback] = {own.image_id: own for own in store.feedback(config.selection)}
    known |= {hit.image_id: hit for hit in selection.hits}
    strange = sorted({*config.accept, *config.reject, *config.clear} - set(known))
    if strange:
        raise InputError(
            f"feedback: expected ids of images that {config.selection!r} holds, got "
            f"{', '.join(map(str, strange))}; curator feedback {shlex.quote(config.selection)} lists them"
        )
    said = [(image, True) for image in config.accept] + [(image, False) for image in config.reject]
    if not said and not config.clear:
        return StageResult(stage=STAGE, run_id=0, summary=_summary(store, config.selection))
    with recorded_run(store, STAGE, config, scope=config.selection) as (run_id, counts):
        counts["done"] = len(said) + len(config.clear)
        with store.transaction():
            store.put_feedback(
                run_id,
                [
                    Feedback(
                        selection=config.selection,
                        image_id=image,
                        accepted=accepted,
                        group=known[image].group,
                        box=known[image].box,
                    )
                    for image, accepted in said
                ],
            )
            store.remove_feedback(config.selection, config.clear)
    return StageResult(
        stage=STAGE,
        run_id=run_id,
        done=counts["done"],
        summary=_summary(store, config.selection),
    )


def _summary(store: Store, name: str) -> dict[str, Any]:
    selection = store.selection(name)
    ids = [hit.image_id for hit in selection.hits]
    said = {own.image_id: own.accepted for own in store.feedback(name)}
    uris = {image.id: image.uri for image in store.images(reader="query", ids=ids)}
    leaks = store.leaks(ids)
    known = store.annotations([image for image in ids if image not in leaks], reader="query")
    words: dict[int, str] = {image: LABELLED for image, own in known.items() if own.status == "human"}
    words |= {image: ACCEPTED if accepted else "rejected" for image, accepted in said.items()}
    return {
        "selection": name,
        "accepted": sorted(image for image, accepted in said.items() if accepted),
        "rejected": sorted(image for image, accepted in said.items() if not accepted),
        "next": _again(selection),
        "hits": [
            {
                "rank": hit.rank,
                "image": hit.image_id,
                "uri": uris.get(hit.image_id, ""),
                "verdict": words.get(hit.image_id, OPEN),
                "box": list(hit.box),
                "reason": unmarked(hit.reason),
            }
            for hit in selection.hits
        ],
    }


def _again(selection: Selection) -> str:
    """The command that refines, with the options that made the selection."""
    config = selection.config
    words = ["curator", "query", "--name", selection.name]
    for field in dataclasses.fields(QueryConfig):
        value = config.get(field.name, field.default)
        if field.name in ("name", "refine", "preview", "device", "like", "text") or value == field.default:
            continue
        if value is True:
            words.append(f"--{field.name.replace('_', '-')}")
            continue
        text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        if text:
            words += [f"--{field.name.replace('_', '-')}", text]
    return shlex.join([*words, "--refine"])
