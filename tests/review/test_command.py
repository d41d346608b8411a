"""`curator review` as a user starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="pip install 'curator[review]'")

from store.store import Store


def test_the_printed_address_opens_the_page(tmp_path: Path) -> None:
    Store.create(tmp_path / "ws").close()
    command = [sys.executable, "-m", "curator.cli", "-w", str(tmp_path / "ws")]
    command += ["review", "--no-open", "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        try:
            found = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S{20,}", server.stdout.readline())
            assert found is not None
            with urllib.request.urlopen(found[0], timeout=60) as page:
                assert b"curator review" in page.read()
                assert "SameSite=Strict" in page.headers["set-cookie"]
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(found[0].partition("?")[0], timeout=60)
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(timeout=60) in (0, 130, -signal.SIGINT)
