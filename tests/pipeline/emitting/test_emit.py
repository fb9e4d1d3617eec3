"""Emitting: the kept samples, byte for byte, as shards that strangers' readers take."""

import io
import json
import os
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
import yaml

from chaffinch.jobs.main import main
from chaffinch.pipeline.deciding.verdicts import decisions_path
from chaffinch.pipeline.emitting import subset
from chaffinch.pipeline.emitting.emit import emit
from chaffinch.pipeline.emitting.plan import Plan
from chaffinch.pipeline.engines.engine import Engine
from chaffinch.pipeline.measuring.score import find_tasks, score_shard
from chaffinch.pipeline.metadata import Metadata
from chaffinch.pipeline.rows import Source
from chaffinch.pipeline.shards import find_shards
from chaffinch.pipeline.store import Store

LONG = "folder/" * 30 + "key" * 40


@dataclass
class Emission:
    """A pool, its samples tables, and decisions made by hand."""

    pool: Path
    seed: int = 0
    output: Path = field(init=False)

    def __post_init__(self) -> None:
        self.output = self.pool.parent / "out"
        self.store = Store(str(self.pool.parent / "store"))
        self.decide(self.seed)

    def decide(self, seed: int, share: float = 0.6) -> None:
        """Keeps a random share of the samples that can be used."""
        self.shards = find_shards(str(self.pool))
        for task in find_tasks(self.shards, self.store, []):
            score_shard(task, Source(self.store, {}, Metadata("none")), [], 4)
        rng = np.random.default_rng(seed)
        self.kept = {}
        for shard in self.shards:
            samples = pq.read_table(self.store.samples(shard.name))
            usable = samples["reject"].is_null().to_numpy()
            keep = usable & (rng.random(len(usable)) < share)
            path = Path(decisions_path(str(self.output), shard.name))
            path.parent.mkdir(parents=True, exist_ok=True)
            probability = pa.array(rng.random(len(usable)).astype(np.float32), mask=~usable)
            pq.write_table(pa.table({"keep": keep, "probability": probability}), path)
            self.kept[shard.name] = [row for row, one in zip(samples.to_pylist(), keep, strict=True) if one]

    def emit(
        self, size: int = 5, seed: int | None = None, scores: tuple[str, ...] = (), metadata: str = "none"
    ) -> None:
        plan = Plan(self.shards, [len(rows) for rows in self.kept.values()], size, seed)
        source = Source(self.store, {}, Metadata(metadata))
        emit(Engine(), plan, source, str(self.output), scores)

    @property
    def shards_folder(self) -> Path:
        return self.output / "shards"

    def outputs(self) -> list[Path]:
        return sorted(self.shards_folder.glob("*.tar"))

    def expected(self) -> list[list[tuple[str, bytes]]]:
        """Extension and bytes of the kept samples' members, read from the input with tarfile."""
        found = []
        for shard in self.shards:
            with open(shard.path, "rb") as file:
                data = file.read()
            for row in self.kept[shard.name]:
                spans = zip(row["members"], row["offsets"], row["sizes"], strict=True)
                found.append([(name[len(row["key"]) :], data[start : start + size]) for name, start, size in spans])
        return found

    def emitted(self) -> list[list[tuple[str, bytes]]]:
        """The same of the output."""
        found: list[list[tuple[str, bytes]]] = []
        for path in self.outputs():
            keys = pq.read_table(path.with_suffix(".parquet"))["key"].to_pylist()
            with tarfile.open(path) as archive:
                members = [(info.name, archive.extractfile(info).read()) for info in archive]
            for key in keys:
                own = []
                while members and members[0][0].startswith(key + "."):
                    name, data = members.pop(0)
                    own.append((name[len(key) :], data))
                found.append(own)
            assert not members
        return found


@pytest.fixture
def pool(tmp_path, write_shard, sample) -> Path:
    """Four shards: extra and empty members, a damaged sample, upper case, equal keys in all, a long name, no json."""
    folder = tmp_path / "pool"
    for shard in range(4):
        members = []
        for row in range(9):
            key = f"{row:04d}" if row != 5 else f"{LONG}{row}"
            parts = sample(key, 10 * shard + row, uid=f"{shard * 9 + row + 1:032x}")
            if row == 2:
                parts += [(f"{key}.npy", os.urandom(700)), (f"{key}.empty", b"")]
            if row == 3:
                parts = [(name.upper(), data) for name, data in parts]
            if row == 4:
                parts = parts[1:]
            if row == 6:
                parts = parts[:2]
            members += [*parts, (".hidden", b"x" * 1000)]
        write_shard(folder / f"{shard:08d}.tar", members, tarfile.GNU_FORMAT)
    return folder


@pytest.fixture
def emission(pool) -> Emission:
    return Emission(pool)


def test_members_are_the_sources_bytes(emission):
    emission.emit()
    assert emission.emitted() == emission.expected()
    sizes = [pq.read_table(path.with_suffix(".parquet")).num_rows for path in emission.outputs()]
    assert sizes[:-1] == [5] * (len(sizes) - 1)
    assert 0 < sizes[-1] <= 5
    assert [path.name for path in emission.outputs()] == [f"{number:08d}.tar" for number in range(len(sizes))]


@pytest.mark.parametrize("seed", [None, 3])
def test_an_unmodified_webdataset_reads_it(emission, seed):
    emission.emit(seed=seed)
    dataset = webdataset.WebDataset([str(path) for path in emission.outputs()], shardshuffle=False, empty_check=False)
    found = [{name: data for name, data in one.items() if not name.startswith("__")} for one in dataset]
    wanted = [{name[1:].lower(): data for name, data in one} for one in emission.expected()]
    if seed is None:
        assert found == wanted
    else:
        assert found != wanted
        assert sorted(map(repr, found)) == sorted(map(repr, wanted))


def test_what_lies_beside_the_shards(emission):
    emission.emit()
    rows = [(shard, row) for shard, found in emission.kept.items() for row in found]
    sizes = json.loads((emission.shards_folder / "sizes.json").read_bytes())
    assert sizes == {path.name: min(5, len(rows) - 5 * number) for number, path in enumerate(emission.outputs())}
    meta = json.loads((emission.shards_folder / "meta.json").read_bytes())
    assert meta == {"output_shard_count": len(sizes), "output_shard_format": "{:08d}.tar"}
    assert [meta["output_shard_format"].format(number) for number in range(len(sizes))] == sorted(sizes)
    for name, size in sizes.items():
        assert (
            json.loads((emission.shards_folder / name.replace(".tar", "_stats.json")).read_bytes())["successes"] == size
        )
    beside = pa.concat_tables(pq.read_table(path.with_suffix(".parquet")) for path in emission.outputs()).to_pylist()
    assert [(one["uid"], one["source_shard"]) for one in beside] == [(row["uid"], shard) for shard, row in rows]


def test_subset_file(emission):
    emission.emit()
    content = np.load(emission.output / "sample_ids.npy")
    assert content.dtype == np.dtype("u8,u8")
    assert content.ndim == 1
    assert content.dtype.isnative
    uids = sorted(row["uid"] for rows in emission.kept.values() for row in rows)
    assert [f"{high:016x}{low:016x}" for high, low in content.tolist()] == uids
    assert np.array_equal(np.sort(content, order=["f0", "f1"]), content)


def test_subset_file_keeps_repeats_and_orders_beyond_63_bits():
    uids = np.array([[2**63, 1], [1, 2**64 - 1], [2**63, 1], [1, 0]], np.uint64)
    content = np.load(io.BytesIO(subset.subset_file([uids[:1], uids[1:]])))
    assert content.tolist() == [(1, 0), (1, 2**64 - 1), (2**63, 1), (2**63, 1)]
    assert np.load(io.BytesIO(subset.subset_file([]))).dtype == np.dtype("u8,u8")


@pytest.mark.parametrize("most", [8, 1])
def test_a_subset_file_of_more_than_one_memory_holds_has_the_same_bytes(emission, monkeypatch, most):
    emission.emit()
    path = emission.output / "sample_ids.npy"
    content = path.read_bytes()
    path.unlink()
    sizes = []
    monkeypatch.setattr(subset, "MOST_AT_ONCE", most)
    at_once = subset._sorted

    def watch(uids):
        sizes.append(sum(map(len, uids)))
        return at_once(uids)

    monkeypatch.setattr(subset, "_sorted", watch)
    emission.emit()
    assert path.read_bytes() == content
    begin = [uid[:3] for rows in emission.kept.values() for uid in [row["uid"] for row in rows]]
    assert max(sizes) <= max(most, *map(begin.count, begin))  # those that begin alike are sorted together
    assert len([size for size in sizes if size]) > 1


def test_tables_that_went_astray_make_no_subset_file(emission):
    emission.emit()
    tables = sorted(emission.shards_folder.glob("*.parquet"))
    uids = np.zeros((sum(pq.read_metadata(one).num_rows for one in tables), 2), np.uint64)
    path = emission.output / "other.npy"

    names, counts = [one.stem for one in tables], subset.count_beginnings([uids])
    with pytest.raises(RuntimeError, match="emit again"):
        subset.write_in_turns(str(path), str(emission.shards_folder), names, counts, lambda *_: subset.Uids())
    assert not path.exists()


def test_keys_stay_unless_they_collide_or_do_not_fit(emission):
    emission.decide(0, share=1.0)
    emission.emit(size=100)
    rows = [row for found in emission.kept.values() for row in found]
    keys = pq.read_table(emission.shards_folder / "00000000.parquet")["key"].to_pylist()
    seen: set[str] = set()
    for key, row in zip(keys, rows, strict=True):
        fits = not row["key"].startswith("folder/")
        assert key == (row["key"] if fits and row["key"] not in seen else row["uid"])
        seen.add(key)
    assert len(set(keys)) == len(keys) == 32
    assert sum(key == row["uid"] for key, row in zip(keys, rows, strict=True)) == 3 * 7 + 4


class TestEmittingAgain:
    """What is there as it should be is left alone; anything else is written again, to the same bytes."""

    def test_nothing_is_touched(self, emission, snapshot, digests):
        for seed in (None, 3):
            emission.emit(seed=seed)
            before, content = snapshot(emission.output), digests(emission.output)
            emission.emit(seed=seed)
            assert snapshot(emission.output) == before
            assert digests(emission.output) == content

    def test_from_nothing_gives_the_same_bytes(self, emission, digests):
        emission.emit(seed=3)
        content = digests(emission.output)
        for path in emission.shards_folder.iterdir():
            path.unlink()
        (emission.output / "sample_ids.npy").unlink()
        emission.emit(seed=3)
        assert digests(emission.output) == content

    @pytest.mark.parametrize(
        "how",
        [
            "tar gone",
            "tar cut",
            "tar longer",
            "statistics gone",
            "statistics broken",
            "statistics a list",
            "parquet gone",
        ],
    )
    def test_a_damaged_output_is_written_again(self, emission, snapshot, digests, how):
        emission.emit()
        before, content = snapshot(emission.shards_folder), digests(emission.output)
        tar = emission.shards_folder / "00000001.tar"
        statistics = emission.shards_folder / "00000001_stats.json"
        if how == "tar gone":
            tar.unlink()
        elif how == "tar cut":
            os.truncate(tar, 4000)
        elif how == "tar longer":
            tar.write_bytes(tar.read_bytes() + b"more")
        elif how == "statistics gone":
            statistics.unlink()
        elif how == "statistics broken":
            statistics.write_bytes(b'{"digest": ')
        elif how == "statistics a list":
            statistics.write_bytes(b"[]")
        else:
            tar.with_suffix(".parquet").unlink()
        emission.emit()
        assert digests(emission.output) == content
        after = snapshot(emission.shards_folder)
        rewritten = {name for name in before if before[name] != after[name]}
        assert rewritten == {"meta.json", "00000001.tar", "00000001.parquet", "00000001_stats.json"}

    def test_other_decisions_give_other_shards(self, emission):
        emission.emit()
        emission.decide(1)
        emission.emit()
        assert emission.emitted() == emission.expected()

    def test_changed_bytes_of_an_input_are_copied_again(self, emission, snapshot):
        """A picture replaced by another of the same length: the names, sizes and places are those of before."""
        emission.emit()
        before = snapshot(emission.shards_folder)
        shard = emission.shards[0]
        row = emission.kept[shard.name][0]
        data = bytearray(Path(shard.path).read_bytes())
        data[row["offsets"][0] + 200] ^= 0xFF
        Path(shard.path).write_bytes(data)
        os.utime(shard.path, (1e9, 1e9))
        emission.decide(0)
        emission.emit()
        assert emission.emitted() == emission.expected()
        after = snapshot(emission.shards_folder)
        assert before["00000000.tar"] != after["00000000.tar"]
        assert before["00000003.tar"] == after["00000003.tar"]

    def test_a_smaller_output_leaves_no_rest(self, emission):
        emission.decide(0, share=1.0)
        emission.emit()
        (emission.shards_folder / "notes.txt").write_text("somebody's own")
        emission.decide(0, share=0.2)
        emission.emit()
        kept = sum(map(len, emission.kept.values()))
        names = {
            f"{number:08d}{ending}" for number in range(-(-kept // 5)) for ending in (".tar", ".parquet", "_stats.json")
        }
        assert {path.name for path in emission.shards_folder.iterdir()} == names | {
            "sizes.json",
            "meta.json",
            "notes.txt",
        }
        assert emission.emitted() == emission.expected()

    def test_nothing_kept(self, emission):
        emission.emit()
        emission.decide(0, share=0.0)
        emission.emit()
        assert {path.name for path in emission.shards_folder.iterdir()} == {"sizes.json", "meta.json"}
        assert json.loads((emission.shards_folder / "meta.json").read_bytes())["output_shard_count"] == 0
        assert np.load(emission.output / "sample_ids.npy").shape == (0,)

    def test_an_input_that_went_away_fails_and_may_come_back(self, emission):
        path = Path(emission.shards[1].path)
        away = path.rename(path.with_suffix(".away"))
        told = rf"{path} cannot be read, and its samples were to be kept: No such file"
        with pytest.raises(Exception, match=told):  # Beam's own, around it
            emission.emit()
        assert not (emission.shards_folder / "meta.json").exists()
        away.rename(path)
        emission.emit()
        assert emission.emitted() == emission.expected()

    def test_an_input_that_became_shorter_fails(self, emission):
        """And meta.json, which says that all is there, is gone with the first shard that is not."""
        emission.emit(size=4)
        path = Path(emission.shards[-1].path)
        path.write_bytes(path.read_bytes()[:2000])
        with pytest.raises(Exception, match="changed since it was scored"):
            emission.emit()
        assert not (emission.shards_folder / "meta.json").exists()


class TestShuffling:
    """The same samples in another order, the same one for the same seed."""

    def test_set_order_and_seed(self, emission, digests):
        emission.emit(seed=3)
        first, content = emission.emitted(), digests(emission.shards_folder)
        wanted = emission.expected()
        assert first != wanted
        assert sorted(map(repr, first)) == sorted(map(repr, wanted))
        emission.emit(seed=4)
        assert emission.emitted() not in (first, wanted)
        emission.emit(seed=3)
        assert digests(emission.shards_folder) == content

    def test_many_blocks(self, emission):
        emission.emit(size=2, seed=1)
        assert len(emission.outputs()) > 8
        assert sorted(map(repr, emission.emitted())) == sorted(map(repr, emission.expected()))


class TestMetadata:
    """Columns made elsewhere go along, whatever the types of the files that hold them."""

    def test_columns_of_other_types_and_missing_files(self, emission):
        arrays = [pa.array, lambda values: pa.array(values, pa.float32()), lambda values: pa.array(map(int, values))]
        for shard, array in zip(emission.shards, arrays, strict=False):
            uids = [row["uid"].upper() for row in pq.read_table(emission.store.samples(shard.name)).to_pylist()]
            table = pa.table(
                {"uid": pa.array(uids, pa.large_string()), "score": array([float(row) for row in range(9)])}
            )
            pq.write_table(table, shard.path.replace(".tar", ".parquet"))
        emission.emit(size=100, scores=("metadata.score",), metadata="beside")
        found = pq.read_table(emission.shards_folder / "00000000.parquet")["metadata.score"].to_pylist()
        wanted = []
        for number, shard in enumerate(emission.shards):
            uids = pq.read_table(emission.store.samples(shard.name))["uid"].to_pylist()
            wanted += [float(uids.index(row["uid"])) if number < 3 else None for row in emission.kept[shard.name]]
        assert found == wanted

    def test_a_column_that_no_input_of_an_output_has(self, emission):
        pq.write_table(
            pa.table({"uid": ["0" * 32], "score": [1.0]}), emission.shards[0].path.replace(".tar", ".parquet")
        )
        emission.emit(size=3, scores=("metadata.score",), metadata="beside")
        last = pq.read_table(sorted(emission.shards_folder.glob("*.parquet"))[-1])
        assert pa.types.is_floating(last["metadata.score"].type)
        assert last["metadata.score"].null_count == last.num_rows


def test_an_output_is_an_input(emission, tmp_path):
    """Curated again, an output has as many samples as were kept, none of which is rejected, with their uids."""
    emission.decide(0, share=0.7)
    emission.emit(size=7)
    config = tmp_path / "again.yaml"
    again = tmp_path / "again"
    settings = {
        "input": str(emission.shards_folder),
        "output": str(again),
        "filters": {
            "words": {"column": "captions.words", "keep": [1, None]},
            "p": {"column": "metadata.probability", "keep": [0, None]},
        },
        "ensemble": {"label_model": "all"},
        "keep": {"fraction": 1.0},
        "emit": {"samples_per_shard": 4},
        "run": {"max_rejected": 0},
    }
    config.write_text(yaml.safe_dump(settings))
    assert main(["run", str(config), "--quiet"]) == 0
    summary = json.loads((again / "summary.json").read_bytes())
    kept = sum(map(len, emission.kept.values()))
    assert (summary["read"], summary["kept"], summary["rejected"]) == (kept, kept, 0)
    before = emission.expected()
    emission.output = again
    assert emission.emitted() == before
