"""The vote patterns that most samples show, with their counts and P(keep); of the others only the sum."""

from typing import Any

import numpy as np

from chaffinch.filters.fitted import Fitted
from chaffinch.filters.label_models.votes import merge_patterns

MOST_PATTERNS = 256

_SIGNS = np.array(["0", "+", "-"])  # indexed by 0, +1, -1


def list_patterns(
    fitted: Fitted, patterns: np.ndarray, counts: np.ndarray, most: int = MOST_PATTERNS
) -> dict[str, Any]:
    """The most frequent vote patterns of the filters that judge.

    Args:
        fitted: the judgement.
        patterns: (p patterns, m filters) int8 votes of all usable samples.
        counts: (p,) how many samples show each.
        most: how many patterns are told one by one.

    Returns:
        Plain JSON values: "filters", whose votes are told; "ruled_out", the samples that a required filter drops, which
        are no part of what follows; "patterns", the most frequent first, each with "votes" (a character for each
        filter: + keep, - drop, 0 abstain), "samples" and "probability"; "rest", how many patterns and samples are not
        told and their mean probability; "uncovered", the samples on which all abstain and the probability that they
        have before any vote. Probabilities are null where scores decide as well as votes.
    """
    judged = ~fitted.ruled_out(patterns)
    votes = patterns[judged]
    votes[:, [index for index in range(len(fitted.names)) if index not in set(fitted.judges)]] = 0
    votes, samples = merge_patterns(votes, counts[judged])
    probability = np.full(len(votes), np.nan) if fitted.ensemble.is_soft else fitted.ensemble.by_votes(votes)
    order = np.lexsort((np.arange(len(votes)), -samples))
    told, rest = order[:most], order[most:]
    silent = ~votes.any(axis=1)
    return {
        "filters": [fitted.names[index] for index in fitted.judges],
        "ruled_out": int(counts[~judged].sum()),
        "patterns": [
            {
                "votes": "".join(_SIGNS[votes[index, fitted.judges]]),
                "samples": int(samples[index]),
                "probability": _known(probability[index]),
            }
            for index in told
        ],
        "rest": {
            "patterns": len(rest),
            "samples": int(samples[rest].sum()),
            "probability": _known(np.average(probability[rest], weights=samples[rest])) if len(rest) else None,
        },
        "uncovered": {
            "samples": int(samples[silent].sum()),
            "probability": None
            if fitted.ensemble.is_soft
            else _known(fitted.ensemble.by_votes(np.zeros((1, len(fitted.names)), np.int8))[0]),
        },
    }


def _known(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
