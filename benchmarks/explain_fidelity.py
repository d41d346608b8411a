"""Which explanation is right? Correlation and relative error against permutation Shapley, per cost.

    python benchmarks/explain_fidelity.py [--quick] [--seed N] [--out FILE.json] [--shared DIR]

Targets, segments and the reference come from `explain_cases.py` (committed in benchmarks/reference/). All
methods get the same images, segments, baseline, precision (fp32), batch size and detector; cost is counted in
forward-equivalents (a backward counts one) and in seconds for one target alone. r is Pearson's correlation
with the reference, corrected for the reference's reliability R: r / sqrt(R). Targets whose reference stays
under the evidence floor are counted and left out. One image's reference is computed again and compared.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import machine, versions
from explain_cases import (
    BATCH,
    KINDS,
    Case,
    Floats,
    Kind,
    cases,
    load_references,
    reference,
    shared_folder,
)

from curator.bootstrap import Interval, paired_difference
from curator.explain.base import EVIDENCE_FLOOR, AttributionOptions
from curator.explain.fills.fill import MeanFill
from curator.explain.game import coalition_game
from curator.explain.measures.fidelity import corrected, pearson, relative_error
from curator.explain.target import TargetScores
from curator.registry import ATTRIBUTIONS, Spec

REFERENCE = Path(__file__).resolve().parent / "reference" / "explain.json"
GRADIENT = ("e2x", "e2x-paper", "ig_s", "e2x_kernel")  # cost: K forwards, K backwards
PASSES = (32, 64, 128, 256)
SOME_PASSES = (32, 128)  # of methods that no claim hangs on in between
LIME_PASSES = (32, 128, 192, 256, 384, 512, 768, 1024, 2048)  # fine where the package reaches E2X's r
TIMED = 2  # images per detector on which one target is explained alone, for the wall time
DEFAULT: Kind = "log_odds"
NAMES = {"e2x-paper": "e2x"}
Row = dict[str, Any]


def ours(name: str, passes: int) -> Callable[[Case, Kind, Sequence[int]], Floats]:
    """phi (T, M) of a method of curator's at about `passes` forward-equivalents."""
    spec = Spec.of_method(NAMES.get(name, name))
    samples = passes // 2 if name in GRADIENT else passes

    def run(case: Case, kind: Kind, which: Sequence[int]) -> Floats:
        options = AttributionOptions(
            samples=samples,
            grid="paper" if name == "e2x-paper" else "midpoint",
            batch_size=BATCH,
            precision="fp32",
            settings=spec.options,
        )
        method = ATTRIBUTIONS.load(spec.name)(options)
        targets = [case.targets(kind)[i] for i in which]
        maps = method.explain(
            case.detector,
            case.image,
            case.pin,
            case.segments,
            MeanFill(),
            targets,
            seed=0,
            image_key=case.key,
        )
        return np.stack([m.phi for m in maps]).astype(np.float64)

    return run


def _game(case: Case, kind: Kind, which: Sequence[int]) -> Callable[[Any], Floats]:
    """Coalitions (n, M) of 0 and 1 -> F (n, T), batched as for our own methods."""
    scores = TargetScores(case.detector, case.pin, [case.targets(kind)[i] for i in which])
    options = AttributionOptions(batch_size=BATCH, precision="fp32")
    game = coalition_game(
        scores, case.detector, case.image, case.segments, MeanFill(), seed=0, options=options
    )
    return lambda members: game(np.asarray(members) > 0.5)


def lime_package(passes: int) -> Callable[[Case, Kind, Sequence[int]], Floats]:
    """`lime.lime_image` with our segments, baseline and batch size."""

    def run(case: Case, kind: Kind, which: Sequence[int]) -> Floats:
        from lime.lime_image import LimeImageExplainer

        baseline = MeanFill().baseline(case.image, case.detector)
        scores = TargetScores(case.detector, case.pin, [case.targets(kind)[i] for i in which])

        @torch.no_grad()
        def classify(images: Floats) -> Floats:
            u = torch.from_numpy(np.asarray(images, np.float32)).permute(0, 3, 1, 2)
            return np.asarray(scores(u.contiguous(memory_format=torch.channels_last)).double().numpy())

        explained = LimeImageExplainer(random_state=0).explain_instance(
            case.image.permute(1, 2, 0).numpy().astype(np.float64),
            classify,
            labels=tuple(range(len(which))),
            top_labels=None,
            hide_color=baseline[:, 0, 0].numpy().astype(np.float64),
            num_features=case.count,
            num_samples=passes,
            batch_size=BATCH,
            segmentation_fn=lambda image: case.segments.astype(np.int64),
        )
        phi = np.zeros((len(which), case.count))
        for t in range(len(which)):
            for segment, value in explained.local_exp[t]:
                phi[t, segment] = value
        return phi

    return run


def captum_package(name: str, passes: int) -> Callable[[Case, Kind, Sequence[int]], Floats]:
    """captum's Lime or KernelShap over the same game."""

    def run(case: Case, kind: Kind, which: Sequence[int]) -> Floats:
        import captum.attr

        rows = []
        for i in which:
            game = _game(case, kind, [i])

            def forward(members: torch.Tensor, game: Callable[[Any], Floats] = game) -> torch.Tensor:
                return torch.from_numpy(game(members.numpy())[:, 0])

            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                explained = getattr(captum.attr, name)(forward).attribute(
                    torch.ones(1, case.count),
                    baselines=torch.zeros(1, case.count),
                    n_samples=passes,
                    perturbations_per_eval=BATCH,
                )
            rows.append(explained[0].double().numpy())
        return np.stack(rows)

    return run


def shap_package(passes: int) -> Callable[[Case, Kind, Sequence[int]], Floats]:
    """shap's KernelExplainer over the same game."""

    def run(case: Case, kind: Kind, which: Sequence[int]) -> Floats:
        import logging

        import shap

        logging.getLogger("shap").setLevel(logging.ERROR)
        game = _game(case, kind, which)
        state = np.random.get_state()  # the package draws from NumPy's global generator
        np.random.seed(0)
        try:
            explainer = shap.KernelExplainer(game, np.zeros((1, case.count)))
            values = explainer.shap_values(
                np.ones((1, case.count)), nsamples=passes, silent=True, l1_reg=0, gc_collect=False
            )
        finally:
            np.random.set_state(state)
        return np.asarray(values)[0].T if np.ndim(values) == 3 else np.asarray(values)

    return run


def measure(
    case: Case,
    entry: dict[str, Any],
    kind: Kind,
    name: str,
    passes: int,
    run: Callable[[Case, Kind, Sequence[int]], Floats],
    timed: bool = True,
) -> list[Row]:
    """Rows of one method at one cost on one image: one per target with evidence."""
    known = entry["kinds"][kind]
    phi_all = np.array(known["phi"])
    which = [t for t, phi in enumerate(phi_all) if np.abs(phi).max() > EVIDENCE_FLOOR[kind]]
    if not which:
        return []
    alone = name in GRADIENT  # what only runs the detector costs the same for one target and for three
    seconds = float("nan")
    if timed and alone:
        run(case, kind, which[:1])  # the first run of a size waits for memory
        start = time.perf_counter()
        run(case, kind, which[:1])
        seconds = time.perf_counter() - start
    start = time.perf_counter()
    found = run(case, kind, which)
    if timed and not alone:
        seconds = time.perf_counter() - start
        seconds /= len(which) if name.startswith("captum") else 1  # explains one target after the other
    rows = []
    for t, phi in zip(which, found, strict=True):
        wanted, reliability = phi_all[t], max(known["reliability"][t], 1e-6)
        r = pearson(phi, wanted) if phi.std() else 0.0
        rows.append(
            {
                "family": case.family,
                "image": case.name,
                "target": t,
                "outcome": case.outcomes[t].kind,
                "kind": kind,
                "method": name,
                "passes": passes,
                "seconds": seconds,
                "r": r,
                "r_corrected": corrected(r, reliability),
                "relative_error": relative_error(phi, wanted),
                "gap": float(known["full"][t] - known["empty"][t] - phi.sum()),
                "scale": float(np.linalg.norm(wanted)),
            }
        )
    return rows


def table(rows: Sequence[Row], family: str, kind: Kind) -> list[Row]:
    """Means over the targets of a family, per method and cost."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        if row["family"] == family and row["kind"] == kind:
            found.setdefault((row["method"], row["passes"]), []).append(row)
    return [
        {
            "family": family,
            "kind": kind,
            "method": method,
            "passes": passes,
            "targets": len(members),
            "seconds": float(np.nanmean([m["seconds"] for m in members])),
            "r": float(np.mean([m["r_corrected"] for m in members])),
            "lowest": float(np.min([m["r_corrected"] for m in members])),
            "relative_error": float(np.median([m["relative_error"] for m in members])),
            "gap": float(np.mean([abs(m["gap"]) for m in members])),
        }
        for (method, passes), members in sorted(found.items())
    ]


def kept(before: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """The rows of an earlier run whose method, cost and kind of target were not measured again."""
    again = {(row["kind"], row["method"], row["passes"]) for row in rows}
    return [
        {**row, "seconds": float("nan") if row["seconds"] is None else row["seconds"]}
        for row in before
        if (row["kind"], row["method"], row["passes"]) not in again
    ]


def paired(rows: Sequence[Row], family: str, kind: Kind, a: str, b: str, passes: int) -> Interval:
    """r_corrected of method `a` minus `b`, with a bootstrap interval over targets.

    Whole images would be drawn more rightly, but four of them are too few for percentiles to mean anything.
    """
    found: dict[tuple[str, int], dict[str, float]] = {}
    for row in rows:
        if row["family"] == family and row["kind"] == kind and row["passes"] == passes:
            found.setdefault((row["image"], row["target"]), {})[row["method"]] = row["r_corrected"]
    both = [v for v in found.values() if a in v and b in v]
    return paired_difference([v[a] for v in both], [v[b] for v in both], draws=10_000)


def crossing(ladder: Sequence[tuple[float, float]], wanted: float) -> tuple[float, bool]:
    """Seconds after which r reaches `wanted`, log-linear between rungs (seconds, r), and whether it does."""
    for (before, low), (after, high) in pairwise(ladder):
        if low < wanted <= high:
            return float(before * (after / before) ** ((wanted - low) / (high - low))), True
    return (ladder[0][0], True) if ladder[0][1] >= wanted else (ladder[-1][0], False)


def claims(rows: Sequence[Row], tables: Sequence[Row]) -> list[Row]:
    """The issue's acceptance lines 1 and 2, for the default target."""
    found: list[Row] = []

    def claim(text: str, target: str, value: float, ok: bool) -> None:
        found.append({"claim": text, "target": target, "value": round(value, 4), "ok": bool(ok)})

    def cell(family: str, kind: Kind, method: str, passes: int, what: str = "r") -> float:
        for row in tables:
            if (row["family"], row["kind"], row["method"], row["passes"]) == (family, kind, method, passes):
                return float(row[what])
        return float("nan")

    for kind in KINDS:
        r = cell("ssd", kind, "e2x", 32)
        claim(f"SSD, {kind}: E2X at K = 16", ">= 0.93", r, r >= 0.93)
        for rival in ("lime", "kernel_shap"):
            d = cell("yolox", kind, "e2x", 32) - cell("yolox", kind, rival, 32)
            claim(f"YOLOX, {kind}: E2X at K = 16 minus {rival}, equal passes", ">= 0.15", d, d >= 0.15)
        for family in ("ssd", "yolox"):
            ladder = sorted(
                (row["seconds"], row["r"])
                for row in tables
                if (row["family"], row["kind"], row["method"]) == (family, kind, "lime package")
            )
            for method, passes in (("e2x", 32), ("e2x_kernel", 32), ("e2x_kernel", 64)) if ladder else ():
                seconds, there = crossing(ladder, cell(family, kind, method, passes))
                ratio = seconds / cell(family, kind, method, passes, "seconds")
                note = "" if there else " (not reached: at least)"
                claim(
                    f"{family}, {kind}: lime package's time to r of {method}, K = {passes // 2}{note}",
                    ">= 9",
                    ratio,
                    ratio >= 9,
                )
        gain = paired(rows, "yolox", kind, "e2x_kernel", "e2x-paper", 128)
        if gain.count:
            claim(
                f"YOLOX, {kind}: e2x_kernel minus the paper's E2X at 128 passes",
                ">= 0.15",
                gain.mean,
                gain.mean >= 0.15,
            )
            claim(
                f"YOLOX, {kind}: low end of its paired 95% interval (high {gain.high:.3f})",
                "> 0",
                gain.low,
                gain.low > 0,
            )
            claim(
                f"YOLOX, {kind}: e2x_kernel at 128 passes",
                ">= 0.85 (stretch)",
                v := cell("yolox", kind, "e2x_kernel", 128),
                v >= 0.85,
            )
        least = min(
            cell(family, kind, "e2x_kernel", passes) - cell(family, kind, "e2x-paper", passes)
            for family in ("ssd", "yolox")
            for passes in SOME_PASSES
        )
        claim(
            f"{kind}: e2x_kernel minus the paper's E2X, least of detectors and costs",
            ">= 0",
            least,
            least >= 0,
        )
        ratio = cell("ssd", kind, "e2x_kernel", 128, "relative_error") / cell(
            "ssd", kind, "e2x-paper", 128, "relative_error"
        )
        claim(
            f"SSD, {kind}: e2x_kernel's relative error over the paper's E2X at 128",
            "<= 0.5",
            ratio,
            ratio <= 0.5,
        )
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two images per detector, up to 128 passes")
    parser.add_argument(
        "--seed", type=int, default=0, help="draws the targets; the committed reference is of 0"
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--reference", type=Path, default=REFERENCE)
    parser.add_argument("--set", dest="which", choices=("dev", "final"), default="final")
    parser.add_argument("--methods", default="e2x,e2x-paper,e2x_kernel,ig_s,lime,kernel_shap")
    parser.add_argument("--workers", type=int, default=1, help="processes, each of one thread if several")
    parser.add_argument(
        "--keep", type=Path, help="a result of before: its rows stay where this run measures nothing"
    )
    parser.add_argument("--packages", default="lime,captum,shap", help="the others' implementations to run")
    options = parser.parse_args()
    start = time.monotonic()
    work = options.work or Path(tempfile.mkdtemp(prefix="explain-fidelity-"))
    count = 2 if options.quick else 5
    jobs = [(family, number, options, work) for number in range(count) for family in ("yolox", "ssd")]
    for family in ("ssd", "yolox"):  # detect and diagnose once, before workers share the workspace
        cases(work, family, options.which, 1, options.seed, shared_folder(options.shared))
    if options.workers > 1:
        with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
            parts = list(pool.map(judge, *zip(*jobs, strict=True)))
    else:
        parts = [judge(*job) for job in jobs]
    rows = [row for part in parts for row in part[0]]
    left_out = [row for part in parts for row in part[1]]
    before = kept(json.loads(options.keep.read_text())["rows"], rows) if options.keep else []
    rows = before + rows
    recomputed = next((part[2] for part in parts if part[2] is not None), None)
    tables = [row for family in ("ssd", "yolox") for kind in KINDS for row in table(rows, family, kind)]
    for row in tables:
        print(
            f"{row['family']:6s} {row['kind']:12s} {row['method']:22s} {row['passes']:5d} passes "
            f"{row['seconds']:7.2f} s  r {row['r']:.3f} (lowest {row['lowest']:.2f})  "
            f"rel. error {row['relative_error']:.2f}  gap {row['gap']:.3f}  n={row['targets']}"
        )
    print(f"left out, no evidence: {len(left_out)}")
    acceptance = claims(rows, tables)
    if recomputed is not None:
        acceptance.append(recomputed)
    for claim in acceptance:
        mark = "ok  " if claim["ok"] else "MISS"
        print(f"{mark} {claim['claim']}: {claim['value']} (target {claim['target']})")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(
            json.dumps(
                {
                    "benchmark": "explain_fidelity",
                    "quick": options.quick,
                    "workers": options.workers,
                    "seed": options.seed,
                    "kept": sorted({f"{row['method']}, {row['passes']} passes" for row in before}),
                    "machine": machine(),
                    "versions": versions("lime", "shap", "captum"),
                    "seconds": round(time.monotonic() - start, 1),
                    "left_out": left_out,
                    "table": tables,
                    "rows": [{**row, "seconds": None} if np.isnan(row["seconds"]) else row for row in rows],
                    "acceptance": acceptance,
                },
                indent=1,
            )
        )


def judge(
    family: str, number: int, options: argparse.Namespace, work: Path
) -> tuple[list[Row], list[Row], Row | None]:
    """Rows of one image, the targets left out for want of evidence, and the first image's recomputation."""
    if options.workers > 1:
        torch.set_num_threads(1)
    start = time.monotonic()
    drawn = cases(work, family, options.which, number + 1, options.seed, shared_folder(options.shared))
    if number >= len(drawn):
        return [], [], None
    case = drawn[number]
    entry = load_references(options.reference).get(f"{family}/{case.key}")
    if entry is None:
        print(f"{family} {case.name}: no reference", file=sys.stderr)
        return [], [], None
    recomputed = _recompute(case, entry) if family == "ssd" and number == 0 else None
    rows: list[Row] = []
    left_out: list[Row] = []
    for kind in KINDS:
        phi = np.array(entry["kinds"][kind]["phi"])
        left_out += [
            {
                "family": family,
                "image": case.name,
                "target": t,
                "kind": kind,
                "outcome": case.outcomes[t].kind,
            }
            for t in range(len(phi))
            if np.abs(phi[t]).max() <= EVIDENCE_FLOOR[kind]
        ]
        for name, passes, run in _runs(options, kind):
            rows += measure(case, entry, kind, name, passes, run, timed=number < TIMED)
    print(f"{family} {case.name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return rows, left_out, recomputed


def _recompute(case: Case, entry: dict[str, Any]) -> Row:
    """The committed reference of one image against a fresh one of as many pairs."""
    fresh = reference(case, pairs=entry["pairs"], most=entry["pairs"], report=False)
    difference = max(
        float(np.abs(np.array(fresh["kinds"][kind]["phi"]) - np.array(entry["kinds"][kind]["phi"])).max())
        for kind in KINDS
    )
    return {
        "claim": "largest difference of one image's recomputed reference",
        "target": "<= 1e-3",
        "value": round(difference, 7),
        "ok": difference <= 1e-3,
    }


def _runs(
    options: argparse.Namespace, kind: Kind
) -> list[tuple[str, int, Callable[[Case, Kind, Sequence[int]], Floats]]]:
    """What is measured: the wanted methods, then the packages."""
    names = [name for name in options.methods.split(",") if NAMES.get(name, name) in ATTRIBUTIONS.names()]
    found = []
    for name in names:
        all_passes = name in ("e2x", "e2x_kernel")
        passes = [p for p in (PASSES if all_passes else SOME_PASSES) if not options.quick or p <= 128]
        found += [(name, p, ours(name, p)) for p in passes]
    packages = options.packages.split(",")
    if "lime" in packages:
        most = 512 if options.quick or kind != DEFAULT else max(LIME_PASSES)
        found += [("lime package", p, lime_package(p)) for p in LIME_PASSES if p <= most]
    for p in SOME_PASSES if kind == DEFAULT else ():
        if "captum" in packages:
            found += [
                ("captum KernelShap", p, captum_package("KernelShap", p)),
                ("captum Lime", p, captum_package("Lime", p)),
            ]
        if "shap" in packages:
            found.append(("shap KernelExplainer", p, shap_package(p)))
    return found


if __name__ == "__main__":
    main()
