"""Decodes picture files that strangers made: every damaged, disguised or oversized one becomes a `SampleError`."""

import io
import re
import warnings

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from chaffinch.scoring.scorer import SampleError

MAX_PIXELS = 128_000_000
"""More pixels than this are refused; open_clip's training reader draws the line at the same place."""

MAX_SIDE = 65_535
"""A longer side than this is refused: no JPEG can have one."""

# The classes are named here rather than found by Image.open, which asks every installed plugin, keeps a registry that
# threads share, and complains about size only after a warning of its own.
_FORMATS: tuple[tuple[bytes, type[ImageFile.ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"GIF87a", GifImagePlugin.GifImageFile),
    (b"GIF89a", GifImagePlugin.GifImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
    (b"II*\x00", TiffImagePlugin.TiffImageFile),
    (b"MM\x00*", TiffImagePlugin.TiffImageFile),
    (b"II+\x00", TiffImagePlugin.TiffImageFile),  # BigTIFF
    (b"MM\x00+", TiffImagePlugin.TiffImageFile),
)

_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_SPACE = re.compile(r"\s+")
# Addresses of objects and counts of bytes: what Pillow says of one file alone, and no two reasons would be equal.
_DETAIL = re.compile(r" at 0x[0-9a-fA-F]+| \(\d+ bytes not processed\)")


def sniff(head: bytes) -> str | None:
    """Tells from its first bytes whether a member can be a picture at all.

    Args:
        head: the first 16 bytes, or all there are.

    Returns:
        None where it begins like a JPEG, PNG, WEBP, GIF, BMP or TIFF file; otherwise the reason why it is not usable,
        such as "picture is not an image (starts with '<!DOCTYPE html>')".
    """
    head = head[:16]
    if not head:
        return "picture is empty"
    if _format(head) is not None:
        return None
    text = head.decode("latin-1")
    readable = text.isascii() and all(character.isprintable() or character.isspace() for character in text)
    start = repr(_SPACE.sub(" ", text)) if readable else f"bytes {head[:8].hex(' ')}"
    return f"picture is not an image (starts with {start})"


def decode(data: bytes) -> Image.Image:
    """Decodes a picture file to RGB, once for all scorers; any number of threads may do so at a time.

    The result is what `Image.convert("RGB")` gives, since that is what CLIP models train on, with one exception: grey
    levels of 16 bits are scaled down to 8, and of 32 bits stretched to 8, where Pillow would clip them to white.
    Animated pictures yield their first frame. Orientation tags and colour profiles are ignored, as in training.

    Args:
        data: the whole file: JPEG, PNG or WEBP; GIF, BMP and TIFF are read as well.

    Returns:
        The picture, mode RGB.

    Raises:
        SampleError: the file is no picture, is damaged or cut short, or has more than 128 million pixels or a side
            longer than 65,535; sizes are judged by the header, before any pixel takes memory.
    """
    return _decode(data, None)[0]


def decode_draft(data: bytes, at_least: int) -> tuple[Image.Image, tuple[int, int]]:
    """The same, but JPEGs may come at a half, a quarter or an eighth of their size, in a fraction of the time.

    Args:
        data: the whole file.
        at_least: pixels; neither side of the result is shorter because of this.

    Returns:
        The picture, mode RGB, and the width and height it has in full. Where a side is no multiple of the divisor, the
        last column or row stands for fewer pixels than the others.

    Raises:
        SampleError: as from `decode`.
    """
    return _decode(data, at_least)


def _decode(data: bytes, at_least: int | None) -> tuple[Image.Image, tuple[int, int]]:
    if (reason := sniff(data[:16])) is not None:
        raise SampleError(reason)
    plugin = _format(data[:16])
    assert plugin is not None  # sniff has seen to it
    _silence_pillow()
    if plugin is WebPImagePlugin.WebPImageFile:
        _check_size(*_webp_size(data))  # Pillow's decoder takes memory for the canvas as soon as it opens the file
    # Files made to harm reach corners of Pillow that raise anything, AttributeError and MemoryError included. Memory
    # rarely runs out honestly below 128 million pixels: what asks for too much is a field of a broken file.
    try:
        picture = plugin(io.BytesIO(data))
    except Exception as error:
        raise SampleError(_reason(error)) from error
    size = picture.size
    _check_size(*size)
    try:
        if at_least is not None:
            picture.draft(None, (at_least, at_least))
        return _to_rgb(picture), size
    except Exception as error:
        raise SampleError(_reason(error)) from error


def _format(head: bytes) -> type[ImageFile.ImageFile] | None:
    """The Pillow class that reads files which begin like this, None where there is none."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    return next((plugin for magic, plugin in _FORMATS if head.startswith(magic)), None)


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height that the header of a WEBP file claims; (1, 1) where it is too damaged to claim any."""
    chunk, rest = data[12:16], data[20:30]
    if len(rest) < 10:
        return 1, 1
    if chunk == b"VP8X":  # 24 bits each, less one
        return 1 + int.from_bytes(rest[4:7], "little"), 1 + int.from_bytes(rest[7:10], "little")
    if chunk == b"VP8L":  # 14 bits each, less one
        bits = int.from_bytes(rest[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":  # 14 bits each, the upper two ask for upscaling
        return int.from_bytes(rest[6:8], "little") & 0x3FFF, int.from_bytes(rest[8:10], "little") & 0x3FFF
    return 1, 1


def _check_size(width: int, height: int) -> None:
    """Raises SampleError for pictures without pixels, or with too many."""
    size = f"{width} x {height} pixels"
    if width < 1 or height < 1:
        raise SampleError(f"picture has no pixels: {size}")
    if width * height > MAX_PIXELS:
        raise SampleError(f"picture is too large: {size}, more than {MAX_PIXELS // 1_000_000} million")
    if max(width, height) > MAX_SIDE:
        raise SampleError(f"picture is too large: {size}, a side longer than {MAX_SIDE:,}")


def _to_rgb(picture: Image.Image) -> Image.Image:
    """The first frame in mode RGB, a copy that no longer holds the file."""
    if picture.mode.startswith("I;16"):
        # The upper byte, which is also what Pillow keeps of 16-bit colour.
        grey = (np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8)  # (height, width)
        picture = Image.fromarray(grey)
    elif picture.mode in ("I", "F"):
        # Nothing in such files says which values are black and white: their own extremes are.
        grey = np.nan_to_num(np.asarray(picture, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        low, high = grey.min(), grey.max()
        picture = Image.fromarray(np.rint((grey - low) * (255.0 / max(high - low, 1e-30))).astype(np.uint8))
    return picture.convert("RGB")


def _reason(error: Exception) -> str:
    """One line for the tables, the same on every run, and for every file that is broken alike."""
    text = _DETAIL.sub("", _SPACE.sub(" ", str(error))).strip()[:200]
    return f"picture cannot be decoded: {text or type(error).__name__}"


def _silence_pillow() -> None:
    """Keeps Pillow's warnings about damaged files from the user, who finds the reason in the tables instead.

    A lasting filter, because `warnings.catch_warnings` swaps the filters of all threads; looked for on every call,
    because others swap them too.
    """
    if _QUIET not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")
