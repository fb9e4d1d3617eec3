"""A detector runs once; what counts as an object is decided again and again, without it."""

import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from chaffinch.jobs.main import main

FILTERS = {
    "count": {"kind": "object_count", "scorer": "colours"},
    "confidence": {"kind": "object_confidence", "scorer": "colours"},
    "area": {"kind": "object_area", "scorer": "colours"},
    "grounded": {"kind": "grounded_phrases", "scorer": "colours"},
}


@pytest.fixture
def config(tmp_path, small_pool, colour_detector):
    small_pool(tmp_path / "pool")
    settings = {
        "input": str(tmp_path / "pool"),
        "output": str(tmp_path / "out"),
        "scorers": {
            "colours": {
                "kind": "onnx_detector",
                "weights": str(colour_detector()),
                "classes": ["picture", "number"],
                "floor": 1e-6,
            }
        },
        "filters": FILTERS,
        "ensemble": {"label_model": "majority"},
        "keep": {"probability": 0.5},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def votes(tmp_path, name):
    tables = [pq.read_table(path) for path in sorted((tmp_path / "out" / "decisions").glob("*.parquet"))]
    return np.concatenate([table[f"vote_{name}"].to_numpy() for table in tables])


def test_a_threshold_is_changed_without_a_model(config, tmp_path):
    assert main(["run", str(config), "--quiet"]) == 0
    assert (votes(tmp_path, "count") == -1).all()  # noise has no clear colour
    store = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "store").rglob("*")}
    code = (
        "import sys; from chaffinch.jobs.main import main; status = main(sys.argv[1:]);"
        "print(sorted({'torch', 'torchvision', 'onnxruntime'} & set(sys.modules))); sys.exit(status)"
    )
    changes = [
        "filters.count.box_threshold=1e-6",
        "filters.area.box_threshold=1e-6",
        "filters.area.statistic=max",
        "filters.confidence.box_threshold=0",
        "filters.confidence.statistic=mean",
        "filters.grounded.box_threshold=0.9",
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, "decide", str(config), *changes, "--quiet"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert (votes(tmp_path, "count") == 1).any()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "store").rglob("*")} == store


def test_the_report_draws_what_was_found(config, tmp_path):
    assert main(["run", str(config), "filters.count.box_threshold=1e-6", "--quiet"]) == 0
    assert "picture 0.0" in (tmp_path / "out" / "report.html").read_text()
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["read"] == 18


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("filters.count.scorer=colour", "no scorer writes 'colour.confidences'"),
        ("filters.count.scorer=captions", "no scorer writes 'captions.confidences'"),
        ("filters.area.box_threshold=35", "give a confidence from 0 to 1"),
        ("filters.area.statistic=sum", "statistic"),
        ("scorers.colours.classes=[one]", "tells 2 classes apart, and `classes` names 1"),
        ("scorers.colours.weights=nowhere.onnx", "give the path of an .onnx file"),
    ],
)
def test_a_wrong_setting_is_told_with_its_place(config, capsys, change, problem):
    assert main(["run", str(config), change]) == 2
    told = capsys.readouterr().err
    assert problem in told
    assert change.split("=")[0].rsplit(".", 1)[0].split(".")[1] in told


def test_a_file_that_is_no_detector_starts_nothing(config, tmp_path, capsys):
    path = tmp_path / "photo.onnx"
    path.write_bytes(b"\xff\xd8\xff\xe0 not a network")
    assert main(["run", str(config), f"scorers.colours.weights={path}"]) == 2
    assert "photo.onnx' cannot be used: is it a complete ONNX model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
