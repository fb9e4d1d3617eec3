"""Which samples are asked about: some by chance, some near the cut, the others where an answer tells most."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chaffinch.filters.cut import hash_uids
from chaffinch.filters.fitted import Fitted
from chaffinch.filters.label_models.soft_label_model import SoftLabelModel
from chaffinch.pipeline.deciding.candidates import Candidates

_SUREST = 0.99


@dataclass(frozen=True)
class Choice:
    """What is asked.

    Attributes:
        rows: (n,) samples in the order in which they are shown, as `chaffinch.pipeline.deciding.candidates.ROWS` has
            them.
        at_random: (n,) bool whether each was drawn by chance.
        met: (k, 2) uint64 uids of samples that have a label and that the draw came upon: they are drawn by chance, too,
            whatever they were before.
    """

    rows: np.ndarray
    at_random: np.ndarray
    met: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


def choose(candidates: Candidates, fitted: Fitted, samples: int, seed: int) -> Choice:
    """Chooses samples to ask about; the same candidates and seed give the same choice.

    A third is drawn: those of the lowest seeded hashes of the uid. They alone tell which share of the pool is good. The
    draw passes over samples that have a label until it has found enough without one.

    A sixth is taken from both sides of the cut in turn, nearest P(keep) first.

    The others are taken one by one where an answer tells most. Samples of equal votes (and, where label models judge by
    scores, of P(keep) in the same twentieth) form a stratum. Of N samples with P(keep) p the number of good ones is
    uncertain by N s with s = sqrt(p (1 - p)), the largest at one half; p counts as 0.01 or 0.99 where it is beyond,
    since no model is that sure. The label model's opinion counts as one answer, so that after j answers another one
    lowers the variance by (N s)^2 / ((j + 1) (j + 2)), and the next sample is of the stratum in which
    N s / sqrt((j + 1) (j + 2)) is highest. That alone would leave out small aspects: a stratum belongs to the aspect
    that is least sure of it, and after k picks for an aspect, its strata count 1 / (k + 1) of that, which shares picks
    out by the square root. No more than a quarter (rounded up) are of one stratum while others are left. Within a
    stratum the lowest hashes are taken.

    At last all are put into an order by another hash, which says nothing of any of this.

    Args:
        candidates: what there is to choose from.
        fitted: the judgement.
        samples: how many to choose; all where there are fewer.
        seed: of the order; that of the draw is in the candidates' hashes.

    Returns:
        The choice.

    Source: Neyman 1934, "On the two different aspects of the representative method"; sample by sample, Wright 2012,
        "The equivalence of Neyman optimum allocation for sampling and equal proportions for apportioning the U.S. House
        of Representatives"; Bankier 1988, "Power allocations", for the square root between aspects.
    """
    drawn, met, last = _draw(candidates, -(-samples // 3))
    near = _near_cut(candidates, last, min(samples // 6, samples - len(drawn)))
    picked = _pick(candidates, fitted, last, near, samples - len(drawn) - len(near))
    rows = np.concatenate([drawn, near, picked])
    at_random = np.arange(len(rows)) < len(drawn)
    order = np.lexsort((rows["low"], rows["high"], hash_uids(_uids(rows), seed + 1)))
    return Choice(rows[order], at_random[order], _uids(met))


def _draw(candidates: Candidates, wanted: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The rows drawn, the labelled rows that the draw came upon, and the last hash that it reached; -1 for none."""
    rows = candidates.drawn
    enough = np.searchsorted(np.cumsum(~rows["labelled"]), wanted) + 1
    reached = rows[:enough]
    last = int(reached["tie"][-1]) if len(reached) else -1
    return reached[~reached["labelled"]], reached[reached["labelled"]], last


def _near_cut(candidates: Candidates, last: int, wanted: int) -> np.ndarray:
    """Rows from both sides of the cut in turn, beginning with what is kept; one side alone where the other ends."""
    sides = [_beyond(side, last) for side in (candidates.kept, candidates.dropped)]
    rank = np.concatenate([2 * np.arange(len(side)) + number for number, side in enumerate(sides)])
    found: np.ndarray = np.concatenate(sides)[np.argsort(rank)[:wanted]]
    return found


def _pick(candidates: Candidates, fitted: Fitted, last: int, near: np.ndarray, wanted: int) -> np.ndarray:
    """Rows where an answer tells most."""
    taken = set(map(tuple, _uids(near).tolist()))
    strata = sorted(candidates.strata)
    left: list[list[np.void]] = []
    size, answers = np.empty(len(strata)), np.empty(len(strata))
    for index, stratum in enumerate(strata):
        members = candidates.strata[stratum]
        free = [row for row in _beyond(members.rows, last) if (int(row["high"]), int(row["low"])) not in taken]
        left.append(free[::-1])
        size[index] = members.count
        answers[index] = members.labelled + len(members.rows) - len(free)
    probability = np.array([rows[-1]["probability"] if rows else 0.0 for rows in left], np.float64)
    aspect = least_sure(fitted, [votes for votes, _ in strata], probability)
    found: list[np.void] = []
    own, of_aspect = np.zeros(len(strata), int), np.zeros(max(len(fitted.ensemble.aspects), 1), int)
    most = -(-wanted // 4)
    while len(found) < wanted and any(left):
        p = np.clip(probability, 1 - _SUREST, _SUREST)
        gain = size * np.sqrt(p * (1 - p) / ((answers + 1) * (answers + 2))) / (of_aspect[aspect] + 1)
        gain[[not rows for rows in left]] = -1.0
        open_ = gain * (own < most)
        best = int(np.argmax(open_ if open_.max() > 0 else gain))
        found.append(left[best].pop())
        own[best] += 1
        answers[best] += 1
        of_aspect[aspect[best]] += 1
        if left[best]:
            probability[best] = left[best][-1]["probability"]
    return np.array(found, candidates.drawn.dtype)


def least_sure(fitted: Fitted, votes: Sequence[bytes], probability: np.ndarray) -> np.ndarray:
    """The aspect by which it is least sure whether samples are good: that whose own P(keep) is nearest to one half.

    Args:
        fitted: the judgement.
        votes: (s,) int8 votes of the filters that do not veto.
        probability: (s,) P(keep) of the ensemble. Aspects that judge by scores are taken to make up for what the others
            do not explain.

    Returns:
        (s,) positions among the ensemble's aspects; all 0 where there is none.
    """
    patterns = np.zeros((len(votes), len(fitted.names)), np.int8)
    patterns[:, fitted.judges] = np.frombuffer(b"".join(votes), np.int8).reshape(len(votes), len(fitted.judges))
    found = np.full((max(len(fitted.ensemble.aspects), 1), len(votes)), np.nan)
    explained = np.ones(len(votes))
    for index, (columns, model) in enumerate(fitted.ensemble.aspects.values()):
        if columns and len(votes) and not isinstance(model, SoftLabelModel):
            found[index] = model.predict_proba(patterns[:, columns])
            explained *= found[index]
    rest = np.divide(probability, explained, out=np.ones(len(votes)), where=explained > probability)
    distance = np.abs(np.where(np.isnan(found), rest, found) - 0.5)
    nearest: np.ndarray = np.argmin(distance, axis=0)
    return nearest


def _beyond(rows: np.ndarray, last: int) -> np.ndarray:
    """The rows that the draw did not reach."""
    left: np.ndarray = rows[rows["tie"] > np.uint64(last)] if last >= 0 else rows
    return left


def _uids(rows: np.ndarray) -> np.ndarray:
    """(n, 2) uint64 uids of rows."""
    return np.stack([rows["high"], rows["low"]], axis=1)
