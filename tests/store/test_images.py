"""Decoding, orientation, limits, hashes and blobs."""

from __future__ import annotations

import hashlib
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from store.blobs import BlobStore
from store.errors import CorruptionError, ImageError, NotFoundError
from store.images import encode_png, probe, read_bytes_as_pixels, read_pixels
from store.store import Store

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)


def oriented(path: Path, orientation: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(path, exif=exif)
    return path


UPRIGHT = {
    1: PIXELS,
    2: PIXELS[:, ::-1],
    3: PIXELS[::-1, ::-1],
    4: PIXELS[::-1],
    5: PIXELS.transpose(1, 0, 2),
    6: np.rot90(PIXELS, -1),
    7: PIXELS[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(PIXELS),
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    path = oriented(tmp_path / "a.png", orientation)
    np.testing.assert_array_equal(read_pixels(str(path)), UPRIGHT[orientation])
    found = probe(path)
    assert (found.height, found.width) == UPRIGHT[orientation].shape[:2]
    assert (found.raw_height, found.raw_width, found.orientation) == (6, 4, orientation)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_equal_pictures_hash_alike_and_others_do_not(tmp_path: Path, build: Any) -> None:
    x, y = np.meshgrid(np.linspace(0, 3, 600), np.linspace(0, 2, 400))
    picture = (
        np.stack([127 + 120 * np.sin(3 * x + y), 127 + 120 * np.cos(2 * y), 80 * x], -1)
        .clip(0, 255)
        .astype(np.uint8)
    )
    Image.fromarray(picture).save(tmp_path / "a.png")
    Image.fromarray(picture).save(tmp_path / "a.jpg", quality=70)
    one, two = (int(probe(tmp_path / name).phash, 16) for name in ("a.png", "a.jpg"))
    other = int(probe(build.png(tmp_path / "b.png")).phash, 16)
    assert (one ^ two).bit_count() <= 4
    assert (one ^ other).bit_count() > 10
    assert len(probe(tmp_path / "a.png").phash) == 16


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    grey = np.linspace(0, 255, 48, dtype=np.uint8).reshape(6, 8)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(grey)
        image = image.convert(mode) if mode in ("L", "P", "1", "LA") else image.convert("RGB").convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    pixels = read_pixels(str(path))
    assert (pixels.shape, pixels.dtype) == ((6, 8, 3), np.uint8)
    expected = np.where(np.asarray(image), 255, 0) if mode == "1" else grey
    np.testing.assert_allclose(pixels[..., 0].astype(int), expected.astype(int), atol=1)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"<html>not found</html>")
    whole = encode_png(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8))
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    for name, message in (
        ("empty.png", "no known format"),
        ("text.png", "no known format"),
        ("cut.png", "cannot be decoded"),
        ("absent.png", "No such file"),
    ):
        with pytest.raises(ImageError, match=message) as caught:
            read_pixels(str(tmp_path / name))
        assert name in str(caught.value)
        with pytest.raises(ImageError):
            probe(tmp_path / name)


def test_size_limits(tmp_path: Path, build: Any) -> None:
    path = build.png(tmp_path / "a.png", size=(10, 20))
    assert read_pixels(str(path), limit=200).shape == (10, 20, 3)
    with pytest.raises(ImageError, match="expected 1 to 199 pixels, got 20 x 10"):
        read_pixels(str(path), limit=199)


def test_a_decompression_bomb_is_not_decoded(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    size = (200_000).to_bytes(4, "big")
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size + size + bytes([8, 2, 0, 0, 0])) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(ImageError, match="pixels"):
        read_pixels(str(tmp_path / "bomb.png"))


def test_a_changed_file_is_noticed(sqlite_store: Store, tmp_path: Path, build: Any) -> None:
    path = build.png(tmp_path / "a.png")
    found = probe(path)
    run = sqlite_store.begin_run("add", config={})
    new = build.image(1, uri=str(path))
    (added,) = sqlite_store.add_images(
        run, [type(new)(**{**{name: getattr(new, name) for name in new.__slots__}, "sha256": found.sha256})]
    )
    image = sqlite_store.images(reader="detect", ids=[added.image_id])[0]
    np.testing.assert_array_equal(sqlite_store.pixels(image, reader="detect"), read_pixels(str(path)))
    build.png(path, seed=1)
    with pytest.raises(CorruptionError, match="changed since"):
        sqlite_store.pixels(image, reader="detect")


def test_uris_of_every_kind(tmp_path: Path, build: Any) -> None:
    import fsspec

    path = build.png(tmp_path / "with space.png")
    expected = read_pixels(str(path))
    np.testing.assert_array_equal(read_pixels(f"file://{path}"), expected)
    with fsspec.open("memory://a.png", "wb") as stream:
        stream.write(path.read_bytes())
    np.testing.assert_array_equal(read_pixels("memory://a.png"), expected)
    with pytest.raises(ImageError):
        read_pixels("memory://absent.png")


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32))
def test_png_round_trip(height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read_bytes_as_pixels(encode_png(pixels)), pixels)


def test_only_rgb_is_encoded() -> None:
    with pytest.raises(ImageError, match="expected pixels"):
        encode_png(np.zeros((3, 3), np.uint8))


# ---------------------------------------------------------------- blobs


@pytest.fixture(params=["folder", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path) if request.param == "folder" else f"memory://{tmp_path.name}")


def test_blobs_come_back(blobs: BlobStore) -> None:
    for data in (b"", b"abc", bytes(range(256)) * 1000):
        name = blobs.put(data)
        assert name == hashlib.sha256(data).hexdigest() == blobs.put(data)
        assert blobs.get(name) == data
    with pytest.raises(NotFoundError):
        blobs.get("0" * 64)


def test_a_damaged_blob_is_noticed_and_mended(tmp_path: Path) -> None:
    blobs = BlobStore(str(tmp_path))
    name = blobs.put(b"abc")
    (path,) = (path for path in tmp_path.rglob("*") if path.is_file())
    path.write_bytes(b"abd")
    with pytest.raises(CorruptionError, match="damaged"):
        blobs.get(name)
    assert blobs.put(b"abc") == name
    assert blobs.get(name) == b"abc"
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_a_write_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = BlobStore(str(tmp_path))

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("store.blobs.os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        blobs.put(b"abc")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_png_files_stay_small() -> None:
    flat = encode_png(np.zeros((64, 64, 3), np.uint8))
    assert len(flat) < 300
    assert Image.open(io.BytesIO(flat)).format == "PNG"
