"""Which executor `--executor` names.

In: a spec such as `local`, `ray` or `ray://10.0.0.1:6379?actors=8`. Out: an executor, closed at the end of
its `with`. Loads neither ray nor torch before work is handed out.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING

from curator.errors import InputError
from curator.registry import Spec

if TYPE_CHECKING:
    from curator.jobs.ray import RayExecutor

FORMS = "local, ray or ray://HOST:PORT (the last two with ?actors=N&timeout=SECONDS)"


def open_executor(spec: str, device: str = "auto") -> AbstractContextManager[RayExecutor | None]:
    """The executor that `spec` names; None for `local`, where a stage uses its own.

    Args:
        spec: `local`; `ray`, a cluster of this machine's cores or GPUs that lives as long as the executor;
            `ray://HOST:PORT`, the cluster that a `ray start` named so, which is left running. `actors`: how
            many processes work, at most; `timeout`: seconds that an item may take, 0 for any time.
        device: of each worker, as `curator.tensors.resolve_device` understands it, but for `cuda:N`: which
            GPU is whose is the cluster's business.
    Raises:
        InputError: another spec, option or device, ray is not installed, or nobody answers at the address.
    """
    if spec == "local":
        return nullcontext(None)
    head, _, options = spec.partition("?")
    scheme, separator, address = head.partition("://")
    if scheme != "ray" or bool(separator) != bool(address):
        raise InputError(f"--executor: expected {FORMS}, got {spec!r}")
    if address:
        _check_address(address, spec)
    given = Spec.of_method(f"ray?{options}" if options else "ray").options
    unknown = sorted(set(given) - {"actors", "timeout"})
    if unknown:
        raise InputError(f"--executor: expected the options actors and timeout, got {', '.join(unknown)}")
    actors = _whole(given, "actors", least=1)
    timeout = _whole(given, "timeout", least=0)
    if device.startswith("cuda:"):
        raise InputError(f"--device {device}: Ray gives out the GPUs; use --device cuda, auto or cpu")
    if find_spec("ray") is None:
        raise InputError(
            '--executor ray needs the package ray, which is not installed; run pip install "curator[ray]"'
        )
    from curator.jobs.cluster import knock
    from curator.jobs.ray import TIMEOUT, RayExecutor

    if address:
        knock(address)  # now: a stage may compute for minutes before it hands anything out
    return RayExecutor(
        address or None,
        device=device,
        actors=actors,
        timeout=TIMEOUT if timeout is None else timeout or None,
    )


def _check_address(address: str, spec: str) -> None:
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 65536):
        raise InputError(
            f"--executor: expected ray://HOST:PORT, the address that `ray start` printed, got {spec!r}"
        )


def _whole(given: dict[str, str], name: str, *, least: int) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    if not text.isdecimal() or int(text) < least:
        raise InputError(
            f"--executor: expected {name}=N with a whole number of {least} or more, got {name}={text}"
        )
    return int(text)
