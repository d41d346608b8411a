"""Settings of the explanations' stages; imports nothing heavy, since the command line reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from curator.config import StageConfig, require, speed_only

LARGEST = 40  # px, side of a padded patch: the covariance has (3 side^2)^2 numbers, here 184 MB


@dataclass(frozen=True, kw_only=True)
class ExplainConfig(StageConfig):
    """`curator explain`.

    Attributes:
        failures: selector such as "FN", "FN:miss", "FP,class=Car"; "" explains all failures.
        successes: how many true positives per class to explain beside them.
        samples: K. segments: wanted number of SLIC segments. grid: "midpoint" (k + 0.5)/K or "paper" k/(K-1).
        target: "auto" is log-odds where the detector gives them, probability elsewhere.
        precision: "auto" is bf16 where the hardware is fast in it and the maps stay the same, else fp32.
        aside: only look: later stages go on with the explanations that they have. Without it this
            configuration is the one that they use from now on.
        batch_size: masked images per forward pass; 0 chooses from free memory.
    """

    detector: str | None = None
    failures: str = ""
    successes: int = 20
    method: str = "e2x"
    samples: int = 16
    segments: int = 200
    grid: Literal["midpoint", "paper"] = "midpoint"
    target: Literal["auto", "probability", "log_odds"] = "auto"
    fill: str = "mean"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    aside: bool = speed_only(False)
    batch_size: int = speed_only(0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(1, "samples")
        require(2 <= self.segments <= 60000, f"segments: expected 2 to 60000, got {self.segments}")
        self._at_least(0, "successes", "batch_size")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(StageConfig):
    """`curator evaluate-explanations`.

    Attributes:
        methods: each NAME[?setting=value&...][@K[+K...]]; with @ at these numbers of samples alone, without
            at every one of `samples`.
        targets: failures and successes drawn by the seed, at most `per_image` on one image.
        reference_pairs: antithetic pairs of permutations of the reference. segments, target, fill, precision:
            as in ExplainConfig; the reference is always fp32.
        out: JSON file. plot: SVG file.
    """

    detector: str | None = None
    methods: tuple[str, ...] = ("e2x", "e2x_kernel", "ig_s", "lime", "kernel_shap", "odam@1", "permutation@1")
    samples: tuple[int, ...] = (16, 64)
    targets: int = 12
    per_image: int = 3
    reference_pairs: int = 20
    segments: int = 100
    target: Literal["auto", "probability", "log_odds"] = "auto"
    fill: str = "mean"
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    out: Path = Path("evaluation.json")
    plot: Path = Path("evaluation.svg")
    batch_size: int = speed_only(16)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("targets", "per_image", "batch_size"):
            require(getattr(self, name) >= 1, f"{name}: expected at least 1, got {getattr(self, name)}")
        require(
            self.reference_pairs >= 2,
            f"reference_pairs: expected at least 2, one for each half, got {self.reference_pairs}",
        )
        require(2 <= self.segments <= 60000, f"segments: expected 2 to 60000, got {self.segments}")
        require(self.plot.suffix == ".svg", f"plot: expected a file name ending in .svg, got {self.plot}")
        require(bool(self.contenders()), "methods: expected at least one, got none")

    def contenders(self) -> list[tuple[str, int]]:
        """(method, K) to compare, each once."""
        found = []
        for text in self.methods:
            method, at, counts = text.partition("@")
            numbers = counts.split("+") if at else [str(k) for k in self.samples]
            for number in numbers:
                require(
                    bool(method) and number.isdecimal() and int(number) >= 1,
                    f"methods: expected NAME, or NAME@K with K of at least 1, got {text!r} with {number!r}",
                )
                found.append((method, int(number)))
        return list(dict.fromkeys(found))


@dataclass(frozen=True, kw_only=True)
class InterpretConfig(StageConfig):
    """`curator interpret`.

    Attributes:
        detector: registry spec; None takes the workspace's newest.
        roles: whose labelled images are the samples.
        mu: bound of ||w_j||_1 (the paper's 10).
        layers: "conv" (every convolution but the last ones) or "levels" (the detector's feature levels).
        pooling: a sample's features inside its "box", or over the "image".
        features: shown per class. patches: of an average image.
        class_map: detector class -> data-set class, as for diagnose.
        out: folder; what it holds of an earlier run is replaced.
    """

    detector: str | None = None
    roles: tuple[str, ...] = ("train", "mine")
    mu: float = 10.0
    layers: Literal["conv", "levels"] = "conv"
    pooling: Literal["box", "image"] = "box"
    features: int = 3
    patches: int = 100
    class_map: dict[str, str] | None = None
    out: Path = Path("interpretation")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.mu < 1e9, f"mu: expected a number above 0 and below 1e9, got {self.mu}")
        require(self.layers in ("conv", "levels"), f"layers: expected conv or levels, got {self.layers!r}")
        require(self.pooling in ("box", "image"), f"pooling: expected box or image, got {self.pooling!r}")
        require(
            bool(self.roles) and set(self.roles) <= {"train", "mine"},
            f"roles: expected train, mine or both, got {', '.join(self.roles) or 'none'}",
        )
        for name in ("features", "patches"):
            require(getattr(self, name) >= 1, f"{name}: expected at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class FitPatchesConfig(StageConfig):
    """`curator fit-patches`.

    Attributes:
        out: file; one that is there is replaced.
        detector: registry spec; None takes the workspace's newest. Patches hold for its input size.
        roles: whose images, train or mine; labels are not read.
        images: at most so many, drawn by the seed.
        patch, pad: pixels of a window and of the surround at each side that it is drawn given.
    """

    out: Path
    detector: str | None = None
    roles: tuple[str, ...] = ("train",)
    images: int = 200
    patch: int = 10
    pad: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            bool(self.roles) and set(self.roles) <= {"train", "mine"},
            f"roles: expected train, mine or both, got {', '.join(self.roles) or 'none'}; PDA must not learn "
            "from the pool or the holdout",
        )
        self._at_least(1, "images", "patch", "pad")
        require(
            self.side <= LARGEST,
            f"patch + 2 pad: expected at most {LARGEST} px, got {self.side}; choose smaller ones",
        )

    @property
    def side(self) -> int:
        """Of a padded patch, pixels."""
        return self.patch + 2 * self.pad
