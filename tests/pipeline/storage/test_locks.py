"""Locks on folders: two at once, holders that were killed, holders of other machines, and those that were overtaken."""

import dataclasses
import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from chaffinch.pipeline.storage import files, locks
from chaffinch.pipeline.storage.locks import Holder, LockError, holding
from chaffinch.pipeline.storage.processes import process_space

HOLD = (
    "import sys, time; from chaffinch.pipeline.storage.locks import holding\n"
    "with holding(sys.argv[1], 'chaffinch decide web.yaml'):\n"
    "    print('held', flush=True); time.sleep(60)\n"
)


@pytest.fixture
def elsewhere(tmp_path):
    """(age in seconds) -> leaves the lock of a process of another machine."""

    def leave(age):
        holder = dataclasses.replace(Holder.this("chaffinch emit web.yaml"), host="farther", token="another")
        path = tmp_path / "lock.json"
        path.write_bytes(holder.dump())
        os.utime(path, (time.time() - age,) * 2)
        return holder

    return leave


def test_two_at_once(tmp_path):
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(LockError) as refused, holding(str(tmp_path), "chaffinch emit"):
            pass
        for told in ("chaffinch decide web.yaml", str(first.pid), socket.gethostname(), f"delete {tmp_path}/lock.json"):
            assert told in str(refused.value)
    finally:
        first.kill()
        first.wait()
        first.stdout.close()
    # The kernel has freed it, though the file is there.
    assert (tmp_path / "lock.json").exists()
    with holding(str(tmp_path), "chaffinch emit"):
        assert json.loads((tmp_path / "lock.json").read_text())["process"] == os.getpid()
    assert os.listdir(tmp_path) == []


def test_one_of_many_gets_it(tmp_path):
    """Whoever waits at the door while the file is removed must not end up with the removed one."""
    inside, most, entered = [0], [0], []
    guard = threading.Lock()

    def enter():
        for _ in range(20):
            try:
                with holding(str(tmp_path), "one of many"):
                    with guard:
                        inside[0] += 1
                        most[0] = max(most[0], inside[0])
                    entered.append(1)
                    with guard:
                        inside[0] -= 1
            except LockError:
                pass

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1
    assert entered
    assert os.listdir(tmp_path) == []


def test_an_error_frees_it_and_is_what_is_raised(tmp_path):
    with pytest.raises(KeyError), holding(str(tmp_path), "a"):
        raise KeyError("bug")
    assert os.listdir(tmp_path) == []


def test_that_of_another_machine_counts_until_it_is_old(tmp_path, elsewhere):
    holder = elsewhere(age=20)
    with pytest.raises(LockError, match=r"process \d+ on farther"), holding(str(tmp_path), "b"):
        pass
    assert Holder.read((tmp_path / "lock.json").read_bytes()) == holder
    elsewhere(age=locks.STALE_SECONDS + 5)
    with holding(str(tmp_path), "b"):
        pass
    assert os.listdir(tmp_path) == []


def test_containers_that_share_a_name_are_other_machines(tmp_path):
    holder = Holder.this("a")
    (tmp_path / "lock.json").write_bytes(dataclasses.replace(holder, space=holder.space + 1).dump())
    with pytest.raises(LockError), holding(str(tmp_path), "b"):
        pass


def test_a_filesystem_without_locks(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with holding(str(tmp_path), "a"), pytest.raises(LockError), holding(str(tmp_path), "b"):
        pass
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for gone in ({"process": dead.pid}, {"started": 1}):  # or its number is another's by now
        (tmp_path / "lock.json").write_bytes(dataclasses.replace(Holder.this("a"), **gone).dump())
        with holding(str(tmp_path), "b"):
            pass


def test_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.01)
    path = tmp_path / "lock.json"
    with holding(str(tmp_path), "a"):
        os.utime(path, (1, 1))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > time.time() - 60


def test_who_was_overtaken_is_told(tmp_path):
    def work():
        with holding(str(tmp_path), "a"):
            (tmp_path / "lock.json").unlink()  # as the message to others says
            with holding(str(tmp_path), "b"):
                pass

    with pytest.raises(LockError, match="taken over"):
        work()


def test_a_file_that_says_nothing(tmp_path):
    for content in (b"", b"{", b"[]", b'{"host": 1}'):
        (tmp_path / "lock.json").write_bytes(content)
        with holding(str(tmp_path), "a"):
            pass


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"), holding(str(tmp_path / "file" / "out"), "a"):
        pass


def test_names_of_temporary_files_tell_containers_apart(tmp_path):
    assert f"{socket.gethostname()}-{process_space()}-{os.getpid()}-" in files.temporary_name("x")
