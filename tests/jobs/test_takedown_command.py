"""Block lists from the command line: what they drop, why, and what stays untouched when they grow."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from chaffinch.jobs.main import main

PROGRAM = [sys.executable, "-m", "chaffinch.jobs.main"]

CONFIG = """\
input: {pool}
output: {output}
store: {store}
scorers:
  late: {{kind: pictures, where: required}}
filters:
  size: {{column: pictures.shorter_side, keep: [64, null], require: true}}
  words: {{column: captions.words, keep: top 60%, drop: bottom 20%}}
  entropy: {{column: pictures.entropy, keep: top 60%, drop: bottom 20%}}
  sharpness: {{column: late.sharpness, keep: top 60%, drop: bottom 10%}}
  blocked: {{kind: block_list, file: {list}, by: uid}}
keep: {{fraction: 0.4}}
emit: {{samples_per_shard: 10}}
run: {{max_rejected: 0.2}}
"""


@pytest.fixture(scope="module")
def store(rendered, tmp_path_factory):
    """What is measured of the pool, once: no list changes it."""
    folder = tmp_path_factory.mktemp("measured")
    (folder / "none.txt").touch()
    places = {"pool": rendered / "pool", "output": folder / "out", "store": folder / "store"}
    (folder / "config.yaml").write_text(CONFIG.format(**places, list=folder / "none.txt"))
    assert main(["score", str(folder / "config.yaml"), "--quiet"]) == 0
    return folder / "store"


@pytest.fixture
def listed(rendered, store, tmp_path):
    """Writes a config with a list and returns its path; the list is at `blocked.txt`."""

    def write(output: str = "out", change: tuple[str, str] = ("", "")) -> str:
        path = tmp_path / f"{output}.yaml"
        (tmp_path / "blocked.txt").touch()
        places = {"pool": rendered / "pool", "store": store}
        places |= {"output": tmp_path / output, "list": tmp_path / "blocked.txt"}
        path.write_text(CONFIG.format(**places).replace(*change) if change[0] else CONFIG.format(**places))
        return str(path)

    return write


def shards(output, content=True):
    """Every file of the output shards: its bytes, or its inode and time."""
    found = {}
    for path in sorted((output / "shards").iterdir()):
        found[path.name] = path.read_bytes() if content else (path.stat().st_ino, path.stat().st_mtime_ns)
    return found


def block(tmp_path, *uids):
    with open(tmp_path / "blocked.txt", "a") as file:
        file.write("".join(f"{uid}\n" for uid in uids))


def emitted_uids(output):
    return {
        path.name.replace(".parquet", ".tar"): pq.read_table(path)["uid"].to_pylist()
        for path in sorted((output / "shards").glob("*.parquet"))
    }


@pytest.mark.parametrize("shuffle", ["null", "7"])
def test_a_longer_list_rewrites_the_shards_that_change(listed, run, tmp_path, decisions, shuffle):
    path, output = listed(), tmp_path / "out"
    assert run("run", path, f"emit.shuffle_seed={shuffle}", "--quiet")[0] == 0
    before, stated, uids = decisions(output), shards(output, content=False), emitted_uids(output)
    summary = json.loads((output / "summary.json").read_text())
    kept = before.filter(before["keep"])["uid"].to_pylist()
    below = before.filter(pc.equal(before["reason"], "dropped: below the cut"))["uid"].to_pylist()
    gone = [uids["00000002.tar"][3], uids["00000002.tar"][9], uids["00000005.tar"][0]]
    block(tmp_path, "# asked for on the telephone", *gone, below[0], "f" * 32)
    for command in ("score", "decide", "emit"):
        status, _, err = run(command, path, f"emit.shuffle_seed={shuffle}")
        assert status == 0, err
    assert f"{len(kept) - 3} samples in {len(uids)} shards, 3 taken down" in err

    after = decisions(output)
    reasons = dict(zip(after["uid"].to_pylist(), after["reason"].to_pylist(), strict=True))
    assert {reasons[uid] for uid in gone} == {"dropped: taken down by blocked"}
    assert reasons[below[0]] == "dropped: required filter blocked"
    # Nothing else has moved: the same probabilities, votes and reasons, and nobody has entered.
    others = pc.invert(pc.is_in(after["uid"], value_set=pa.array([*gone, below[0]])))
    names = [name for name in before.column_names if name != "vote_blocked"]
    assert after.select(names).filter(others).equals(before.select(names).filter(others))
    assert set(after.filter(after["keep"])["uid"].to_pylist()) == set(kept) - set(gone)

    changed = json.loads((output / "summary.json").read_text())
    assert (changed["kept"], changed["dropped"]) == (summary["kept"] - 3, summary["dropped"] + 3)
    for counts in (changed, *changed["shards"].values()):
        assert counts["read"] == counts["kept"] + counts["dropped"] + counts["rejected"]
    assert changed["reasons"]["dropped: taken down by blocked"] == 3
    fitted = json.loads((output / "fitted.json").read_text())
    assert fitted["order"]["wanted"] == summary["kept"]

    touched = {name[:8] for name, one in shards(output, content=False).items() if stated[name] != one}
    assert touched - {"sizes.js", "meta.jso"} == {"00000002", "00000005"}
    left = {name: [uid for uid in found if uid not in gone] for name, found in uids.items()}
    assert emitted_uids(output) == left
    assert json.loads((output / "shards" / "sizes.json").read_text()) == {name: len(one) for name, one in left.items()}
    ids = [f"{high:016x}{low:016x}" for high, low in np.load(output / "sample_ids.npy").tolist()]
    assert ids == sorted(set(kept) - set(gone))

    # The same list from the start gives the same bytes: they follow from input and config, not from what was before.
    other = listed("other")
    assert run("run", other, f"emit.shuffle_seed={shuffle}", "--quiet")[0] == 0
    assert shards(tmp_path / "other") == shards(output)
    # And the measurements are those of before: the scorer that skips vetoed samples has not waited for the list.
    assert "all 4 shards are scored" in run("score", path)[2]


def test_a_list_that_is_added_later_moves_nothing_either(listed, run, tmp_path):
    """A filter that reads metadata writes no column beside the samples when all it does is to take some down."""
    line = next(one for one in CONFIG.splitlines(keepends=True) if "blocked" in one)
    without = listed("out", (line.format(list=tmp_path / "blocked.txt"), ""))
    assert run("run", without, "--quiet")[0] == 0
    before = shards(tmp_path / "out", content=False)
    address = "https://example.org/" + "a" * 20
    assert pq.read_table(tmp_path / "out" / "shards" / "00000000.parquet").num_rows == 10
    uid = emitted_uids(tmp_path / "out")["00000000.tar"][0]
    table = {"uid": [uid], "url": [address]}
    pq.write_table(pa.table(table), tmp_path / "addresses.parquet")
    (tmp_path / "domains.txt").write_text("*.example.org\n")
    status, _, err = run(
        "run",
        without,
        f"metadata={tmp_path / 'addresses.parquet'}",
        f"filters.web={{kind: block_list, file: {tmp_path / 'domains.txt'}, by: domain, missing: keep}}",
    )
    assert status == 0, err
    after = shards(tmp_path / "out", content=False)
    assert {name[:8] for name in after if after[name] != before[name]} - {"sizes.js", "meta.jso"} == {"00000000"}


def test_with_refill_others_take_the_places(listed, run, tmp_path):
    """The list is then a veto like any other: as many are kept as before, and the shards are full."""
    path, output = listed(change=("by: uid", "by: uid, refill: true")), tmp_path / "out"
    assert run("run", path, "--quiet")[0] == 0
    uids, kept = emitted_uids(output), json.loads((output / "summary.json").read_text())["kept"]
    gone = uids["00000002.tar"][3]
    block(tmp_path, gone)
    assert run("run", path, "--quiet")[0] == 0
    summary = json.loads((output / "summary.json").read_text())
    assert summary["kept"] == kept
    assert summary["reasons"]["dropped: required filter blocked"] == 1
    again = emitted_uids(output)
    assert [len(one) for one in again.values()] == [len(one) for one in uids.values()]
    assert not any(gone in found for found in again.values())


def test_numbers_learned_elsewhere_are_not_learned_from_the_list(listed, run, tmp_path):
    assert run("run", listed(), "--quiet")[0] == 0
    fitted = tmp_path / "out" / "fitted.json"
    gone = emitted_uids(tmp_path / "out")["00000001.tar"][1]
    block(tmp_path, gone)
    status, _, err = run("run", listed("other"), f"fitted={fitted}")
    assert status == 0, err
    assert "1 taken down" in err
    again = tmp_path / "other" / "fitted.json"
    assert json.loads(again.read_text())["judgement"] == json.loads(fitted.read_text())["judgement"]
    assert not any(gone in found for found in emitted_uids(tmp_path / "other").values())


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ("{kind: block_list, file: nowhere.txt, by: uid}", "filters.blocked: block list nowhere.txt: No such file"),
        ("{kind: block_list, file: FILE, by: uids}", "filters.blocked.by: input should be 'uid', 'url'"),
        ("{kind: block_list, file: FILE, by: url, column: metadata.uri}", "no scorer writes 'metadata.uri'"),
        ("{kind: block_list, file: FILE, by: uid, column: samples.uids}", "did you mean 'samples.uid'"),
        ("{kind: block_list, by: uid}", "filters.blocked.file: is missing"),
    ],
)
def test_a_wrong_list_starts_nothing(listed, run, tmp_path, settings, problem):
    path = listed()
    status, _, err = run("run", path, f"filters.blocked={settings.replace('FILE', str(tmp_path / 'blocked.txt'))}")
    assert status == 2
    assert problem in err
    assert not (tmp_path / "out").exists()
    block(tmp_path, "0" * 32, "somebody")
    status, _, err = run("run", path)
    assert status == 2
    assert "blocked.txt:2: 'somebody' is no uid: give 32 hex digits" in err


def test_the_name_of_the_samples_is_taken(listed, run):
    status, _, err = run("score", listed(), "scorers.samples={kind: captions}")
    assert status == 2
    assert "this name stands for the samples themselves" in err


def test_killed_while_samples_are_taken_down(listed, run, tmp_path, digests):
    """kill -9 between the first and the last shard that is written anew: the same command ends with the same bytes."""
    path, output = listed(), tmp_path / "out"
    assert run("run", path, "emit.samples_per_shard=2", "--quiet")[0] == 0
    uids = emitted_uids(output)
    whole = tmp_path / "whole"
    shutil.copytree(output, whole)
    block(tmp_path, *(found[0] for found in uids.values()))
    command = ["run", path, "emit.samples_per_shard=2", "--quiet"]
    assert run(*command)[0] == 0
    expected = digests(output)
    sizes = {name: len(found) - 1 for name, found in uids.items() if len(found) > 1}
    assert json.loads((output / "shards" / "sizes.json").read_text()) == sizes
    shutil.rmtree(output)
    shutil.copytree(whole, output)
    before = {name: (output / "shards" / name).stat().st_ino for name in uids}
    killed = 0
    for share in (0.1, 0.5):
        process = subprocess.Popen([*PROGRAM, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            now = {entry.name: entry.inode() for entry in os.scandir(output / "shards")}
            if sum(now.get(name) != inode for name, inode in before.items()) > share * len(uids):
                break
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        if process.returncode:
            assert not (output / "shards" / "meta.json").exists()
    assert run(*command)[0] == 0
    assert digests(output) == expected
    assert killed
