"""Chromium on the page of a workspace, for `review_scale.py` and `review_pictures.py`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from playwright.sync_api import Page, sync_playwright

from curator.review.app import create_app
from curator.review.server import bind, hosts_of
from store.store import Store

TOKEN = "benchmark"
CHROMIUM = "/usr/bin/chromium"


@contextmanager
def page_of(store: Store, **how: Any) -> Iterator[tuple[Page, str]]:
    """A page that was given the token, and the server's address."""
    listening = bind("127.0.0.1", 0)
    hosts = hosts_of(listening)
    app = create_app(store, token=TOKEN, hosts=hosts, author="ada")
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
            base = f"http://{hosts[0]}"
            page = browser.new_context(base_url=base, **how).new_page()
            page.goto(f"/?token={TOKEN}")
            page.wait_for_selector("h1")
            yield page, base
            browser.close()
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listening.close()
