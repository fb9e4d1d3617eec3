"""Classifiers on labelled pictures, from the command line."""

import io
import json
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from chaffinch.jobs.labelled_samples import LabelledSamples
from chaffinch.jobs.main import main
from chaffinch.pipeline.shards import find_shards
from chaffinch.scoring.scorer import SampleError
from chaffinch.scoring.training.building import build

COLOURS = {"red": (220, 40, 40), "green": (30, 160, 60), "blue": (40, 60, 220)}
NAMES = list(COLOURS)
SMALLEST = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}
CONFIG = """\
input: {folder}/{pool}
output: {output}
train:
  model: {folder}/smallest.json
  pretrained: {folder}/features.pt
  labels: {labels}
  classes: [red, green, blue]
  freeze: {freeze}
  epochs: 30
  batch_size: 12
  learning_rate: 0.02
  weight_decay: 0
  checkpoint_every: 40
  evaluate: {{input: {folder}/test, labels: colour}}
"""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def picture(colour, rng):
    pixels = np.clip(np.array(COLOURS[colour]) + rng.normal(0, 30, (36, 36, 3)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def write(path, samples):
    """samples: (members by extension, ...)."""
    path.parent.mkdir()
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for number, members in enumerate(samples):
            for extension, data in members.items():
                info = tarfile.TarInfo(f"{number:04d}.{extension}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def labelled(count, seed, wrong=0.0):
    """Pictures with their colour's number in .cls, its name in the json, and a name that is often wrong beside it."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        number = int(rng.integers(3))
        noisy = (number + int(rng.random() < wrong)) % 3
        content = {"colour": NAMES[number], "noisy": NAMES[noisy]}
        yield {"jpg": picture(NAMES[number], rng), "cls": f"{number}\n".encode(), "json": json.dumps(content).encode()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("labelled")
    write(place / "pool" / "00000.tar", labelled(60, 1, wrong=0.35))
    write(place / "trusted" / "00000.tar", labelled(40, 2))
    write(place / "test" / "00000.tar", labelled(40, 3))
    (place / "smallest.json").write_text(json.dumps(SMALLEST))
    network = build(str(place / "smallest.json"), None, 0, "cpu", "float32").network
    torch.save(network.state_dict(), place / "features.pt")
    return place


@pytest.fixture
def config(folder, tmp_path):
    def write(output="out", pool="pool", labels="noisy", freeze="true"):
        path = tmp_path / f"{output}.yaml"
        path.write_text(CONFIG.format(folder=folder, output=tmp_path / output, pool=pool, labels=labels, freeze=freeze))
        return str(path)

    return write


def results(place):
    return json.loads((place / "training" / "results.json").read_text())


def test_a_linear_probe_is_trained_plain_and_reweighted_and_tried(config, folder, tmp_path, capsys):
    """A reference from trusted pictures, then the pool with 35% wrong labels."""
    assert main(["train", config("reference", "trusted", "colour"), "--quiet"]) == 0
    assert main(["train", config("plain")]) == 0
    out, err = capsys.readouterr()
    assert "embedding 60 pictures, once" in err
    assert "accuracy on 40 pictures" in out
    assert "by chance 33.3%" in out
    reference = tmp_path / "reference" / "training" / "final.pt"
    override = f"train.reweight={{reference: {reference}}}"
    assert main(["train", config("reweighted"), override, "--quiet"]) == 0
    found = {name: results(tmp_path / name)["accuracy"] for name in ("reference", "plain", "reweighted")}
    assert found["plain"]["pictures"] == 40
    assert found["plain"]["classes"] == 3
    assert found["reference"]["accuracy"] > 0.9
    assert found["reweighted"]["accuracy"] > 0.9

    log = pq.read_table(tmp_path / "reweighted" / "training" / "mimic" / "visits.parquet")
    with tarfile.open(folder / "pool" / "00000.tar") as archive:
        shown = [json.load(archive.extractfile(name)) for name in archive.getnames() if name.endswith("json")]
    right = np.array([one["colour"] == one["noisy"] for one in shown])
    score = np.array(log["mimic_mean"])
    assert 10 < (~right).sum() < 35
    assert np.greater.outer(score[right], score[~right]).mean() > 0.85

    kept = torch.load(reference, weights_only=True)
    assert kept["classes"] == NAMES
    assert kept["state_dict"]["head.weight"].shape == (3, 16)


def test_towers_are_trained_with_their_heads(config, tmp_path):
    settings = ["train.classes=3", "train.evaluate.labels=cls", "train.learning_rate=0.003", "train.epochs=8"]
    assert main(["train", config("tower", "trusted", "cls", "false"), *settings, "--quiet"]) == 0
    found = results(tmp_path / "tower")
    assert found["accuracy"]["accuracy"] > 0.9
    kept = torch.load(tmp_path / "tower" / "training" / "final.pt", weights_only=True)
    assert kept["classes"] == 3
    assert {name.partition(".")[0] for name in kept["state_dict"]} == {"visual", "head"}
    log = [json.loads(line) for line in (tmp_path / "tower" / "training" / "log.jsonl").read_text().splitlines()]
    assert log[0]["loss"] == pytest.approx(np.log(3), abs=1e-5)  # the head begins at 0
    assert "weighing" not in found


def test_a_finished_classifier_is_not_trained_again(config, capsys):
    path = config()
    assert main(["train", path, "train.epochs=2", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert main(["train", path, "train.epochs=2", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "already trained" in err
    assert json.loads(out) == first
    assert main(["train", path, "train.epochs=2", "train.classes=[red, green, blue, black]"]) == 1
    assert "holds a training with another classes" in capsys.readouterr().err


@pytest.fixture
def odd(tmp_path):
    rng = np.random.default_rng(4)
    red = picture("red", rng)
    write(
        tmp_path / "odd" / "00000.tar",
        [
            {"jpg": red, "cls": b"0", "json": b'{"label": 0}', "txt": b"a caption"},
            {"jpg": red, "cls": b" 2 ", "json": b'{"label": "2"}'},
            {"jpg": red, "json": b'{"label": true}'},  # no label: true is no number
            {"jpg": red, "cls": b"7", "json": b'{"other": 1}'},
            {"jpg": red, "cls": b"\xff\xfe"},
            {"jpg": red[:200], "cls": b"1", "json": b'{"label": 1}'},
            {"jpg": b"<html>", "cls": b"1", "json": b'{"label": 1}'},
            {"jpg": red, "cls": b"one", "json": b'{"label": 1.5}', "txt": b""},
        ],
    )
    return tmp_path / "odd"


def test_samples_without_a_label_are_counted_with_the_reason(odd, config, folder, tmp_path, capsys):
    with LabelledSamples(find_shards(str(odd)), "cls") as samples:
        assert [len(samples), samples.rejected] == [
            6,
            {"no cls": 1, "picture is not an image (starts with '<html>')": 1},
        ]
        assert samples.captions(1) == ["2"]
        assert len(samples.uids) == 6
        with pytest.raises(SampleError, match="cls is not UTF-8"):
            samples.captions(3)
    with LabelledSamples(find_shards(str(odd)), "label") as samples:
        assert samples.rejected.keys() == {"no json", "picture is not an image (starts with '<html>')"}
        assert [samples.captions(0), samples.captions(1)] == [["0"], ["2"]]
        for index, message in ((2, "neither a whole number nor text"), (3, "no entry 'label'"), (5, "neither")):
            with pytest.raises(SampleError, match=message):
                samples.captions(index)
    settings = [f"input={odd}", "train.classes=3", "train.evaluate.labels=cls", "train.epochs=1", "--json"]
    assert main(["train", config(labels="cls"), *settings]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["samples"] == 2
    assert found["unusable"]["label '7' is none of the 3 classes"] == 1
    assert found["unusable"]["label 'one' is none of the 3 classes"] == 1
    assert sum(found["unusable"].values()) == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.classes=null"], "train.classes"),
        (["train.classes=1"], "classes is 1; a classifier tells at least 2 apart"),
        (["train.classes=[red, red]"], "classes names 'red' twice"),
        (["train.classes=[black, white]"], "train.classes: label 'green' is none of the 2 classes"),
        (["train.labels=color"], "train.labels: json has no entry 'color'; did you mean 'colour'?"),
        (["train.labels=''"], "labels is empty"),
        (["train.evaluate.labels=color"], "train.evaluate.labels: json has no entry 'color'"),
        (["train.evaluate.captions_key=x"], "train.evaluate.captions_key: classifiers are tried on labels"),
        (["train.captions_key=x"], "a classifier reads labels"),
        (["train.pretrained=null"], "freeze trains a head on embeddings that mean something"),
        (["train.reweight={reference: none.pt}"], "reweight.reference: 'none.pt' is not a file here"),
        (["train.reweight={reference: '{features}'}"], "train.reweight.reference"),
        (["train.model=RN51", "train.pretrained=openai"], "no model named 'RN51'"),
    ],
)
def test_what_is_wrong_with_a_classifier_is_told_at_its_place(config, folder, capsys, settings, message):
    path = config(labels="colour")
    given = [one.replace("{features}", str(folder / "features.pt")) for one in settings]
    assert main(["train", path, *given]) == 2
    assert message in capsys.readouterr().err


def test_labels_are_missing_where_there_are_classes(config, tmp_path, capsys):
    path = tmp_path / "out.yaml"
    config()
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "labels: noisy" not in line))
    assert main(["train", str(path)]) == 2
    assert "train.labels: is missing" in capsys.readouterr().err


def test_pairs_have_no_labels(config, tmp_path, capsys):
    path = tmp_path / "out.yaml"
    config()
    lines = path.read_text().splitlines(True)
    path.write_text("".join(line for line in lines if not line.startswith(("  labels", "  classes", "  freeze"))))
    assert main(["train", str(path)]) == 2
    assert "train.evaluate.labels: labels are for classifiers: set train.labels" in capsys.readouterr().err
