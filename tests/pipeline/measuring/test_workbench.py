"""Workers' models and memory: loaded before any shard is read, spread over GPUs; a batch too big is told of."""

import contextlib
import gc
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException

from chaffinch.pipeline.engines.engine import Engine
from chaffinch.pipeline.measuring import leases
from chaffinch.pipeline.measuring.batches import LoadedScorer
from chaffinch.pipeline.measuring.feeds import Wanted
from chaffinch.pipeline.measuring.measure import MemoryShortage
from chaffinch.pipeline.measuring.score import ScoreShard, find_tasks, score, score_shard
from chaffinch.pipeline.measuring.workbench import LoadError, check_loading
from chaffinch.pipeline.metadata import Metadata
from chaffinch.pipeline.rows import Source
from chaffinch.pipeline.shards import find_shards
from chaffinch.pipeline.store import Store
from chaffinch.scoring.devices import gpu_position, is_out_of_memory, on_gpu
from chaffinch.scoring.scorer import Batch, Scorer

ERRORS = {
    "torch": (torch.cuda.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2.00 GiB"),
    "onnx": (RuntimeException, "[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 9"),
    "host": (MemoryError, ""),
    "cublas": (RuntimeError, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
}


def shortage(name: str) -> Exception:
    kind, text = ERRORS[name]
    return kind(text)


@dataclass(frozen=True)
class Greedy(Scorer):
    """Columns: size (how many samples came at once), of which only so many fit."""

    reads_pictures: ClassVar[bool] = True
    most: int
    error: str = "torch"

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        return {"size": pa.int32()}

    def prepare(self, picture: Any, model: Any) -> Any:
        return picture.width

    def score(self, batch: Batch, model: Any) -> Mapping[str, Any]:
        assert len(batch.uids) == len(batch.captions) == len(batch.pictures)
        if len(batch) > self.most:
            raise shortage(self.error)
        return {"size": np.full(len(batch), len(batch), np.int32)}


@dataclass(frozen=True)
class Broken(Scorer):
    """Columns: nothing, since it cannot be loaded."""

    error: type[Exception]
    text: str

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        return {"nothing": pa.float32()}

    def load(self, device: str) -> Any:
        raise self.error(self.text)


@dataclass
class Pool:
    """A pool of 2 shards of 6 samples, and its store."""

    folder: Path
    source: Source = field(init=False)

    def __post_init__(self) -> None:
        self.source = Source(Store(str(self.folder.parent / "store")), {}, Metadata("none"))
        self.shards = find_shards(str(self.folder))

    def score(self, *scorers: Scorer, batch_size: int = 4, workers: int = 1, device: str = "cpu") -> Any:
        wanted = [Wanted(f"s{number}", f"s{number}-0", scorer) for number, scorer in enumerate(scorers)]
        tasks = find_tasks(self.shards, self.source.store, [one.folder for one in wanted])
        scratch = str(self.folder.parent / "scratch")
        return score(Engine(workers), tasks, self.source, wanted, batch_size, device, scratch)

    def tables(self) -> list[str]:
        """The tables that were written."""
        root = Path(self.source.store.root)
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.parquet"))


@pytest.fixture
def pool(tmp_path, small_pool) -> Pool:
    return Pool(small_pool(tmp_path / "pool", shards=2, samples=6))


class TestShortOfMemory:
    """A batch that does not fit fails the run, and the message says which would."""

    @pytest.mark.parametrize("error", list(ERRORS))
    @pytest.mark.parametrize(("batch_size", "most", "tried"), [(6, 5, 6), (6, 4, 6), (100, 3, 6), (5, 1, 5), (2, 1, 2)])
    def test_the_size_that_would_fit_is_measured(self, pool, error, batch_size, most, tried):
        with pytest.raises(MemoryShortage) as caught:
            pool.score(Greedy(most, error), batch_size=batch_size)
        told = str(caught.value)
        assert f"shard 00000000: scorer s0 ran out of memory on a batch of {tried} samples" in told
        assert f"(run.batch_size={batch_size}); {most} of them fit: set run.batch_size={most}, or less" in told
        assert ERRORS[error][1] in told
        assert pool.tables() == ["samples/00000000.parquet"]

    def test_that_size_does_fit(self, pool):
        with pytest.raises(MemoryShortage):
            pool.score(Greedy(3), batch_size=6)
        pool.score(Greedy(3), batch_size=3)
        assert [
            pq.read_table(path)["size"].to_pylist() for path in sorted(Path(pool.source.store.root).glob("scores/*/*"))
        ] == [[3] * 6] * 2

    def test_not_even_one(self, pool):
        with pytest.raises(MemoryShortage, match="not even one of them fits: take a smaller model"):
            pool.score(Greedy(0))

    def test_no_table_of_the_shard_is_written(self, pool):
        """Not those of other scorers either, whose pass it was too; they are made when it fits."""
        with pytest.raises(MemoryShortage, match="scorer s1 ran out"):
            pool.score(Greedy(6), Greedy(1))
        assert pool.tables() == ["samples/00000000.parquet"]

    def test_columns_are_cut_too(self, pool):
        """A scorer over columns gets as many of their rows as there are samples."""
        pool.score(Greedy(6), batch_size=6)

        @dataclass(frozen=True)
        class OverColumns(Scorer):
            reads_captions: ClassVar[bool] = False

            @property
            def columns(self) -> Mapping[str, pa.DataType]:
                return {"twice": pa.int32()}

            @property
            def reads(self) -> tuple[str, ...]:
                return ("s0.size",)

            def score(self, batch: Batch, model: Any) -> Mapping[str, Any]:
                assert [len(values) for values in batch.columns.values()] == [len(batch)]
                if len(batch) > 2:
                    raise shortage("torch")
                return {"twice": np.zeros(len(batch), np.int32)}

        wanted = Wanted("over", "over-0", OverColumns())
        source = Source(pool.source.store, {"s0": "s0-0"}, Metadata("none"))
        task = find_tasks(pool.shards, source.store, ["over-0"])[0]
        with pytest.raises(MemoryShortage, match="2 of them fit"):
            score_shard(task, source, [LoadedScorer(wanted, None)], 6)

    def test_what_was_being_computed_is_let_go_before_less_is_tried(self, pool):
        held: list[weakref.ref[Any]] = []
        alive: list[int] = []

        class Big:
            pass

        @dataclass(frozen=True)
        class Holding(Greedy):
            def score(self, batch: Batch, model: Any) -> Mapping[str, Any]:
                gc.collect()
                alive.append(sum(one() is not None for one in held))
                big = Big()
                held.append(weakref.ref(big))
                return super().score(batch, model)

        task = find_tasks(pool.shards, pool.source.store, ["s-0"])[0]
        with pytest.raises(MemoryShortage):
            score_shard(task, pool.source, [LoadedScorer(Wanted("s", "s-0", Holding(1)), None)], 6)
        assert len(alive) > 2
        assert set(alive) == {0}

    def test_other_errors_pass_as_they_are(self, pool):
        @dataclass(frozen=True)
        class Wrong(Greedy):
            def score(self, batch: Batch, model: Any) -> Mapping[str, Any]:
                raise RuntimeError(f"shape mismatch in a batch of {len(batch)}")

        task = find_tasks(pool.shards, pool.source.store, ["s-0"])[0]
        with pytest.raises(RuntimeError, match="shape mismatch in a batch of 6"):
            score_shard(task, pool.source, [LoadedScorer(Wanted("s", "s-0", Wrong(1)), None)], 6)

    @pytest.mark.parametrize("workers", [1, 3])
    def test_it_passes_through_beam_as_it_is(self, pool, workers):
        with pytest.raises(MemoryShortage) as caught:
            pool.score(Greedy(2), workers=workers)
        assert "\n" not in str(caught.value)


def test_what_a_lack_of_memory_is():
    assert all(is_out_of_memory(shortage(name)) for name in ERRORS)
    wrapped = ValueError("cannot be scored")
    wrapped.__cause__ = shortage("torch")
    assert is_out_of_memory(wrapped)
    assert not is_out_of_memory(ValueError("out of memory"))  # of a sample's text, say
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)


class TestLoading:
    """What cannot be loaded is told before any shard is read."""

    @pytest.mark.parametrize("workers", [1, 3])
    def test_nothing_was_read_or_written(self, pool, workers):
        with pytest.raises(LoadError, match=r"s1 cannot be loaded: model 'x' is unknown: use y$") as caught:
            pool.score(Greedy(6), Broken(ValueError, "model 'x' is unknown: use y"), workers=workers)
        assert caught.value.by_settings
        assert pool.tables() == []

    @pytest.mark.parametrize(
        ("error", "text", "device", "told"),
        [
            (RuntimeError, "Found no NVIDIA driver", "cuda", r"nvidia-smi shows a GPU .* set run\.device=cpu"),
            (AssertionError, "Torch not compiled with CUDA enabled", "cuda", r"set run\.device=cpu"),
            (torch.cuda.OutOfMemoryError, "CUDA out of memory", "cuda", r"smaller model .* fewer run\.workers"),
            (ImportError, "No module named 'nowhere'", "cpu", "pip install"),
            (KeyError, "weight", "cpu", "--verbose shows where"),
        ],
    )
    def test_the_machines_faults_have_remedies(self, pool, monkeypatch, error, text, device, told):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        with pytest.raises(LoadError, match=rf"s0 cannot be loaded: {error.__name__}: .*{told}") as caught:
            pool.score(Broken(error, text), device=device)
        assert not caught.value.by_settings
        assert pool.tables() == []

    def test_elsewhere_workers_load_before_their_first_shard(self, pool):
        """As on other runners, where nothing can be set up ahead in this process."""
        work = ScoreShard(pool.source, [Wanted("s", "s-0", Broken(ValueError, "no"))], 4, "cpu")
        with pytest.raises(LoadError, match="s cannot be loaded: no"):
            work.setup()

    def test_only_what_a_shard_lacks_is_loaded(self, pool):
        pool.score(Greedy(6))
        tables = pool.tables()
        broken = Wanted("s1", "s1-0", Broken(ValueError, "no"))
        wanted = [Wanted("s0", "s0-0", Greedy(6)), broken]
        score(Engine(), find_tasks(pool.shards, pool.source.store, ["s0-0"]), pool.source, wanted, 4, "cpu", "unused")
        assert pool.tables() == tables

    def test_checking_names_the_first_that_fails(self):
        check_loading({"good": Greedy(1)}, "cpu")
        with pytest.raises(LoadError, match="bad cannot be loaded: no"):
            check_loading({"good": Greedy(1), "bad": Broken(ValueError, "no")}, "cpu")

    @pytest.mark.parametrize("workers", [1, 3])
    def test_every_worker_loads_once_and_lets_go(self, pool, workers):
        """At most as often as there are workers, the one model that was loaded ahead among them."""
        loaded: list[weakref.ref[Any]] = []
        LOADED["count"] = loaded
        pool.score(Counted(), workers=workers)
        assert 1 <= len(loaded) <= workers
        gc.collect()
        assert all(one() is None for one in loaded)


LOADED: dict[str, list[weakref.ref[Any]]] = {}


class Weights:
    """What a model is in these tests."""


@dataclass(frozen=True)
class Counted(Scorer):
    """Columns: one (1), and a note of every model that is loaded."""

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        return {"one": pa.int32()}

    def load(self, device: str) -> Any:
        weights = Weights()
        LOADED["count"].append(weakref.ref(weights))
        return weights

    def score(self, batch: Batch, model: Any) -> Mapping[str, Any]:
        assert isinstance(model, Weights)
        return {"one": np.ones(len(batch), np.int32)}


PLACES: list[tuple[str, int, int]] = []


@dataclass(frozen=True)
class Located(Scorer):
    """Columns: gpu, the position of the GPU that "cuda" meant when a batch was scored."""

    uses_device: ClassVar[bool] = True

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        return {"gpu": pa.int32()}

    def load(self, device: str) -> int:
        assert device == "cuda"
        return gpu_position()

    def score(self, batch: Batch, model: int) -> Mapping[str, Any]:
        PLACES.append((batch.uids[0], model, gpu_position()))
        return {"gpu": np.full(len(batch), gpu_position(), np.int32)}


class TestManyGpus:
    """Workers spread over GPUs; on this machine they are only names, so torch's part is a stand-in."""

    @pytest.fixture
    def gpus(self, monkeypatch, tmp_path):
        """Three GPUs, and which of them torch was told to use in which thread."""
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
        monkeypatch.setattr(leases.tempfile, "tempdir", str(tmp_path))
        current = threading.local()

        @contextlib.contextmanager
        def device(position):
            before, current.position = getattr(current, "position", 0), position
            yield
            current.position = before

        monkeypatch.setattr(torch.cuda, "device", device)
        return lambda: getattr(current, "position", 0)

    def held(self, tmp_path) -> Sequence[str]:
        free = [leases.lease(["4", "5", "6"]) for _ in range(3)]
        for one in free:
            one.release()
        return sorted(one.gpu for one in free)

    def test_workers_of_one_run(self, gpus, tmp_path, small_pool):
        pool = Pool(small_pool(tmp_path / "many", shards=12, samples=2))
        PLACES.clear()
        pool.score(Located(), workers=3, device="cuda")
        assert all(loaded == scored for _, loaded, scored in PLACES)
        assert {loaded for _, loaded, _ in PLACES} <= {0, 1, 2}
        assert self.held(tmp_path) == ["4", "5", "6"]  # all was given back

    def test_a_second_run_takes_another(self, gpus, pool):
        mine = leases.lease(leases.visible_gpus())
        assert mine.gpu == "4"
        PLACES.clear()
        pool.score(Located(), device="cuda")
        assert {(loaded, scored) for _, loaded, scored in PLACES} == {(1, 1)}
        mine.release()

    def test_none_is_leased_where_none_is_needed(self, gpus, pool, tmp_path):
        pool.score(Greedy(6), device="cuda")
        assert not list(tmp_path.glob("chaffinch-*"))

    def test_given_back_where_loading_fails(self, gpus, pool, tmp_path):
        @dataclass(frozen=True)
        class BrokenThere(Broken):
            uses_device: ClassVar[bool] = True

        with pytest.raises(LoadError):
            pool.score(BrokenThere(ValueError, "no"), device="cuda")
        assert self.held(tmp_path) == ["4", "5", "6"]

    def test_the_block_ends(self, gpus):
        assert gpu_position() == 0
        with on_gpu(2):
            assert gpu_position() == gpus() == 2
            with on_gpu(None):
                assert gpu_position() == 2
        assert gpu_position() == gpus() == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_lack_of_memory_on_a_gpu(pool):
    """A scorer whose batch takes a tenth of the GPU per sample, twice over."""
    total = torch.cuda.get_device_properties(0).total_memory

    @dataclass(frozen=True)
    class Filling(Greedy):
        uses_device: ClassVar[bool] = True

        def score(self, batch: Batch, model: Any) -> Mapping[str, Any]:
            parts = [torch.empty(total // 4, dtype=torch.uint8, device="cuda") for _ in batch.uids]
            return {"size": np.full(len(batch), len(parts), np.int32)}

    task = find_tasks(pool.shards, pool.source.store, ["s-0"])[0]
    with pytest.raises(MemoryShortage, match=r"[23] of them fit"):
        score_shard(task, pool.source, [LoadedScorer(Wanted("s", "s-0", Filling(0)), None)], 6)
