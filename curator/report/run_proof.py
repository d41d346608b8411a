"""What the report shows of verifications and loops: tables, curves, bars, objects fixed and broken."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from curator.page import Bars, Curves, Picture, Table
from store.images import read_bytes_as_pixels
from store.records import Trial

if TYPE_CHECKING:
    from curator.prove.comparisons import Comparison
    from store.store import Store

    Proven = tuple[list[Trial], Comparison | None]

TRUTH = "#2ca02c"  # colour of a labelled box


def proven_in(store: Store) -> dict[str, Proven]:
    """Verification -> its trials and what they say of the arms."""
    from curator.prove.run_compared import compare_stored

    trials = store.trials()
    own = {
        name: [trial for trial in trials if trial.verification == name]
        for name in dict.fromkeys(trial.verification for trial in trials)
    }
    return {name: (of_name, compare_stored(store, of_name)) for name, of_name in own.items()}


def verifications(store: Store, proven: Mapping[str, Proven]) -> tuple[Table, ...]:
    from curator.prove.comparisons import advice, images_for_the_same
    from curator.prove.run_compared import groups_stored
    from curator.prove.trial_tables import (
        difference_note,
        difference_table,
        group_table,
        quality_table,
        trial_table,
    )
    from curator.prove.trials import can_show

    tables: list[Table] = []

    def show(title: str, made: tuple[Sequence[str], Sequence[Sequence[str]]], note: str) -> None:
        columns, rows = made
        if rows:
            shown = tuple(tuple(row) for row in rows)
            tables.append(Table(title=title, columns=tuple(columns), rows=shown, note=note))

    for name, (own, compared) in proven.items():
        show(
            f"Verification on the holdout: {name}",
            trial_table(own, compared),
            "Each figure is read twice, the worse stands: at the base's threshold; and objects at the base's "
            "number of false positives, false positives at its number of found objects.",
        )
        if compared is not None:
            run = store.current_run("verify", name)
            base = own[-1].metrics["base"]
            notes = [
                "95% intervals over images and training seeds; * differs from zero at 5% with Holm's "
                "correction over the arms",
                difference_note(compared),
                *(
                    [run.facts.get("drawn_from", ""), *run.facts.get("stopped", [])]
                    if run is not None
                    else []
                ),
                *images_for_the_same(compared, own),
                *compared.notes,
                f"{base['missed']} missed objects: {can_show(base)}",
                advice(compared, own),
            ]
            said = ". ".join(filter(None, notes))
            show(f"Differences between arms: {name}", difference_table(compared), f"{said}.")
        show(
            f"The detectors themselves: {name}",
            quality_table(own),
            "AP and AR are means over the IoU .5 to .95; the calibration error is how far scores are from "
            "the share of detections that is right. Intervals are over seeds.",
        )
        show(
            f"FN fixed by class, condition and cause: {name}",
            group_table(groups_stored(store, own)),
            "Groups with 30 missed objects or more.",
        )
    return tuple(tables)


def rounds(store: Store) -> tuple[Table, ...]:
    """The history of every `curator loop`."""
    from curator.prove.run_rounds import COLUMNS, loops, round_rows

    return tuple(
        Table(
            title=f"Rounds: {name}",
            columns=COLUMNS,
            rows=tuple(round_rows(history)),
            note="Failures of the mined images after every round; the change with its interval over images. "
            "Part of it is what longer training alone gives: verify tells them apart, on the holdout.",
        )
        for name, history in loops(store).items()
    )


def galleries(store: Store) -> tuple[tuple[str, tuple[Picture, ...]], ...]:
    """Objects of the holdout that retraining fixed, broke and still misses."""
    found: dict[tuple[str, str, str], list[Picture]] = defaultdict(list)
    for name in dict.fromkeys(trial.verification for trial in store.trials()):
        run = store.current_run("verify", name)
        for crop in run.facts.get("gallery", []) if run is not None else []:
            before, after = (f"{v:.2f}" if v >= 0 else "none" for v in (crop["before"], crop["after"]))
            found[name, crop["arm"], crop["kind"]].append(
                Picture(
                    pixels=read_bytes_as_pixels(store.blob(crop["blob"])),
                    boxes=((tuple(crop["box"]), TRUTH),),
                    caption=f"{crop['class']}, score {before} to {after}, "
                    f"in {crop['seeds']} of {crop['trials']} trainings",
                )
            )
    said = {"fixed": "fixed by", "broken": "broken by", "still missed": "still missed after"}
    return tuple(
        (f"Holdout objects {said[kind]} {arm} ({name})", tuple(pictures))
        for (name, arm, kind), pictures in found.items()
    )


def curves_of(proven: Mapping[str, Proven]) -> tuple[Curves, ...]:
    """What was fixed and AP50 over the number of added images, of verifications with several budgets."""
    from curator.prove.trial_tables import learning_curves

    found = []
    for name, (own, compared) in proven.items():
        lines = learning_curves(own, compared)
        for figure, said in (("fn_fixed", "Missed objects fixed"), ("ap50", "AP50")):
            if lines[figure]:
                found.append(
                    Curves(
                        title=f"{said} by the number of added images, with 95% bands: {name}",
                        x="added images",
                        lines=tuple((arm, tuple(points)) for arm, points in lines[figure].items()),
                    )
                )
    return tuple(found)


def plots_of(proven: Mapping[str, Proven]) -> tuple[Bars, ...]:
    from curator.prove.trial_tables import fix_rates

    plots = []
    for name, (own, _) in proven.items():
        rates: Mapping[str, Sequence[float]] = fix_rates(own)
        plots.append(
            Bars(
                title=f"Failures fixed on the holdout, a dot per seed: {name}",
                values=tuple((arm, tuple(values)) for arm, values in rates.items()),
            )
        )
    return tuple(plots)
