"""Zero-shot detection from the command line: a small pool, every family, against the slow twin."""

import json
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from transformers import CLIPConfig, CLIPModel

from chaffinch.scoring.detecting.phrases import find_phrases, normalise
from chaffinch.scoring.detector import Detector
from chaffinch.scoring.images import decode

CONFIG = """\
input: {pool}
output: {output}
metadata: none
scorers:
  dino: {{kind: detector, checkpoint: {checkpoint}, prompt: caption, floor: 0.1, where: required}}
filters:
  words: {{column: captions.words, keep: [2, null], require: true}}
  count: {{kind: object_count, scorer: dino, box_threshold: 0.3}}
  area: {{kind: object_area, scorer: dino, statistic: union, keep: [0.05, 0.95]}}
  grounded: {{kind: grounded_phrases, scorer: dino}}
keep: {{fraction: 0.5}}
run: {{max_rejected: 0.5, batch_size: 4}}
"""
SAMPLES = [  # caption, size; a caption of one word is vetoed, a strip of 1 to 300 is refused
    ("A brown dog runs along the beach with a ball in its mouth", (64, 48)),
    ("Two men. Two red HATS?   A blue car", (48, 64)),
    ("dog", (40, 40)),
    ("a photo of a white cat on the grass", (128, 72)),
    ("a man, a woman, a boy, a girl, a dog, a cat, a ball, a horse, a car, a street, a shirt", (50, 50)),
    ("a strip of wood", (300, 1)),
    ("Ein Hund rennt am Strand entlang", (33, 80)),
    ("a brown dog and a ball on the green grass " * 1_000, (64, 48)),
    ("a red house", (1, 1)),
    ("12 34", (64, 64)),
]


@pytest.fixture(scope="module")
def pool(tmp_path_factory, sample, picture, write_shard):
    """Two shards of five samples."""
    folder = tmp_path_factory.mktemp("detected")
    members = [
        [(f"{row:09d}.jpg", picture(row, size)), *sample(f"{row:09d}", row, caption)[1:]]
        for row, (caption, size) in enumerate(SAMPLES)
    ]
    for shard in range(2):
        write_shard(folder / f"{shard:08d}.tar", [one for many in members[shard * 5 : shard * 5 + 5] for one in many])
    return folder


@pytest.fixture
def config(pool, tmp_path):
    """(checkpoint) -> the path of a config."""

    def write(checkpoint, text=CONFIG):
        path = tmp_path / "config.yaml"
        path.write_text(text.format(pool=pool, output=tmp_path / "out", checkpoint=checkpoint))
        return path

    return write


def scores(store):
    """The rows of both shards."""
    (folder,) = (store / "scores").glob("dino-*")
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.mark.parametrize("family", ["grounding-dino", "mm-grounding-dino", "owlvit", "owlv2", "omdet-turbo"])
def test_a_pool_is_detected_as_by_the_slow_twin(family, small_detector, slow_detector, config, run, picture, tmp_path):
    checkpoint = small_detector(family)
    status, out, err = run("run", config(checkpoint))
    assert status == 0, err
    assert "read 10" in out
    rows = scores(tmp_path / "out" / "store")
    assert rows[2]["boxes"] is None  # vetoed: its rows are null, and no reject
    assert rows[2]["reject"] is None
    assert rows[5]["boxes"] is None
    assert rows[5]["reject"] == "picture is too elongated to be scaled: 300 x 1 pixels"
    measured = [number for number in range(len(SAMPLES)) if number not in (2, 5)]
    pairs = [(SAMPLES[number][0], decode(picture(number, SAMPLES[number][1]))) for number in measured]
    texts = [normalise(caption).rstrip(" .") + "." for caption, _ in pairs]
    pads = None
    if family in slow_detector.GROUNDING:
        scorer = Detector(str(checkpoint))
        canvases = scorer.load("cpu").canvases
        pads = [canvases.find(canvases.prepare(photo)) for _, photo in pairs]
    else:
        texts = [[phrase.text for phrase in find_phrases(normalise(caption))] for caption, _ in pairs]
    for number, pair, text, pad in zip(measured, pairs, texts, pads or [None] * len(pairs), strict=True):
        if not text:
            assert rows[number]["boxes"] == []
        elif len(pair[0]) < 2_000:  # the processor cuts no text, and the model no longer one
            twin = slow_detector.load(checkpoint)
            (expected,) = slow_detector.look(family, twin, [pair], [text], 0.1, [pad] if pad else None)
            slow_detector.assert_same(rows[number], expected[:100])
    assert sum(len(row["boxes"] or []) for row in rows) > 50
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["rejected"] == 1
    assert re.search(r'class="box"', (tmp_path / "out" / "report.html").read_text())


def test_the_size_of_batches_changes_nothing(small_detector, slow_detector, config, run, tmp_path):
    path = config(small_detector("mm-grounding-dino"))
    assert run("score", path)[0] == 0
    alone = tmp_path / "alone"
    assert run("score", path, "run.batch_size=1", f"store={alone}")[0] == 0
    for row, other in zip(scores(tmp_path / "out" / "store"), scores(alone), strict=True):
        assert (row["boxes"] is None) == (other["boxes"] is None)
        if row["boxes"] is not None:
            objects = list(zip(other["confidences"], other["boxes"], other["phrases"], strict=True))
            slow_detector.assert_same(row, objects, 1e-5)
            assert row["caption_phrases"] == other["caption_phrases"]
            np.testing.assert_allclose(row["phrase_confidences"], other["phrase_confidences"], rtol=0, atol=1e-5)


def test_twice_gives_the_same_bytes_and_a_filter_measures_nothing_again(small_detector, config, run, tmp_path, digests):
    path = config(small_detector("owlvit"))
    assert run("score", path)[0] == 0
    before = digests(tmp_path / "out" / "store")
    shutil.rmtree(tmp_path / "out")
    assert run("score", path)[0] == 0
    assert digests(tmp_path / "out" / "store") == before
    status, _, err = run("run", path, "filters.area.statistic=max", "filters.count.box_threshold=0.6")
    assert status == 0, err
    assert digests(tmp_path / "out" / "store") == before


def test_a_vocabulary_in_a_config(small_detector, config, run, tmp_path):
    path = config(small_detector("omdet-turbo"))
    status, _, err = run("run", path, "scorers.dino.prompt=[dog, red ball, car]")
    assert status == 0, err
    rows = [row for row in scores(tmp_path / "out" / "store") if row["boxes"] is not None]
    assert {phrase for row in rows for phrase in row["phrases"]} <= {"dog", "red ball", "car"}
    assert rows[0]["caption_phrases"] == ["dog"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("prompt=[]", "prompt is an empty vocabulary: list at least one phrase, or use caption"),
        ("prompt=captions", "prompt"),
        ("checkpoint=/no/such/folder", "checkpoint '/no/such/folder' is no folder here: correct the path"),
        ("floor=2", "floor is 2.0: give a confidence from 0 up to 1"),
        ("flor=0.2", "floor"),
    ],
)
def test_a_wrong_setting_starts_nothing(setting, message, small_detector, config, run, tmp_path):
    status, _, err = run("run", config(small_detector("owlvit")), f"scorers.dino.{setting}")
    assert status == 2
    assert message in err
    assert not (tmp_path / "out" / "store").exists()


def test_a_checkpoint_that_is_no_detector_starts_nothing(config, run, tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    clip = CLIPConfig(text_config={**sizes, "vocab_size": 50}, vision_config={**sizes, "image_size": 32})
    CLIPModel(clip).save_pretrained(tmp_path / "clip")
    status, _, err = run("run", config(tmp_path / "clip"))
    assert status == 2
    assert "config.yaml:5" in err
    assert "is a model of type 'clip', no zero-shot detector: use Grounding DINO" in err


def test_damaged_weights_and_names_that_cannot_be_had_are_one_line(small_detector, config, run, tmp_path):
    folder = shutil.copytree(small_detector("owlvit"), tmp_path / "owl")
    (folder / "model.safetensors").write_bytes(b"not weights")
    for checkpoint, remedy in ((folder, "is the folder complete?"), ("no-one/no-such-model", "no such folder is here")):
        status, _, err = run("score", config(checkpoint), "--quiet")
        assert status == 2
        assert "scorers.dino cannot be loaded: cannot open checkpoint" in err
        assert remedy in err
        assert "Traceback" not in err
        assert len(err.strip().splitlines()) <= 2


def test_a_picture_of_one_pixel_alone_is_enough(small_detector, run, tmp_path, sample, write_shard):
    """The smallest pool there is."""
    content = tmp_path / "dot.png"
    Image.new("RGB", (1, 1), "red").save(content)
    members = [("000000000.png", content.read_bytes()), *sample("000000000", 0, "a red dot")[1:]]
    write_shard(tmp_path / "pool" / "00000000.tar", members)
    path = tmp_path / "config.yaml"
    checkpoint = small_detector("grounding-dino")
    path.write_text(CONFIG.format(pool=tmp_path / "pool", output=tmp_path / "out", checkpoint=checkpoint))
    status, _, err = run("run", path)
    assert status == 0, err
    assert len(scores(tmp_path / "out" / "store")[0]["boxes"]) > 0
