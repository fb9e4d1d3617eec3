"""The demo's own detector: made again the same, and good at what it is shipped for."""

import dataclasses
import importlib.util
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

from chaffinch.jobs.console import Console
from chaffinch.jobs.demo import words
from chaffinch.jobs.demo.command import config_for
from chaffinch.jobs.demo.detector import CLASSES, make_detector, measure, read_scenes
from chaffinch.jobs.demo.samples import clean_sample
from chaffinch.jobs.demo.scenes import render
from chaffinch.scoring.object_names import load_names
from chaffinch.scoring.onnx_detector import OnnxDetector
from chaffinch.scoring.scorer import Batch

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "jobs" / "demo" / "detector.onnx"


@pytest.fixture(scope="module")
def yardstick():
    spec = importlib.util.spec_from_file_location("detection", ROOT / "benchmarks" / "detection.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def photos(yardstick, stream, scenes):
    return [
        yardstick.Photo(sample.picture, sample.caption, [(thing.name, thing.box) for thing in sample.scene.things])
        for sample in read_scenes(stream, scenes)
    ]


def test_it_finds_the_things_of_scenes_that_it_never_saw(yardstick):
    others = photos(yardstick, "test", 150)
    rows = yardstick.detect(OnnxDetector(weights=str(SHIPPED), classes=CLASSES), others)
    assert yardstick.mean_average_precision(others, rows) >= 0.9
    assert yardstick.tell_apart(OnnxDetector(weights=str(SHIPPED), classes=CLASSES), others, 0.25) >= 0.9


def test_what_the_script_measures_is_what_the_yardstick_measures(yardstick):
    """Where every thing is found and nothing else is, all three are 1; what is found here is far better than chance."""
    found, right = measure(SHIPPED, scenes=60)
    others = photos(yardstick, "held out", 60)
    rows = yardstick.detect(OnnxDetector(weights=str(SHIPPED), classes=CLASSES, floor=0.35), others)
    # Of the things, those that are found are at least as many as the surest of them with perfect precision.
    assert yardstick.mean_average_precision(others, rows) <= found + 0.02
    assert 0.85 <= found <= 1
    assert 0.85 <= right <= 1


def test_hardly_anything_is_found_where_nothing_is():
    """Each scene, and the same one without its things: of all objects found nearly all are in the first."""
    scorer = OnnxDetector(weights=str(SHIPPED), classes=CLASSES, floor=0.35)
    model = scorer.load("cpu")
    scenes = [clean_sample("empty", index).scene for index in range(100)]
    counts = []
    for group in (scenes, [dataclasses.replace(scene, things=()) for scene in scenes]):
        pictures = [scorer.prepare(render(scene), model) for scene in group]
        columns = scorer.score(Batch([""] * 100, [""] * 100, pictures), model)
        counts.append(np.array([len(found) for found in columns["confidences"].to_pylist()]))
    assert (counts[0] > 0).mean() >= 0.98
    assert (counts[1] > 0).mean() <= 0.1


def test_the_same_seed_gives_the_same_file(tmp_path):
    first, again = (
        make_detector(tmp_path / name, Console(quiet=True), scenes=64, epochs=1) for name in ("first", "again")
    )
    assert first.read_bytes() == again.read_bytes()
    # Of the form of the one that is shipped, so that this is the script that made it.
    shapes = [[(one.name, tuple(one.dims)) for one in onnx.load(path).graph.initializer] for path in (first, SHIPPED)]
    assert shapes[0] == shapes[1]


def test_it_can_give_features():
    scorer = OnnxDetector(weights=str(SHIPPED), classes=CLASSES, features=True)
    scorer.check()
    assert scorer.columns["features"].list_size > 0


def test_the_config_names_what_the_detector_knows_and_where_it_lies(tmp_path):
    config = yaml.safe_load(config_for(tmp_path / "MATCHER"))  # a folder may have any name
    assert tuple(config["scorers"]["objects"]["classes"]) == CLASSES
    assert Path(config["scorers"]["objects"]["weights"]).samefile(SHIPPED)
    assert Path(config["scorers"]["clip"]["pretrained"]).samefile(SHIPPED.with_name("matcher.pt"))
    assert config["output"] == f"{tmp_path}/MATCHER/curated"
    assert SHIPPED.stat().st_size <= 3_000_000
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert "*.onnx" in settings["chaffinch.jobs.demo"]


def test_captions_name_the_things_that_are_there():
    names = load_names(None, CLASSES)
    nouns = {noun: name for name, entry in words.NOUNS["en"].items() for noun in entry.partition(" ")[2].split("/")}
    for index in range(500):
        sample = clean_sample("names", index)
        found = names.find(sample.caption)
        written = [
            nouns[word] for word in sample.caption.lower().replace(",", " ").rstrip(".").split() if word in nouns
        ]
        assert found == list(dict.fromkeys(written))
        assert set(found) <= {thing.name for thing in sample.scene.things}
        assert found
