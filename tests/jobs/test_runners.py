"""Runners by name, from the command line: the same bytes on all that work on this machine, and what is refused."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

# The score tables, decisions and shards; not what tells of the run itself.
ABOUT_THE_RUN = {"config.yaml", "timings.json"}


def results(digests, output):
    return {name: digest for name, digest in digests(output).items() if name not in ABOUT_THE_RUN}


@pytest.fixture(scope="module")
def settings(rendered, tmp_path_factory):
    """Writes a config of a noisy pool of four shards; returns its path and where its output will be."""
    folder = tmp_path_factory.mktemp("runners")

    def write(name: str, **more) -> tuple[str, str]:
        config = {
            "input": str(rendered / "pool"),
            "output": str(folder / name),
            "filters": {
                "size": {"column": "pictures.shorter_side", "keep": [32, None], "require": True},
                "words": {"column": "captions.words", "keep": "top 60%", "drop": "bottom 20%"},
                "entropy": {"column": "pictures.entropy", "keep": "top 60%", "drop": "bottom 20%"},
            },
            "keep": {"fraction": 0.4},
            "emit": {"samples_per_shard": 20, "shuffle_seed": 5},
            "run": {"max_rejected": 1},
            **more,
        }
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        return str(path), folder / name

    return write


@pytest.fixture(scope="module")
def local(settings, digests):
    """What the same config leaves when one thread of this process does everything."""
    from chaffinch.jobs.main import main

    path, output = settings("local")
    assert main(["run", path, "--quiet"]) == 0
    return results(digests, output)


@pytest.mark.parametrize("runner", ["processes", "prism"])
def test_another_runner_on_this_machine_gives_the_same_bytes(runner, settings, local, run, digests):
    if runner == "prism" and shutil.which("prism") is None:
        pytest.skip("there is no prism on PATH (go install github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0)")
    path, output = settings(runner)
    status, _, err = run("run", path, f"run.runner={runner}", "run.workers=2", "--quiet")
    assert (status, err) == (0, "")
    assert results(digests, output) == local


def test_a_runner_behind_the_dashes_wins(settings, run):
    """The config names a cluster that is not there; what follows `--` need not know of it."""
    path, output = settings("dashes", filters={})
    flink = ("run.runner=flink", "run.flink.job_server=localhost:1")
    status, _, err = run("score", path, *flink)
    assert status == 1
    assert "no job server answers at localhost:1" in err
    options = ("--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner", "--job_endpoint=", "--mistyped=1")
    status, _, err = run("score", path, *flink, "--", *options)
    assert status == 0, err
    assert "warning: Beam knows no option --mistyped" in err
    assert len(list((output / "store" / "samples").iterdir())) == 4


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["run.runner=dask"], "run.runner: runner 'dask' is refused"),
        (["--", "--runner=DaskRunner"], "command line: runner 'DaskRunner' is refused"),
        (["run.runner=flnk"], "run.runner: input should be 'local', 'processes', 'prism', 'flink' or 'dataflow'"),
        (["run.runner=flink"], "run.flink.job_server: is missing"),
        (["run.flink={jobserver: 1}"], "run.flink.jobserver: unknown setting; did you mean 'job_server'"),
        (["run.workers=0"], "run.workers: "),
        (["run.runner=prism", "run.prism.binary=nowhere/prism"], "run.prism.binary: there is no program"),
        (["run.runner=dataflow"], "run.dataflow.project: is missing"),
        (
            ["run.runner=dataflow", "run.dataflow={project: p-1, region: r, temp: 'gs://b-1/t', image: i}"],
            "input: ",
        ),
    ],
)
def test_a_wrong_runner_is_an_error_with_its_place(given, told, settings, run):
    path, output = settings("wrong")
    status, _, err = run("score", path, *given)
    assert status == 2, err
    assert told in err
    assert not output.exists()


def test_a_scorer_that_processes_cannot_load_is_told_as_ever(settings, run, tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("the only caption\n")
    path, _ = settings("corpus", filters={}, scorers={"perplexity": {"corpus": str(corpus)}})
    told = [run("score", path, f"run.runner={runner}", "run.workers=2")[::2] for runner in ("local", "processes")]
    assert told[0][0] == told[1][0] == 2
    first, second = (next(line for line in err.splitlines() if line.startswith("chaffinch: ")) for _, err in told)
    assert first == second
    assert "scorers.perplexity cannot be loaded: corpus has 1 captions, too few for" in second


def children(process):
    with open(f"/proc/{process}/task/{process}/children") as file:
        return [int(word) for word in file.read().split()]


@pytest.mark.parametrize("whom", ["worker", "driver"])
def test_killed_processes_leave_no_others_and_cost_nothing(whom, settings, local, run, digests):
    """A worker process that is killed fails the run; those of a driver that is killed end by themselves."""
    path, output = settings(f"killed-{whom}")
    command = ["score", path, "run.runner=processes", "run.workers=2", "--quiet"]
    program = [sys.executable, "-m", "chaffinch.jobs.main", *command]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    workers = []
    while process.poll() is None and len(workers) < 2:
        workers = children(process.pid)
        time.sleep(0.01)
    os.kill(workers[0] if whom == "worker" else process.pid, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    if whom == "worker":
        assert process.returncode == 1
        assert "a worker process ended with status -9; was there memory left?" in err
    until = time.monotonic() + 30
    while any(os.path.exists(f"/proc/{worker}/fd") for worker in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(os.path.exists(f"/proc/{worker}/fd") for worker in workers)
    assert run(*command)[0] == 0
    assert results(digests, output / "store") == {
        name.removeprefix("store/"): digest for name, digest in local.items() if name.startswith("store/")
    }
