"""Which filters of an aspect judge the same thing: groups by how their votes correlate."""

import numpy as np

from chaffinch.filters.diagnosis.agreement import Agreement

LEAST_CORRELATION = 0.05
"""What two filters that are right in 61 of 100 votes have, where half of the samples are good; less is no peer."""


def group_filters(agreement: Agreement) -> list[list[int]]:
    """Puts filters together that agree beyond chance.

    Groups are joined, the most alike first, as long as the mean correlation between the filters of one and of the other
    is 0.05 or more; correlations that are no more than chance count as 0. So a filter has to agree with a group, and
    not only with one of its members.

    Args:
        agreement: of m filters.

    Returns:
        The groups, each as positions in order; the largest first, of equally large ones that of the first filter.
    """
    related = agreement.related(LEAST_CORRELATION)
    m = len(related)
    if m < 2:
        return [[index] for index in range(m)]
    from scipy.cluster.hierarchy import fcluster, linkage

    merges = linkage(1 - related[np.triu_indices(m, 1)], method="average")
    label = fcluster(merges, 1 - LEAST_CORRELATION, criterion="distance")
    groups = [np.flatnonzero(label == number).tolist() for number in np.unique(label)]
    return sorted(groups, key=lambda group: (-len(group), group))


def stand_apart(agreement: Agreement, home: list[int]) -> dict[int, float]:
    """Filters outside a group of which it is sure that they do not agree with it.

    Args:
        agreement: of m filters.
        home: the group; one filter by itself is none, and then each is held against all others.

    Returns:
        Position -> mean correlation with the group, of filters whose mean is less than 0.05 by two standard errors of
        a pair's. Where votes are too few for that, or their number depends on rare votes, nothing is said.
    """
    found = {}
    everyone = list(range(len(agreement.common)))
    grouped = len(home) > 1
    for index in everyone:
        if grouped and index in home:
            continue
        usable = [
            other for other in (home if grouped else everyone) if other != index and agreement.testable[index, other]
        ]
        if not usable:
            continue
        mean = float(np.mean(agreement.correlation[index, usable]))
        error = float(np.mean(1 / np.sqrt(agreement.common[index, usable])))
        if mean + 2 * error < LEAST_CORRELATION:
            found[index] = mean
    return found
