"""What a run says of itself: Beam's counters, what is added up beside them, and messages that name shard and sample."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.metrics import MetricsFilter
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from chaffinch.filters.column import Column
from chaffinch.filters.fitted import Fitted
from chaffinch.pipeline.deciding.judgement import Judgement, Pool
from chaffinch.pipeline.deciding.learn import learn
from chaffinch.pipeline.deciding.verdicts import Decide
from chaffinch.pipeline.engines.counters import count_result
from chaffinch.pipeline.engines.engine import Engine, add_up
from chaffinch.pipeline.measuring.batches import LoadedScorer, ScoringError
from chaffinch.pipeline.measuring.feeds import Wanted
from chaffinch.pipeline.measuring.score import ScoreShard, find_tasks, score_shard
from chaffinch.pipeline.metadata import Metadata
from chaffinch.pipeline.rows import Source
from chaffinch.pipeline.shards import find_shards
from chaffinch.pipeline.store import Store
from chaffinch.scoring.captions import Captions
from chaffinch.scoring.scorer import Batch, SampleError, Scorer


@dataclass(frozen=True)
class Width(Scorer):
    """Columns: width (pixels); pictures of one width it rejects, and on two others it fails."""

    reads_pictures: ClassVar[bool] = True
    rejected: int = -1
    unprepared: int = -1
    unscored: int = -1
    most: int = 99

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        return {"width": pa.float32()}

    def prepare(self, picture: Any, model: Any) -> Any:
        if picture.width == self.rejected:
            raise SampleError("of this width it cannot be measured")
        if picture.width == self.unprepared:
            raise KeyError("no such\nwidth")
        return picture.width

    def score(self, batch: Batch, model: Any) -> Mapping[str, Any]:
        if self.unscored in batch.pictures:
            raise ZeroDivisionError("in the network")
        if len(batch) > self.most:
            raise IndexError("so many")
        return {"width": np.array(batch.pictures, np.float32)}


@pytest.fixture
def pool(tmp_path, write_shard, sample, picture) -> Path:
    """Shard a: 7 samples, the 3rd without a caption, the 5th 9 pixels wide; shard b: 2 samples."""
    members = []
    for number in range(7):
        parts = sample(f"a{number}", number)
        if number == 4:
            parts[0] = (parts[0][0], picture(4, (9, 16)))
        members += [parts[0], parts[2]] if number == 2 else parts
    write_shard(tmp_path / "pool" / "a.tar", members)
    write_shard(tmp_path / "pool" / "b.tar", [*sample("b0", 8), *sample("b1", 9)])
    return tmp_path / "pool"


@pytest.fixture
def source(tmp_path) -> Source:
    return Source(Store(str(tmp_path / "store")), {"captions": "captions-1", "width": "width-1"}, Metadata("none"))


WANTED = [Wanted("captions", "captions-1", Captions()), Wanted("width", "width-1", Width(rejected=9))]


def loaded(*wanted: Wanted) -> list[LoadedScorer]:
    return [LoadedScorer(one, one.scorer.load("cpu")) for one in wanted]


def counted(items: list[Any], work: beam.DoFn | Any) -> tuple[dict[str, int], dict[str, Any]]:
    """Beam's own counters and distributions after work on some items, by namespace and name."""
    step = beam.ParDo(work) if isinstance(work, beam.DoFn) else beam.Map(work)
    pipeline = beam.Pipeline(runner=FnApiRunner())
    pipeline | beam.Create(items) | "Work" >> step | beam.Map(count_result)
    result = pipeline.run()
    result.wait_until_finish()
    found = result.metrics().query(MetricsFilter())
    counters = {f"{one.key.metric.namespace} {one.key.metric.name}": one.committed for one in found["counters"]}
    shapes = {f"{one.key.metric.namespace} {one.key.metric.name}": one.committed for one in found["distributions"]}
    return counters, shapes


def test_scoring_counts_samples_rejects_and_how_full_batches_were(pool, source):
    tasks = find_tasks(find_shards(str(pool)), source.store, ["captions-1", "width-1"])
    counters, shapes = counted(tasks, ScoreShard(source, WANTED, 4, "cpu"))
    assert counters["shards scored"] == 2
    assert counters["shards samples"] == 9
    assert counters["shards rejects"] == 1
    assert counters["scorers.captions samples"] == 8
    assert counters["scorers.captions rejects"] == 0
    assert counters["scorers.width samples"] == 7
    assert counters["scorers.width rejects"] == 1
    # Batches of 3 and 3 in a (of 4 and 3 rows), of 2 in b, of 4 places each; without the wide one 3, 2 and 2.
    fill = shapes["scorers.captions batch_fill_percent"]
    assert (fill.count, fill.min, fill.max, fill.sum) == (3, 50, 75, 200)
    assert shapes["scorers.width batch_fill_percent"].sum == 75 + 50 + 50
    assert shapes["shards milliseconds"].count == 2


def test_the_sum_says_the_same(pool, source, tmp_path):
    tasks = find_tasks(find_shards(str(pool)), source.store, ["captions-1", "width-1"])
    spent = add_up(Engine(), "Score", tasks, ScoreShard(source, WANTED, 4, "cpu"), str(tmp_path / "scratch"))
    assert (spent.samples, spent.rejects, spent.shards) == (9, 1, 2)
    width = spent.scorers["width"]
    assert (width.samples, width.rejects, width.places) == (7, 1, 12)
    assert width.fill == pytest.approx(7 / 12)
    assert 0 < width.seconds < spent.seconds
    assert set(spent.loading) == {"captions", "width"}
    assert spent.memory > 1 << 20
    again = spent.summary()
    assert again["scorers"]["width"]["batch_fill"] == 0.583
    # A second pass over the same samples does not make them more.
    spent.follow(type(spent)(samples=9, rejects=1))
    assert (spent.samples, spent.rejects) == (9, 1)


def test_deciding_counts_votes(pool, source, tmp_path):
    shards = find_shards(str(pool))
    for task in find_tasks(shards, source.store, ["captions-1", "width-1"]):
        score_shard(task, source, loaded(*WANTED), 4)
    filters = {
        "words": Column(column="captions.words", keep=(1, None)),
        "wide": Column(column="width.width", keep=(99, None)),
    }
    judged = Pool(shards, source)
    scratch = str(tmp_path / "scratch")
    learned = learn(
        lambda label, parts, function: add_up(Engine(), label, parts, function, scratch),
        judged,
        None,
        Judgement(filters, {}, probability=0.5),
    )
    assert isinstance(learned.fitted, Fitted)
    decide = Decide(source, filters, learned.fitted, 0, str(tmp_path / "out"))
    counters, _ = counted(judged.parts(), decide)
    assert counters["decisions read"] == 9
    assert counters["decisions rejected"] == 2
    assert [counters[f"filters.wide {vote}"] for vote in ("keep", "drop", "abstain")] == [0, 7, 0]
    assert [counters[f"filters.words {vote}"] for vote in ("keep", "drop", "abstain")] == [7, 0, 0]


class TestMessages:
    """What goes wrong is told with the shard, and with the sample where one is at fault."""

    @pytest.mark.parametrize(
        ("scorer", "told"),
        [
            (Width(unprepared=9), r"shard a: scorer width failed on sample a4: KeyError: 'no such\\nwidth'"),
            (
                Width(unscored=9),
                r"shard a: scorer width failed: ZeroDivisionError: in the network \(sample a4 fails alone too\)",
            ),
            (
                Width(most=2),
                r"shard a: scorer width failed: IndexError: so many "
                r"\(in the batch of 3 samples from a0 to a3, none of them alone\)",
            ),
        ],
    )
    def test_a_scorer_that_fails(self, pool, source, scorer, told):
        task = find_tasks(find_shards(str(pool)), source.store, ["width-1"])[0]
        with pytest.raises(ScoringError, match=told):
            score_shard(task, source, [LoadedScorer(Wanted("width", "width-1", scorer), None)], 4)
        assert not Path(source.store.scores("width-1", "a")).exists()

    def test_rejects(self, pool, source, caplog):
        task = find_tasks(find_shards(str(pool)), source.store, ["captions-1", "width-1"])[0]
        with caplog.at_level(logging.INFO, "chaffinch"):
            score_shard(task, source, loaded(*WANTED), 4)
        assert caplog.messages == [
            "shard a: 1 samples rejected, such as a2: no caption",
            "shard a: 1 samples rejected by width, such as a4: of this width it cannot be measured",
        ]

    def test_a_shard_that_went_away(self, pool, source, caplog):
        task = find_tasks(find_shards(str(pool)), source.store, ["captions-1"])[0]
        score_shard(task, source, [], 4)
        task = find_tasks(find_shards(str(pool)), source.store, ["captions-1"])[0]
        (pool / "a.tar").unlink()
        score_shard(task, source, loaded(WANTED[0]), 4)
        assert any(one.startswith("shard a cannot be read: ") for one in caplog.messages)
