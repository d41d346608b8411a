"""Settings of the explanations' stages; imports nothing heavy, since the command line reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from curator.config import StageConfig, option, require, required

LARGEST = 40  # px, side of a padded patch: the covariance has (3 side^2)^2 numbers, here 184 MB
TARGET = "What is explained: probability, log_odds, or auto: log-odds where they exist."


@dataclass(frozen=True, kw_only=True)
class ExplainConfig(StageConfig):
    """`curator explain`.

    Attributes:
        segments: of SLIC.
        target: "auto" is log-odds where the detector gives them, probability elsewhere.
        precision: "auto" is bf16 where the hardware is fast in it and the maps stay the same, else fp32.
        aside: without it this configuration is the one that later stages use from now on.
    """

    failures: str = option(
        "", 'Which failures: FN, FN:miss, "FP,class=Car"; several joined by ;. Default: all.'
    )
    detector: str | None = option(None, "Detector spec; default: the one last diagnosed.")
    method: str = option(
        "e2x", "e2x, e2x_kernel, lime, odam, drise ... (a wrong name lists all); sp?patch=29 sets."
    )
    samples: int = option(16, "Masked images per explanation (K).")
    segments: int = option(200, "Wanted number of segments per image.")
    grid: Literal["midpoint", "paper"] = option(
        "midpoint", "Weights of e2x: midpoint (k+0.5)/K or paper k/(K-1)."
    )
    target: Literal["auto", "probability", "log_odds"] = option("auto", TARGET)
    fill: str = option(
        "mean", "What hidden segments show: mean, blur, noise, local-mean ..., inpaint?spec=SPEC."
    )
    precision: Literal["auto", "fp32", "bf16"] = option("auto", "auto, fp32 or bf16.")
    successes: int = option(20, "True positives per class explained beside the failures.")
    aside: bool = option(
        False, "Only look: later stages keep the explanations that they use.", result=False
    )
    batch_size: int = option(
        0, "Masked images per forward pass; 0: as many as free memory allows.", result=False
    )

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
        precision: the reference is always fp32.
    """

    methods: tuple[str, ...] = option(
        ("e2x", "e2x_kernel", "ig_s", "lime", "kernel_shap", "odam@1", "permutation@1"),
        "Methods joined by commas: NAME, NAME?setting=value or NAME@K; @K overrides --samples "
        "(permutation@1: one pair of permutations).",
        joined=True,
    )
    samples: tuple[int, ...] = option((16, 64), "Numbers of samples K to try, such as 16,64.", joined=True)
    targets: int = option(12, "Failures and successes drawn by the seed.")
    per_image: int = option(3, "At most so many of them on one image.")
    reference_pairs: int = option(20, "Antithetic pairs of permutations of the reference.")
    segments: int = option(100, "Wanted number of segments per image.")
    target: Literal["auto", "probability", "log_odds"] = option("auto", TARGET)
    fill: str = option("mean", "What hidden segments show.")
    detector: str | None = option(None, "Detector spec; default: the one last diagnosed.")
    precision: Literal["auto", "fp32", "bf16"] = option("fp32", "Of the methods: auto, fp32 or bf16.")
    out: Path = option(Path("evaluation.json"), "JSON file with every target's numbers.")
    plot: Path = option(Path("evaluation.svg"), "SVG file: fidelity against cost.")
    batch_size: int = option(16, "Masked images per forward pass.", result=False)

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
    """`curator interpret`; what the folder `out` holds of an earlier run is replaced."""

    detector: str | None = option(None, "Detector spec; default: the diagnosed one.")
    mu: float = option(10.0, "Bound of a class's weights, ||w||_1; smaller is sparser.")
    roles: tuple[str, ...] = option(
        ("train", "mine"),
        "Whose labelled images: train, mine (default: both); may be repeated.",
        flag="role",
    )
    layers: Literal["conv", "levels"] = option(
        "conv", "conv (every convolution but the last) or levels (the feature levels)."
    )
    pooling: Literal["box", "image"] = option(
        "box", "Features inside each object's box, or over the whole image (image)."
    )
    features: int = option(3, "Features shown per class.")
    patches: int = option(100, "Patches of an average image, at most.")
    class_map: dict[str, str] | None = option(
        None, "As for diagnose; may be repeated.", flag="map", metavar="DETECTOR=CLASS"
    )
    out: Path = option(Path("interpretation"), "Folder for the model, the summary and the page.")

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
    """`curator fit-patches`; patches hold for the detector's input size, and labels are not read."""

    out: Path = required("File of the fitted patches; one that is there is replaced.")
    detector: str | None = option(None, "Detector spec; default: the diagnosed one.")
    roles: tuple[str, ...] = option(
        ("train",), "Whose images: train (default), mine; may be repeated.", flag="role"
    )
    images: int = option(200, "Images drawn by the seed, at most.")
    patch: int = option(10, "Side of a window, pixels of the detector's input.")
    pad: int = option(2, "Pixels around a window that its draws are given.")

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
