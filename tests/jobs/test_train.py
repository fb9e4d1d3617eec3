import hashlib
import io
import json
import tarfile

import pytest
import torch

from chaffinch.jobs import train, training_run
from chaffinch.jobs.console import Console
from chaffinch.jobs.demo.matcher import MODEL, make_matcher
from chaffinch.jobs.demo.pool import write_clean
from chaffinch.jobs.demo.samples import clean_sample
from chaffinch.jobs.documents import ConfigError
from chaffinch.jobs.experiment import JobError
from chaffinch.jobs.main import main
from chaffinch.jobs.training import ShardSamples, load_training
from chaffinch.pipeline.shards import find_shards
from chaffinch.scoring.clip import Clip
from chaffinch.scoring.scorer import Batch, SampleError

SMALLEST = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}
CONFIG = """\
input: {pool}
output: {output}
train:
  model: {model}
  samples_seen: 96
  batch_size: 12
  learning_rate: 0.002
  checkpoint_every: 3
  workers: 2
  evaluate: {{input: {held_out}, every: 4}}
"""
# What is kept of two runs that must be equal: all but the times.
KEPT = ("log.jsonl", "results.json", "final.pt", "step_3.pt", "step_6.pt", "resume.pt", "open_clip_config.json")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_clean(folder / "pool", samples=30, shard_size=20, seed=1)
    write_clean(folder / "held_out", samples=12, seed=2)
    write_clean(folder / "single", samples=1, seed=3)
    (folder / "single" / "00000000.tar").rename(folder / "one.tar")
    (folder / "smallest.json").write_text(json.dumps(SMALLEST))
    (folder / "wrong.json").write_text(json.dumps(SMALLEST | {"colour": "red"}))
    return folder


@pytest.fixture
def training_config(scenes, tmp_path):
    def write(name="config.yaml", output="out", text=CONFIG, pool=None):
        path = tmp_path / name
        path.write_text(
            text.format(
                pool=pool or scenes / "pool",
                output=tmp_path / output,
                model=scenes / "smallest.json",
                held_out=scenes / "held_out",
            )
        )
        return str(path)

    return write


def files(folder):
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in KEPT}


def test_a_model_is_trained_kept_and_scored_with(training_config, scenes, tmp_path, capsys):
    path = training_config()
    assert main(["train", path]) == 0
    out, err = capsys.readouterr()
    assert "training: 30 samples in 2 shards" in err
    assert "8 steps of 12 samples on cpu" in err
    assert "train: 8 of 8 steps, loss" in err
    assert "image to text R@1" in err  # while training
    assert "12 pictures, 12 captions" in out
    assert "by chance" in out
    folder = tmp_path / "out" / "training"
    results = json.loads((folder / "results.json").read_text())
    assert (results["steps"], results["samples_seen"], results["epochs"]) == (8, 96, 3.2)
    assert results["retrieval"]["image_to_text"].keys() == {"R@1", "R@5", "R@10"}
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [1, 4, 8, 8]
    assert "seconds" not in (folder / "log.jsonl").read_text() + (folder / "results.json").read_text()
    assert json.loads((folder / "timings.json").read_text())["train"]["samples"] == 96

    scoring = tmp_path / "score.yaml"
    scoring.write_text(
        f"input: {scenes / 'pool'}\noutput: {tmp_path / 'scored'}\n"
        f"scorers: {{clip: {{model: {folder}/open_clip_config.json, pretrained: {folder}/final.pt}}}}\n"
        "filters: {match: {column: clip.similarity, keep: top 50%}}\n"
        "keep: {fraction: 0.5}\n"
    )
    assert main(["run", str(scoring), "--quiet"]) == 0

    before = files(folder)
    assert main(["train", path, "--json"]) == 0
    out, err = capsys.readouterr()
    assert "already trained" in err
    assert json.loads(out.splitlines()[-1]) == results
    assert files(folder) == before


class Stop(KeyboardInterrupt):
    """The user's Ctrl-C."""


@pytest.mark.parametrize("stop", [2, 4, 7])
def test_a_stopped_training_goes_on_to_the_same_bytes(training_config, tmp_path, monkeypatch, capsys, stop):
    whole, stopped = training_config("whole.yaml", "whole"), training_config("stopped.yaml", "stopped")
    assert main(["train", whole, "--quiet"]) == 0

    def show(self, step):
        if step.step == stop:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(training_run.Progress, "show", show)
        assert main(["train", stopped, "--quiet"]) == 130
    assert not (tmp_path / "stopped" / "training" / "final.pt").exists()
    assert main(["train", stopped]) == 0
    assert (f"going on after step {stop // 3 * 3}" in capsys.readouterr().err) == (stop >= 3)
    assert files(tmp_path / "stopped" / "training") == files(tmp_path / "whole" / "training")


def test_other_settings_are_another_training(training_config, tmp_path, capsys):
    path = training_config()
    assert main(["train", path, "--quiet"]) == 0
    assert main(["train", path, "train.learning_rate=0.1", "train.seed=4"]) == 1
    assert "holds a training with another learning_rate, seed: set train.folder" in capsys.readouterr().err
    folder = tmp_path / "elsewhere"
    assert main(["train", path, "train.learning_rate=0.1", f"train.folder={folder}", "--quiet"]) == 0
    assert (folder / "final.pt").is_file()
    (folder / "resume.pt").write_bytes(b"damaged")
    assert main(["train", path, "train.learning_rate=0.1", f"train.folder={folder}"]) == 1
    assert "is damaged" in capsys.readouterr().err


def test_a_loss_that_is_no_number_ends_the_job(training_config, capsys):
    assert main(["train", training_config(), "train.learning_rate=1e30", "train.warmup=0"]) == 1
    err = capsys.readouterr().err
    assert "of step 2 is not a number: lower learning_rate (1e+30)" in err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.model=ViT-B32"], "train: open_clip has no model named 'ViT-B32': did you mean ViT-B-32"),
        (["train.modle=RN50"], "unknown setting; did you mean 'model'?"),
        (["train.fodler=x"], "unknown setting; did you mean 'folder'?"),
        (["train.augment.corp=[1,1]"], "unknown setting"),
        (["train.batch_size=1"], "batch_size is 1; it has to be at least 2"),
        (["train.batch_size=many"], "not 'many'"),
        (["train.input=/nowhere"], "train.input: no .tar shards are found at '/nowhere'"),
        (["train.evaluate.input=/nowhere"], "train.evaluate.input: no .tar shards are found"),
        (["train.input={scenes}/one.tar"], "train.input: its shards hold one usable sample only"),
        (["train.model={scenes}/wrong.json"], "train.model: open_clip cannot build"),
        (["train.pretrained=missing.pt"], "'missing.pt' is not a file here"),
        (["train.captions_key=captoin"], "json has no entry 'captoin'; did you mean 'caption'?"),
        (["train=null"], "train: is missing"),
        (["filters.words={column: captions.words, keep: [3, null]}"], "emit wrote nothing yet: run `chaffinch run`"),
        (["kepe.fraction=0.1"], "unknown setting; did you mean 'keep'?"),
    ],
)
def test_what_is_wrong_with_a_config_is_told_at_once(training_config, scenes, capsys, tmp_path, settings, message):
    assert main(["train", training_config(), *(one.replace("{scenes}", str(scenes)) for one in settings)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_commands_check_the_section_too(training_config, capsys):
    assert main(["score", training_config(), "train.batch_size=1"]) == 2
    assert "batch_size is 1" in capsys.readouterr().err


def test_what_was_emitted_is_trained_on(training_config, scenes, tmp_path):
    """Without its pool, which may be gone by then."""
    path = training_config()
    words = "filters.words={column: captions.words, keep: [6, null], drop: [null, 2]}"
    assert main(["run", path, words, "keep={fraction: 0.5}", "--quiet"]) == 0
    training = load_training(path, [words])
    assert [shard.path for shard in training.shards] == [str(tmp_path / "out" / "shards" / "00000000.tar")]
    text = "output: {output}\ntrain: {{model: {model}}}\n"
    assert load_training(training_config("only.yaml", text=text), []).shards == training.shards
    with ShardSamples(training.shards) as samples:
        assert len(samples) == 15


def members(archive, key, **content):
    for extension, data in content.items():
        info = tarfile.TarInfo(f"{key}.{extension}")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))


@pytest.fixture
def odd_pool(scenes, tmp_path):
    """Samples with several captions, one, none, and pictures that are none."""
    file = io.BytesIO()
    clean_sample("odd", 0).picture.save(file, "JPEG")
    picture = file.getvalue()
    with tarfile.open(tmp_path / "00000000.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for number in range(3):
            listed = json.dumps({"captions": [f"one {number}", f"two {number}"]}).encode()
            members(archive, f"0{number}", jpg=picture, txt=b"a caption", json=listed)
        members(archive, "03", jpg=picture, txt=b"a caption", json=b'{"captions": "the only one"}')
        members(archive, "04", jpg=picture, txt=b"a caption", json=b'{"other": 1}')
        members(archive, "05", jpg=picture, txt=b"a caption")
        members(archive, "06", jpg=picture[:300], txt=b"a caption", json=b'{"captions": ["cut off"]}')
        members(archive, "07", jpg=b"<html>", txt=b"a caption", json=b'{"captions": ["no picture"]}')
    return tmp_path


def test_several_captions_are_read_and_what_cannot_be_is_counted(odd_pool, training_config, capsys, tmp_path):
    with ShardSamples(find_shards(str(odd_pool)), "captions") as samples:
        assert len(samples) == 6
        assert samples.captions(1) == ["one 1", "two 1"]
        assert samples.captions(3) == ["the only one"]
        with pytest.raises(SampleError, match="json has no entry 'captions'; known: other"):
            samples.captions(4)
        assert sorted(samples.rejected) == ["no json", "picture is not an image (starts with '<html>')"]
        assert sum(samples.rejected.values()) == 2
    path = training_config(pool=odd_pool)
    assert main(["train", path, "train.captions_key=captions", "train.batch_size=3", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["samples"] == 4
    assert sum(results["unusable"].values()) == 4


def test_a_shard_that_shrinks_while_training_is_told(odd_pool):
    with ShardSamples(find_shards(str(odd_pool))) as samples:
        (odd_pool / "00000000.tar").write_bytes(b"")
        with pytest.raises(JobError, match="became shorter"):
            samples.picture(0)


def test_shards_without_a_usable_sample_are_an_error(training_config, tmp_path):
    (tmp_path / "empty").mkdir()
    with tarfile.open(tmp_path / "empty" / "00000000.tar", "w") as archive:
        members(archive, "00", txt=b"a caption")
    with pytest.raises(ConfigError, match="input: its shards hold no usable sample"):
        train.run_train(training_config(pool=tmp_path / "empty"), [], Console(quiet=True))


def test_the_matcher_of_the_demo_is_made_and_scored_with(tmp_path):
    weights = make_matcher(tmp_path, Console(quiet=True), scenes=24, seen=48)
    scorer = Clip(MODEL, str(weights))
    model = scorer.load("cpu")
    scene = clean_sample("any", 0)
    measured = scorer.score(Batch(["0" * 32], [scene.caption], [scorer.prepare(scene.picture, model)]), model)
    assert -1 < measured["similarity"][0] < 1
    assert weights.stat().st_size < 5_000_000
