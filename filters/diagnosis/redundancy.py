"""Which sources are one opinion, and how many independent ones they are worth."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from chaffinch.filters.diagnosis.refits import Refits
from chaffinch.filters.label_models.echoes import excess_correlation
from chaffinch.filters.label_models.opinions import opinion_weights

_MOST_SAMPLES_CHECKED = 20_000  # where the label model has not looked for it


def measure_excess(refits: Refits) -> np.ndarray | None:
    """How far sources are one opinion: as the label model found, or from votes where it does not look for that.

    Args:
        refits: the label model and its votes.

    Returns:
        (m, m) excess correlation in [0, 1], unit diagonal; None for a rule, and where nothing was counted.
    """
    model = refits.model
    found = getattr(model, "excess_correlation_", getattr(model, "opinion_correlation_", None))
    m = refits.evidence.votes.patterns.shape[1]
    if found is not None:
        return np.asarray(found, np.float64).reshape(m, m)
    if model.is_rule or not len(refits.evidence.votes.counts):
        return None
    if m == 1:
        return np.eye(m)
    return excess_correlation(*refits.thinned(_MOST_SAMPLES_CHECKED), classes=getattr(model, "classes", 2))


def count_sources(excess: np.ndarray) -> float:
    """How many independent sources the sources are worth where all of them vote.

    Args:
        excess: (m, m) excess correlation.

    Returns:
        In [0, m].
    """
    return float(opinion_weights(excess, np.ones((1, len(excess)), bool)).sum())


def list_correlated(names: Sequence[str], excess: np.ndarray) -> list[dict[str, Any]]:
    """Pairs that agree beyond what the class explains, the strongest first.

    Args:
        names: (m,) of the sources.
        excess: (m, m) excess correlation.

    Returns:
        Plain JSON values: for each pair "filters", two names, and "excess_correlation", in (0, 1].
    """
    pairs = [(i, j) for i in range(len(names)) for j in range(i) if excess[i, j] > 0]
    pairs.sort(key=lambda pair: (-excess[pair], pair))
    return [{"filters": [names[j], names[i]], "excess_correlation": round(float(excess[i, j]), 6)} for i, j in pairs]
