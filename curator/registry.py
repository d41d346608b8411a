"""Plug-ins by name: detectors, attributions, inpainters, embedders, formats, recipes, checks.

In: a spec such as `torchvision:ssd300_vgg16?weights=PATH`. Out: the object that the named factory builds.
Factories are named as "module:attribute" and imported on first use, so that the command line starts
without torch. Other packages add theirs through the entry-point group `curator.<kind>`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from curator.errors import RegistryError

_EXTRAS = {
    "onnx": "onnx",
    "onnx2pytorch": "onnx",
    "transformers": "hub",
    "accelerate": "hub",
    "timm": "embed",
    "psycopg": "postgresql",
    "av": "video",
    "ultralytics": "ultralytics",
}
"""Importable package -> the extra of curator that brings it."""


@dataclass(frozen=True, slots=True)
class Spec:
    """A parsed spec `scheme:name?option=value&...`; `name` may hold further colons and slashes."""

    scheme: str
    name: str
    options: dict[str, str] = field(default_factory=dict)
    text: str = ""

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Parse `text`.

        Raises:
            RegistryError: when there is no scheme, or an option is given twice.
        """
        scheme, colon, rest = text.partition(":")
        if not colon or not scheme:
            raise RegistryError(f"expected SCHEME:NAME, such as torchvision:ssd300_vgg16, got {text!r}")
        name, _, query = rest.partition("?")
        return cls(scheme, name, _options(query, text), text)

    @classmethod
    def of_method(cls, text: str) -> Spec:
        """Parse `NAME?option=value&...`, a method without scheme.

        Raises:
            RegistryError: an option is given twice.
        """
        name, _, query = text.partition("?")
        return cls("", name, _options(query, text), text)

    def only(self, allowed: Iterable[str]) -> Spec:
        """Return self, or refuse options that the plug-in does not know."""
        unknown = sorted(set(self.options) - set(allowed))
        if unknown:
            raise RegistryError(
                f"{self.scheme}: knows the options {', '.join(sorted(allowed)) or '(none)'}, "
                f"got {', '.join(unknown)} in {self.text!r}"
            )
        return self

    def files(self) -> tuple[tuple[str, int, int], ...]:
        """(path, size, time) of the files that the name and the options lead to, of folders the .safetensors
        in
        them: where these differ, what was loaded before must be loaded anew."""
        found: list[Path] = []
        for text in filter(None, (self.name, *self.options.values())):
            path = Path(text)
            try:
                folder, file = path.is_dir(), path.is_file()
            except OSError:  # a list of names, longer than any file's name
                continue
            found += sorted(path.rglob("*.safetensors")) if folder else [path] * file
        return tuple((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in found)


def _options(query: str, text: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) < len(pairs):
        twice = sorted({name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1})
        raise RegistryError(f"{text}: expected every setting once, got {', '.join(twice)} more often")
    return options


class Registry:
    """Lazy factories of one kind, by scheme or method name."""

    def __init__(self, kind: str, builtin: dict[str, str]) -> None:
        self.kind = kind
        self._builtin = dict(builtin)

    def names(self) -> list[str]:
        """All names, built-in and installed."""
        return sorted({*self._builtin, *(point.name for point in self._entry_points())})

    def load(self, name: str) -> Callable[..., Any]:
        """Import and return the factory called `name`.

        Raises:
            RegistryError: unknown name (lists the choices), or an optional package is missing.
        """
        target = self._builtin.get(name)
        if target is None:
            for point in self._entry_points():
                if point.name == name:
                    target = point.value
        if target is None:
            raise RegistryError(f"no {self.kind} called {name!r}; choose one of: {', '.join(self.names())}")
        module, _, attribute = target.partition(":")
        try:
            factory: Callable[..., Any] = getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            package = (error.name or "curator").partition(".")[0]
            if package not in ("curator", "store"):
                wanted = f'"curator[{_EXTRAS[package]}]"' if package in _EXTRAS else package
                raise RegistryError(
                    f"{self.kind} {name!r} needs the package {package!r}, which is not installed; "
                    f"run `pip install {wanted}`"
                ) from error
            raise
        return factory

    def _entry_points(self) -> Iterable[Any]:
        return entry_points(group=f"curator.{self.kind}")


DETECTORS = Registry(
    "detectors",
    {
        "torchvision": "curator.detect.torchvision:build",
        "onnx": "curator.detect.onnx:build",
        "python": "curator.detect.python:build",
        "curator": "curator.detect.small_ssd:build",  # curator:ssd?backbone=... or curator:PATH.safetensors
        "blackbox": "curator.detect.black_box:build",  # blackbox:SPEC, any detector by its predictions alone
        "classifier": "curator.detect.classifier:build",
        "hf": "curator.detect.detr:build",  # hf:FOLDER, the same as detr:FOLDER
        "detr": "curator.detect.detr:build",  # detr:FOLDER, written by save_pretrained (extra hub)
        "maite": "curator.detect.maite:build",  # maite:package.module:object, its protocol for detectors
        "http": "curator.detect.remote:build",  # http://HOST:PORT/predict, a service
        "https": "curator.detect.remote:build",
        "ultralytics": "curator.detect.ultralytics:build",  # ultralytics:best.pt (extra ultralytics)
        "builtin": "curator.detect.small_ssd:build_builtin",  # the built-in example's shipped detector
    },
)
ATTRIBUTIONS = Registry(
    "attributions",
    {
        "e2x": "curator.explain.methods.e2x:E2X",
        "vebi": "curator.explain.methods.vebi:Vebi",
        "guided": "curator.explain.methods.guided:GuidedBackpropagation",
        "dve": "curator.explain.methods.dve:Dve",
        "e2x_kernel": "curator.explain.methods.e2x_kernel:E2XKernel",
        "ig_s": "curator.explain.methods.e2x:SegmentIntegratedGradients",
        "e2x_path": "curator.explain.methods.path:E2XPath",
        "ig": "curator.explain.methods.integrated:IntegratedGradients",
        "odam": "curator.explain.methods.odam:ODAM",
        "mp": "curator.explain.methods.mp:MeaningfulPerturbation",
        "mp2": "curator.explain.methods.mp2:MP2",
        "fido": "curator.explain.methods.fido:FIDO",
        "shapley": "curator.explain.methods.shapley:ExactShapley",
        "permutation": "curator.explain.methods.shapley:PermutationShapley",
        "drise": "curator.explain.methods.drise:DRISE",
        "pda": "curator.explain.methods.pda:PDA",
        "sp": "curator.explain.methods.patches:SlidingPatch",
        "kernel_shap": "curator.explain.methods.kernel_shap:KernelSHAP",
        "lime": "curator.explain.methods.lime:LIME",
        "occlusion": "curator.explain.methods.occlusion:Occlusion",
    },
)
INPAINTERS = Registry(
    "inpainters",
    {
        "compose": "curator.inpaint.compose:build",  # no model: what was composed
        "builtin": "curator.inpaint.backends:build_builtin",
        "curator": "curator.inpaint.backends:build_curator",
        "auto": "curator.inpaint.hub:build_auto",
        "diffusers": "curator.inpaint.hub:build_diffusers",
    },
)
EMBEDDERS = Registry(
    "embedders",
    {
        "detector": "curator.represent.embedders.detector:DetectorEmbedder",
        "torchvision": "curator.represent.embedders.torchvision:build",
        "safetensors": "curator.represent.embedders.torchvision:build_file",
        "timm": "curator.represent.embedders.timm:build",
        "transformers": "curator.represent.embedders.transformers:build",
    },
)
RANKERS = Registry(  # of pool images, for a query
    "rankers",
    {
        "predictor": "curator.query.methods.predictor:Predictor",
        "contrastive": "curator.query.methods.contrastive:Contrastive",
        "similarity": "curator.query.methods.similarity:Similarity",
        "uncertainty": "curator.query.methods.plain:Uncertainty",
        "class-uncertainty": "curator.query.methods.plain:ClassUncertainty",
        "random": "curator.query.methods.plain:Random",
        "diversity": "curator.query.methods.diversity:Diversity",
    },
)
INDEXES = Registry(  # types of FAISS index
    "indexes",
    {
        "flat": "curator.represent.index.flat:Flat",
        "hnsw": "curator.represent.index.hnsw:Hnsw",
        "ivfpq": "curator.represent.index.ivf:IvfPq",
        "opq": "curator.represent.index.ivf:OpqIvfPq",
    },
)
FORMATS = Registry(
    "formats",
    {
        "coco": "curator.data.formats.coco:CocoFormat",
        "yolo": "curator.data.formats.yolo:YoloFormat",
        "voc": "curator.data.formats.voc:VocFormat",
        "images": "curator.data.formats.images:ImagesFormat",
        "deeppcb": "curator.data.formats.deeppcb:DeepPcbFormat",  # pairs of a tested board and its template
        "video": "curator.data.formats.video:VideoFormat",
        "cvat": "curator.data.formats.cvat:CvatFormat",
        "label-studio": "curator.data.formats.label_studio:LabelStudioFormat",
        "ndjson": "curator.data.formats.ndjson:NdjsonFormat",  # of Ultralytics
        "labelme": "curator.data.formats.labelme:LabelMeFormat",  # X-AnyLabeling too
    },
)
RECIPES = Registry(
    "recipes",
    {
        "object": "curator.synthesize.recipes.object:ObjectRecipe",
        "culprit": "curator.synthesize.recipes.culprit:CulpritRecipe",
        "lookalike": "curator.synthesize.recipes.lookalike:LookalikeRecipe",
        "appearance": "curator.synthesize.recipes.appearance:AppearanceRecipe",
        "context": "curator.synthesize.recipes.context:ContextRecipe",
        "removal": "curator.synthesize.recipes.removal:RemovalRecipe",
    },
)
ARMS = Registry(  # of a verification
    "arms",
    {
        "nothing": "curator.prove.arms.nothing:Nothing",
        "random": "curator.prove.arms.random:Random",
        "query": "curator.prove.arms.query:Query",
        "copy-paste": "curator.prove.arms.copy_paste:CopyPaste",
        "synthesis": "curator.prove.arms.synthesis:Synthesis",
        "query+synthesis": "curator.prove.arms.both:Both",
        "both": "curator.prove.arms.both:Both",  # its old name
        "oracle": "curator.prove.arms.oracle:Oracle",
    },
)
TRAINERS = Registry(
    "trainers",
    {
        "torchvision": "curator.prove.trainers.torchvision:TorchvisionTrainer",
        "ultralytics": "curator.prove.trainers.programs:ultralytics",
        "hf": "curator.prove.trainers.programs:transformers",
        "command": "curator.prove.trainers.command:CommandTrainer",
    },
)
CHECKS = Registry(
    "checks",
    {
        "changed": "curator.synthesize.gate.changed:ChangedCheck",
        "realism": "curator.synthesize.gate.realism:RealismCheck",
        "label": "curator.synthesize.gate.label:LabelCheck",
        "whole": "curator.synthesize.gate.whole:WholeCheck",
        "detector": "curator.synthesize.gate.detector:DetectorCheck",
        "extra": "curator.synthesize.gate.detector:ExtraCheck",
        "missed": "curator.synthesize.gate.detector:MissedCheck",
        "deceives": "curator.synthesize.gate.detector:DeceivesCheck",
        "kept": "curator.synthesize.gate.kept:KeptCheck",
        "near-duplicate": "curator.synthesize.gate.duplicate:DuplicateCheck",
    },
)
