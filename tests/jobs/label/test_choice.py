"""Which samples are asked about: against a slow twin that has every sample in memory, and in any order of shards."""

import itertools
import math

import numpy as np
import pyarrow as pa
import pytest

from chaffinch.filters.cut import Cut, hash_uids
from chaffinch.filters.ensemble import Ensemble
from chaffinch.filters.fitted import Fitted
from chaffinch.filters.label_models import DawidSkene, Majority
from chaffinch.filters.label_models.evidence import Evidence, Votes
from chaffinch.filters.label_models.gaussian import Gaussian
from chaffinch.filters.label_models.votes import count_patterns
from chaffinch.filters.ranges import FittedRanges
from chaffinch.jobs.label.choice import choose, least_sure
from chaffinch.pipeline.deciding import candidates as module
from chaffinch.pipeline.deciding.candidates import FindCandidates
from chaffinch.pipeline.deciding.labels import Labels
from chaffinch.pipeline.deciding.verdicts import decisions_path
from chaffinch.pipeline.rows import Part
from chaffinch.pipeline.shards import Shard
from chaffinch.pipeline.storage.parquet import write_table

NAMES = ["a", "veto", "b", "c", "d"]
ASPECTS = ["one", None, "one", "one", "two"]


@pytest.fixture
def pool(tmp_path):
    """(seed, samples, soft) -> decisions in shards, the judgement, and all rows as dictionaries."""

    def write(seed, samples, soft=False, shards=3):
        chance = np.random.default_rng(seed)
        good = chance.random((samples, 2)) < [0.6, 0.8]
        votes = np.zeros((samples, 5), np.int8)
        for column, (aspect, accuracy, coverage) in enumerate(
            [(0, 0.8, 0.9), (0, 0.95, 1.0), (0, 0.7, 0.6), (0, 0.9, 0.8), (1, 0.9, 0.7)]
        ):
            right = np.where(good[:, aspect], 1, -1) * np.where(chance.random(samples) < accuracy, 1, -1)
            votes[:, column] = np.where(chance.random(samples) < coverage, right, 0)
        votes[:, 1] = np.where(chance.random(samples) < 0.1, -1, 1)
        patterns, counts = count_patterns(votes[votes[:, 1] == 1])
        models = {"one": DawidSkene(), "two": Majority()}
        ensemble = Ensemble.fit(ASPECTS, models, Evidence(Votes(patterns, counts)))
        probability = ensemble.by_votes(votes)
        if soft:
            probability = np.clip(probability + chance.normal(0, 0.2, samples), 0, 1).astype(np.float32)
        probability[votes[:, 1] == -1] = 0
        rejected = chance.random(samples) < 0.05
        cut = float(np.median(probability[~rejected & (votes[:, 1] == 1)]))
        lot = chance.random(samples) < 0.5
        kept = ~rejected & (votes[:, 1] == 1) & ((probability > cut) | ((probability == np.float32(cut)) & lot))
        uncovered = (votes[:, [0, 2, 3, 4]] == 0).all(axis=1)
        reasons = np.where(uncovered, "dropped: every filter abstains", "dropped: below the cut").astype(object)
        reasons[votes[:, 1] == -1] = "dropped: required filter veto"
        reasons[rejected] = "rejected: broken"
        kept &= ~uncovered
        reasons[kept] = None
        uids = chance.integers(0, 2**63, (samples, 2)).astype(np.uint64)
        ranges = [FittedRanges((0.0, 1.0), None)] * 5
        fitted = Fitted(NAMES, [name == "veto" for name in NAMES], ranges, {}, ensemble, False, Cut(cut))
        parts, rows = [], []
        for number, mine in enumerate(np.array_split(np.arange(samples), shards)):
            part = Part(number, Shard(f"{number:08d}", "", 0, 0.0))
            table = {
                "uid": [f"{high:016x}{low:016x}" for high, low in uids[mine].tolist()],
                "key": [str(row) for row in mine],
                **{f"vote_{name}": votes[mine, index] for index, name in enumerate(NAMES)},
                "probability": pa.array(probability[mine], mask=rejected[mine], from_pandas=False),
                "keep": kept[mine],
                "reason": pa.array(reasons[mine].tolist(), pa.string()),
            }
            write_table(decisions_path(str(tmp_path), part.shard.name), pa.table(table))
            parts.append(part)
            for index in mine.tolist():
                rows.append(
                    {
                        "uid": tuple(uids[index].tolist()),
                        "votes": tuple(votes[index, [0, 2, 3, 4]].tolist()),
                        "p": probability[index],
                        "usable": not rejected[index] and votes[index, 1] != -1,
                        "kept": bool(kept[index]),
                        "below": reasons[index] == "dropped: below the cut",
                    }
                )
        return str(tmp_path), parts, fitted, rows

    return write


def gathered(output, parts, fitted, samples, seed=0, labels=None):
    find = FindCandidates(output, fitted, samples, seed, labels)
    total, *rest = [find(part) for part in parts]
    for one in rest:
        total = total.merge(one)
    return total


def told(choice):
    uids = zip(choice.rows["high"].tolist(), choice.rows["low"].tolist(), strict=True)
    return list(zip(uids, choice.at_random.tolist(), strict=True)), set(map(tuple, choice.met.tolist()))


def slow_choice(rows, fitted, samples, seed, known):
    """The rule as it is written down, over all samples at once."""

    def lot(row, seed):
        return int(hash_uids(np.array([row["uid"]], np.uint64), seed)[0])

    able = sorted((row for row in rows if row["usable"]), key=lambda row: (lot(row, seed), row["uid"]))
    drawn, met = [], []
    while able and len(drawn) < math.ceil(samples / 3):
        row = able.pop(0)
        (met if row["uid"] in known else drawn).append(row)
    strata = {}
    everybody = [*drawn, *met, *able]
    for row in everybody:
        row["stratum"] = (row["votes"], min(int(np.float32(20) * row["p"]), 19))
        strata.setdefault(row["stratum"], []).append(row)
    free = [row for row in able if row["uid"] not in known]
    sides = [[row for row in free if row["kept"]], [row for row in free if row["below"]]]
    for side in sides:
        side.sort(key=lambda row: (abs(float(row["p"]) - fitted.cut.probability), lot(row, seed)))
    pairs = [row for pair in itertools.zip_longest(*sides) for row in pair if row is not None]
    near = pairs[: min(samples // 6, samples - len(drawn))]
    free = [row for row in free if row not in near]
    answered = [row["stratum"] for row in [*drawn, *near] + [row for row in everybody if row["uid"] in known]]
    picked, aspects = [], []
    wanted = samples - len(drawn) - len(near)

    def gain(row, aspect):
        p = min(max(float(row["p"]), 0.01), 0.99)
        answers = answered.count(row["stratum"])
        spread = len(strata[row["stratum"]]) * math.sqrt(p * (1 - p) / ((answers + 1) * (answers + 2)))
        return spread / (aspects.count(aspect) + 1)

    def aspect_of(row):
        """By which aspect the first sample of the row's stratum that was left to pick is least sure."""
        chances = []
        for columns, model in fitted.ensemble.aspects.values():
            votes = np.zeros((1, 5), np.int8)
            votes[0, [0, 2, 3, 4]] = row["votes"]
            chances.append(abs(float(model.predict_proba(votes[:, columns])[0]) - 0.5))
        return chances.index(min(chances))

    while free and len(picked) < wanted:
        heads = {}
        for row in free:  # in the order of their hashes
            heads.setdefault(row["stratum"], row)
        ordered = [heads[stratum] for stratum in sorted(heads, key=lambda one: (np.int8(one[0]).tobytes(), one[1]))]
        few = [row for row in ordered if sum(one["stratum"] == row["stratum"] for one in picked) < -(-wanted // 4)]
        best = max(few or ordered, key=lambda row: gain(row, aspect_of(row)))
        picked.append(best)
        aspects.append(aspect_of(best))
        answered.append(best["stratum"])
        free.remove(best)
    asked = [(row["uid"], row in drawn) for row in [*drawn, *near, *picked]]
    asked.sort(key=lambda one: int(hash_uids(np.array([one[0]], np.uint64), seed + 1)[0]))
    return asked, {row["uid"] for row in met}


@pytest.mark.parametrize(
    ("seed", "pool_size", "samples", "soft", "share_known"),
    [
        (0, 400, 60, False, 0),
        (1, 400, 31, True, 0.1),
        (2, 90, 60, False, 0.3),
        (3, 40, 60, True, 0),
        (4, 200, 1, False, 0),
    ],
)
def test_it_is_the_rule_that_is_written_down(pool, seed, pool_size, samples, soft, share_known):
    output, parts, fitted, rows = pool(seed, pool_size, soft)
    known = sorted(row["uid"] for row in rows if np.random.default_rng(row["uid"]).random() < share_known)
    uids = np.array(known, np.uint64).reshape(-1, 2)
    labels = Labels(uids, np.ones(len(known), bool), np.zeros(len(known), bool)) if known else None
    found = choose(gathered(output, parts, fitted, samples, seed, labels), fitted, samples, seed)
    assert told(found) == slow_choice(rows, fitted, samples, seed, set(known))
    usable = {row["uid"] for row in rows if row["usable"]}
    asked = [uid for uid, _ in told(found)[0]]
    assert len(set(asked)) == len(asked) == min(samples, len(usable - set(known)))
    assert set(asked) <= usable - set(known)


@pytest.mark.parametrize("held", [1 << 18, 150])
def test_the_order_of_shards_changes_nothing(pool, monkeypatch, held):
    monkeypatch.setattr(module, "MOST_HELD", held)
    output, parts, fitted, _ = pool(5, 600, True, shards=4)
    answers = []
    for order in itertools.permutations(parts):
        total = gathered(output, order, fitted, 60)
        answers.append(told(choose(total, fitted, 60, 0)))
        assert sum(len(members.rows) for members in total.strata.values()) <= max(held, len(total.strata))
    assert all(answer == answers[0] for answer in answers)
    assert len(answers[0][0]) == 60


def test_few_rows_are_held_of_a_large_pool(pool):
    output, parts, fitted, rows = pool(6, 20_000)
    total = gathered(output, parts, fitted, 9)
    assert sum(members.count for members in total.strata.values()) == sum(row["usable"] for row in rows)
    assert len(total.drawn) == len(total.kept) == len(total.dropped) == 9
    assert all(len(members.rows) <= 9 for members in total.strata.values())


def test_picks_are_of_many_patterns_and_of_both_aspects(pool):
    output, parts, fitted, rows = pool(7, 5000)
    by_uid = {row["uid"]: row for row in rows}
    asked, _ = told(choose(gathered(output, parts, fitted, 60), fitted, 60, 0))
    picked = [by_uid[uid] for uid, at_random in asked if not at_random]
    votes = [row["votes"] for row in picked]
    assert len(set(votes)) >= 10
    assert max(map(votes.count, votes)) <= 10 + 8  # near the cut, and a quarter of the picks
    # Of an aspect of one filter nothing is as unsure as where that filter abstains.
    assert sum(row["votes"][3] == 0 for row in picked) >= 5
    unsure = [float(row["p"] * (1 - row["p"])) for row in picked]
    assert np.mean(unsure) > np.mean([float(row["p"] * (1 - row["p"])) for row in rows if row["usable"]])


def test_who_is_drawn_is_a_matter_of_chance_alone(pool):
    """Over many seeds every sample is drawn about as often, whatever its probability."""
    output, parts, fitted, rows = pool(8, 60)
    seen = {row["uid"]: 0 for row in rows if row["usable"]}
    for seed in range(300):
        for uid, at_random in told(choose(gathered(output, parts, fitted, 30, seed), fitted, 30, seed))[0]:
            seen[uid] += at_random
    wanted = 300 * 10 / len(seen)
    assert sum(seen.values()) == 300 * 10
    deviation = math.sqrt(wanted * (1 - 10 / len(seen)))
    assert all(abs(count - wanted) < 4.5 * deviation for count in seen.values())


def test_a_second_round_goes_on_with_the_draw(pool):
    """What both rounds call random is what one larger draw would have been, earlier picks that it meets among it."""
    output, parts, fitted, _ = pool(9, 300)
    first = choose(gathered(output, parts, fitted, 60), fitted, 60, 0)
    said = sorted(told(first)[0])
    labels = Labels(
        np.array([uid for uid, _ in said], np.uint64), np.ones(60, bool), np.array([one for _, one in said])
    )
    second, met = told(choose(gathered(output, parts, fitted, 60, 0, labels), fitted, 60, 0))
    assert not {uid for uid, _ in second} & {uid for uid, _ in said}
    together = {uid for uid, one in said if one} | {uid for uid, one in second if one} | met
    larger, _ = told(choose(gathered(output, parts, fitted, 3 * len(together)), fitted, 3 * len(together), 0))
    assert together == {uid for uid, one in larger if one}
    assert len(met) > 20  # a pool as small as this one has the draw come upon picks


def test_a_pool_without_filters_or_without_a_cut_is_drawn_from_too(pool):
    output, parts, _, _ = pool(10, 100)
    none = Fitted([], [], [], {}, Ensemble({}), False, Cut(math.inf))
    choice = choose(gathered(output, parts, none, 12), none, 12, 0)
    assert len(choice) == 12
    assert choice.at_random.sum() == 4


def test_what_votes_do_not_explain_is_put_down_to_aspects_that_judge_by_scores():
    votes = np.array([[1], [1], [1], [-1]], np.int8)
    model = Majority().fit(votes)
    (likely,) = model.predict_proba(votes[:1])
    assert likely > 0.6
    ensemble = Ensemble({"votes": ((0,), model), "scores": ((1,), Gaussian())})
    fitted = Fitted(["a", "b"], [False, False], [], {}, ensemble, False, Cut(0.5))
    patterns = [np.int8([1, 0]).tobytes()] * 3
    found = least_sure(fitted, patterns, np.array([likely / 2, likely, 0.0]))
    assert found.tolist() == [1, 0, 0]
    assert least_sure(fitted, [], np.zeros(0)).tolist() == []
