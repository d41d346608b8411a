"""Asking a web service for JSON: time-outs, size limits, retries, one clear line on each failure.

In: an address, and a body to post or none. Out: what the JSON says. Nothing here knows of detectors.

Connections that fail, time-outs, 429 and 5xx may pass: they are tried again after a wait that doubles each
time, or that the service asks for (Retry-After). Once all tries of a request failed the next requests are
tried once each, until one is answered: a dead service costs little more. Redirects are not followed, since a
secret header would go where it was not meant to go. Proxies are not used.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import json
import os
import re
import ssl
import time
from typing import Any
from urllib.parse import quote, urlsplit

from curator.config import require
from curator.errors import InputError

FIRST_WAIT = 0.5  # seconds before the second try
LONGEST_WAIT = 60.0  # seconds that a service may ask for
_KEPT = "/%:@!$&'()*+,;=~-._?"  # of a path or query, as they are
_SAID = 200  # characters of an error page that a message quotes


class _PassingError(Exception):
    """A failure that may pass. after: seconds that the service wants us to wait."""

    def __init__(self, text: str, after: float | None = None) -> None:
        super().__init__(text)
        self.after = after


class HttpService:
    """A service at one address.

    Args:
        url: http or https, with a host; its path and query are sent as they are.
        header: name and value sent with each request; the value shows in no message.
        timeout: seconds, for the connection, for the answer's start and for all of the answer.
        retries: tries after the first.
        most: bytes of the largest answer.
    Raises:
        ConfigError: an address that is none, or with a password or a fragment in it.
    """

    def __init__(
        self, url: str, *, header: tuple[str, str] | None, timeout: float, retries: int, most: int
    ) -> None:
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname or "", parts.port
        except ValueError:
            parts, self._host, self._port = urlsplit(""), "", None
        require(
            parts.scheme in ("http", "https") and bool(self._host),
            f"expected an address such as http://localhost:8000/predict, got {url!r}",
        )
        require(
            parts.username is None and parts.password is None,
            f"{parts.scheme}://{self._host}: expected no user or password in the address, which is stored; "
            "give them as a header (curator_header_env)",
        )
        require(not parts.fragment, f"expected an address without #, got {url!r}")
        self._secure = parts.scheme == "https"
        self._path = quote(parts.path or "/", safe=_KEPT)
        if parts.query:
            self._path += "?" + quote(parts.query, safe=_KEPT)
        self.where = f"{parts.scheme}://{parts.netloc}{parts.path}"
        self._header = header
        self._timeout, self._retries, self._most = timeout, retries, most
        self._down = False

    def get(self) -> Any:
        """The JSON of a GET.

        Raises:
            InputError: no usable answer.
        """
        return self._ask("GET", None, {})

    def post(self, body: bytes, content_type: str) -> Any:
        """The JSON that answers `body`.

        Raises:
            InputError: no usable answer.
        """
        return self._ask("POST", body, {"Content-Type": content_type})

    def _ask(self, method: str, body: bytes | None, headers: dict[str, str]) -> Any:
        tries = 1 if self._down else 1 + self._retries
        for number in range(1, tries + 1):
            try:
                data = self._once(method, body, headers)
                break
            except _PassingError as error:
                rest = error.after or 0.0
                if number == tries or rest > LONGEST_WAIT:
                    self._down = True
                    asked = f"asked {number} times" if number > 1 else "asked once"
                    longer = f"; it wants {rest:.0f} s of rest" if rest > LONGEST_WAIT else ""
                    raise self._error(f"{error} ({asked}{longer})") from error
                own = min(FIRST_WAIT * 2 ** (number - 1), LONGEST_WAIT)
                time.sleep(own if error.after is None else error.after)
        self._down = False
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._error(f"expected JSON, got {self._quoted(data)!r} ({error})") from error

    def _once(self, method: str, body: bytes | None, headers: dict[str, str]) -> bytes:
        """One request and the bytes of its answer."""
        sent = {"Accept": "application/json", "User-Agent": "curator", "Connection": "close", **headers}
        if self._header is not None:
            sent[self._header[0]] = self._header[1]
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        try:
            connection = kind(self._host, self._port, timeout=self._timeout)
        except (http.client.InvalidURL, ValueError) as error:
            raise self._error("expected a host name, got none that can be asked") from error
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may answer all the same
                connection.request(method, self._path, body, sent)
            response = connection.getresponse()
            data = self._read(response)
        except TimeoutError as error:
            raise _PassingError(
                f"no answer within {self._timeout:g} s; give it longer with curator_timeout, or fewer "
                "images at a time with curator_batch"
            ) from error
        except ssl.SSLCertVerificationError as error:
            raise self._error(
                f"its certificate is not trusted ({error.verify_message}); SSL_CERT_FILE can name an "
                "authority of your own"
            ) from error
        except ConnectionRefusedError as error:
            raise _PassingError("refused the connection; is the service running?") from error
        except UnicodeError as error:  # a host that no name server takes
            raise self._error("expected a host name, got none that can be asked") from error
        except (OSError, http.client.HTTPException) as error:
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise _PassingError(f"the connection failed ({self._quoted(text.encode())})") from error
        finally:
            connection.close()
        self._check(response, data)
        return data

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        """The answer's bytes, in time and not too many."""
        said = response.length
        until = time.monotonic() + self._timeout
        data = bytearray()
        while (said or 0) <= self._most and len(data) <= self._most:
            part = response.read1(1 << 16)
            if not part:
                if response.length:
                    raise _PassingError(f"its answer ended {response.length} bytes early")
                return bytes(data)
            data += part
            if time.monotonic() > until:
                raise TimeoutError
        raise self._error(
            f"its answer has more than {self._most / 2**20:g} MB; it should report fewer boxes, or allow "
            "more with curator_max_mb"
        )

    def _check(self, response: http.client.HTTPResponse, data: bytes) -> None:
        """Refuse what is no JSON by its status or its type."""
        status = f"answered {response.status} {response.reason}"
        if response.status == 429 or response.status >= 500:
            text = self._quoted(data)
            rest = _rest(response.getheader("Retry-After"))
            raise _PassingError(f"{status}: {text}" if text else status, rest)
        if 300 <= response.status < 400:
            aim = self._quoted((response.getheader("Location") or "nowhere").encode())
            raise self._error(f"{status}, a redirect to {aim}; name that address, if you trust it")
        if response.status != 200:
            text = self._quoted(data)
            raise self._error(f"{status}: {text}" if text else status)
        kind = response.getheader("Content-Type") or "none"
        name = kind.partition(";")[0].strip().lower()
        if name != "application/json" and not name.endswith("+json"):
            raise self._error(
                f"expected the content type application/json, got {self._quoted(kind.encode())!r} with "
                f"{self._quoted(data)!r}"
            )

    def _quoted(self, data: bytes) -> str:
        """The start of a text of the service on one line, without the header's value."""
        text = self.hidden(data[: 16 * _SAID].decode("utf-8", "replace"))
        text = " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", text).split())
        return text if len(text) <= _SAID else text[:_SAID] + "..."

    def hidden(self, text: str) -> str:
        """A text without the header's value and its parts."""
        if self._header is not None:
            value = self._header[1]
            for secret in (value, *(part for part in re.split(r"[\s,;=]+", value) if len(part) > 5)):
                text = text.replace(secret, "***")
        return text

    def _error(self, text: str) -> InputError:
        return InputError(f"{self.where}: {text}")


def header_from(name: str) -> tuple[str, str]:
    """The header in the environment variable `name`, whose value is "Name: value".

    Raises:
        ConfigError: no such variable, or another form; the value is not shown.
    """
    text = os.environ.get(name, "")
    require(bool(text), f"curator_header_env: expected the environment variable {name}, found none")
    header, colon, value = text.partition(":")
    value = value.strip()
    fits = re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", header) and value.isascii() and value.isprintable()
    require(
        bool(colon and value and fits),
        f"curator_header_env: expected {name} to hold a header on one line, such as "
        "'Authorization: Bearer ...', got another form (not shown)",
    )
    return header, value


def _rest(text: str | None) -> float | None:
    """Seconds that Retry-After asks for: a number or a date; None for neither."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None
