"""The file that curator itself writes trained weights to: found again by its name, and nothing is lost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curator.detect.base import Detector
from curator.detect.weights import read_description
from curator.errors import InputError
from store.keys import canonical_json


def require_replaceable(out: Path, detector: Detector) -> None:
    """Refuse to write the trained weights of `detector` to `out` where `out` has not the name of such a file,
    or where something else lies. Weights of the same architecture and classes are replaced: the same training
    given again does that, another one with other settings, and the rounds of a loop.

    Raises:
        InputError: the name is no .safetensors, or other weights, or another file, lie there.
    """
    if out.suffix != ".safetensors":
        better = out.with_name(f"{out.stem}.safetensors")
        raise InputError(f"--out {out}: expected a name that ends with .safetensors, such as {better}")
    own = getattr(detector, "description", None)
    if own is None or not out.exists():
        return
    try:
        found = read_description(out)
    except InputError:
        raise InputError(
            f"--out {out}: a file lies there that curator did not write; name another --out"
        ) from None
    if canonical_json(found) != canonical_json(own):
        raise InputError(f"--out {out}: {_said(found)} lies there, not {_said(own)}; name another --out")


def _said(description: Mapping[str, Any]) -> str:
    """An architecture with its classes, for people."""
    options = description.get("options")
    classes = description.get("classes") or (options or {}).get("classes") or ()
    more = ", ..." if len(classes) > 3 else ""
    return f"{description.get('architecture')} of {len(classes)} classes ({', '.join(classes[:3])}{more})"
