"""Scorers that read columns, and those that skip what a required filter drops."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chaffinch.filters.column import Column
from chaffinch.filters.ranges import FittedRanges
from chaffinch.pipeline.measuring.batches import LoadedScorer
from chaffinch.pipeline.measuring.feeds import Wanted
from chaffinch.pipeline.measuring.gate import Gate
from chaffinch.pipeline.measuring.score import Spent, find_tasks, score_shard
from chaffinch.pipeline.metadata import Metadata
from chaffinch.pipeline.rows import Source
from chaffinch.pipeline.shards import find_shards
from chaffinch.pipeline.storage import files, parquet
from chaffinch.pipeline.store import Store
from chaffinch.scoring.captions import Captions
from chaffinch.scoring.scorer import Batch, SampleError, Scorer


@dataclass(frozen=True)
class Twice(Scorer):
    """Columns: twice the words of a caption, and how many samples came at once (against the rules)."""

    reads_captions: ClassVar[bool] = False

    @property
    def reads(self) -> tuple[str, ...]:
        return ("captions.words",)

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        return {"twice": pa.float32(), "batch": pa.int32()}

    def score(self, batch: Batch, model: Any) -> Mapping[str, Any]:
        assert not batch.captions
        assert not batch.pictures
        words = batch.columns["captions.words"].to_numpy(zero_copy_only=False)
        return {"twice": 2 * words, "batch": np.full(len(batch), len(batch))}


@dataclass(frozen=True)
class Width(Scorer):
    """Columns: width of the picture, and how often one was measured is counted by a note in a file."""

    reads_pictures: ClassVar[bool] = True
    note: str = ""
    refused: str = ""

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        return {"width": pa.float32()}

    def score(self, batch: Batch, model: Any) -> Mapping[str, Any]:
        with Path(self.note).open("a") as file:
            file.write("".join(f"{caption}\n" for caption in batch.captions))
        return {"width": np.array(batch.pictures, np.float32)}

    def prepare(self, picture: Any, model: Any) -> int:
        if picture.height == 9:
            raise SampleError("of this height it cannot be measured")
        return picture.width


@pytest.fixture
def pool(tmp_path, write_shard, sample, picture):
    """10 samples of 1 to 10 words; the 4th has no picture, the 6th one that Width rejects."""
    members = []
    for number in range(10):
        parts = sample(f"{number:02d}", number, caption=" ".join(["word"] * (number + 1)))
        if number == 5:
            parts[0] = (parts[0][0], picture(5, (24, 9)))
        members += parts[1:] if number == 3 else parts
    write_shard(tmp_path / "pool" / "s.tar", members)
    return tmp_path / "pool"


@pytest.fixture
def source(tmp_path):
    tables = {"captions": "captions-1"}
    return Source(Store(str(tmp_path / "store")), tables, Metadata("none"))


def run(pool: Path, source: Source, *wanted: Wanted) -> Spent:
    """Scores what the pool lacks; batches of 4 rows."""
    spent = Spent()
    loaded = [LoadedScorer(one, one.scorer.load("cpu")) for one in wanted]
    for task in find_tasks(find_shards(str(pool)), source.store, [one.folder for one in wanted]):
        spent.merge(score_shard(task, source, [one for one in loaded if one.folder in task.folders], 4))
    return spent


def table(source: Source, folder: str) -> dict[str, list[Any]]:
    return pq.read_table(source.store.scores(folder, "s")).to_pydict()


def few_words(source: Source, least: float, most: float = 99.0) -> Gate:
    judge = Column(column="captions.words", keep=(least, most), require=True)
    return Gate(source, [judge], [FittedRanges((least, most), None)])


CAPTIONS = Wanted("captions", "captions-1", Captions())


class TestReadingColumns:
    def test_gets_the_columns_of_usable_rows_cut_by_position(self, pool, source):
        run(pool, source, CAPTIONS)
        run(pool, source, Wanted("twice", "twice-1", Twice()))
        found = table(source, "twice-1")
        assert found["twice"] == [2, 4, 6, None, 10, 12, 14, 16, 18, 20]
        assert found["batch"] == [3, 3, 3, None, 4, 4, 4, 4, 2, 2]
        assert found["reject"][3] is not None
        assert [reject for row, reject in enumerate(found["reject"]) if row != 3] == [None] * 9

    def test_needs_no_shard(self, pool, source, monkeypatch):
        run(pool, source, CAPTIONS)
        wanted = Wanted("twice", "twice-1", Twice())
        tasks = find_tasks(find_shards(str(pool)), source.store, ["twice-1"])
        (pool / "s.tar").unlink()
        monkeypatch.setattr(files, "local_copy", None)
        score_shard(tasks[0], source, [LoadedScorer(wanted, None)], 4)
        assert table(source, "twice-1")["twice"][0] == 2

    def test_rows_that_were_not_measured_stay_null(self, pool, source, tmp_path):
        gated = Wanted("captions", "captions-1", Captions())
        run(pool, source, gated)
        known = pq.read_table(source.store.scores("captions-1", "s"))
        places = pa.array([0, None, 2, 3, 4, 5, 6, 7, 8, None])
        parquet.write_table(source.store.scores("captions-1", "s"), known.take(places))
        run(pool, source, Wanted("twice", "twice-1", Twice()))
        found = table(source, "twice-1")
        assert found["twice"] == [2, None, 6, None, 10, 12, 14, 16, 18, None]
        assert found["reject"][1] is None


class TestSkipping:
    def test_only_rows_that_pass_are_measured_and_the_others_are_null(self, pool, source, tmp_path):
        run(pool, source, CAPTIONS)
        width = Width(note=str(tmp_path / "note"))
        run(pool, source, Wanted("width", "width-1", width, few_words(source, 5), "u"))
        found = table(source, "width-1")
        assert found["width"] == [None] * 4 + [24, None, 24, 24, 24, 24]
        assert found["reject"][5] == "of this height it cannot be measured"
        assert [row for row, reject in enumerate(found["reject"]) if reject is not None] == [3, 5]
        assert len((tmp_path / "note").read_text().splitlines()) == 5

    def test_another_gate_measures_only_the_rows_that_are_new(self, pool, source, tmp_path):
        run(pool, source, CAPTIONS)
        width = Width(note=str(tmp_path / "note"))
        run(pool, source, Wanted("width", "width-1", width, few_words(source, 5), "u"))
        (tmp_path / "note").unlink()
        run(pool, source, Wanted("width", "width-2", width, few_words(source, 2, 8), "u", ("width-1", "width-9")))
        found = table(source, "width-2")
        assert found["width"] == [None, 24, 24, None, 24, None, 24, 24, None, None]
        assert found["reject"][5] == "of this height it cannot be measured"
        assert (tmp_path / "note").read_text().splitlines() == ["word word", "word word word"]

    def test_the_ungated_table_will_do_and_one_of_other_numbers_will_not(self, pool, source, tmp_path):
        run(pool, source, CAPTIONS)
        width = Width(note=str(tmp_path / "note"))
        run(pool, source, Wanted("width", "width-full", width))
        measured = len((tmp_path / "note").read_text().splitlines())
        assert measured == 8
        gate = few_words(source, 5)
        run(pool, source, Wanted("width", "width-2", width, gate, "full", ("width-full",)))
        assert len((tmp_path / "note").read_text().splitlines()) == measured
        assert table(source, "width-2")["width"] == [None] * 4 + [24, None, 24, 24, 24, 24]
        run(pool, source, Wanted("width", "width-3", width, gate, "other", ("width-full", "width-2")))
        assert len((tmp_path / "note").read_text().splitlines()) == measured + 5
