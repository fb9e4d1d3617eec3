"""Leases: real processes and threads spread over GPUs that are only names, and a kill frees what was held."""

import collections
import glob
import os
import random
import signal
import stat
import subprocess
import sys
import tempfile
import threading

import pytest

from chaffinch.pipeline.measuring.leases import lease, visible_gpus

# Leases one of the GPUs named on its command line, says which, and holds it until its input ends.
HOLDER = """
import sys
from chaffinch.pipeline.measuring.leases import lease
held = lease(sys.argv[2:], sys.argv[1])
print(held.position, held.gpu, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "gpus")


@pytest.fixture
def start(folder):
    """Starts a process that holds a lease; returns it with what it said."""
    processes = []

    def call(*gpus: str) -> tuple[subprocess.Popen, str]:
        command = [sys.executable, "-c", HOLDER, folder, *gpus]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process, process.stdout.readline().split()[-1]

    yield call
    for process in processes:
        process.kill()
        process.wait()


def test_processes_spread_evenly_and_a_kill_frees(start):
    held = [start("0", "1", "2") for _ in range(3)]
    assert sorted(gpu for _, gpu in held) == ["0", "1", "2"]
    process, gpu = held[1]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert start("0", "1", "2")[1] == gpu
    more = [start("0", "1", "2")[1] for _ in range(3)]
    assert sorted(more) == ["0", "1", "2"]


def test_processes_that_start_at_once_spread_evenly(folder):
    command = [sys.executable, "-c", HOLDER, folder, "a", "b", "c"]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    try:
        gpus = [process.stdout.readline().split()[-1] for process in processes]
        assert collections.Counter(gpus) == {"a": 2, "b": 2, "c": 2}
    finally:
        for process in processes:
            process.communicate()


def test_threads_do_too(folder):
    found = []
    threads = [threading.Thread(target=lambda: found.append(lease(["0", "1"], folder))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert collections.Counter(one.gpu for one in found) == {"0": 4, "1": 4}
    for one in found:
        one.release()


def test_whoever_comes_takes_one_that_the_fewest_use(folder):
    """Whatever was given back before, in whatever order."""
    rng, gpus = random.Random(0), ["0", "1", "2", "3"]
    held = []
    for _ in range(200):
        if held and rng.random() < 0.45:
            held.pop(rng.randrange(len(held))).release()
        else:
            used = collections.Counter({gpu: 0 for gpu in gpus})
            used.update(one.gpu for one in held)
            one = lease(gpus, folder)
            assert used[one.gpu] == min(used.values())
            assert gpus[one.position] == one.gpu
            held.append(one)
    for one in held:
        one.release()


def test_what_was_given_back_is_free_and_giving_back_twice_harms_nobody(folder):
    first = lease(["0", "1"], folder)
    first.release()
    second = lease(["0", "1"], folder)
    assert second.gpu == "0"
    first.release()
    assert lease(["0", "1"], folder).gpu == "1"
    second.release()


def test_programs_started_by_a_holder_do_not_hold_it(folder):
    held = lease(["0", "1"], folder)
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, close_fds=False
    )
    try:
        held.release()
        assert lease(["0", "1"], folder).gpu == "0"
    finally:
        child.communicate()


def test_each_sees_its_own_part_of_the_machine(folder):
    """Positions are those in the process's own list; the lock is on the GPU that is meant."""
    first = lease(["2", "3"], folder)
    assert (first.position, first.gpu) == (0, "2")
    second = lease(["3", "2"], folder)
    assert (second.position, second.gpu) == (0, "3")
    third = lease(["1", "2", "3"], folder)
    assert (third.position, third.gpu) == (0, "1")


def test_names_become_file_names(folder):
    names = ["GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "MIG-GPU-8932f937/1/0"]
    assert [lease(names, folder).gpu for _ in range(2)] == names
    assert all(
        os.path.dirname(path) == folder for path in glob.glob(f"{folder}/**", recursive=True) if os.path.isfile(path)
    )


class TestTheFolder:
    """One per user, below the folder for temporary files."""

    @pytest.fixture
    def temporary(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        return tmp_path / f"chaffinch-{os.getuid()}"

    def test_it_is_private(self, temporary):
        lease(["0"]).release()
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o700
        assert (temporary / "gpus" / "0.0").is_file()

    def test_one_that_is_a_link_is_refused(self, temporary, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        temporary.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(OSError, match="belongs to somebody else: name another folder"):
            lease(["0"])
        assert not any((tmp_path / "elsewhere").iterdir())

    @pytest.mark.skipif(os.getuid() != 0, reason="needs to be root to give a folder to somebody else")
    def test_one_of_somebody_else_is_refused(self, temporary):
        temporary.mkdir()
        os.chown(temporary, 12345, 12345)
        with pytest.raises(OSError, match="belongs to somebody else"):
            lease(["0"])


@pytest.mark.parametrize(
    ("value", "gpus"),
    [
        ("0", ["0"]),
        ("2, 0", ["2", "0"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1,-1,2", ["1"]),
        ("GPU-8932f937,MIG-1", ["GPU-8932f937", "MIG-1"]),
    ],
)
def test_the_variable_says_which_there_are(monkeypatch, value, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus() == gpus


def test_without_the_variable_all_devices_count(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    names = ["/dev/nvidia10", "/dev/nvidia0", "/dev/nvidia2", "/dev/nvidia0x"]
    monkeypatch.setattr(glob, "glob", lambda pattern: names if pattern == "/dev/nvidia[0-9]*" else [])
    assert visible_gpus() == ["0", "2", "10"]


def test_nothing_heavy_is_imported():
    heavy = {"torch", "numpy", "apache_beam", "pyarrow"}
    code = f"import sys, chaffinch.pipeline.measuring.leases; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
