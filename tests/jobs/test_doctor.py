"""The doctor: setups that are fine and setups that are not, told apart in words."""

import dataclasses
import json
import os
import socket
from pathlib import Path

import pytest
import torch
import yaml

import chaffinch.jobs.demo
from chaffinch.jobs.checks import Wanted, check_all
from chaffinch.pipeline.measuring.examination import Examination, Examined
from chaffinch.scoring.captions import Captions
from chaffinch.scoring.devices import Gpu, describe_gpus

DEMO = Path(chaffinch.jobs.demo.__file__).parent
WORKERS = ("--", "--direct_running_mode=multi_processing", "--direct_num_workers=2")


@pytest.fixture
def config(tmp_path, small_pool):
    """Writes a config for a small pool and returns its path."""
    small_pool(tmp_path / "pool", shards=3, samples=4)

    def write(**more) -> str:
        path = tmp_path / "config.yaml"
        settings = {
            "input": str(tmp_path / "pool"),
            "output": str(tmp_path / "out"),
            "filters": {"words": {"column": "captions.words", "keep": [1, None]}},
            "keep": {"fraction": 0.5},
        }
        path.write_text(yaml.safe_dump({**settings, **more}))
        return str(path)

    return write


def lines(out: str) -> dict[str, str]:
    """Check -> its line."""
    return {line[9:].split(": ")[0]: line for line in out.splitlines()}


class TestCommand:
    def test_all_is_well(self, config, run, tmp_path):
        status, out, err = run("doctor", config())
        assert status == 0, err
        found = lines(out)
        assert all(line.startswith("ok ") for line in found.values()), out
        assert "3 shards" in found["config"]
        assert {"workers", "versions", "cores", "gpu", "offline", "scorer captions", "input"} <= set(found)
        assert f"folder {tmp_path / 'out'}" in found
        # It leaves nothing, not even the folders that it tried.
        assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "pool"]

    def test_as_json(self, config, run):
        status, out, _ = run("doctor", config(), "--json")
        checks = json.loads(out)["checks"]
        assert status == 0
        assert {check["status"] for check in checks} == {"ok"}
        assert [check["name"] for check in checks][:2] == ["config", "workers"]

    def test_what_is_there_is_left_alone(self, config, run, tmp_path):
        (tmp_path / "out" / "store").mkdir(parents=True)
        (tmp_path / "out" / "note").write_text("mine")
        assert run("doctor", config())[0] == 0
        assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == ["note", "store"]

    def test_a_runner_that_does_not_answer(self, config, run, tmp_path):
        with socket.socket() as closed:  # bound, so that nobody else listens there, and never listening
            closed.bind(("localhost", 0))
            server = f"localhost:{closed.getsockname()[1]}"
            status, out, err = run("doctor", config(), "run.runner=flink", f"run.flink.job_server={server}")
        assert status == 1
        found = lines(out)
        assert found["workers"].startswith(f"wrong    workers: no job server answers at {server}")
        # What can be seen from here is told all the same.
        assert found["input"].startswith("ok ")
        assert found[f"folder {tmp_path / 'out'}"].startswith("ok ")
        assert "wrong: workers" in err

    @pytest.mark.parametrize("command", ["doctor", "plan"])
    def test_a_runner_that_loses_data_is_refused(self, config, run, command):
        status, _, err = run(command, config(), "--", "--runner=DaskRunner")
        assert status == 2
        assert "is refused" in err

    def test_a_wrong_config_is_told_as_ever(self, config, run):
        status, _, err = run("doctor", config(filters={"words": {"column": "captions.wrods", "keep": [1, None]}}))
        assert status == 2
        assert "captions.words" in err

    def test_weights_that_do_load(self, config, run):
        clip = {"kind": "clip", "model": "chaffinch-tiny", "pretrained": str(DEMO / "matcher.pt")}
        status, out, _ = run("doctor", config(scorers={"clip": clip}), "run.device=cpu")
        assert status == 0
        assert "with the same weights here and in all workers" in lines(out)["scorer clip"]

    def test_weights_that_are_none(self, config, run, tmp_path):
        (tmp_path / "weights.pt").write_bytes(b"no weights at all")
        clip = {"kind": "clip", "model": "ViT-S-32-alt", "pretrained": str(tmp_path / "weights.pt")}
        status, out, err = run("doctor", config(scorers={"b32": clip}))
        assert status == 1
        line = lines(out)["scorer b32"]
        assert line.startswith("wrong ")
        assert "in all workers: b32 cannot be loaded: cannot load" in line
        assert "wrong: scorer b32" in err

    def test_weights_that_are_not_there(self, config, run, tmp_path):
        clip = {"kind": "clip", "model": "ViT-S-32-alt", "pretrained": str(tmp_path / "weights.pt")}
        status, _, err = run("doctor", config(scorers={"b32": clip}))
        assert status == 2
        assert "weights.pt" in err

    def test_offline_and_not_cached(self, config, run):
        """The tests are offline; a model that is neither a file nor in the cache cannot be had."""
        assert os.environ["HF_HUB_OFFLINE"] == "1"
        clip = {"kind": "clip", "model": "ViT-B-32", "pretrained": "datacomp_s_s13m_b4k"}
        status, out, _ = run("doctor", config(scorers={"b32": clip}))
        assert status == 1
        assert "cannot be loaded" in lines(out)["scorer b32"]
        assert "HF_HUB_OFFLINE=1" in lines(out)["offline"]

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
    def test_a_gpu_that_is_not_there(self, config, run, tmp_path):
        clip = {"kind": "clip", "model": "ViT-S-32-alt", "pretrained": str(tmp_path / "weights.pt")}
        (tmp_path / "weights.pt").write_bytes(b"only looked for")
        status, out, _ = run("doctor", config(scorers={"b32": clip}), "run.device=cuda")
        assert status == 1
        line = lines(out)["gpu"]
        assert line.startswith("wrong ")
        assert "run.device is cuda, for b32" in line
        assert "set run.device=cpu" in line

    def test_an_output_that_cannot_be_written(self, config, run, tmp_path):
        (tmp_path / "file").write_text("no folder")
        output = str(tmp_path / "file" / "out")
        status, out, _ = run("doctor", config(output=output))
        assert status == 1
        found = lines(out)
        assert found[f"folder {output}"].startswith("wrong ")
        assert "cannot be written to: Not a directory" in found[f"folder {output}"]
        assert found["scorer captions"].startswith("ok ")


class TestWorkers:
    """Processes that Beam starts, which have an environment of their own."""

    def test_another_version_there(self, config, run, tmp_path, monkeypatch):
        """This process finds an older webdataset first on its path, of which workers know nothing."""
        place = tmp_path / "site" / "webdataset-0.0.1.dist-info"
        place.mkdir(parents=True)
        (place / "METADATA").write_text("Metadata-Version: 2.1\nName: webdataset\nVersion: 0.0.1\n")
        monkeypatch.syspath_prepend(str(place.parent))
        status, out, _ = run("doctor", config(), *WORKERS)
        assert status == 1
        assert "2 processes on 1 machine answered" in lines(out)["workers"]
        assert lines(out)["scorer captions"].startswith("ok ")
        line = lines(out)["versions"]
        assert line.startswith("wrong ")
        assert "webdataset is 0.0.1 here and 1." in line
        assert "and 1 more" in line
        assert "constraints.txt" in line


class TestChecks:
    """What is said of reports: those of this very process, in which one thing is another."""

    @pytest.fixture
    def here(self, tmp_path) -> Examined:
        (tmp_path / "doctor-t").write_text("from the launching process")
        shard = tmp_path / "a.tar"
        shard.write_bytes(b"a shard")
        look = Examination("t", {"captions": Captions()}, "cpu", [str(shard)], [str(tmp_path)])
        return look.examine()

    def wanted(self, **more) -> Wanted:
        return dataclasses.replace(Wanted("cpu", (), (), 1, {}, 1), **more)

    def told(self, here, reports, name, **more) -> tuple[str, str]:
        """Status and message of a check."""
        seen = {folder.probe for one in reports for folder in one.folders.values()}
        found = {check.name: check for check in check_all(here, reports, self.wanted(**more), seen)}
        return found[name].status, found[name].message

    def test_a_report_of_a_healthy_process(self, here, tmp_path):
        assert here.problems == here.unreadable == {}
        assert here.folders[str(tmp_path)].sees
        assert Path(here.folders[str(tmp_path)].probe).exists()
        assert (
            here.versions["torch"] == torch.__version__.partition("+")[0] or here.versions["torch"] == torch.__version__
        )
        checks = check_all(here, [here], self.wanted(), {here.folders[str(tmp_path)].probe})
        assert {check.status for check in checks} <= {"ok", "warning"}

    def test_a_shard_that_is_gone(self, here, tmp_path):
        look = Examination("t", {}, "cpu", [str(tmp_path / "gone.tar")], [str(tmp_path)])
        blind = look.examine()
        status, message = self.told(blind, [blind], "input")
        assert status == "wrong"
        assert message.startswith(f"{tmp_path / 'gone.tar'} cannot be read here: No such file or directory; ")
        status, message = self.told(here, [here, blind], "input")
        assert status == "wrong"
        assert "can be read here, but not by" in message

    def test_other_weights_there(self, here):
        other = dataclasses.replace(here, fingerprints={"captions": "00000000"}, process=7)
        status, message = self.told(here, [here, other], "scorer captions")
        assert status == "wrong"
        assert f"not the same here and in process 7 on {here.host}" in message

    def test_a_scorer_that_one_worker_cannot_load(self, here):
        other = dataclasses.replace(here, loading={}, problems={"captions": "captions cannot be loaded: no"}, process=7)
        assert self.told(here, [here, other], "scorer captions")[0] == "wrong"

    def test_a_filesystem_that_is_not_shared(self, here, tmp_path):
        folder, name = here.folders[str(tmp_path)], f"folder {tmp_path}"
        other = dataclasses.replace(here, folders={str(tmp_path): dataclasses.replace(folder, sees=False)})
        status, message = self.told(here, [other], name)
        assert status == "wrong"
        assert "what is written here is not seen by" in message
        found = {check.name: check for check in check_all(here, [here], self.wanted(), set())}
        assert "writes is not seen here" in found[name].message

    def test_a_folder_that_only_workers_cannot_write_to(self, here, tmp_path):
        folder = dataclasses.replace(here.folders[str(tmp_path)], problem="Read-only file system", probe="")
        other = dataclasses.replace(here, folders={str(tmp_path): folder})
        status, message = self.told(here, [other], f"folder {tmp_path}")
        assert status == "wrong"
        assert "not by process" in message
        assert "Read-only file system" in message

    def test_too_little_room(self, here, tmp_path):
        free = here.folders[str(tmp_path)].free
        assert self.told(here, [here], f"folder {tmp_path}", bytes_needed={str(tmp_path): free // 2})[0] == "ok"
        status, message = self.told(here, [here], f"folder {tmp_path}", bytes_needed={str(tmp_path): 2 * free + 1})
        assert status == "wrong"
        assert "make room" in message

    @pytest.mark.parametrize(
        ("cores", "threads", "workers", "status", "remedy"),
        [
            (8, "4", 2, "ok", ""),
            (8, None, 1, "ok", ""),
            (8, None, 2, "warning", "set OMP_NUM_THREADS=4"),
            (8, "4", 4, "warning", "set OMP_NUM_THREADS=2"),
            (2, "1", 4, "warning", "start fewer workers there"),
        ],
    )
    def test_threads_and_cores(self, here, cores, threads, workers, status, remedy):
        variables = {} if threads is None else {"OMP_NUM_THREADS": threads}
        one = dataclasses.replace(here, cores=cores, variables=variables)
        found, message = self.told(here, [one], "cores", workers=workers)
        assert found == status
        assert remedy in message

    def test_gpus(self, here):
        gpu = Gpu("NVIDIA H100", 80 << 30, 79 << 30, "570.1")
        on = dataclasses.replace(here, gpus=("0",), described=(gpu,))
        asked = {"device": "cuda", "uses_gpu": ("clip",)}
        assert self.told(here, [on], "gpu", **asked)[0] == "ok"
        assert "NVIDIA H100, 79.0 GiB of 80.0 GiB free, driver 570.1" in self.told(here, [on], "gpu", **asked)[1]
        busy = dataclasses.replace(on, described=(dataclasses.replace(gpu, free=1 << 30),))
        assert self.told(here, [busy], "gpu", **asked)[0] == "warning"
        assert "share" in self.told(here, [on], "gpu", workers=2, **asked)[1]
        mute = dataclasses.replace(on, described=())
        assert "cannot use" in self.told(here, [mute], "gpu", **asked)[1]
        hidden = dataclasses.replace(here, gpus=(), variables={"CUDA_VISIBLE_DEVICES": ""})
        assert "CUDA_VISIBLE_DEVICES='' hides them all" in self.told(here, [hidden], "gpu", **asked)[1]
        # Devices that are left idle, because the launching machine has none.
        assert self.told(here, [on], "gpu", would_use_gpu=("clip",))[0] == "warning"
        assert self.told(here, [on], "gpu")[0] == "ok"

    def test_offline_here_but_not_there(self, here):
        here = dataclasses.replace(here, variables={"HF_HUB_OFFLINE": "1"})
        other = dataclasses.replace(here, variables={})
        status, message = self.told(here, [other], "offline")
        assert status == "warning"
        assert "HF_HUB_OFFLINE is '1' here and not set in" in message
        assert self.told(here, [here], "offline") == ("ok", "HF_HUB_OFFLINE=1: no model is fetched, here or by workers")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpus_are_described():
    found = describe_gpus()
    assert len(found) == torch.cuda.device_count()
    assert all(0 < one.free <= one.memory and one.name for one in found)
