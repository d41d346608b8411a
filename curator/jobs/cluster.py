"""Start a Ray cluster on this machine, or join one that runs; leave things as they were found.

In: an address or none. Out: a `Cluster` that says how many CPUs and GPUs it has. A cluster that is started
here listens on loopback alone, writes in a temporary folder of its own, and ends with `close` or with this
process.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from curator.errors import InputError, StageError, one_line

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to anybody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what later versions do; unset, Ray warns of it
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # of dead workers it writes on stdout, where --json writes too
}
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # no other setting keeps Linux on 127.0.0.1
AUTH_MODE = "RAY_AUTH_MODE"  # "token" for clusters that ask for one
REFUSED = "InvalidAuthToken"  # what they say without it
STORE_BYTES = 1 << 30  # shared memory for batches on their way; what does not fit goes to disk
KNOCK = 5  # seconds for a first answer of an address
JOIN = 40  # seconds for joining a cluster; by itself Ray tries for some minutes
JOINING = """
import logging, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.CRITICAL)
ray.shutdown()
"""


class Cluster:
    """A cluster that this process is part of.

    Args:
        address: HOST:PORT as `ray start` printed it; None starts one. A program that called `ray.init` before
            keeps its cluster, whatever is asked for here.
        cpus: of a cluster that is started; None for all that this process may use.
        gpus: False starts one without.
    Raises:
        InputError: nobody answers at the address, or it is no cluster that this machine is part of.
        StageError: Ray does not start.
    """

    def __init__(self, address: str | None = None, *, cpus: int | None = None, gpus: bool = True) -> None:
        self._folder: str | None = None
        self._started = False
        self._mode = os.environ.get(AUTH_MODE)
        known = sys.modules.get("ray")
        if known is not None and known.is_initialized():
            self.ray: Any = known
            return
        settings = _settings(address)
        if address is not None:
            knock(address)
            settings |= _try_to_join(address, settings)
        with _environment(settings):
            self.ray = _import()
            self._begin(address, cpus, gpus)

    def _begin(self, address: str | None, cpus: int | None, gpus: bool) -> None:
        said: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        if address is not None:
            said["address"] = address
        else:
            self._folder = tempfile.mkdtemp(prefix="curator-ray-", dir=_short_folder())
            said |= {
                "address": "local",
                "num_cpus": cpus or _cores(),
                "include_dashboard": False,
                "object_store_memory": STORE_BYTES,
                "_temp_dir": self._folder,
            }
            if not gpus:
                said["num_gpus"] = 0
        try:
            self.ray.init(**said)
        except Exception as error:
            self._remove_folder()
            raise StageError(f"Ray could not {'join' if address else 'start'}: {one_line(error)}") from error
        except BaseException:
            self.ray.shutdown()
            self._remove_folder()
            raise
        self._started = True

    def count(self, resource: str) -> int:
        """How many `CPU`s or `GPU`s the living nodes have."""
        return int(self.ray.cluster_resources().get(resource, 0))

    def alive(self, node: str) -> bool:
        """Is the node of this id alive, as far as the cluster knows by now?"""
        return any(found["NodeID"] == node and found["Alive"] for found in self.ray.nodes())

    def close(self) -> None:
        """End what was started, leave what was joined; a second call does nothing."""
        if self._started:
            self._started = False
            self.ray.shutdown()
            if self._mode is None:
                os.environ.pop(AUTH_MODE, None)  # Ray sets it when it starts a cluster
        self._remove_folder()

    def _remove_folder(self) -> None:
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def import_ray() -> Any:
    """The package, quiet and on loopback; imported before, it keeps that program's ways."""
    with _environment(_settings(None)):
        return _import()


def _import() -> Any:
    import ray

    return ray


def _settings(address: str | None) -> dict[str, str]:
    loopback = address is None or address.rpartition(":")[0] in ("127.0.0.1", "localhost", "[::1]")
    return {**QUIET, **(LOOPBACK if loopback else {})}


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Ray reads its settings when it is imported, and hands them to what it starts; the user's own stand."""
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _has_token() -> bool:
    """Has the user a token for Ray's clusters, where Ray's documentation puts it? Ray alone reads it."""
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path.home() / ".ray" / "auth_token").is_file()


def _short_folder() -> str:
    """Of temporary files; Ray adds 65 characters for its sockets, whose names may have 107 at most."""
    usual = tempfile.gettempdir()
    return usual if len(usual) <= 20 or not os.path.isdir("/tmp") else "/tmp"


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def knock(address: str) -> None:
    """Does anybody answer at HOST:PORT? Within seconds, and without Ray.

    Raises:
        InputError: nobody.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK).close()
    except OSError as error:
        raise InputError(
            f"--executor ray://{address}: nobody answers there ({error.strerror or error}); expected the "
            "address that `ray start --head` printed"
        ) from error


def _try_to_join(address: str, settings: dict[str, str]) -> dict[str, str]:
    """Join in a process of its own, which can be stopped: Ray itself waits for minutes, deaf to Ctrl-C.

    A cluster that `ray start` began asks for the user's token where there was one; Ray gives it if told to.

    Returns:
        what to tell Ray besides `settings`.
    """
    why = _refusal(address, settings)
    if why and REFUSED in why and AUTH_MODE not in os.environ and _has_token():
        token = {AUTH_MODE: "token"}
        why = _refusal(address, {**settings, **token})
        if not why:
            return token
    if why:
        raise InputError(
            f"--executor ray://{address}: could not join ({why}); expected a cluster that this machine is "
            f"part of: ray start --address={address}"
        )
    return {}


def _refusal(address: str, settings: dict[str, str]) -> str:
    """Why joining fails, in one line; empty where it does not."""
    lines: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", JOINING, address],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**settings, **os.environ},
    ) as joining:
        timer = threading.Timer(JOIN, joining.kill)
        timer.start()
        try:
            assert joining.stderr is not None
            for line in joining.stderr:
                lines += [" ".join(line.split())] if line.strip() else []
                if REFUSED in line:
                    joining.kill()  # it would try again for long
                    return (
                        f"{REFUSED}: it asks for a token, see https://docs.ray.io (ray-security/token-auth)"
                    )
            code = joining.wait()
        finally:
            timer.cancel()
            joining.kill()
    if code == 0:
        return ""
    if code < 0:
        return f"no answer as of a Ray cluster within {JOIN} s"
    return lines[-1] if lines else f"exit code {code}"
