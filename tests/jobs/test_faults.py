"""Disks that are full or may not be written, shards that go away, two drivers at once: told in words, nothing lost."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from chaffinch.jobs.demo.pool import write_pool
from chaffinch.jobs.main import main
from chaffinch.pipeline.storage.locks import Holder

PROGRAM = [sys.executable, "-m", "chaffinch.jobs.main"]
CONFIG = """\
input: {pool}
output: {output}
store: {store}
filters:
  words: {{column: captions.words, keep: top 60%, drop: bottom 20%}}
  entropy: {{column: pictures.entropy, keep: top 60%, drop: bottom 20%}}
keep: {{fraction: 0.4}}
emit: {{samples_per_shard: 5}}
run: {{max_rejected: 1}}
"""


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults") / "pool"
    write_pool(folder, samples=48, shard_size=8, seed=11)
    return folder


@pytest.fixture(scope="module")
def good(pool, tmp_path_factory, digests):
    """What a run that met with nothing leaves, and where."""
    folder = tmp_path_factory.mktemp("good")
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(pool=pool, output=folder / "out", store=folder / "store"))
    assert main(["run", str(config), "--quiet"]) == 0
    return folder


@pytest.fixture
def write(pool, tmp_path):
    """(pool) -> a config whose output and store lie in this test's folder."""

    def make(of=None, **places):
        path = tmp_path / "config.yaml"
        found = {"pool": of or pool, "output": tmp_path / "out", "store": tmp_path / "store"} | places
        path.write_text(CONFIG.format(**found))
        return path

    return make


def grow(folder):
    subprocess.run(["mount", "-o", "remount,rw,size=64m", str(folder)], check=True)


def same(one, other, digests):
    """Whether two outputs hold the same, but for what names the places; says what does not."""
    kept = [{name: data for name, data in digests(folder).items() if name != "config.yaml"} for folder in (one, other)]
    assert kept[0] == kept[1]
    return len(kept[0]) > 10


@pytest.mark.parametrize(("part", "size", "workers"), [("store", "32k", 2), ("output", "120k", 1)])
def test_a_full_disk(write, run, mount, good, digests, part, size, workers):
    disk = mount(f"size={size}")
    config = write(**{part: disk / part})
    status, _, err = run("run", config, f"run.workers={workers}", "--quiet")
    assert status == 1
    assert "cannot be written: No space left on device; make room there" in err
    assert str(disk) in err
    assert len(err.splitlines()) == 2, "more than the reason and the hint"
    assert not [path for path in disk.rglob("*") if path.name.endswith(".partial")]
    assert not (disk / "output" / "lock.json").exists()
    grow(disk)
    assert run("run", config, "--quiet")[0] == 0
    output = disk / "output" if part == "output" else config.parent / "out"
    assert same(good / "out", output, digests)


def test_files_of_a_limited_size(write, pool, good, digests, tmp_path):
    """Where no disk can be mounted, this fails at the same places."""
    config = write()
    limited = ["bash", "-c", 'ulimit -f 8; exec "$@"', "-", *PROGRAM, "run", str(config), "--quiet"]
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "cannot be written: File too large; make room there" in done.stderr
    assert main(["run", str(config), "--quiet"]) == 0
    assert same(good / "out", tmp_path / "out", digests)


@pytest.mark.parametrize(("part", "command"), [("output", "run"), ("output", "score"), ("store", "score")])
def test_a_disk_that_may_not_be_written(write, run, mount, part, command):
    disk = mount("ro,size=1m")
    config = write(**{part: disk / part})
    status, _, err = run(command, config, "--quiet")
    assert status == 1
    assert f"{disk / part} cannot be written: Read-only file system; see to its permissions" in err


def test_a_store_that_may_only_be_read_will_do_for_deciding(write, run, mount, good):
    disk = mount("size=64m")
    shutil.copytree(good / "store", disk / "store")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    status, _, err = run("decide", write(store=disk / "store"), "--quiet")
    assert status == 0, err


def test_a_shard_that_goes_away_while_it_is_scored(write, run, pool, tmp_path, digests, good):
    """It is rejected with a reason; when it is back, all is as if it had never been away."""
    mine = tmp_path / "pool"
    shutil.copytree(pool, mine)  # with its times: they are what tells one version of a shard from another
    config = write(mine)
    shard = mine / "00000004.tar"
    shard.rename(tmp_path / "away")
    shard.symlink_to("/proc/self/mem")  # is listed, and cannot be read
    status, _, err = run("run", config)
    assert status == 0, err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["shards"]["00000004"] == {"read": 1, "kept": 0, "dropped": 0, "rejected": 1}
    assert any(reason.startswith("rejected: shard cannot be read") for reason in summary["reasons"])
    shard.unlink()
    (tmp_path / "away").rename(shard)
    assert run("run", config, "--quiet")[0] == 0
    decided = [
        {path.name: path.read_bytes() for path in sorted((one / "out" / "decisions").iterdir())}
        for one in (good, tmp_path)
    ]
    assert decided[0] == decided[1]
    assert same(good / "out" / "shards", tmp_path / "out" / "shards", digests)


def test_a_shard_that_goes_away_before_its_samples_are_emitted(write, run, pool, tmp_path, digests, good):
    mine = tmp_path / "pool"
    shutil.copytree(pool, mine)
    config = write(mine)
    assert run("score", config, "--quiet")[0] == 0
    assert run("decide", config, "--quiet")[0] == 0
    shard = (mine / "00000002.tar").rename(tmp_path / "away")
    status, _, err = run("emit", config, "--quiet")
    assert status == 1
    assert "of another config or input: run `chaffinch decide`" in err
    assert not (tmp_path / "out" / "shards" / "meta.json").exists()
    shard.rename(mine / "00000002.tar")
    assert run("emit", config, "--quiet")[0] == 0
    assert same(good / "out" / "shards", tmp_path / "out" / "shards", digests)


def test_two_drivers_in_one_output(write, run, good, tmp_path, digests):
    config = write()
    command = [*PROGRAM, "run", str(config), "--quiet"]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    lock = tmp_path / "out" / "lock.json"
    while first.poll() is None and not lock.exists():
        time.sleep(0.005)
    while first.poll() is None and not lock.read_bytes():
        time.sleep(0.005)
    first.send_signal(signal.SIGSTOP)
    for other in ("run", "decide", "emit"):
        status, _, err = run(other, config)
        assert status == 1
        assert f"`chaffinch run {config}` (process {first.pid} on " in err
        assert f"delete {lock}" in err
    first.send_signal(signal.SIGCONT)
    assert first.wait() == 0, first.stderr.read()
    first.stderr.close()
    assert not lock.exists()
    assert same(good / "out", tmp_path / "out", digests)


def test_a_killed_driver_is_no_hindrance_and_one_of_another_machine_is_for_a_while(write, run, tmp_path):
    config = write()
    (tmp_path / "out").mkdir()
    lock = tmp_path / "out" / "lock.json"
    holder = Holder.this("chaffinch run other.yaml")
    lock.write_bytes(replace(holder, host="farther").dump())
    status, _, err = run("decide", config)
    assert status == 1
    assert "`chaffinch run other.yaml`" in err
    assert run("score", config, "--quiet")[0] == 0  # takes no lock
    lock.write_bytes(holder.dump())  # nobody holds it any more, whatever it says
    assert run("decide", config, "--quiet")[0] == 0
    assert not lock.exists()


def test_decisions_stay_where_new_ones_fail(write, run, good, tmp_path, digests):
    config = write(output=tmp_path / "out", store=good / "store")
    assert run("run", config, "--quiet")[0] == 0
    before = digests(tmp_path / "out")
    overlap = "filters.entropy={column: pictures.entropy, keep: top 90%, drop: [null, 7]}"
    status, _, err = run("decide", config, overlap)
    assert status == 2
    assert "overlap" in err
    assert digests(tmp_path / "out") == before
    assert run("emit", config, "--quiet")[0] == 0
    assert pq.read_table(next((tmp_path / "out" / "shards").glob("*.parquet"))).num_rows > 0


def test_an_unfinished_decision_is_not_emitted_by_the_counts_of_an_earlier_one(write, run, good, tmp_path):
    config = write(store=good / "store")
    assert run("decide", config, "--quiet")[0] == 0
    table = tmp_path / "out" / "decisions" / "00000003.parquet"
    table.unlink()
    table.mkdir()  # where it cannot be written: decide ends in the middle
    assert run("decide", config, "keep.fraction=0.2", "--quiet")[0] == 1
    assert len(list(table.parent.iterdir())) > 1
    table.rmdir()
    status, _, err = run("emit", config, "keep.fraction=0.2")
    assert status == 1
    assert "holds no decisions: run `chaffinch decide`" in err
    assert run("decide", config, "keep.fraction=0.2", "--quiet")[0] == 0
    assert run("emit", config, "keep.fraction=0.2", "--quiet")[0] == 0
