import concurrent.futures
import io
import struct
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from chaffinch.scoring.images import decode, sniff
from chaffinch.scoring.scorer import SampleError


def save(picture: Image.Image, file_format: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def gradient(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    width, height = size
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, 255 - red], axis=-1).astype(np.uint8)).convert(mode)


def plainly(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def png_claiming(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def webp_claiming(width: int, height: int) -> bytes:
    body = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + (width - 1).to_bytes(3, "little")
    body += (height - 1).to_bytes(3, "little") + bytes(40)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


frames = [Image.new("RGB", (12, 9), colour) for colour in ("red", "blue")]
transparent = gradient("P")
FILES = {
    "jpeg": save(gradient(), "JPEG"),
    "progressive jpeg": save(gradient(), "JPEG", progressive=True),
    "cmyk jpeg": save(gradient("CMYK"), "JPEG"),
    "grey jpeg": save(gradient("L"), "JPEG"),
    "png": save(gradient(), "PNG"),
    "rgba png": save(gradient("RGBA"), "PNG"),
    "la png": save(gradient("LA"), "PNG"),
    "1-bit png": save(gradient("1"), "PNG"),
    "palette png": save(gradient("P"), "PNG"),
    "palette png, one colour transparent": save(transparent, "PNG", transparency=3),
    "palette png, transparency by colour": save(transparent, "PNG", transparency=bytes(range(256))),
    "rgb png, one colour transparent": save(gradient(), "PNG", transparency=(0, 0, 255)),
    "webp": save(gradient(), "WEBP"),
    "lossless webp": save(gradient("RGBA"), "WEBP", lossless=True),
    "animated webp": save(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
    "animated gif": save(frames[0], "GIF", save_all=True, append_images=frames[1:]),
    "animated png": save(frames[0], "PNG", save_all=True, append_images=frames[1:]),
    "two-picture jpeg": save(frames[0], "MPO", save_all=True, append_images=frames[1:]),
    "bmp": save(gradient(), "BMP"),
    "tiff": save(gradient(), "TIFF"),
    "cmyk tiff": save(gradient("CMYK"), "TIFF"),
    "one pixel": save(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore")  # the plain decoder's
def test_decoding_gives_what_pillow_gives(name):
    assert sniff(FILES[name][:16]) is None
    picture, expected = decode(FILES[name]), plainly(FILES[name])
    assert picture.mode == "RGB"
    assert picture.size == expected.size
    assert picture.tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", ["animated webp", "animated gif", "animated png", "two-picture jpeg"])
def test_animations_yield_their_first_frame(name):
    red, _, blue = decode(FILES[name]).getpixel((5, 5))
    assert red > 200
    assert blue < 60


def test_16_bit_grey_is_scaled_down_and_not_clipped():
    levels = np.array([[0, 255, 256, 4000], [30_000, 40_000, 65_000, 65_535]], np.uint16)
    for file_format in ("PNG", "TIFF"):
        decoded = np.asarray(decode(save(Image.fromarray(levels), file_format)))
        np.testing.assert_array_equal(decoded[..., 0], levels // 256)
        np.testing.assert_array_equal(decoded[..., 0], decoded[..., 2])


@pytest.mark.parametrize("levels", [np.array([[0, 70_000, 140_000]], np.int32), np.array([[-1, 0, 1]], np.float32)])
def test_32_bit_grey_is_stretched(levels):
    decoded = np.asarray(decode(save(Image.fromarray(levels), "TIFF")))
    np.testing.assert_array_equal(decoded[0, :, 0], [0, 128, 255])


def test_a_flat_or_broken_32_bit_picture_is_black():
    for levels in (np.full((2, 2), 5, np.float32), np.array([[np.nan, np.inf]], np.float32)):
        assert not np.asarray(decode(save(Image.fromarray(levels), "TIFF"))).any()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "picture is empty"),
        (b"<!DOCTYPE html><html>", "picture is not an image (starts with '<!DOCTYPE html><')"),
        (b"\n\n<html>", "picture is not an image (starts with ' <html>')"),
        (bytes(30), "picture is not an image (starts with bytes 00 00 00 00 00 00 00 00)"),
        (b"%PDF-1.4\xff\xff", "picture is not an image (starts with bytes 25 50 44 46 2d 31 2e 34)"),
        (b"RIFF1234WAVEfmt ", "picture is not an image (starts with 'RIFF1234WAVEfmt ')"),
    ],
)
def test_what_is_no_picture_is_named(data, reason):
    assert sniff(data[:16]) == reason
    with pytest.raises(SampleError) as error:
        decode(data)
    assert str(error.value) == reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (png_claiming(60_000, 60_000), "picture is too large: 60000 x 60000 pixels, more than 128 million"),
        (png_claiming(20_000, 20_000), "picture is too large: 20000 x 20000 pixels, more than 128 million"),
        (png_claiming(70_000, 3), "picture is too large: 70000 x 3 pixels, a side longer than 65,535"),
        (webp_claiming(60_000, 60_000), "picture is too large: 60000 x 60000 pixels, more than 128 million"),
        (save(Image.new("1", (12_000, 11_000)), "GIF"), "picture is too large: 12000 x 11000 pixels"),
    ],
)
def test_size_is_judged_before_pixels_take_memory(data, reason, recwarn):
    tracemalloc.start()
    with pytest.raises(SampleError) as error:
        decode(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert str(error.value).startswith(reason)
    assert peak < 10e6
    assert not recwarn.list


def test_a_giant_claim_takes_no_memory_of_the_process():
    # Pillow takes pixels from the C heap, which tracemalloc does not see.
    program = (
        "import resource, sys; from chaffinch.scoring.images import decode\n"
        "from chaffinch.scoring.scorer import SampleError\n"
        "data = sys.stdin.buffer.read(); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: decode(data)\n"
        "except SampleError as error: print(error, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    for data in (png_claiming(60_000, 60_000), webp_claiming(16_000_000, 200)):
        done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True)
        message, _, kilobytes = done.stdout.decode().strip().rpartition(" ")
        assert message.startswith("picture is too large")
        assert int(kilobytes) < 20_000
        assert not done.stderr


@pytest.mark.parametrize("name", ["jpeg", "cmyk jpeg", "png", "webp", "lossless webp", "bmp", "tiff"])
def test_every_early_cut_is_refused(name):
    whole = FILES[name]
    for end in range(1, len(whole) * 3 // 4, max(1, len(whole) // 60)):
        with pytest.raises(SampleError, match="picture "):
            decode(whole[:end])


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.data())
@pytest.mark.filterwarnings("error")
def test_damage_gives_a_picture_or_a_sample_error_with_the_same_reason(name, data):
    damaged = bytearray(FILES[name])
    for place in data.draw(st.lists(st.integers(0, min(len(damaged), 400) - 1), max_size=6)):
        damaged[place] = data.draw(st.integers(0, 255))
    outcomes = []
    for _ in range(2):
        try:
            outcomes.append(decode(bytes(damaged)).tobytes())
        except SampleError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]
    if isinstance(outcomes[0], str):
        assert outcomes[0].startswith("picture ")
        assert "\n" not in outcomes[0]
        assert "0x" not in outcomes[0]


@given(st.binary(max_size=40))
def test_sniffing_tells_of_bytes_what_decoding_would(data):
    if (reason := sniff(data[:16])) is not None:
        with pytest.raises(SampleError) as error:
            decode(data)
        assert str(error.value) == reason


def test_threads_do_not_disturb_each_other():
    names = sorted(FILES) * 8
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda name: decode(FILES[name]).tobytes(), names))
    alone = {name: decode(FILES[name]).tobytes() for name in FILES}
    assert together == [alone[name] for name in names]


def test_pillows_warnings_stay_away_from_the_user():
    program = "import sys; from chaffinch.scoring.images import decode; decode(sys.stdin.buffer.read())"
    data = FILES["palette png, transparency by colour"]
    done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True)
    assert done.stderr == b""
    with pytest.warns(UserWarning, match="Transparency"):  # so there was one to keep away
        plainly(data)
