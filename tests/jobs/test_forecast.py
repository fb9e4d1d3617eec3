"""The arithmetic of a forecast beside slow recounts, and the command that makes one."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from chaffinch.jobs.forecast import Forecast, Place, Sampled, makespan
from chaffinch.pipeline.measuring.spent import Effort, Spent


def sampled(seconds=10.0, cpu=10.0, sizes=(300, 100, 200, 400), scorer=4.0, memory=3 << 30) -> Sampled:
    """Two of four shards were scored: 400 of 1,000 bytes."""
    spent = Spent(80, 5, {"clip": Effort(70, 5, 128, scorer)}, 2, seconds, cpu, {"clip": 7.0}, memory)
    return Sampled(spent, [300, 100], sizes, {"samples": 40, "clip": 1000})


class TestMakespan:
    @given(
        st.lists(st.integers(0, 50), min_size=1, max_size=7),
        st.integers(1, 4),
    )
    def test_each_worker_takes_the_next_piece_when_it_is_done(self, pieces, workers):
        """Beside a clock that ticks: whoever is free takes the next one."""
        waiting, left, clock = list(pieces), [0] * workers, 0
        while waiting or any(left):
            while waiting and 0 in left:
                left[left.index(0)] = waiting.pop(0) or 0
                if left.count(0) == workers:  # pieces that take no time
                    continue
            if any(left):
                clock += 1
                left = [max(0, one - 1) for one in left]
        assert makespan(pieces, workers) == clock

    @pytest.mark.parametrize(("workers", "seconds"), [(1, 9), (2, 6), (3, 4), (9, 4)])
    def test_by_hand(self, workers, seconds):
        assert makespan([2, 3, 4], workers) == seconds

    def test_nothing_to_do(self):
        assert makespan([], 3) == 0


class TestForecast:
    def test_what_grows_grows_with_the_bytes(self):
        forecast = Forecast({"input": sampled()}, 3.0, Place(), output={"shards": 10, "decisions": 2}, kept=20)
        assert forecast.samples == {"input": 200}
        clip = forecast.scorers["clip"]
        assert (clip.samples, clip.rejects, clip.places, clip.seconds) == (175, 12, 320, 10.0)
        assert forecast.tables == {"clip": 2500, "samples": 100}
        assert forecast.written == {"shards": 25, "decisions": 5}
        assert forecast.samples_kept == 50
        assert forecast.shard_seconds == pytest.approx(25.0)
        assert forecast.cpu_seconds == pytest.approx(25)
        assert forecast.loading == {"clip": 7.0}

    def test_start_up_does_not(self):
        one, two = (Forecast({"input": sampled(sizes=(300, 100) * n)}, 3.0, Place()).times(1) for n in (1, 2))
        assert (one.seconds, two.seconds) == (13.0, 23.0)

    def test_the_reference_is_added(self):
        sides = {"input": sampled(), "reference": sampled(sizes=(400,))}
        forecast = Forecast(sides, 0.0, Place())
        assert forecast.samples == {"input": 200, "reference": 80}
        assert forecast.scorers["clip"].samples == 245
        assert forecast.times(1).seconds == pytest.approx(35.0)
        # With two workers: 7.5 and 2.5 + 5, then 10 at either; the reference is one shard, which one of them takes.
        assert forecast.times(2).seconds == pytest.approx(17.5 + 10.0)

    @pytest.mark.parametrize(("workers", "cores", "cpu"), product([1, 2, 4, 8], [1, 2, 64], [2.0, 10.0, 20.0]))
    def test_no_more_work_is_done_in_a_second_than_cores_can(self, workers, cores, cpu):
        side = sampled(cpu=cpu, sizes=(100,) * 40)
        seconds = Forecast({"input": side}, 0.0, Place(cores)).times(workers).seconds
        work = side.factor * cpu
        assert seconds >= work / cores - 1e-9
        free = Forecast({"input": side}, 0.0, Place()).times(workers).seconds
        assert seconds == pytest.approx(max(free, work / cores))

    def test_workers_share_gpus(self):
        """The scorer keeps a GPU busy for 4 of 10 seconds."""
        side = sampled(sizes=(100,) * 40)
        place = Place(cores=1000, gpus=1)
        busy = Forecast({"input": side}, 0.0, place, devices=frozenset(["clip"]))
        assert [busy.times(workers).seconds for workers in (1, 2, 4, 8)] == pytest.approx([100, 50, 40, 40])
        assert busy.times(8).gpu_hours == pytest.approx(40 / 3600)
        own = Forecast({"input": side}, 0.0, Place(gpus=None), devices=frozenset(["clip"]))
        assert own.times(8).gpu_hours == pytest.approx(8 * 12.5 / 3600)
        assert Forecast({"input": side}, 0.0, Place()).times(8).gpu_hours == 0

    def test_memory_of_threads_adds_up_beyond_what_they_share(self):
        side = sampled(memory=3 << 30)
        assert Forecast({"input": side}, 0.0, Place(memory=1 << 30)).times(4).memory == 9 << 30
        assert Forecast({"input": side}, 0.0, Place()).times(4).memory == 3 << 30

    @pytest.mark.parametrize("slower", [1.0, 1.5, 2.0, 3.0])
    def test_what_two_workers_took_says_how_they_hold_each_other_up(self, slower):
        """Shards of 7.5 and 2.5 s: together until the small one is done, then the large one goes on alone."""
        both = 2.5 * slower
        beside = Spent(80, 5, shards=2, seconds=both + (both + 5.0), cpu_seconds=99, memory=2 << 30)
        side = replace(sampled(cpu=1, sizes=(100,) * 40), beside=beside)
        assert side.crowding == pytest.approx(slower)
        assert side.seconds_beside == pytest.approx(both + 5.0)
        forecast = Forecast({"input": side}, 3.0, Place(cores=64), start_up_of_more=0.5)
        alone, two, four = (forecast.times(workers).seconds for workers in (1, 2, 4))
        assert alone == pytest.approx(3 + 100)
        assert two == pytest.approx(3.5 + 50 * slower)
        assert four == pytest.approx(3.5 + 25 * (1 + 3 * (slower - 1)))

    def test_one_shard_says_nothing_of_two_workers(self):
        side = replace(sampled(), sampled=[400], beside=Spent(seconds=15.0))
        assert side.crowding == 1.0

    def test_memory_where_two_workers_were_tried(self):
        """Threads: each further one as much as the second. Processes: what the larger of two had, not the driver."""
        side = replace(sampled(memory=3 << 30), beside=Spent(seconds=10.0, memory=5 << 30))
        assert [Forecast({"input": side}, 0.0, Place(memory=1)).times(n).memory >> 30 for n in (1, 2, 4)] == [3, 5, 9]
        assert [Forecast({"input": side}, 0.0, Place()).times(n).memory >> 30 for n in (1, 2, 4)] == [3, 5, 5]

    def test_scorers_of_whole_pools_are_no_shards_work(self):
        side = sampled()
        whole = Sampled(side.spent, side.sampled, side.sizes, side.tables, frozenset(["clip"]))
        assert Forecast({"input": whole}, 0.0, Place()).times(1).seconds == pytest.approx(25 + 10)


def config(folder: Path, pool: Path, **more) -> str:
    path = folder / "config.yaml"
    filters = {
        "words": {"column": "captions.words", "keep": "top 50%"},
        "wide": {"column": "pictures.width", "keep": [1, None]},
    }
    settings = {"input": str(pool), "output": str(folder / "out"), "filters": filters, "keep": {"fraction": 0.5}}
    path.write_text(yaml.safe_dump({**settings, **more}))
    return str(path)


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class TestCommand:
    def test_a_sample_of_everything_foretells_exactly_what_is_written(self, tmp_path, small_pool, run):
        """Bytes and samples are no matter of speed: where all shards are tried they have to agree with a recount."""
        path = config(tmp_path, small_pool(tmp_path / "pool", shards=3, samples=6))
        status, out, err = run("plan", path, "sample=9", "workers=1,3", "--json")
        assert status == 0, err
        told = json.loads(out)
        assert not (tmp_path / "out").exists()
        assert told["samples"] == {"input": 18}
        assert told["shards"] == told["sampled_shards"] == {"input": 3}
        assert [one["workers"] for one in told["workers"]] == [1, 3]
        assert run("run", path, "--quiet")[0] == 0
        store = tmp_path / "out" / "store"
        assert told["table_bytes"] == bytes_below(store / "samples") + bytes_below(store / "scores")
        for name, found in told["scorers"].items():
            folder = next((store / "scores").glob(f"{name}-*"))
            assert found["bytes"] == bytes_below(folder)
            assert (found["samples"], found["rejects"]) == (18, 0)
        assert told["output_bytes"]["decisions"] == bytes_below(tmp_path / "out" / "decisions")
        assert told["output_bytes"]["shards"] == bytes_below(tmp_path / "out" / "shards")
        assert told["kept"] == json.loads((tmp_path / "out" / "summary.json").read_text())["kept"]

    def test_what_is_printed(self, tmp_path, small_pool, run):
        pool = small_pool(tmp_path / "pool", shards=4, samples=6)
        path = config(tmp_path, pool, reference=str(pool / "00000000.tar"))
        status, out, err = run("plan", path, "sample=1", "run.workers=3")
        assert status == 0, err
        lines = out.splitlines()
        assert lines[0].startswith("input: 4 shards, ")
        assert lines[0].endswith("(1 tried)")
        assert lines[1].startswith("reference: 1 shards, ")
        assert any(line.startswith("captions ") for line in lines)
        assert any(line.startswith("written: score tables ") and "shards " in line for line in lines)
        workers = [line.split()[0] for line in lines if line[:1].isdigit()]
        assert workers == ["1", "2", "3", "4", "8", "16"]
        assert "trying 1 of 4 shards" in err

    def test_the_same_shards_are_tried_each_time_and_the_store_is_left_alone(self, tmp_path, small_pool, run):
        path = config(tmp_path, small_pool(tmp_path / "pool", shards=5, samples=4))
        assert run("score", path, "--quiet")[0] == 0
        before = bytes_below(tmp_path / "out")
        first, again = (json.loads(run("plan", path, "--json")[1]) for _ in range(2))
        assert first["table_bytes"] == again["table_bytes"]
        assert first["samples"] == {"input": 20}
        assert bytes_below(tmp_path / "out") == before
        assert "5 shards of the input are scored already" in run("plan", path, "--quiet")[1]

    @pytest.mark.parametrize("setting", ["sample=0", "sample=1,2", "sample=few", "workers=0,1", "workers="])
    def test_wrong_settings(self, tmp_path, small_pool, run, setting):
        path = config(tmp_path, small_pool(tmp_path / "pool", shards=1, samples=1))
        status, _, err = run("plan", path, setting)
        assert status == 2
        assert f"command line: {setting}: " in err
        assert not (tmp_path / "out").exists()

    def test_a_sample_that_cannot_be_decided_on(self, tmp_path, small_pool, run, uid_of):
        """Labels of samples that are not among those tried decide nothing: the rest of the forecast stands."""
        labels = tmp_path / "labels.csv"
        labels.write_text("uid,keep\n" + "".join(f"{uid_of(f'elsewhere{n}')},{n % 2}\n" for n in range(9)))
        filters = {"words": {"column": "captions.words", "keep": "above labels"}}
        pool = small_pool(tmp_path / "pool", shards=3, samples=4)
        status, out, err = run("plan", config(tmp_path, pool, filters=filters, labels=str(labels)), "--json")
        assert status == 0, err
        assert "decisions and shards are not forecast" in err
        told = json.loads(out)
        assert told["output_bytes"] == {}
        assert told["kept"] is None
        assert told["scorers"]["captions"]["samples"] == 12
