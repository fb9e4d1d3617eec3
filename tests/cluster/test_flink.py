"""Whole runs on a real Flink on this machine: the same bytes as in one thread of one process, whatever is killed.

They need Java and the jars of examples/flink (`python examples/flink/cluster.py fetch`), and skip without.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from chaffinch.jobs.demo.pool import write_pool
from chaffinch.jobs.main import main

ROOT = Path(__file__).resolve().parents[2]
ABOUT_THE_RUN = {"config.yaml", "timings.json"}
PATIENCE_SECONDS = 60


sys.path.insert(0, str(ROOT / "examples" / "flink"))
import cluster  # noqa: E402  (an example, not a package)

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(cluster.missing()), reason=cluster.missing())]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Writes a config of a noisy pool of six shards; returns its path and where its output will be."""
    folder = tmp_path_factory.mktemp("flink")
    write_pool(folder / "pool", samples=48, shard_size=8, seed=11)

    def write(name: str) -> tuple[str, Path]:
        config = {
            "input": str(folder / "pool"),
            "output": str(folder / name),
            "filters": {
                "size": {"column": "pictures.shorter_side", "keep": [32, None], "require": True},
                "words": {"column": "captions.words", "keep": [6, None], "drop": [None, 3]},
                "entropy": {"column": "pictures.entropy", "keep": [6, None], "drop": [None, 5]},
            },
            "keep": {"fraction": 0.4},
            "emit": {"samples_per_shard": 5, "shuffle_seed": 5},
            "run": {"max_rejected": 1},
        }
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        return str(path), folder / name

    return write


@pytest.fixture(scope="module")
def local(settings, digests):
    path, output = settings("local")
    assert main(["run", path, "--quiet"]) == 0
    return results(digests, output)


@pytest.fixture(scope="module")
def standalone(tmp_path_factory):
    with cluster.running(tmp_path_factory.mktemp("standalone")) as running:
        yield running


def results(digests, output):
    return {name: digest for name, digest in digests(output).items() if name not in ABOUT_THE_RUN}


def curate(path, running, *more):
    return main(["run", path, *running.settings(), *more, "--quiet"])


@pytest.fixture
def worker_pool(tmp_path):
    """Starts a worker pool as docs/flink.md says; returns its address."""
    (port,) = cluster.free_ports(1)
    program = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"]
    worker = Path(sys.executable).with_name("chaffinch-worker")
    with (tmp_path / "worker-pool.log").open("wb") as log:
        process = subprocess.Popen(
            [*program, f"--container_executable={worker}"], stdout=log, stderr=log, start_new_session=True
        )
    yield f"localhost:{port}"
    os.killpg(process.pid, signal.SIGTERM)
    process.wait()


def test_embedded_flink_and_a_worker_pool_give_the_same_bytes(settings, local, worker_pool, digests, tmp_path):
    path, output = settings("embedded")
    with cluster.running(tmp_path / "flink", embedded=True) as running:
        assert curate(path, running, "run.workers=2", f"run.flink.environment={worker_pool}") == 0
    assert results(digests, output) == local


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cluster_gives_the_same_bytes(workers, settings, local, standalone, digests, monkeypatch):
    """TaskManagers were started elsewhere, and yet relative paths mean the same to all."""
    path, output = settings(f"workers-{workers}")
    monkeypatch.chdir(output.parent)
    before = {identifier for identifier, _, _ in standalone.jobs()}
    places = ("input=pool", f"output={output.name}")
    assert curate(path, standalone, f"run.workers={workers}", *places) == 0
    assert results(digests, output) == local
    jobs = {name: (identifier, state) for identifier, state, name in standalone.jobs() if identifier not in before}
    names = {name.rpartition("-")[0]: name for name in jobs}
    assert {"chaffinch-score-shards", "chaffinch-decide", "chaffinch-emit-shards"} <= names.keys()
    assert {state for _, state in jobs.values()} == {"FINISHED"}
    assert hosts(standalone, jobs[names["chaffinch-score-shards"]][0]) == workers


def hosts(standalone, job):
    """How many TaskManagers a job was given."""
    found = set()
    for vertex in standalone.ask(f"/jobs/{job}")["vertices"]:
        managers = standalone.ask(f"/jobs/{job}/vertices/{vertex['id']}/taskmanagers")["taskmanagers"]
        found |= {manager["taskmanager-id"] for manager in managers}
    return len(found)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_a_client_that_is_stopped_leaves_nothing_that_cannot_be_cancelled(sent, settings, local, standalone, digests):
    """Told to stop, it ends its job. Killed, it leaves the job, which holds its slots until somebody cancels it."""
    path, output = settings(f"stopped-by-{sent.name}")
    before = {identifier for identifier, _, _ in standalone.jobs()}
    command = ["score", path, *standalone.settings(), "run.workers=2", "--quiet"]
    program = [sys.executable, "-m", "chaffinch.jobs.main"]
    process = subprocess.Popen([*program, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = wait_for(lambda: find(standalone, before), lambda found: found == "RUNNING")
    assert state == "RUNNING"
    process.send_signal(sent)
    process.wait()
    killed = sent == signal.SIGKILL
    if killed:
        assert find(standalone, before) == "RUNNING"
        assert cluster.main(["--folder", str(standalone.folder), "cancel"]) == 0
    assert wait_for(lambda: find(standalone, before), lambda found: found != "RUNNING") in ("CANCELLING", "CANCELED")
    if killed:
        assert main(command) == 0
        assert results(digests, output / "store") == {
            name.removeprefix("store/"): digest for name, digest in local.items() if name.startswith("store/")
        }


def find(standalone, before):
    """The state of the job that was not there before; None where there is none yet."""
    return next((state for identifier, state, _ in standalone.jobs() if identifier not in before), None)


def wait_for(look, enough):
    until = time.monotonic() + PATIENCE_SECONDS
    while not enough(found := look()) and time.monotonic() < until:
        time.sleep(0.02)
    return found


@pytest.mark.parametrize(("name", "moment"), [("flink worker", "score"), ("flink task manager", "emit")])
def test_what_is_killed_on_a_cluster_costs_no_sample(name, moment, standalone, fault_scene, tmp_path):
    """One kill of each; benchmarks/faults.py kills more often, and at other moments."""
    scene = fault_scene.Scene.make(tmp_path)
    victim = next(one for one in fault_scene.victims_of_flink(standalone) if one.name == name)
    outcome = scene.disturb(victim, moment, files=3)
    assert outcome.died
    assert (outcome.lost, outcome.doubled, outcome.same) == (0, 0, True)
    assert outcome.again == 1


def test_what_fails_on_a_cluster_is_told_here(settings, standalone, run_chaffinch, tmp_path):
    """The message of the worker comes through, and so does its exit status."""
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("the only caption\n")
    path, _ = settings("failing")
    scorer = "scorers.perplexity={corpus: " + json.dumps(str(corpus)) + "}"
    status, err = run_chaffinch("score", path, scorer, *standalone.settings())
    assert status == 1
    assert "perplexity cannot be loaded: corpus has 1 captions, too few for" in err.splitlines()[-2]


@pytest.fixture
def run_chaffinch(capsys):
    def call(*arguments):
        status = main([str(argument) for argument in arguments])
        return status, capsys.readouterr().err

    return call


def test_a_cluster_goes_down_and_leaves_no_process(tmp_path):
    with cluster.running(tmp_path, task_managers=1) as running:
        processes = [process for process, _ in running.processes.values()]
        assert len(processes) == 3
        with pytest.raises(cluster.ClusterError, match="`down` ends it"):
            cluster.Cluster.start(tmp_path)
        known = cluster.Cluster.known(tmp_path)
        assert known.settings() == running.settings()
    assert not any(Path(f"/proc/{process}").exists() for process in processes)
    assert cluster.main(["--folder", str(tmp_path), "down"]) == 1  # there is nothing any more
