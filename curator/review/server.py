"""Serve the page at an address of this machine, and say where."""

from __future__ import annotations

import getpass
import ipaddress
import secrets
import socket
import webbrowser
from collections.abc import Callable
from typing import TYPE_CHECKING

from curator.errors import InputError

if TYPE_CHECKING:
    from store.store import Store


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Args:
        port: 0 takes a free one.
    Raises:
        InputError: no address of this machine, all of them at once, or the port is taken.
    """
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError as error:
        raise InputError(f"--host: expected an IP address of this machine, got {host!r}") from error
    if address.is_unspecified:
        raise InputError(
            f"--host: {host} would answer at every address, under any name; name one address instead"
        )
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((str(address), port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise InputError(
            f"--host {host} --port {port}: cannot listen there ({error.strerror}); --port 0 takes a free one"
        ) from error
    return listening


def hosts_of(listening: socket.socket) -> list[str]:
    """The host:port pairs that lead to a socket."""
    address, port = listening.getsockname()[:2]
    names = [f"[{address}]" if ":" in address else address]
    if ipaddress.ip_address(address).is_loopback:
        names.append("localhost")
    return [f"{name}:{port}" for name in names]


def serve(
    store: Store, *, host: str, port: int, author: str | None, browser: bool, say: Callable[[str], None]
) -> None:
    """Serve until Ctrl-C.

    Args:
        author: recorded with every change; None takes the user's name on this machine.
        browser: open the page. say: prints a line.
    """
    try:
        import uvicorn

        from curator.review.app import create_app
    except ModuleNotFoundError as error:
        raise InputError(f"review needs {error.name}: pip install 'curator[review]'") from error
    listening = bind(host, port)
    names = hosts_of(listening)
    token = secrets.token_urlsafe(24)
    app = create_app(
        store,
        token=token,
        hosts=names,
        author=author or user(),
        cookie=f"curator-review-{names[0].rpartition(':')[2]}",
    )
    address = f"http://{names[0]}/?token={token}"
    say(f"review of {store.path}: {address}")
    if not ipaddress.ip_address(listening.getsockname()[0]).is_loopback:
        say("warning: other machines reach this address, and what is sent is not encrypted")
    say("Ctrl-C ends it")
    if browser:
        webbrowser.open(address)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=64,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=64_000,
    )
    uvicorn.Server(config).run(sockets=[listening])


def user() -> str:
    """Who works on this machine."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "unknown"
