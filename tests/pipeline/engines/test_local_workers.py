"""Worker processes end with the process that started them, in the middle of their work."""

import os
import signal
import subprocess
import sys
import time

from chaffinch.pipeline.storage.processes import is_alive

# A function that works for a minute, handed to a worker whose number is told first.
PARENT = """\
import pickle, subprocess, sys, time
from chaffinch.pipeline.engines.local_workers import Workers
workers = Workers(1, ())
process = workers._idle.get()
print(process.pid, flush=True)
workers._idle.put(process)
path = sys.argv[1]
with open(path, "wb") as file:
    pickle.dump(time.sleep, file)
workers.submit(path, pickle.dumps([60])).result()
"""


def test_a_worker_does_not_outlive_a_killed_driver(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "function")], stdout=subprocess.PIPE, text=True
    )
    worker = int(parent.stdout.readline())
    time.sleep(1.0)  # it has begun by now, or is still importing: either way it has to end
    assert is_alive(worker)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while is_alive(worker) and not _is_zombie(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(worker) or _is_zombie(worker)


def _is_zombie(process: int) -> bool:
    """Whether it ended, and only nobody has asked how: in containers there may be nobody to do so."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return not os.path.exists(f"/proc/{process}")
