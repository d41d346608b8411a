"""Settings of `index` and `query`; imports nothing heavy, since the command line reads them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from curator.config import StageConfig, option, require, required
from curator.errors import ConfigError
from curator.registry import RANKERS

WHERE = (
    "KEY=VALUE joined by ',', alternatives by '|' (dataset=day|night), with the keys dataset, source, group, "
    "split, after, before (dates such as 2026-01-31), selected=no"
)
"""What `--where` takes."""


@dataclass(frozen=True, kw_only=True)
class IndexConfig(StageConfig):
    """`curator index`: compact vectors of failures, successes and the pool."""

    embedder: str = option(
        "detector:",
        "Embedder spec, e.g. detector: or detector:?levels=NAME,NAME&dimension=N; several joined by '+'.",
    )
    detector: str | None = option(None, "Detector spec; default: the diagnosed one.")
    candidates: int = option(32, "Candidate boxes per image.")
    windows: int = option(20, "Salient windows per image.")
    components: int = option(24, "Principal components per view, a byte each.")
    plan: bool = option(
        False, "Say which FAISS index would serve this pool, and what it costs; index nothing.", result=False
    )
    batch_size: int = option(16, "Images read at a time.", result=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(1, "batch_size")
        self._at_least(0, "candidates", "windows")
        require(4 <= self.components <= 256, f"components: expected 4 to 256, got {self.components}")
        require(
            1 <= self.candidates + self.windows <= 4096,
            f"candidates and windows: expected 1 to 4096 together, got {self.candidates + self.windows}",
        )


@dataclass(frozen=True, kw_only=True)
class QueryConfig(StageConfig):
    """`curator query`."""

    failures: str = option(
        "",
        "Which failures ask: KIND[:CAUSE][,class=NAME], alternatives joined by ';', e.g. FN:miss,class=Car; "
        "empty: all.",
    )
    budget: int = option(100, "Number of pool images wanted.")
    budget_boxes: int = option(
        0,
        "Number of objects that the annotator of newly chosen images may have to draw, as far as can be "
        "expected; 0: no limit.",
    )
    name: str = option("query", "Name of the selection; an older one of this name is replaced.")
    method: str = option(
        "predictor",
        "predictor (expected failures), contrastive, similarity, uncertainty, class-uncertainty, diversity, "
        "random, or a plug-in's.",
    )
    view: str = option(
        "auto", "View in which similarity compares: auto (the first), object, context, image, ..."
    )
    diversity: float = option(
        1.0, "How evenly the budget goes to groups of like failures; 0: the plain ranking."
    )
    quota: int = option(0, "Images that each group gets first, while the pool answers.")
    where: str = option(
        "",
        f"Which pool images may answer: {WHERE}.",
    )
    without: tuple[str, ...] = option((), "Selection whose images are not chosen again; may be repeated.")
    unlike: tuple[int, ...] = option(
        (), "Images that show what is not wanted, by id, joined by commas.", metavar="IDS", joined=True
    )
    like: str = option("", "Ask by a picture instead of failures: PATH, or PATH:x1,y1,x2,y2.")
    text: str = option("", "Ask by words instead of failures (an embedder that reads text, such as CLIP).")
    refine: bool = option(
        False,
        "Keep the hits of this selection that were accepted (curator feedback) or labelled, drop the "
        "rejected ones, learn from all of them, and fill the budget.",
    )
    keep_suspects: bool = option(
        False,
        "Mine failures that look like label errors too (curator suspects); confirmed ones stay out.",
        result=False,  # what it changes is which failures there are: they are in the key
    )
    preview: bool = option(
        False, "Print how well methods rank the mined images, out of fold, and stop.", result=False
    )
    embedder: str = option("detector:", "Embedder spec that the index was made with.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(1, "budget")
        known = RANKERS.names()
        require(self.method in known, f"method: expected one of {', '.join(known)}, got {self.method!r}")
        self._at_least(0, "budget_boxes", "diversity", "quota")
        require(self.diversity < math.inf, f"diversity: expected a finite number, got {self.diversity}")
        require(min(self.unlike, default=0) >= 0, f"unlike: expected ids of 0 or more, got {self.unlike}")
        own = f"without: {self.name!r} is the selection that this query replaces"
        require(self.name not in self.without, own)
        require(bool(self.name.strip()), "name: expected a name for the selection, got none")
        printable = self.name.isprintable() and not self.name.startswith("-")
        require(printable, f"name: expected one line that does not start with '-', got {self.name!r}")
        others = [name for name in ("preview", "like", "text") if getattr(self, name)]
        others += ["method random"] if self.method == "random" else []
        if self.refine and others:
            raise ConfigError(f"refine: it learns from failures and feedback; leave {others[0]} out")
        if self.like and self.text:
            raise ConfigError("like and text: expected one of them, got both")
        if (self.like or self.text) and (self.failures or self.method != "predictor"):
            raise ConfigError(
                f"{'like' if self.like else 'text'}: it asks instead of failures, by similarity; "
                "leave failures and method out"
            )


@dataclass(frozen=True, kw_only=True)
class FeedbackConfig(StageConfig):
    """`curator feedback`."""

    selection: str = required("Name of the selection.", argument=True)
    accept: tuple[int, ...] = option(
        (), "Images that show what was asked for, by id, joined by commas.", metavar="IDS", joined=True
    )
    reject: tuple[int, ...] = option(
        (), "Images that do not, by id, joined by commas.", metavar="IDS", joined=True
    )
    clear: tuple[int, ...] = option(
        (), "Images of which nothing is to be said, by id, joined by commas.", metavar="IDS", joined=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        named = [*self.accept, *self.reject, *self.clear]
        twice = sorted({image for image in named if named.count(image) > 1})
        require(not twice, f"accept, reject, clear: expected each image once, got {twice} twice")


@dataclass(frozen=True, kw_only=True)
class GroupsConfig(StageConfig):
    """`curator groups`.

    Attributes:
        apart: of "kind", "class", "cause": failures that differ in these are never in one group; misses and
            false positives never are.
    """

    failures: str = option(
        "", "Which failures: KIND[:CAUSE][,class=NAME], alternatives joined by ';'; empty: all."
    )
    apart: tuple[str, ...] = option(
        ("kind",), "What is never in one group: kind, class, cause, joined by commas.", joined=True
    )
    condition: str = option("", "Tag of an image or attribute of an object that names may use, e.g. weather.")
    most: int = option(12, "Groups of a kind at most.")
    exemplars: int = option(3, "Typical failures named of each group.")
    embedder: str = option("detector:", "Embedder spec that the index was made with.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(1, "most")
        self._at_least(0, "exemplars")
        unknown = sorted(set(self.apart) - {"kind", "class", "cause"})
        require(not unknown, f"apart: expected kind, class or cause, got {', '.join(unknown)}")
