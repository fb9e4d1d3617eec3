"""A large pool is sampled, within bounds and always the same way; what is drawn from it follows the rows."""

import numpy as np
import pytest

from chaffinch.filters.cut import Cut
from chaffinch.filters.ensemble import Ensemble
from chaffinch.filters.fitted import Fitted
from chaffinch.filters.label_models.majority import Majority
from chaffinch.filters.ranges import FittedRanges
from chaffinch.jobs.config import load_config
from chaffinch.jobs.report.bins import find_bands, find_bins, label_bins
from chaffinch.jobs.report.charts import draw_scores, find_agreement
from chaffinch.jobs.report.contents import find_losses, find_stages
from chaffinch.jobs.report.galleries import find_edges, find_extremes, find_rejects
from chaffinch.jobs.report.sample import Sample, draw_sample
from chaffinch.jobs.report.words import interval, number, percent
from chaffinch.pipeline.rows import Source
from chaffinch.pipeline.store import Store, table_folder

INFINITY = float("inf")


@pytest.fixture(scope="module")
def draw(decided):
    """(most rows, most shards, seed) -> a sample of the decided pool."""
    config = load_config(str(decided.config), [])
    tables = {name: table_folder(name, scorer, "cpu") for name, scorer in config.scorers.items()}
    source = Source(Store(config.store), tables, config.metadata)
    counts = {name: found["read"] for name, found in decided.summary["shards"].items()}

    def one(most_rows=1000, most_shards=10, seed=0):
        return draw_sample(
            config.shards, counts, source, config.filters, str(decided.output), seed, most_rows, most_shards
        )

    return one


def test_a_small_pool_is_read_whole(draw, decided):
    sample, summary = draw(), decided.summary
    assert len(sample) == summary["read"]
    assert sample.keep.sum() == summary["kept"]
    assert sample.usable.sum() == summary["read"] - summary["rejected"]
    votes = sample.votes[sample.usable]
    for index, found in enumerate(summary["filters"].values()):
        assert (votes[:, index] == 1).mean() == pytest.approx(found["keep"])


def test_a_sample_is_bounded_and_always_the_same(draw):
    whole, part = draw(), draw(most_rows=50)
    assert len(part) == 50
    assert len(part.shards) == 2
    assert set(part.keys) <= set(whole.keys)
    place = {(shard, row): index for index, (shard, row) in enumerate(zip(whole.shard, whole.row, strict=True))}
    same = [place[shard, row] for shard, row in zip(part.shard, part.row, strict=True)]
    for name in ("keys", "votes", "keep", "reasons", "tie"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[same])
    np.testing.assert_array_equal(part.scores, whole.scores[:, same])
    np.testing.assert_array_equal(draw(most_rows=50).row, part.row)
    assert draw(most_rows=50, seed=1).row.tolist() != part.row.tolist()
    few = draw(most_shards=1)
    assert len(few.shards) == 1
    assert len(few) == 60
    assert {draw(most_shards=1, seed=seed).shards[0].name for seed in range(20)} == {one.name for one in whole.shards}


def make_sample(scores, votes, probability, keep, reasons=None):
    size = len(keep)
    return Sample(
        shards=(),
        shard=np.zeros(size, np.int64),
        row=np.arange(size),
        keys=np.array([str(row) for row in range(size)], object),
        tie=np.arange(size, dtype=np.uint64)[::-1],
        scores=np.array(scores, np.float32),
        votes=np.array(votes, np.int8),
        probability=np.array(probability, np.float32),
        keep=np.array(keep, bool),
        reasons=np.array(reasons or [None] * size, object),
    )


def make_fitted(ranges, required, sample):
    judges = [index for index, veto in enumerate(required) if not veto]
    model = Majority().fit(sample.votes[:, judges])
    ensemble = Ensemble({"quality": (tuple(judges), model)})
    names = [f"f{index}" for index in range(len(ranges))]
    return Fitted(names, required, ranges, {}, ensemble, False, Cut(0.5))


@pytest.fixture
def few():
    nan = float("nan")
    upward = FittedRanges((5, INFINITY), (-INFINITY, 2))
    sample = make_sample(
        scores=[[9, 5, 5.5, 2, 1, 3, 7, nan], [9, 1, 9, 9, 1, 1, 9, 9], [9, 9, 9, 9, 9, 9, 1, 9]],
        votes=[[1, 1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1], [-1, -1, 1], [0, -1, 1], [1, 1, -1], [0, 0, 0]],
        probability=[0.9, 0.5, 0.9, 0.4, 0.1, 0.2, 0, nan],
        keep=[1, 1, 1, 0, 0, 0, 0, 0],
        reasons=[None] * 3 + ["dropped: below the cut"] * 3 + ["dropped: required filter f2", "rejected: no picture"],
    )
    return sample, make_fitted([upward] * 3, [False, False, True], sample)


def test_extremes_leave_out_vetoes_and_rejects(few):
    kept, dropped, disputed = find_extremes(*few)
    assert kept.picks == [0, 2, 1]  # equal probability: then the soft score, then the hash
    assert dropped.picks == [4, 5, 3]
    assert disputed.picks == [1, 3]  # nearest to one half first


def test_edges_are_nearest_to_the_end_of_the_range_that_voted(few):
    edges = find_edges(*few)
    assert edges["f0"][0].picks == [1, 2, 6, 0]
    assert edges["f0"][1].picks == [3, 4]
    assert edges["f2"][1].picks == [6]
    assert 7 not in edges["f2"][0].picks


def test_rejects_that_differ_in_numbers_only_are_one_group(few):
    reasons = {"dropped: below the cut": 9, "rejected: cut (3 bytes)": 1, "rejected: cut (14 bytes)": 2}
    reasons |= {"rejected: no picture": 7} | {f"rejected: rare {'x' * index}": 1 for index in range(20)}
    groups = find_rejects(few[0], reasons)
    assert [(group.reason, group.count) for group in groups[:2]] == [("no picture", 7), ("cut", 3)]
    assert groups[0].picks == [7]
    assert len(groups) == 12
    assert groups[-1].reason == "other reasons"
    assert sum(group.count for group in groups) == 30


def test_agreement_is_of_samples_on_which_both_vote(few):
    share, both = find_agreement(few[0])
    slow = np.full((3, 3), np.nan)
    votes = few[0].votes[few[0].usable]
    for i in range(3):
        for j in range(3):
            voting = (votes[:, i] != 0) & (votes[:, j] != 0)
            assert both[i, j] == voting.sum()
            slow[i, j] = (votes[voting, i] == votes[voting, j]).mean()
    np.testing.assert_allclose(share, slow)


def test_a_bin_begins_at_the_end_of_a_range():
    values = np.random.default_rng(0).normal(size=1000)
    edges, whole = find_bins(values, [0.3])
    assert not whole
    assert np.abs(edges - 0.3).min() < 1e-9
    assert edges[0] <= values.min()
    assert edges[-1] >= values.max()
    tailed = np.concatenate([values, [1e6, -1e6]])
    edges, _ = find_bins(tailed, [0.3])
    assert -4 < edges[0] < edges[-1] < 4
    edges, whole = find_bins(np.array([1.0, 2, 2, 7]), [3.0])
    assert whole
    np.testing.assert_array_equal(edges, np.arange(1, 9) - 0.5)


@pytest.mark.parametrize("values", [[], [3.25], [0.0] * 9, [float("inf"), 1.5], [-7.5, -7.5], [1e30, 2.5e30]])
def test_odd_scores_have_a_histogram(values):
    scores = np.array([*values, float("nan")], np.float32)
    ranges = FittedRanges((0.5, INFINITY), None)
    figure = draw_scores(scores, ranges.vote(scores), ranges)
    assert sum(sum(bar.y) for bar in figure.data) == len(values)
    assert all(np.isfinite(figure.layout.xaxis.range))


def test_bins_in_words():
    assert label_bins(np.array([0, 0.5, 1.0]), above=True) == ["0 to 0.5", "0.5 and above"]
    assert label_bins(np.array([0.5, 1.5, 2.5]), whole=True, below=True) == ["1 and below", "2"]


def test_a_range_that_is_not_given_is_shaded_as_what_the_other_leaves():
    assert find_bands(FittedRanges((1, 4), None), False) == [
        ("drop", (-INFINITY, 1)),
        ("drop", (4, INFINITY)),
        ("keep", (1, 4)),
    ]
    assert find_bands(FittedRanges((3, INFINITY), (-INFINITY, 2)), True) == [
        ("drop", (-INFINITY, 2.5)),
        ("keep", (2.5, INFINITY)),
    ]
    nothing = FittedRanges((INFINITY, -INFINITY), None)
    assert find_bands(nothing, False) == [("drop", (-INFINITY, INFINITY))]


def test_the_funnel_takes_vetoes_in_their_order_and_ends_with_what_was_kept(decided):
    config, summary = load_config(str(decided.config), []), decided.summary
    losses, stages = find_losses(summary, config.filters), find_stages(summary, config.filters)
    assert [reason for reason, _ in losses][:2] == ["required filter size", "required filter shape"]
    assert sum(count for _, count in losses) == summary["dropped"]
    assert stages[-2][1] - stages[-1][1] == dict(losses)["below the cut"]


def test_numbers_as_people_read_them():
    assert [number(x) for x in (0.0, -0.0, 1234.56, 9999.6, -0.5, 0.00012345, 64)] == [
        "0",
        "0",
        "1,235",
        "10,000",
        "\N{MINUS SIGN}0.5",
        "0.000123",
        "64",
    ]
    assert [percent(x) for x in (0, 1e-9, 0.5, 0.99999, 1)] == ["0.0%", "<0.1%", "50.0%", ">99.9%", "100.0%"]
    assert interval((0.2, INFINITY)) == "0.2 and above"
    assert interval((-INFINITY, 3)) == "3 and below"
    assert interval((INFINITY, -INFINITY)) == "nothing"
    assert interval(None) == "all other scores"
