"""What a launch opens and lists: the kernel is asked, so that workers and what only C++ opens count too."""

import ctypes
import os
import struct
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from chaffinch.jobs import console
from chaffinch.jobs.demo.pool import write_clean
from chaffinch.jobs.main import main

CONFIG = """\
input: {folder}/pool
output: {folder}/output
store: {folder}/store
filters:
  size: {{column: pictures.shorter_side, keep: [64, null], require: true}}
  words: {{column: captions.words, keep: [4, null], drop: [null, 2]}}
  entropy: {{column: pictures.entropy, keep: top 60%, drop: bottom 10%}}
keep: {{fraction: 0.4}}
"""
SHARDS = 4
_OPEN, _FOLDER, _OVERFLOW = 0x20, 0x40000000, 0x4000
_HEAD = struct.Struct("iIII")


@contextmanager
def watching(*folders: Path):
    """Counts what is opened below folders meanwhile: path relative to the common parent -> how often.

    Folders, when listed, end in a slash.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    found: Counter[str] = Counter()
    queue = libc.inotify_init1(os.O_NONBLOCK)
    assert queue >= 0, os.strerror(ctypes.get_errno())
    try:
        places = {}
        for place in (one for folder in folders for one in [folder, *folder.rglob("*")] if one.is_dir()):
            number = libc.inotify_add_watch(queue, os.fsencode(place), _OPEN)
            assert number >= 0, os.strerror(ctypes.get_errno())
            places[number] = place.relative_to(folders[0].parent)
        yield found
        while events := _read(queue):
            while events:
                number, mask, _, length = _HEAD.unpack_from(events)
                name = events[_HEAD.size : _HEAD.size + length].rstrip(b"\0").decode()
                events = events[_HEAD.size + length :]
                assert not mask & _OVERFLOW
                # A folder that is listed tells so itself, and where the folder above it is watched, that does too.
                if not (mask & _FOLDER and name):
                    found[f"{places[number]}/{name}"] += 1
    finally:
        os.close(queue)


def _read(queue: int) -> bytes:
    try:
        return os.read(queue, 1 << 20)
    except BlockingIOError:
        return b""


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("launches")
    write_clean(folder / "pool", samples=4 * SHARDS, shard_size=4, seed=0)
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder))
    assert main(["score", str(folder / "config.yaml"), "--quiet"]) == 0
    return folder


def launch(folder, *words):
    with watching(folder / "store", folder / "pool") as found:
        assert main([words[0], str(folder / "config.yaml"), *words[1:]]) == 0
    opened = {path: times for path, times in found.items() if not path.endswith("/")}
    return opened, {path: times for path, times in found.items() if path.endswith("/")}


def test_the_kernel_tells_what_is_opened(scored):
    """Or else the tests below could not fail."""
    table = next((scored / "store" / "samples").iterdir())
    with watching(scored / "store") as found:
        table.read_bytes()
        list((scored / "store" / "stamps").iterdir())
    assert dict(found) == {f"store/samples/{table.name}": 1, "store/stamps/": 1}


@pytest.mark.parametrize("more", [[], ["run.slice=0/2"]])
def test_no_file_is_opened_to_find_that_nothing_is_to_do(scored, more, capsys):
    opened, listed = launch(scored, "score", *more)
    assert "are scored" in capsys.readouterr().err
    # A file that tries whether one can write there is none of these.
    assert {path for path in opened if path.endswith((".parquet", ".tar")) or "stamps" in path} == set()
    # One listing says what is there, another clears up after processes that were killed; a slice leaves that to others.
    assert max(listed.values()) <= (1 if more else 2)
    assert listed["pool/"] == 1
    (scored / "store" / "slices.json").unlink(missing_ok=True)


@pytest.mark.parametrize("command", ["score", "decide"])
def test_footers_are_read_for_progress_of_a_few_tables_only(scored, command, capsys, monkeypatch):
    for table in (scored / "store" / "scores").glob("captions-*/*.parquet"):
        table.unlink()
    assert main(["score", str(scored / "config.yaml"), "--quiet"]) == 0
    if command == "score":
        for table in (scored / "store" / "scores").glob("captions-*/*.parquet"):
            table.unlink()
    monkeypatch.setattr(console, "_MOST_READ", 2)
    assert main([command, str(scored / "config.yaml")]) == 0
    assert f"{command} input" in (err := capsys.readouterr().err) or command == "decide"
    assert f"{SHARDS} of {SHARDS} shards, about {4 * SHARDS} samples, about 0 rejected" in err


def test_a_resumed_score_opens_what_it_works_on(scored):
    first, *others = sorted(path.stem for path in (scored / "pool").glob("*.tar"))
    next((scored / "store" / "scores").glob("captions-*")).joinpath(f"{first}.parquet").unlink()
    opened, listed = launch(scored, "score", "--quiet")
    assert f"pool/{first}.tar" in opened
    assert not [path for path in opened if any(other in path for other in others)]
    assert max(listed.values()) <= 3


def test_deciding_opens_tables_equally_often_and_no_shard(scored):
    assert main(["score", str(scored / "config.yaml"), "--quiet"]) == 0
    opened, _ = launch(scored, "decide", "--quiet", "keep.fraction=0.3")
    assert not [path for path in opened if path.startswith("pool/")]
    assert not [path for path in opened if path.startswith("store/stamps/")]
    for folder in (scored / "store" / "scores").iterdir():
        times = [times for path, times in opened.items() if folder.name in path]
        assert len(times) == SHARDS
        assert len(set(times)) == 1
