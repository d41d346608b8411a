"""Images a second of `add` and `detect` from a bucket, beside those from the disk.

    python benchmarks/bucket_speed.py [--images 200] [--delay 0]

The bucket is a moto server on loopback, in a process of its own: what is measured is this program's part and
moto's, not a network's; `--delay` has a proxy wait so many milliseconds before each answer. Needs
`pip install -c constraints.txt "curator[test]"`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SERVER = """
import logging, sys, time
logging.getLogger("werkzeug").setLevel(logging.ERROR)
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


def main() -> None:
    """Measure and print one line a stage."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=int, default=200)
    options.add_argument("--delay", type=float, default=0.0, help="milliseconds before each answer")
    given = options.parse_args()
    os.environ.setdefault("CURATOR_QUIET", "1")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["CURATOR_CACHE"] = str(root / "cache")
        os.environ.update(AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="x", AWS_DEFAULT_REGION="us-east-1")
        command = [sys.executable, "-c", SERVER]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            try:
                measure(root, int(server.stdout.readline()), given.images, given.delay / 1000)
            finally:
                server.kill()


def measure(root: Path, port: int, count: int, delay: float) -> None:
    """All stages on a bucket of `count` pictures of 640 x 480."""
    import s3fs

    from curator import pipeline
    from curator.data.settings import AddConfig
    from curator.detect.settings import DetectConfig
    from store.store import Store

    url = f"http://127.0.0.1:{port}"
    if delay:
        from tests.bucket.faults import Faults

        faults = Faults(port)
        faults.delay = delay
        url = faults.url
    os.environ["AWS_ENDPOINT_URL"] = url
    pictures = root / "pictures"
    pictures.mkdir()
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 255, (30, 40, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
        picture.save(pictures / f"{number:05}.jpg", quality=90)
    files = s3fs.S3FileSystem(endpoint_url=f"http://127.0.0.1:{port}")
    files.mkdir("bucket")
    files.put(str(pictures), "bucket/pictures", recursive=True)
    detector = "curator:ssd?classes=a&size=96&channels=8,8,16,16,16"

    def timed(name: str, work: Callable[[], object]) -> None:
        start = time.perf_counter()
        work()
        print(f"{name:42} {count / (time.perf_counter() - start):8.1f} images/s")

    with Store.create(root / "warm") as store:  # imports and the detector's first pass are not counted
        pipeline.add(store, AddConfig(format="images", path=str(pictures), role="mine", part="0-20"))
        pipeline.detect(store, DetectConfig(detector=detector, device="cpu"))
    print(f"{count} JPEG of 640 x 480, loopback, {delay * 1000:g} ms before each answer")
    for place, path in (("disk", str(pictures)), ("bucket", "s3://bucket/pictures")):
        with Store.create(root / place) as store:
            add = AddConfig(format="images", path=path, role="mine")
            timed(f"{place}: add", lambda: pipeline.add(store, add))  # noqa: B023
            timed(f"{place}: add again", lambda: pipeline.add(store, add))  # noqa: B023
            for state in ("as added", "cache empty", "cache full") if place == "bucket" else ("",):
                if state == "cache empty":
                    shutil.rmtree(root / "cache")
                floor = 0.5 + 0.01 * len(state)  # each time another configuration, so that nothing is done
                detect = DetectConfig(detector=detector, score_floor=floor, device="cpu")
                timed(f"{place}: detect {state}", lambda: pipeline.detect(store, detect))  # noqa: B023


if __name__ == "__main__":
    main()
