"""A detector behind a web address: `http://HOST:PORT/predict` or `https://...` (docs/detectors.md).

In: a service that answers GET with what it is and POST of PNG files with boxes. Out: a `BlackBox`; gradients
do not travel. Pictures are sent in the stored image's size with 8 bits a channel, so that stored images
arrive as they are and masked ones rounded to 1/255.

Which model answers. The version that a service reports is part of the fingerprint, with its address and its
classes: a new version is a new model, and one that changes in the middle of a run is refused. Without a
version nobody can tell whether yesterday's results are today's. To throw them away at once would be sound but
useless: `explain` must find the model whose failures `detect` stored a minute ago. So the fingerprint of such
a service is what it answers on a few fixed pictures (curator.detect.probe), asked anew whenever the detector
is loaded: a change that shows there is noticed by every stage. One that does not show is not, and therefore
`detect` never takes results of such a service as stored already: each run asks for every image again, under a
key of its own, and everything after it is computed from that run.

Options (anything else in the query belongs to the service and is sent along):
    curator_batch        images per request (8)
    curator_timeout      seconds to connect, and for an answer (60)
    curator_retries      tries after the first (3), of what may pass: connection errors, 429, 5xx
    curator_max_mb       MiB of the largest request and of the largest answer (64)
    curator_header_env   NAME of an environment variable that holds a header, "Name: value"
"""

from __future__ import annotations

import io
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from curator.config import require
from curator.detect.black_box import BlackBox, Found
from curator.detect.http_service import HttpService, header_from
from curator.detect.probe import answers_key, probe_pictures
from curator.errors import InputError, RegistryError
from curator.registry import Spec
from curator.tensors import image_pixels
from store.keys import content_key

PREFIX = "curator_"
_OPTIONS = ("batch", "timeout", "retries", "max_mb", "header_env")


@dataclass(frozen=True, slots=True)
class Description:
    """What a service says of itself.

    Attributes:
        version: None where it says none. classes: in label order.
        least_score: it reports nothing below; 0 where it does not say.
    """

    version: str | None
    classes: tuple[str, ...]
    least_score: float


class RemoteService:
    """The protocol of docs/detectors.md.

    Args:
        http: the service's address. batch: images per request. most: bytes of the largest request.
    Raises:
        InputError: it does not answer, or not as it should.
    """

    def __init__(self, http: HttpService, *, batch: int, most: int) -> None:
        self._http, self._batch, self._most = http, batch, most
        self.description = self.describe()

    def describe(self) -> Description:
        """Ask what it is.

        Raises:
            InputError: it does not answer, or not as it should.
        """
        said = self._http.get()
        if not isinstance(said, dict):
            raise self._wrong(f'expected a GET to give {{"version", "classes"}}, got {type(said).__name__}')
        classes = said.get("classes")
        named = isinstance(classes, list) and all(isinstance(name, str) and name for name in classes)
        if not named or not classes or len(set(classes)) < len(classes):
            raise self._wrong(
                'expected a GET to give "classes", a list of different names in label order, got '
                f"{_short(classes)}"
            )
        version = said.get("version")
        if version is not None and not (isinstance(version, str) and version.strip()):
            raise self._wrong(f'expected "version" to be a text, or to be left out, got {_short(version)}')
        least = said.get("least_score", 0.0)
        if isinstance(least, bool) or not isinstance(least, int | float) or not 0 <= least < 1:
            raise self._wrong(f'expected "least_score" in [0, 1), got {_short(least)}')
        return Description(version, tuple(classes), float(least))

    def find(self, images: list[Tensor]) -> list[Found]:
        """Objects of images (3, H, W) RGB [0, 1]; see `black_box.Finder`.

        Raises:
            InputError: it does not answer, or not as it should.
        """
        found: list[Found] = []
        part: list[bytes] = []
        for image in images:
            png = _png(image)
            if len(png) > self._most:
                raise self._wrong(
                    f"a picture of {tuple(image.shape[-2:])} px has {len(png) / 2**20:.1f} MB as PNG, more "
                    "than curator_max_mb allows"
                )
            if len(part) == self._batch or sum(map(len, part)) + len(png) > self._most:
                found += self._ask(part)
                part = []
            part.append(png)
        return found + self._ask(part) if part else found

    def _ask(self, pictures: Sequence[bytes]) -> list[Found]:
        """The answer to one request."""
        boundary = secrets.token_hex(16)
        said = self._http.post(_multipart(pictures, boundary), f"multipart/form-data; boundary={boundary}")
        answers = said.get("images") if isinstance(said, dict) else None
        if not isinstance(answers, list):
            raise self._wrong(f'expected {{"images": [...]}} for a POST, got {_short(said)}')
        known = self.description
        for name, own in (("version", known.version), ("classes", list(known.classes))):
            if name in said and said[name] != own:
                raise self._wrong(
                    f"it answers with the {name} {_short(said[name])} and described itself with "
                    f"{_short(own)}; if the model was changed, run `curator detect` again"
                )
        if len(answers) != len(pictures):
            raise self._wrong(f"expected answers for {len(pictures)} images, got {len(answers)}")
        return [self._one(answer) for answer in answers]

    def _one(self, answer: Any) -> Found:
        """Boxes, scores and labels of one image; `BlackBox` looks at the numbers."""
        wanted = ("boxes", "scores", "labels")
        if not isinstance(answer, dict) or not all(isinstance(answer.get(name), list) for name in wanted):
            raise self._wrong(
                f'expected an image\'s answer as {{"boxes", "scores", "labels"}} of lists, got '
                f"{_short(answer)}"
            )
        number = {name: label for label, name in enumerate(self.description.classes)}
        unknown = [name for name in answer["labels"] if isinstance(name, str) and name not in number]
        if unknown:
            raise self._wrong(
                f"expected labels among {_short(list(self.description.classes))} or their numbers, got "
                f"{_short(unknown[0])}"
            )
        labels = [number[name] if isinstance(name, str) else name for name in answer["labels"]]
        return (
            self._numbers(answer["boxes"], "boxes [[x1, y1, x2, y2], ...]"),
            self._numbers(answer["scores"], "scores"),
            self._numbers(labels, "labels"),
        )

    def _numbers(self, values: list[Any], what: str) -> NDArray[np.float64]:
        try:
            array = np.array(values) if values else np.zeros(0)
        except ValueError:  # rows of different lengths
            array = np.array("rows")
        if array.dtype.kind not in "iuf":
            raise self._wrong(f"expected {what} of numbers, got {_short(values)}")
        return array.astype(np.float64)

    def _wrong(self, text: str) -> InputError:
        return InputError(f"{self._http.where}: {self._http.hidden(text)}")


def build(spec: Spec) -> BlackBox:
    """Ask the service that `spec` names what it is.

    Raises:
        ConfigError, RegistryError: wrong options. InputError: it does not answer, or not as it should.
    """
    address, options = own_options(spec)
    header = options.get("header_env")
    most = round(_number(options, "max_mb", 64.0, above=0.0) * 2**20)
    http = HttpService(
        address,
        header=None if header is None else header_from(header),
        timeout=_number(options, "timeout", 60.0, above=0.0),
        retries=_whole(options, "retries", 3, least=0),
        most=most,
    )
    service = RemoteService(http, batch=_whole(options, "batch", 8, least=1), most=most)
    known = service.description

    def fingerprint_of(said: Description, box: BlackBox) -> str:
        what = (address, said.version, said.classes, said.least_score)
        if said.version is not None:
            return content_key("remote", *what)
        pictures = probe_pictures()
        return answers_key([found for found, _ in box.predict(pictures, score_threshold=0.0)], *what)

    def changed() -> bool:
        said = service.describe()
        return said != known or (said.version is None and fingerprint_of(said, box) != box.fingerprint)

    box = BlackBox(
        service.find,
        known.classes,
        fingerprint="",
        spec=spec.text,
        least_score=known.least_score,
        versioned=known.version is not None,
        changed=changed,
    )
    box.fingerprint = fingerprint_of(known, box)
    return box


def own_options(spec: Spec) -> tuple[str, dict[str, str]]:
    """The address without our options, and these without their prefix.

    Raises:
        RegistryError: an option with our prefix that is none.
    """
    base, _, query = spec.text.partition("?")
    theirs = [part for part in query.split("&") if part and not part.startswith(PREFIX)]
    own = {n.removeprefix(PREFIX): value for n, value in spec.options.items() if n.startswith(PREFIX)}
    unknown = sorted(set(own) - set(_OPTIONS))
    if unknown:
        raise RegistryError(
            f"{spec.scheme}: knows the options {', '.join(PREFIX + name for name in _OPTIONS)}, got "
            f"{', '.join(PREFIX + name for name in unknown)} in {spec.text!r}"
        )
    return "?".join([base, "&".join(theirs)] if theirs else [base]), own


def _png(image: Tensor) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image_pixels(image)).save(stream, "png", compress_level=1)
    return stream.getvalue()


def _multipart(pictures: Sequence[bytes], boundary: str) -> bytes:
    """A form of files, each called images (RFC 7578)."""
    parts = []
    for number, picture in enumerate(pictures):
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="images"; filename="{number}.png"\r\n'
            "Content-Type: image/png\r\n\r\n"
        )
        parts += [head.encode(), picture, b"\r\n"]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()])


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 120 else text[:120] + "..."


def _number(options: dict[str, str], name: str, default: float, *, above: float) -> float:
    text = options.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    require(above < value < 1e6, f"{PREFIX}{name}: expected a number above {above:g}, got {text!r}")
    return value


def _whole(options: dict[str, str], name: str, default: int, *, least: int) -> int:
    text = options.get(name, str(default))
    fits = text.isdecimal() and len(text) < 7 and int(text) >= least
    require(fits, f"{PREFIX}{name}: expected a whole number from {least}, got {text!r}")
    return int(text)
