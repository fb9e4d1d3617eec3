"""kill -9 in every stage of one run: the same command again ends with the same bytes, nothing left over."""

import shutil
import signal
import subprocess
import sys
import time

import pytest

from chaffinch.jobs.demo.pool import write_pool
from chaffinch.jobs.main import main

PROGRAM = [sys.executable, "-m", "chaffinch.jobs.main"]

# What is there once a stage has begun, and what is not before it has ended.
MOMENTS = {
    "score": ("store/scores/pictures-*/*.parquet", 3),
    "fit": ("store/stamps/*", 12),
    "decide": ("decisions/*.parquet", 2),
    "emit": ("shards/*.tar", 5),
}


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kill") / "pool"
    write_pool(folder, samples=96, shard_size=8, seed=11)
    return folder


def test_killed_and_run_again_is_as_if_nothing_had_happened(pool, tmp_path, digests, fault_scene):
    output = tmp_path / "out"
    config = tmp_path / "config.yaml"
    config.write_text(fault_scene.CONFIG.format(pool=pool, output=output))
    command = ["run", str(config), "--quiet"]
    assert main(command) == 0
    expected = digests(output)
    shutil.rmtree(output)
    killed = 0
    for moment, (pattern, count) in MOMENTS.items():
        process = subprocess.Popen([*PROGRAM, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(output.glob(pattern))) < count:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        assert digests(output) != expected or process.returncode == 0, f"{moment}: killed too late to tell anything"
    assert main(command) == 0
    assert digests(output) == expected
    assert killed >= len(MOMENTS) - 1  # a machine in a hurry may once be faster than the signal


DIES_WHILE_WRITING = """\
import os, signal, sys
import pyarrow.parquet as pq
from chaffinch.pipeline.storage import files
from chaffinch.jobs.main import main

whole, written = pq.write_table, []

def half(table, file, **settings):
    written.append(None)
    if len(written) < 5:
        return whole(table, file, **settings)
    file.write(b"PAR1 and not much more")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

pq.write_table = half
if sys.argv[1] == "in place":
    files.temporary_name = lambda path: path
main(sys.argv[2:])
"""


@pytest.mark.parametrize("how", ["renamed", "in place"])
def test_it_is_the_rename_that_makes_it_so(pool, tmp_path, digests, fault_scene, how):
    """Killed in the middle of a table. Were files written in place, the next run would take half of one for a whole."""
    output = tmp_path / "out"
    config = tmp_path / "config.yaml"
    config.write_text(fault_scene.CONFIG.format(pool=pool, output=output))
    command = ["run", str(config), "--quiet"]
    assert main(command) == 0
    expected = digests(output)
    shutil.rmtree(output)
    killed = subprocess.run([sys.executable, "-c", DIES_WHILE_WRITING, how, *command], capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    try:
        healed = main(command) == 0 and digests(output) == expected
    except Exception:  # a table that nobody expects to be broken
        healed = False
    assert healed == (how == "renamed")
