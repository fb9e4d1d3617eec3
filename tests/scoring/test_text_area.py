"""Text on pictures: bars of known size for a network that takes dark for text, and the real detector on real text."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from chaffinch.scoring.images import decode
from chaffinch.scoring.scorer import Batch
from chaffinch.scoring.text_area import TextArea, count_characters

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
WEIGHTS = DATA / "weights" / "ch_PP-OCRv3_det_infer.onnx"
NUMBERS = ("text_area", "line_count", "wide_line_width", "caption_share")


def measure(scorer, model, *samples):
    """Columns for pairs of a picture and a caption."""
    prepared = [scorer.prepare(picture, model) for picture, _ in samples]
    batch = Batch([""] * len(samples), [caption for _, caption in samples], prepared)
    return dict(scorer.score(batch, model))


@pytest.fixture(scope="module")
def dark(text_detector):
    scorer = TextArea(weights=str(text_detector()))
    return scorer, scorer.load("cpu")


def bars(*boxes, level=0, size=(480, 256)):
    picture = Image.new("RGB", size, "white")
    for left, top, right, bottom in boxes:
        picture.paste((level,) * 3, (left, top, right, bottom))
    return picture


def grown(left, top, right, bottom):
    """Length, height and edges of the line whose core is such a bar."""
    width, height = right - left, bottom - top
    margin = 1.5 * width * height / (2 * (width + height))
    edges = left - margin, top - margin, right + margin, bottom + margin
    return width + 2 * margin, height + 2 * margin, edges


def test_planted_lines_are_measured(dark):
    wide, narrow = (50, 40, 250, 56), (300, 150, 360, 166)
    columns = measure(*dark, (bars(wide, narrow), "x" * 40))
    (length, height, edges), (short, same, _) = grown(*wide), grown(*narrow)
    assert length / height >= 5 > short / same
    expected = [
        (length * height + short * same) / (480 * 256),
        2,
        length / 480,
        (length / height + short / same) / 0.5 / 40,
    ]
    np.testing.assert_allclose([columns[name][0] for name in NUMBERS], expected, rtol=1e-5)
    boxes = np.array(columns["boxes"].to_pylist()[0])
    shares = np.array(edges) / [480, 256, 480, 256]
    assert np.isclose(boxes, shares, atol=1e-5).all(axis=1).sum() == 1
    np.testing.assert_allclose(columns["confidences"].to_pylist()[0], [1, 1], atol=1e-5)
    assert columns["phrases"].to_pylist() == [["text", "text"]]


def test_shares_stay_when_the_picture_is_larger(dark):
    small = bars((48, 48, 240, 64))
    large = small.resize((1440, 768), Image.Resampling.NEAREST)
    first, second = (measure(*dark, (picture, "a caption")) for picture in (small, large))
    for name in NUMBERS:
        np.testing.assert_allclose(first[name], second[name], rtol=1e-5)


def test_small_pictures_are_enlarged_a_little_and_strips_not_flattened(dark):
    scorer, model = dark
    shapes = {
        size: scorer.prepare(Image.new("RGB", size), model).pixels.shape[:2]
        for size in [(220, 220), (1000, 500), (3, 3), (1, 1), (6000, 40), (40, 6000)]
    }
    assert shapes == {
        (220, 220): (320, 320),
        (1000, 500): (256, 480),
        (3, 3): (32, 32),
        (1, 1): (32, 32),
        (6000, 40): (32, 480),
        (40, 6000): (480, 32),
    }


@pytest.mark.parametrize("size", [(1, 1), (2, 700), (900, 1), (33, 31)])
def test_pictures_of_any_size_are_measured(dark, size):
    columns = measure(*dark, (Image.new("RGB", size, "white"), "nothing"), (Image.new("RGB", size, "black"), "all"))
    for name in NUMBERS:
        assert np.isfinite(columns[name]).all()
        assert columns[name][0] == 0
    assert columns["text_area"][1] == 1  # a black picture is one core, grown beyond its edges
    assert columns["boxes"].to_pylist() == [[], [[0, 0, 1, 1]]]


def test_faint_lines_are_listed_but_do_not_count(text_detector):
    grey = bars((50, 40, 250, 56), level=116)
    strict, lax = TextArea(weights=str(text_detector())), TextArea(weights=str(text_detector()), confidence=0.3)
    model = strict.load("cpu")
    first, second = measure(strict, model, (grey, "word")), measure(lax, model, (grey, "word"))
    assert 0.3 < first["confidences"].to_pylist()[0][0] < 0.6
    assert [first[name][0] for name in NUMBERS] == [0, 0, 0, 0]
    assert second["line_count"][0] == 1
    assert first["boxes"] == second["boxes"]


def test_wide_is_a_setting(text_detector):
    picture = bars((50, 40, 250, 56))
    length, height, _ = grown(50, 40, 250, 56)
    for wide, expected in ((length / height - 0.01, length / 480), (length / height + 0.01, 0)):
        scorer = TextArea(weights=str(text_detector()), wide=wide)
        columns = measure(scorer, scorer.load("cpu"), (picture, "word"))
        assert columns["wide_line_width"][0] == pytest.approx(expected)


def test_one_in_a_batch_equals_alone(dark, photos):
    samples = [(photo, f"caption number {index}") for index, photo in enumerate(photos)]
    samples.append((bars((50, 40, 250, 56)), "x"))
    together = measure(*dark, *samples)
    for index, sample in enumerate(samples):
        alone = measure(*dark, sample)
        for name, values in together.items():
            assert str(values[index]) == str(alone[name][0]), name


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("A dog runs.", 11),
        ("  A \n dog\t ", 5),
        ("", 0),
        (" \n", 0),
        ("一只狗", 6),
        ("犬 dog", 6),
        ("\uff46\uff55\uff4c\uff4c", 8),
        ("cafe\u0301", 4),
    ],
)
def test_characters_are_counted_by_their_width(text, count):
    assert count_characters(text) == count


def test_a_caption_of_blanks_has_no_share(dark):
    columns = measure(*dark, (bars((50, 40, 250, 56)), " \n"), (bars(), "word"))
    assert np.isnan(columns["caption_share"][0])
    assert columns["caption_share"][1] == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"side": 31}, "side is 31: give a number of pixels from 32 to 4096"),
        ({"side": 5000}, "side is 5000"),
        ({"confidence": 0.2}, "confidence is 0.2: give a number from 0.3 to 1"),
        ({"confidence": float("nan")}, "confidence is nan"),
        ({"wide": 0.5}, "wide is 0.5: give a ratio"),
        ({"wide": float("nan")}, "wide is nan"),
    ],
)
def test_settings_that_cannot_be_are_named(text_detector, settings, message):
    with pytest.raises(ValueError, match=message):
        TextArea(weights=str(text_detector()), **settings).check()


def test_other_models_and_broken_files_are_named_with_the_remedy(text_detector, face_detector, tmp_path):
    remedy = "is no detector of text lines: name one of PaddleOCR's, such as ch_PP-OCRv3_det_infer.onnx"
    for other in (face_detector(), text_detector(channels=1)):
        with pytest.raises(ValueError, match=remedy):
            TextArea(weights=str(other)).check()
    no_map = TextArea(weights=str(text_detector("Identity")))
    no_map.check()
    with pytest.raises(ValueError, match=rf"{remedy}.*an empty picture gave \[1, 1, 32, 64\], 15\.8882 to 15\.8882"):
        no_map.load("cpu")
    half = tmp_path / "half.onnx"
    half.write_bytes(text_detector().read_bytes()[:100])
    for use in (TextArea.check, TextArea.identity, lambda scorer: scorer.load("cpu")):
        with pytest.raises(ValueError, match="is not a file here: give the path"):
            use(TextArea(weights="missing.onnx"))
        if use is not TextArea.identity:
            with pytest.raises(ValueError, match=r"half\.onnx' cannot be used: is it a complete ONNX model"):
                use(TextArea(weights=str(half)))


def test_moving_the_file_changes_no_fingerprint(text_detector, tmp_path):
    copy = tmp_path / "elsewhere.onnx"
    copy.write_bytes(text_detector().read_bytes())
    identity = TextArea(weights=str(copy)).identity()
    assert identity == TextArea(weights=str(text_detector())).identity()
    assert identity != TextArea(weights=str(text_detector("Identity"))).identity()
    assert identity != TextArea(weights=str(copy), wide=6).identity()


real = [
    pytest.mark.real,
    pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"needs ../shared/data/weights/{WEIGHTS.name}"),
]


@pytest.fixture(scope="module")
def reader():
    scorer = TextArea(weights=str(WEIGHTS))
    return scorer, scorer.load("cpu")


def scene(seed=0, size=(400, 300)):
    """Soft colours, as of a photo out of focus."""
    seeds = np.random.default_rng(seed).integers(60, 200, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(seeds).resize(size, Image.Resampling.BICUBIC)


def write(picture, *lines, left=20, top=30, size=20, colour="black"):
    """Writes lines onto a picture; returns their edges, as Pillow knows them."""
    font, draw, boxes = ImageFont.load_default(size), ImageDraw.Draw(picture), []
    for index, line in enumerate(lines):
        place = (left, top + index * 1.5 * size)
        draw.text(place, line, font=font, fill=colour)
        boxes.append(draw.textbbox(place, line, font=font))
    return np.array(boxes)


LINES = ("A brown dog runs along the", "beach with a red ball in its", "mouth while children watch.")


@pytest.mark.parametrize(("size", "colour"), [(12, "black"), (16, "white"), (22, "black"), (26, "yellow")])
def test_written_lines_are_found_where_they_are(reader, size, colour):
    picture = scene(size)
    drawn = write(picture, *LINES, size=size, colour=colour)
    columns = measure(*reader, (picture, " ".join(LINES)), (scene(size), " ".join(LINES)))
    assert columns["line_count"].tolist() == [3, 0]
    assert columns["text_area"][1] == columns["wide_line_width"][1] == columns["caption_share"][1] == 0
    widths = (drawn[:, 2] - drawn[:, 0]) / 400
    assert columns["wide_line_width"][0] == pytest.approx(widths.sum(), rel=0.1)
    found = np.array(sorted(columns["boxes"].to_pylist()[0], key=lambda box: box[1]))
    np.testing.assert_allclose(found, drawn / [400, 300, 400, 300], atol=0.03)


test_written_lines_are_found_where_they_are.pytestmark += real


@pytest.mark.parametrize("written", [1, 2, 3])
def test_the_share_of_the_caption_is_estimated(reader, written):
    caption = " ".join(LINES)
    share = len(" ".join(LINES[:written])) / len(caption)
    pictures = [scene(seed) for seed in range(3)]
    for picture, size in zip(pictures, (16, 20, 26), strict=True):
        write(picture, *LINES[:written], size=size)
    estimates = measure(*reader, *((picture, caption) for picture in pictures))["caption_share"]
    np.testing.assert_allclose(estimates, share, rtol=0.25)


test_the_share_of_the_caption_is_estimated.pytestmark += real


@pytest.mark.parametrize("angle", [-40, 15, 90])
def test_turned_lines_keep_their_length(reader, angle):
    picture = Image.new("RGB", (400, 400), (180, 200, 190))
    drawn = write(picture, LINES[0], left=60, top=190, size=22)
    turned = picture.rotate(angle, Image.Resampling.BICUBIC, fillcolor=(180, 200, 190))
    width = measure(*reader, (turned, "caption"))["wide_line_width"][0]
    assert width == pytest.approx((drawn[0, 2] - drawn[0, 0]) / 400, rel=0.1)


test_turned_lines_keep_their_length.pytestmark += real


def test_a_name_on_a_sign_is_not_wide(reader):
    picture = scene(1)
    picture.paste("white", (100, 100, 300, 180))
    write(picture, "CAFE", left=130, top=115, size=50)
    columns = measure(*reader, (picture, "A street with a cafe"))
    assert columns["line_count"][0] == 1
    assert columns["text_area"][0] > 0.03
    assert columns["wide_line_width"][0] == 0


test_a_name_on_a_sign_is_not_wide.pytestmark = real


def read_pool(kinds, most):
    """Pictures, captions and kinds of the first so many samples of each kind."""
    import pyarrow.parquet as pq

    rows = pq.read_table(DATA / "pool-flickr8k" / "truth.parquet").to_pylist()
    chosen = [row for kind in kinds for row in [row for row in rows if row["kind"] == kind][:most]]
    for shard in sorted({row["shard"] for row in chosen}):
        with tarfile.open(DATA / "pool-flickr8k" / f"{shard}.tar") as tar:
            members = {name.partition(".")[::2]: name for name in tar.getnames()}
            for row in chosen:
                if row["shard"] == shard:
                    picture = tar.extractfile(members[row["key"], "jpg"]).read()
                    caption = tar.extractfile(members[row["key"], "txt"]).read().decode()
                    yield decode(picture), caption, row["kind"]


@pytest.mark.skipif(not (DATA / "pool-flickr8k").is_dir(), reason="needs ../shared/data/pool-flickr8k")
def test_captions_written_on_other_photos_are_told_from_photos(reader):
    *samples, kinds = zip(*read_pool(("clean", "text_overlay"), 300), strict=True)
    columns = measure(*reader, *zip(*samples, strict=True))
    written = np.array(kinds) == "text_overlay"
    for name in ("wide_line_width", "caption_share"):
        clean, overlaid = np.sort(columns[name][~written]), columns[name][written]
        below = np.searchsorted(clean, overlaid, "left") + np.searchsorted(clean, overlaid, "right")
        assert below.mean() / 2 / len(clean) > 0.95, name  # the area under the ROC curve
        assert (overlaid > np.quantile(clean, 0.99)).mean() > 0.9, name


test_captions_written_on_other_photos_are_told_from_photos.pytestmark += real
