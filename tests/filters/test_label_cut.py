"""Cuts that labels make: against plain loops, in closed cases, and nearer to a planted optimum as labels grow."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaffinch.filters.label_cut import FEWEST, cut_by_labels
from chaffinch.filters.ranges import FittedRanges

INF = float("inf")


def slow(scores, keep):
    """Every cut by itself: (what lies below it, balanced accuracy) of the best, the lenient and the strict one."""
    pairs = [(float(score), bool(said)) for score, said in zip(scores, keep, strict=True) if not math.isnan(score)]
    good, bad = [s for s, said in pairs if said], [s for s, said in pairs if not said]
    levels = sorted({score for score, _ in pairs})
    cuts = []
    for low, high in itertools.pairwise(levels):
        lost, caught = sum(s <= low for s in good), sum(s <= low for s in bad)
        cuts.append((low, high, lost, caught, caught * len(good) - lost * len(bad)))
    best = sorted(cuts, key=lambda cut: (-cut[4], cut[0] - cut[1], cut[0]))[0]
    within = []
    for cut in cuts:
        g, b = abs(best[2] - cut[2]) / len(good), abs(best[3] - cut[3]) / len(bad)
        error = math.sqrt(g * (1 - g) / len(good) + b * (1 - b) / len(bad))
        if (best[4] - cut[4]) / (len(good) * len(bad)) <= error:
            within.append(cut)
    return [(cut[0], cut[1]) for cut in (best, within[0], within[-1])], 0.5 + best[4] / (2 * len(good) * len(bad))


def enough(values):
    said = np.array([kept for _, kept in values])
    return min(said.sum(), (~said).sum()) >= FEWEST and len({score for score, _ in values}) > 1


LABELLED = st.lists(st.tuples(st.integers(-6, 6), st.booleans()), min_size=25, max_size=70).filter(enough)


@settings(deadline=None)
@given(LABELLED, st.booleans(), st.randoms(use_true_random=False))
def test_cuts_are_those_of_plain_loops_in_any_order(values, high_is_good, shuffler):
    values = [(score if high_is_good else -score, said) for score, said in values]
    scores, keep = np.array([s for s, _ in values], np.float32) / 8, np.array([said for _, said in values])
    found = cut_by_labels(scores, keep, high_is_good)
    (_, lenient, strict), accuracy = slow(scores if high_is_good else -scores, keep)
    assert found.best == pytest.approx(accuracy)
    for (good_side, bad_side), (low, high) in ((found.lenient, lenient), (found.strict, strict)):
        low, high = (low, high) if high_is_good else (-high, -low)
        middle = (low + high) / 2
        assert good_side == ((middle, INF) if high_is_good else (-INF, middle))
        assert bad_side == ((-INF, middle) if high_is_good else (middle, INF))
    shuffler.shuffle(values)
    assert found == cut_by_labels(
        np.array([s for s, _ in values], np.float32) / 8, np.array([k for _, k in values]), high_is_good
    )
    assert FittedRanges(found.lenient[0], None).vote(scores)[keep].tolist().count(1) == round(
        found.good_kept * found.good
    )


def test_what_is_parted_entirely_is_cut_in_the_middle_of_the_gap():
    scores = np.array([*range(10), *range(20, 32), np.nan], np.float32)
    keep = np.array([False] * 10 + [True] * 13)
    found = cut_by_labels(scores, keep, True)
    assert found.lenient == found.strict == ((14.5, INF), (-INF, 14.5))
    assert (found.good, found.bad, found.unjudged) == (12, 10, 1)
    assert (found.auc, found.best, found.balanced_accuracy, found.good_kept, found.bad_kept) == (1, 1, 1, 1, 0)
    assert found.finding == "parts"
    assert cut_by_labels(scores, keep, False).finding == "reversed"


def test_neighbouring_and_infinite_scores_stay_on_their_sides():
    one = np.float32(1)
    scores = np.array([one] * 10 + [np.nextafter(one, np.float32(2))] * 10, np.float32)
    keep = np.arange(20) >= 10
    good_side, bad_side = cut_by_labels(scores, keep, True).lenient
    assert FittedRanges(good_side, None).vote(scores).tolist() == [-1] * 10 + [1] * 10
    assert FittedRanges(None, bad_side).vote(scores).tolist() == [-1] * 10 + [1] * 10
    scores = np.array([-np.inf] * 10 + [np.inf] * 10, np.float32)
    found = cut_by_labels(scores, keep, True)
    assert FittedRanges(*found.lenient).vote(scores).tolist() == [-1] * 10 + [1] * 10
    assert np.isfinite(found.lenient[0][0])


def test_too_few_labels_are_refused_with_their_numbers():
    scores, keep = np.arange(25, dtype=np.float32), np.arange(25) >= 12
    scores[-4:] = np.nan
    with pytest.raises(ValueError, match=r"needs 10 good and 10 bad samples .* there are 9 good and 12 bad ones"):
        cut_by_labels(scores, keep, True)
    with pytest.raises(ValueError, match=r"all 24 samples with a label have the score 0\.5"):
        cut_by_labels(np.full(24, 0.5, np.float32), np.arange(24) % 2 == 0, True)


def draw(generator, n, spoilt=0.0):
    """Good ones lie about 1.5, bad ones about 0: the best cut is 0.75, also where some are bad for another reason."""
    keep = generator.random(n) < 0.5
    looks_good = keep | (generator.random(n) < spoilt)
    return (generator.normal(0, 1, n) + 1.5 * looks_good).astype(np.float32), keep


@pytest.mark.parametrize("spoilt", [0.0, 0.4])
def test_cuts_come_nearer_to_the_planted_one_as_labels_grow(spoilt):
    generator = np.random.default_rng(3)
    distance = []
    for labels in (40, 400, 4000):
        cuts = [cut_by_labels(*draw(generator, labels, spoilt), True) for _ in range(60)]
        ends = np.array([cut.lenient[0][0] for cut in cuts])
        assert (ends <= [cut.strict[0][0] for cut in cuts]).all()
        assert ends.mean() < 0.75  # on the side that loses no good samples
        distance.append(float(np.abs(ends - 0.75).mean()))
    assert distance[0] > distance[1] > distance[2]
    assert distance[2] < 0.3


def test_the_lenient_cut_keeps_more_good_samples_for_little_balanced_accuracy():
    generator = np.random.default_rng(4)
    scores, keep = draw(generator, 20_000)
    lost = {"lenient": [], "strict": []}
    for _ in range(100):
        cut = cut_by_labels(*draw(generator, 60), True)
        for name in lost:
            votes = FittedRanges(getattr(cut, name)[0], None).vote(scores)
            lost[name].append(
                (np.mean(votes[keep] == -1), (np.mean(votes[keep] == 1) + np.mean(votes[~keep] == -1)) / 2)
            )
    (lenient, accuracy), (strict, _) = (np.mean(lost[name], axis=0) for name in ("lenient", "strict"))
    assert lenient < strict / 2
    assert accuracy > 0.773 - 0.06  # 0.773 is what the best cut has


def test_a_score_that_tells_nothing_is_seldom_believed():
    generator = np.random.default_rng(5)
    findings = [
        cut_by_labels(generator.normal(size=60).astype(np.float32), generator.random(60) < 0.5, True).finding
        for _ in range(400)
    ]
    assert 0.06 < findings.count("parts") / 400 < 0.14
    assert 0.06 < findings.count("reversed") / 400 < 0.14
