"""A pool scored in slices, by processes of their own: the tables are those of a single `chaffinch score`."""

import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from chaffinch.jobs.demo.pool import write_pool
from chaffinch.jobs.main import main

PROGRAM = [sys.executable, "-m", "chaffinch.jobs.main"]
CONFIG = """\
input: {pool}
reference: {trusted}
output: {output}
scorers:
  pictures: {{where: required}}
  neighbours: {{hash: pictures.hash}}
filters:
  words: {{column: captions.words, keep: top 70%, require: true}}
  letters: {{column: captions.letter_share, drop: below reference 1%, require: true}}
  entropy: {{column: pictures.entropy, keep: top 60%}}
  duplicates: {{column: neighbours.distance, keep: [8, null], aspect: duplicates}}
keep: {{fraction: 0.4}}
run: {{max_rejected: 0.5}}
"""
PLAIN = """\
input: {pool}
reference: {trusted}
output: {output}
filters:
  words: {{column: captions.words, keep: top 70%}}
  entropy: {{column: pictures.entropy, keep: top 60%, drop: below reference 1%}}
keep: {{fraction: 0.4}}
run: {{max_rejected: 0.5}}
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slices")
    write_pool(folder / "pool", samples=48, shard_size=6, seed=11)
    write_pool(folder / "trusted", samples=40, shard_size=10, seed=12)
    return {"pool": folder / "pool", "trusted": folder / "trusted"}


@pytest.fixture
def write(places, tmp_path):
    """(text, name) -> a config and its output."""

    def make(text, name):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text.format(**places, output=tmp_path / name))
        return path, tmp_path / name

    return make


def tables(output, digests):
    """All that scoring has left, but how many slices there were."""
    found = digests(output / "store")
    found.pop("slices.json", None)
    return found


def start(config, number, count=4):
    command = [*PROGRAM, "score", str(config), f"run.slice={number}/{count}", "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_slices_at_once_one_twice_and_one_killed(write, digests):
    single, expected = write(PLAIN, "single")
    assert main(["score", str(single), "--quiet"]) == 0
    sliced, output = write(PLAIN, "sliced")
    numbers = [0, 1, 2, 3, 1]
    random.Random(3).shuffle(numbers)
    running = [(number, start(sliced, number)) for number in numbers]
    victim = next(process for number, process in running if number == 2)
    while victim.poll() is None and not list(output.glob("store/**/*.parquet")):
        time.sleep(0.005)
    victim.send_signal(signal.SIGKILL)
    for number, process in running:
        told = process.communicate()[1]
        assert process.returncode == 0 or process is victim, f"{number}: {told}"
    assert main(["score", str(sliced), "run.slice=2/4", "--quiet"]) == 0
    assert tables(output, digests) == tables(expected, digests)
    assert main(["decide", str(sliced), "--quiet"]) == 0


def test_a_missing_slice_is_named(write, run, places, digests):
    config, output = write(PLAIN, "out")
    for number in (0, 1, 3):
        assert run("score", config, f"run.slice={number}/4")[0] == 0
    scored = {path.stem for path in (output / "store" / "samples").glob("*.parquet")}
    missing = sorted({path.stem for path in places["pool"].glob("*.tar")} - scored)
    assert missing
    status, _, err = run("decide", config)
    assert status == 1
    assert f"{len(missing)} of 8 shards of the input" in err
    assert missing[0] in err
    assert "run.slice=2/4" in err
    assert "1/4" not in err
    assert not (output / "decisions").exists()
    assert not (output / "lock.json").exists()
    assert run("score", config, "run.slice=2/4")[0] == 0
    assert run("decide", config)[0] == 0


def test_what_leans_on_the_whole_pool_waits_and_says_so(write, run, digests):
    """A gate over shares of the pool opens when all slices are done, and neighbours are for a plain score."""
    single, expected = write(CONFIG, "single")
    assert run("score", single)[0] == 0
    config, output = write(CONFIG, "sliced")
    status, _, err = run("score", config, "run.slice=0/2")
    assert status == 0
    assert "left for when all slices are done: pictures (required filters lean on the whole input" in err
    assert not list(output.glob("store/scores/pictures-*"))
    status, _, err = run("score", config, "run.slice=1/2")
    assert status == 0
    assert "neighbours (compares the whole pool); then `chaffinch score` without run.slice" in err
    status, _, err = run("decide", config)
    assert status == 1
    assert "all 2 slices are done" in err
    # The slices once more: the gate is open now.
    assert run("score", config, "run.slice=0/2")[0] == 0
    assert not list(output.glob("store/scores/neighbours-*"))
    assert run("score", config)[0] == 0
    assert tables(output, digests) == tables(expected, digests)


def test_a_gate_waits_for_a_shard_that_could_not_be_read(write, run, places, digests, tmp_path):
    """What it would be fitted on may change with the next try, and slices are not all fitted at once."""
    pool = tmp_path / "pool"
    shutil.copytree(places["pool"], pool)
    config, output = write(CONFIG.replace("{pool}", str(pool)), "out")
    broken = pool / "00000001.tar"
    content = broken.read_bytes()
    broken.unlink()
    broken.symlink_to("/proc/self/mem")  # it opens, and cannot be read
    for number in (0, 1, 0):
        status, _, err = run("score", config, f"run.slice={number}/2")
        assert status == 0, err
    assert "required filters lean on the whole input" in err
    broken.unlink()
    broken.write_bytes(content)
    assert run("score", config, "run.slice=0/2")[0] == 0
    assert run("score", config, "run.slice=1/2")[0] == 0
    assert list(output.glob("store/scores/pictures-*/*.parquet"))


def test_slices_are_for_scoring_alone(write, run, places):
    config, output = write(PLAIN, "out")
    for command in ("run", "decide", "emit", "report", "label", "train", "plan", "doctor"):
        trained = [f"train={{model: RN50, input: {places['pool']}}}"] if command == "train" else []
        status, _, err = run(command, config, "run.slice=1/4", *trained)
        assert status == 2, command
        assert "run.slice" in err
        assert "chaffinch score" in err
    for text, told in (("4/4", "0/4 to 3/4"), ("x", "is no slice"), ("3", "is no slice")):
        status, _, err = run("score", config, f"run.slice={text}")
        assert status == 2
        assert told in err
    assert not output.exists()


def test_more_slices_than_shards(write, run):
    config, _ = write(PLAIN, "out")
    status, _, err = run("score", config, "run.slice=0/500")
    assert status == 0
    assert "all 0 shards of slice 0/500 are scored" in err
