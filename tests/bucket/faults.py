"""A small HTTP proxy that fails as a script says, before an S3 server."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CODES = {403: "AccessDenied", 500: "InternalError", 503: "SlowDown"}
_PASSED = {"connection", "transfer-encoding", "content-length", "keep-alive", "server", "date"}


class Faults:
    """Hands requests on to `port`, but for those that `script` names.

    Attributes:
        script: key -> what its next GETs get: a status, "short" (a body cut in its middle), "lie" (cut, and
            its length says so), "reset", "hang" (seconds `hang`, then nothing).
        gets: key -> GETs that came. delay: seconds before each answer.
    """

    def __init__(self, port: int) -> None:
        self.script: dict[str, list[int | str]] = {}
        self.gets: dict[str, int] = defaultdict(int)
        self.hang = 2.0
        self.delay = 0.0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _handle(self) -> None:
                time.sleep(outer.delay)
                key = self.path.partition("?")[0].strip("/")
                fault: int | str | None = None
                if self.command == "GET":
                    with outer._lock:
                        outer.gets[key] += 1
                        waiting = outer.script.get(key)
                        fault = waiting.pop(0) if waiting else None
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length) if length else None
                if isinstance(fault, int):
                    error = f"<Error><Code>{CODES[fault]}</Code><Message>as told</Message></Error>".encode()
                    self._answer(fault, {"Content-Type": "application/xml"}, error, len(error))
                    return
                if fault == "hang":
                    time.sleep(outer.hang)
                if fault in ("hang", "reset"):
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                onward = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                onward.request(self.command, self.path, body, dict(self.headers))
                answer = onward.getresponse()
                data = answer.read()
                onward.close()
                kept = {k: v for k, v in answer.getheaders() if k.lower() not in _PASSED}
                said = len(data) if self.command != "HEAD" else int(answer.getheader("Content-Length") or 0)
                if fault in ("short", "lie"):
                    data = data[: len(data) // 2]
                    self.close_connection = True
                self._answer(answer.status, kept, data, len(data) if fault == "lie" else said)

            def _answer(self, status: int, headers: dict[str, str], data: bytes, length: int) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def reset(self) -> None:
        """No faults, no counts."""
        self.script.clear()
        self.gets.clear()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
