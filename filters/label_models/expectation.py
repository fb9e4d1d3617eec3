"""The steps of expectation maximisation over counted vote patterns, for sources with an error rate each."""

from typing import Literal

import numpy as np


def majority(voted: np.ndarray, prior: np.ndarray, shares: np.ndarray | None = None) -> np.ndarray:
    """Where the climb starts: the shares of the votes.

    Args:
        voted: (m sources, p patterns) class voted for, k for abstains.
        prior: (k,) what patterns without a vote get.
        shares: (m, p) how much each source counts; None: 1.

    Returns:
        (k, p) shares, summing to 1 over classes.
    """
    count = 1.0 if shares is None else shares
    ballots = np.stack([((voted == number) * count).sum(axis=0) for number in range(len(prior))])
    cast = ballots.sum(axis=0)
    return np.where(cast > 0, ballots / np.where(cast > 0, cast, 1), prior[:, None])


def expect(
    log_prior: np.ndarray, confusion: np.ndarray, voted: np.ndarray, shares: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The posterior of every pattern, in log space, one source after the other.

    Not a matrix product: that would be no faster here, and sums in an order that depends on the number of patterns.

    Args:
        log_prior: (k,) in nats.
        confusion: (m sources, k classes, s symbols) probabilities; without a symbol for them abstains say nothing.
        voted: (m, p patterns) class voted for, k for abstains.
        shares: (m, p) the power to which each probability is raised; None: 1.

    Returns:
        (k, p) P(class given the votes), and (p,) log P(votes) in nats.
    """
    classes = len(log_prior)
    table = np.zeros((len(confusion), classes, classes + 1))
    table[:, :, : confusion.shape[2]] = np.log(confusion)
    joint = np.repeat(log_prior[:, None], voted.shape[1], axis=1)
    for source, (row, votes) in enumerate(zip(table, voted, strict=True)):
        for number in range(classes):
            log_likelihood = row[number].take(votes)
            joint[number] += log_likelihood if shares is None else log_likelihood * shares[source]
    top = joint.max(axis=0)
    joint -= top
    np.exp(joint, out=joint)
    total = joint.sum(axis=0)
    joint /= total
    return joint, top + np.log(total)


def maximise(
    voted: np.ndarray,
    mass: np.ndarray,
    shares: np.ndarray | None,
    symbols: int,
    smoothing: float,
    form: Literal["confusion", "one_coin"],
) -> np.ndarray:
    """The most probable confusion given how much of each pattern is of which class.

    Args:
        voted: (m sources, p patterns) class voted for, k for abstains.
        mass: (k, p) samples of each class with that pattern.
        shares: (m, p) how much each source counts; None: 1.
        symbols: s, what a source can show: k classes, or these and the abstain.
        smoothing: pseudo-votes per source and class, spread evenly over the symbols.
        form: confusion, or one_coin for one accuracy per source.

    Returns:
        (m, k, s) probabilities of every symbol given the class.
    """
    k = len(mass)
    seen = [
        [
            np.bincount(row, weights=of_class if shares is None else of_class * shares[source], minlength=k + 1)
            for of_class in mass
        ]
        for source, row in enumerate(voted)
    ]
    shown = np.reshape(seen, (len(voted), k, k + 1))[:, :, :symbols] + smoothing / symbols
    rows: np.ndarray = shown / shown.sum(axis=2, keepdims=True)
    if form == "confusion":
        return rows
    votes = shown[:, :, :k]
    diagonal = np.eye(k, dtype=bool)
    right = votes[:, diagonal].sum(axis=1)
    wrong = votes[:, ~diagonal].sum(axis=1)  # not 1 - right, which rounds to 0 before the log
    coin: np.ndarray = np.where(diagonal, right[:, None, None], wrong[:, None, None] / (k - 1))
    coin /= (right + wrong)[:, None, None]
    if symbols == k:
        return coin
    return np.concatenate([coin * rows[:, :, :k].sum(axis=2, keepdims=True), rows[:, :, k:]], axis=2)
