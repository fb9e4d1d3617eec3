"""Scoring shards: batches, tables, resuming, and what is measured again when a shard changes."""

import io
import json
import os
import tarfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from chaffinch.jobs.main import main
from chaffinch.pipeline.engines.engine import Engine
from chaffinch.pipeline.measuring import batches
from chaffinch.pipeline.measuring.batches import LoadedScorer, ScoringError, read_batches
from chaffinch.pipeline.measuring.feeds import Feed, Wanted
from chaffinch.pipeline.measuring.measure import measure
from chaffinch.pipeline.measuring.score import ScoreShard, find_tasks, score, score_shard
from chaffinch.pipeline.metadata import Metadata
from chaffinch.pipeline.rows import Source
from chaffinch.pipeline.samples import index_shard
from chaffinch.pipeline.shards import Shard, find_shards
from chaffinch.pipeline.storage import parquet
from chaffinch.pipeline.store import Store, table_folder
from chaffinch.scoring.captions import Captions
from chaffinch.scoring.images import decode
from chaffinch.scoring.pictures import Pictures
from chaffinch.scoring.scorer import Batch, SampleError, Scorer


@dataclass(frozen=True)
class Length(Scorer):
    """Columns: length (characters of the caption), NaN for captions that begin with a question mark."""

    factor: float = 1.0

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        return {"length": pa.float32()}

    def score(self, batch: Batch, model: Any) -> Mapping[str, Any]:
        assert not batch.pictures
        values = [np.nan if text.startswith("?") else len(text) * self.factor for text in batch.captions]
        return {"length": np.array(values, np.float64)}


@dataclass(frozen=True)
class Mean(Scorer):
    """Columns: mean (of all pixels), and batch (how many samples came at once, against the rules)."""

    reads_pictures: ClassVar[bool] = True
    refused: int = -1

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        return {"mean": pa.float32(), "batch": pa.int32()}

    def prepare(self, picture: Any, model: Any) -> Any:
        time.sleep(np.random.default_rng().random() * 0.004)  # threads end in another order each time
        if picture.width == self.refused:
            raise SampleError("of this width it cannot be measured")
        return np.asarray(picture).mean()

    def score(self, batch: Batch, model: Any) -> Mapping[str, Any]:
        return {"mean": np.array(batch.pictures), "batch": np.full(len(batch), len(batch))}


def loaded(*scorers: Scorer, names: Sequence[str] = ()) -> list[LoadedScorer]:
    named = names or [type(scorer).__name__.lower() for scorer in scorers]
    return [
        LoadedScorer(Wanted(name, table_folder(name, scorer, "cpu"), scorer), scorer.load("cpu"))
        for name, scorer in zip(named, scorers, strict=True)
    ]


def whole(samples: pa.Table, scorers: Sequence[LoadedScorer]) -> dict[str, Feed]:
    """Feeds that hold every usable row and no columns."""
    return {one.folder: one.wanted.feed(Shard("", "", 0, 0), samples, None) for one in scorers}


@dataclass
class Scoring:
    """A pool and its store, scored in this process as the job does shard by shard."""

    pool: Path
    store: Store = field(init=False)
    source: Source = field(init=False)

    def __post_init__(self) -> None:
        self.store = Store(str(self.pool.parent / "store"))
        self.source = Source(self.store, {}, Metadata("none"))

    def run(self, *scorers: Scorer, names: Sequence[str] = ()) -> list[str]:
        """Scores what is missing; returns the shards that had to be worked on."""
        ready = loaded(*scorers, names=names)
        tasks = find_tasks(find_shards(str(self.pool)), self.store, [one.folder for one in ready])
        for task in tasks:
            score_shard(task, self.source, [one for one in ready if one.folder in task.folders], 4)
        return [task.shard.name for task in tasks]

    def table(self, scorer: Scorer, shard: str, name: str = "") -> pa.Table:
        folder = table_folder(name or type(scorer).__name__.lower(), scorer, "cpu")
        return pq.read_table(self.store.scores(folder, shard))

    def rejects(self, shard: str) -> list[str | None]:
        return pq.read_table(self.store.samples(shard))["reject"].to_pylist()


@pytest.fixture
def scoring(tmp_path, small_pool) -> Scoring:
    return Scoring(small_pool(tmp_path / "pool"))


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


class TestMeasuring:
    """One pass over one shard."""

    @pytest.fixture
    def shard(self, tmp_path, write_shard, sample):
        """13 samples: the 3rd and 8th are rejected when listed, the 5th when decoded."""
        members = []
        for number in range(13):
            parts = sample(f"{number:02d}", number, caption="? what" if number == 9 else f"caption number {number}")
            if number == 2:
                parts = parts[1:]
            if number == 4:
                parts[0] = (parts[0][0], parts[0][1][:400])
            if number == 7:
                parts[1] = (parts[1][0], b" ")
            members += parts
        return write_shard(tmp_path / "one" / "s.tar", members)

    def test_batches_are_cut_by_position(self, shard):
        samples = index_shard(shard)
        ready = loaded(Mean())
        found = [parts[ready[0].folder] for parts in read_batches(shard.path, samples, ready, 4, whole(samples, ready))]
        assert [rows for rows, _, _ in found] == [[0, 1, 3], [5, 6], [8, 9, 10, 11], [12]]
        assert [list(rejects) for _, _, rejects in found] == [[], [4], [], []]
        uids = samples["uid"].to_pylist()
        assert [batch.uids for _, batch, _ in found] == [[uids[row] for row in rows] for rows, _, _ in found]

    def test_same_tables_whatever_the_threads_do(self, shard, monkeypatch):
        samples = index_shard(shard)
        ready = loaded(Mean(), Length())
        first = measure(shard.path, samples, ready, 4)
        for threads in (1, 2, 16):
            monkeypatch.setattr(batches, "THREADS", threads)
            again = measure(shard.path, samples, ready, 4)
            assert all(_equal(table, first[name]) for name, table in again.items())

    def test_all_scorers_together_give_what_each_gives_alone(self, shard):
        samples = index_shard(shard)
        ready = loaded(Pictures(), Captions(), Mean(), Length())
        together = measure(shard.path, samples, ready, 5)
        for one in ready:
            alone = measure(shard.path, samples, [one], 5)[one.folder]
            assert _equal(alone, together[one.folder])

    def test_equals_a_bare_loop(self, shard):
        """The slow twin: read with tarfile, decode and score one sample at a time."""
        samples = index_shard(shard)
        ready = loaded(Captions(), Pictures())
        tables = measure(shard.path, samples, ready, 4)
        captions, pictures = (tables[one.folder].to_pylist() for one in ready)
        with tarfile.open(shard.path) as archive:
            for row, described in enumerate(samples.to_pylist()):
                parts = {name.partition(".")[2]: archive.extractfile(name).read() for name in described["members"]}
                if described["reject"] is not None:
                    assert set(captions[row].values()) == {None, described["reject"]}
                    assert set(pictures[row].values()) == {None, described["reject"]}
                    continue
                _assert_row(captions[row], _alone(ready[0], parts["txt"].decode(), None))
                decoded = _decode(parts["jpg"])
                if isinstance(decoded, str):
                    assert set(pictures[row].values()) == {None, decoded}
                else:
                    _assert_row(pictures[row], _alone(ready[1], parts["txt"].decode(), decoded))

    def test_decode_errors_touch_only_scorers_of_pictures(self, shard):
        samples = index_shard(shard)
        ready = loaded(Mean(), Length())
        mean, length = measure(shard.path, samples, ready, 4).values()
        assert mean["reject"].to_pylist()[4].startswith("picture cannot be decoded")
        assert length["reject"].to_pylist()[4] is None
        assert length["length"].to_pylist()[4] == len("caption number 4")

    def test_a_scorer_may_refuse_a_sample(self, tmp_path, write_shard, sample, picture):
        members = [("a.jpg", picture(1, (30, 20))), *sample("a")[1:], *sample("b")]
        shard = write_shard(tmp_path / "two" / "s.tar", members)
        ready = loaded(Mean(refused=30), Mean(), names=["strict", "lax"])
        strict, lax = measure(shard.path, index_shard(shard), ready, 4).values()
        assert strict["reject"].to_pylist() == ["of this width it cannot be measured", None]
        assert strict["mean"].to_pylist()[0] is None
        assert lax["reject"].to_pylist() == [None, None]

    def test_rejected_and_cannot_judge_stay_apart(self, scoring, shard, tmp_path):
        path = tmp_path / "table.parquet"
        one = loaded(Length())[0]
        parquet.write_table(str(path), measure(shard.path, index_shard(shard), [one], 4)[one.folder])
        column = parquet.read_table(str(path))["length"].combine_chunks()
        assert column.is_null().to_pylist() == [row in (2, 7) for row in range(13)]
        assert column.is_null(nan_is_null=True).to_pylist() == [row in (2, 7, 9) for row in range(13)]
        assert column.type == pa.float32()

    def test_pictures_are_not_decoded_for_scorers_of_captions(self, tmp_path, write_shard, sample, monkeypatch):
        broken = b"\xff\xd8\xff" + b"no picture at all"
        members = [part for key in "abc" for part in [(f"{key}.jpg", broken), *sample(key)[1:]]]
        shard = write_shard(tmp_path / "broken" / "s.tar", members)
        samples = index_shard(shard)

        def refuse(data):
            raise AssertionError("a picture was decoded")

        monkeypatch.setattr(batches, "decode", refuse)
        ready = loaded(Captions())
        table = measure(shard.path, samples, ready, 4)[ready[0].folder]
        assert table["reject"].to_pylist() == [None] * 3
        assert table["words"].null_count == 0
        with pytest.raises(AssertionError, match="was decoded"):
            measure(shard.path, samples, loaded(Captions(), Pictures()), 4)

    def test_threads_end_with_the_pass(self, shard):
        before = threading.active_count()
        ready = loaded(Mean())
        measure(shard.path, index_shard(shard), ready, 4)
        iterator = read_batches(shard.path, index_shard(shard), ready, 2, whole(index_shard(shard), ready))
        next(iterator)
        iterator.close()
        assert threading.active_count() == before


def _decode(data: bytes) -> Any:
    try:
        return decode(data)
    except SampleError as error:
        return str(error)


def _alone(one: LoadedScorer, caption: str, picture: Any) -> dict[str, Any]:
    prepared = () if picture is None else [one.scorer.prepare(picture, one.model)]
    columns = one.scorer.score(Batch(["0" * 32], [caption], prepared), one.model)
    kinds = one.scorer.columns
    return {name: pa.array(values, kinds[name], from_pandas=False).to_pylist()[0] for name, values in columns.items()}


def _assert_row(row: dict[str, Any], alone: dict[str, Any]) -> None:
    assert row.pop("reject") is None
    assert set(row) == set(alone)
    for name, value in alone.items():
        assert row[name] == value or (row[name] != row[name] and value != value), name


def _equal(one: pa.Table, other: pa.Table) -> bool:
    """Equal where NaN equals NaN."""
    first, second = io.BytesIO(), io.BytesIO()
    pq.write_table(one.combine_chunks(), first)
    pq.write_table(other.combine_chunks(), second)
    return first.getvalue() == second.getvalue()


@dataclass(frozen=True)
class Wrong(Scorer):
    """Columns: number, or whatever breaks the contract."""

    how: str = ""

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        return {"number": pa.float32()}

    def score(self, batch: Batch, model: Any) -> Mapping[str, Any]:
        count = len(batch)
        return {
            "short": {"number": np.zeros(count - 1)},
            "long": {"number": np.zeros(count + 1)},
            "other": {"nombre": np.zeros(count)},
            "more": {"number": np.zeros(count), "extra": np.zeros(count)},
            "none": {},
            "square": {"number": np.zeros((count, 2))},
            "text": {"number": np.array(["many"] * count)},
            "chunked": {"number": pa.chunked_array([pa.array([1.0]), pa.array([2.0] * (count - 1))])},
        }[self.how]


class TestContract:
    """A scorer that breaks its contract stops the run, and the message names it."""

    @pytest.mark.parametrize("how", ["short", "long", "other", "more", "none", "square", "text"])
    def test_errors_name_scorer_and_column(self, scoring, how):
        kind = Wrong().kind
        with pytest.raises(ScoringError, match=rf"shard 00000000: .*scorer {kind} wrote .*number"):
            scoring.run(Wrong(how))

    def test_arrow_arrays_in_chunks_are_fine(self, scoring):
        scoring.run(Wrong("chunked"))
        assert scoring.table(Wrong("chunked"), "00000000")["number"].to_pylist() == [1, 2, 2, 2, 1, 2]

    def test_an_exception_in_a_scorer_stops_the_run(self, tmp_path, scoring):
        shards = find_shards(str(scoring.pool))
        folder = table_folder("failing", Failing(), "cpu")
        tasks = find_tasks(shards, scoring.store, [folder])
        work = [Wanted("failing", folder, Failing())]
        with pytest.raises(Exception, match="no such weights"):
            score(Engine(), tasks, scoring.source, work, 4, "cpu", str(tmp_path / "scratch"))
        assert find_tasks(shards, scoring.store, [folder])

    def test_through_beam_models_are_loaded_once(self, tmp_path, scoring):
        counting = Counting(note=str(tmp_path / "loads"))
        folder = table_folder("counting", counting, "cpu")
        shards = find_shards(str(scoring.pool))
        tasks = find_tasks(shards, scoring.store, [folder])
        wanted = [Wanted("counting", folder, counting)]
        spent = score(Engine(), tasks, scoring.source, wanted, 4, "cpu", str(tmp_path / "scratch"))
        assert spent.samples == 18
        assert set(spent.scorers) == {"counting"}
        assert Path(counting.note).read_text() == "loaded\n"
        assert find_tasks(shards, scoring.store, [folder]) == []
        assert os.listdir(tmp_path / "scratch") == []


@dataclass(frozen=True)
class Failing(Length):
    """Columns: none, it fails."""

    def score(self, batch: Batch, model: Any) -> Mapping[str, Any]:
        raise RuntimeError("no such weights")


@dataclass(frozen=True)
class Counting(Length):
    """Columns: length; notes every load."""

    note: str = ""

    def load(self, device: str) -> Any:
        with open(self.note, "a") as file:
            file.write("loaded\n")


class TestResuming:
    """What is there and current is left alone."""

    def test_nothing_is_done_twice(self, scoring, snapshot):
        assert len(scoring.run(Length(), Mean())) == 3
        before = snapshot(Path(scoring.store.root))
        assert scoring.run(Length(), Mean()) == []
        assert snapshot(Path(scoring.store.root)) == before

    def test_a_deleted_table_alone_is_written_again(self, scoring, snapshot, digests):
        scoring.run(Length(), Mean())
        root = Path(scoring.store.root)
        before, content = snapshot(root), digests(root)
        for victim in sorted(before):
            (root / victim).unlink()
            assert scoring.run(Length(), Mean()) == [Path(victim).name.partition(".")[0]]
            after = snapshot(root)
            rewritten = {victim}
            if not victim.startswith("scores"):
                # Where the samples table is gone, so is the stamp's proof: both are written, no score is.
                rewritten |= {name for name in after if name.startswith("stamps") and name[7:15] in victim}
            assert changed(before, after) <= rewritten
            assert digests(root) == content
            before = after

    def test_adding_a_scorer_touches_no_file(self, scoring, snapshot):
        scoring.run(Length())
        before = snapshot(Path(scoring.store.root))
        assert len(scoring.run(Length(), Length(2.0), names=["length", "double"])) == 3
        after = snapshot(Path(scoring.store.root))
        assert {name: after[name] for name in before} == before
        added = after.keys() - before.keys()
        assert len(added) == 3
        assert all("double" in name for name in added)

    def test_two_experiments_share_a_store(self, scoring, snapshot):
        scoring.run(Length(), Mean())
        before = snapshot(Path(scoring.store.root))
        assert scoring.run(Mean()) == []
        assert scoring.run(Length(3.0), Mean(), names=["other", "mean"]) != []
        assert scoring.run(Length(), Mean()) == []
        after = snapshot(Path(scoring.store.root))
        assert {name: after[name] for name in before} == before

    @pytest.mark.parametrize("how", ["longer", "same size", "same size and older", "a byte deep in a picture"])
    def test_a_changed_shard_is_measured_again_and_nothing_else(self, scoring, make_tar, sample, snapshot, how):
        scoring.run(Length(), Mean())
        root = Path(scoring.store.root)
        before = snapshot(root)
        means = scoring.table(Mean(), "00000001")["mean"].to_pylist()
        path = scoring.pool / "00000001.tar"
        status = path.stat()
        data = bytearray(path.read_bytes())
        if how == "longer":
            data = bytearray(make_tar([part for row in range(7) for part in sample(f"x{row}", row)]))
        else:
            place = data.index(b"\xff\xda") + 60
            data[place : place + 4] = b"\x11\x22\x33\x44"
        path.write_bytes(data)
        if how == "same size and older":
            os.utime(path, (status.st_atime - 1000, status.st_mtime - 1000))
        assert how == "longer" or path.stat().st_size == status.st_size
        assert scoring.run(Length(), Mean()) == ["00000001"]
        after = snapshot(root)
        assert {name.split("/")[-1][:8] for name in changed(before, after)} == {"00000001"}
        assert len(changed(before, after)) == 5  # samples, two tables, old and new stamp
        assert scoring.table(Mean(), "00000001")["mean"].to_pylist() != means
        assert scoring.run(Length(), Mean()) == []

    def test_tables_of_other_experiments_go_with_the_old_bytes(self, scoring, make_tar, sample):
        scoring.run(Length(), Mean())
        (scoring.pool / "00000001.tar").write_bytes(make_tar(sample("new")))
        scoring.run(Length())
        assert scoring.run(Length(), Mean()) == ["00000001"]
        assert scoring.table(Mean(), "00000001").num_rows == 1

    def test_a_touched_shard_is_listed_again_but_not_measured(self, scoring, snapshot):
        scoring.run(Length(), Mean())
        before = snapshot(Path(scoring.store.root))
        path = scoring.pool / "00000002.tar"
        os.utime(path, (1e9, 1e9))
        assert scoring.run(Length(), Mean()) == ["00000002"]
        names = changed(before, snapshot(Path(scoring.store.root)))
        assert {name.split("/")[0] for name in names} == {"stamps"}
        assert scoring.run(Length(), Mean()) == []

    def test_old_scores_do_not_outlive_their_samples_table(self, scoring, make_tar, sample):
        """Changed, and its samples table deleted: nothing tells that the score tables are of the same bytes."""
        scoring.run(Length())
        Path(scoring.store.samples("00000001")).unlink()
        (scoring.pool / "00000001.tar").write_bytes(make_tar(sample("new")))
        scoring.run(Length())
        assert scoring.table(Length(), "00000001").num_rows == 1

    @pytest.mark.parametrize("samples", [True, False])
    def test_a_kill_between_two_files_costs_nothing_but_time(self, scoring, samples, digests):
        scoring.run(Length(), Mean())
        root = Path(scoring.store.root)
        whole = digests(root)
        for stamp in (root / "stamps").iterdir():
            stamp.unlink()
        if samples:
            Path(scoring.store.samples("00000000")).unlink()
        Path(scoring.store.scores(table_folder("mean", Mean(), "cpu"), "00000001")).unlink()
        assert len(scoring.run(Length(), Mean())) == 3
        assert digests(root) == whole


class TestShardsThatCannotBeRead:
    """The run goes on, the row says why, and the next run tries again."""

    def test_gone_between_listing_and_reading(self, scoring):
        ready = loaded(Length())
        path = scoring.pool / "00000001.tar"
        tasks = find_tasks(find_shards(str(scoring.pool)), scoring.store, [ready[0].folder])
        hidden = path.rename(path.with_suffix(".away"))
        for task in tasks:
            score_shard(task, scoring.source, ready, 4)
        assert scoring.rejects("00000001") == ["shard cannot be read: No such file or directory"]
        assert scoring.table(Length(), "00000001").to_pylist() == [
            {"length": None, "reject": "shard cannot be read: No such file or directory"}
        ]
        assert scoring.rejects("00000002") == [None] * 6
        hidden.rename(path)
        shards = find_shards(str(scoring.pool))
        assert find_tasks(shards, scoring.store, [ready[0].folder], retry_unreadable=False) == []
        assert scoring.run(Length()) == ["00000001"]
        assert scoring.rejects("00000001") == [None] * 6
        assert scoring.run(Length()) == []

    def test_gone_when_a_scorer_is_added(self, scoring, snapshot):
        """What was measured before stays; the new scorer's table says why it is empty, and is made at the next try."""
        scoring.run(Length())
        before = snapshot(Path(scoring.store.root))
        ready = loaded(Length(), Mean())
        path = scoring.pool / "00000001.tar"
        tasks = find_tasks(find_shards(str(scoring.pool)), scoring.store, [one.folder for one in ready])
        hidden = path.rename(path.with_suffix(".away"))
        for task in tasks:
            score_shard(task, scoring.source, ready, 4)
        assert set(scoring.table(Mean(), "00000001")["reject"].to_pylist()) == {
            "shard cannot be read: No such file or directory"
        }
        assert scoring.table(Length(), "00000001")["length"].null_count == 0
        hidden.rename(path)
        # Another experiment, which has nothing to do with the scorer that failed, tries again first.
        assert scoring.run(Length()) == ["00000001"]
        assert scoring.run(Length(), Mean()) == ["00000001"]
        assert scoring.table(Mean(), "00000001")["mean"].null_count == 0
        after = snapshot(Path(scoring.store.root))
        kept = [name for name in before if not name.startswith("stamps")]
        assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
        assert scoring.run(Length(), Mean()) == []

    def test_decisions_follow_when_it_can_be_read_again(self, scoring, tmp_path):
        """Neither its name nor its time has changed since it was rejected."""
        config, output = tmp_path / "config.yaml", tmp_path / "out"
        settings = {"input": str(scoring.pool), "output": str(output), "store": scoring.store.root}
        settings |= {"filters": {"words": {"column": "captions.words", "keep": [1, None]}}, "run": {"max_rejected": 1}}
        config.write_text(yaml.safe_dump(settings | {"ensemble": {"label_model": "all"}}))
        ready = loaded(Captions())
        path = scoring.pool / "00000001.tar"
        tasks = find_tasks(find_shards(str(scoring.pool)), scoring.store, [ready[0].folder])
        hidden = path.rename(path.with_suffix(".away"))
        for task in tasks:
            score_shard(task, scoring.source, ready, 4)
        hidden.rename(path)
        counts = []
        for command in ("decide", "run"):
            assert main([command, str(config), "--quiet"]) == 0
            summary = json.loads((output / "summary.json").read_bytes())
            counts.append((summary["read"], summary["kept"], summary["rejected"]))
        assert counts == [(13, 12, 1), (18, 18, 0)]

    def test_shorter_than_it_was_listed(self, scoring):
        scoring.run(Length())
        ready = loaded(Mean())
        path = scoring.pool / "00000000.tar"
        tasks = find_tasks(find_shards(str(scoring.pool)), scoring.store, [ready[0].folder])
        path.write_bytes(path.read_bytes()[:3000])
        score_shard(tasks[0], scoring.source, ready, 4)
        assert "became shorter" in scoring.table(Mean(), "00000000")["reject"].to_pylist()[0]
        assert scoring.run(Mean()) == ["00000000", "00000001", "00000002"]
        assert scoring.rejects("00000000")[-1].startswith("shard is damaged")

    def test_damage_is_not_tried_again(self, scoring):
        path = scoring.pool / "00000000.tar"
        path.write_bytes(path.read_bytes()[:6000])
        scoring.run(Length())
        rejects = scoring.rejects("00000000")
        assert rejects[:-1] == [None] * (len(rejects) - 1)
        assert rejects[-1].startswith("shard is damaged")
        assert scoring.table(Length(), "00000000")["reject"].to_pylist() == rejects
        assert scoring.run(Length()) == []

    def test_errors_of_the_store_stop_the_run(self, scoring):
        """Only shards may fail quietly; a store that cannot be written must not look like a pool without samples."""
        ready = loaded(Length())
        task = find_tasks(find_shards(str(scoring.pool)), scoring.store, [ready[0].folder])[0]
        Path(scoring.store.root).write_text("a file where a folder should be")
        with pytest.raises(OSError, match=r"Not a directory|File exists"):
            score_shard(task, scoring.source, ready, 4)


def test_a_worker_keeps_its_models(scoring, tmp_path):
    counting = Counting(note=str(tmp_path / "loads"))
    folder = table_folder("counting", counting, "cpu")
    work = ScoreShard(scoring.source, [Wanted("counting", folder, counting)], 4, "cpu")
    tasks = find_tasks(find_shards(str(scoring.pool)), scoring.store, [folder])
    for task in tasks:
        list(work.process(task))
        list(work.process(replace(task, folders=())))
    assert Path(counting.note).read_text() == "loaded\n"
