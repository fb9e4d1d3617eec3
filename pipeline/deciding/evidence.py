"""What label models learn from, counted: votes, the reference's votes, scores if asked for, and labelled samples."""

from collections.abc import Sequence

import numpy as np

from chaffinch.filters.fitted import Fitted
from chaffinch.filters.label_models.evidence import Evidence, SoftVotes, Votes
from chaffinch.filters.patterns import Patterns
from chaffinch.pipeline.deciding.counts import CountSoft, CountVotes, SoftCounts
from chaffinch.pipeline.deciding.judgement import Judgement, Pool
from chaffinch.pipeline.deciding.labels import CountLabelledScores, ScoredRows
from chaffinch.pipeline.deciding.lessons import Count
from chaffinch.pipeline.rows import Part

# So many samples a classifier learns from: its coefficients are then sure to about a hundredth.
_MOST_SAMPLES = 100_000


def gather(
    count: Count,
    pool: Pool,
    parts: Sequence[Part],
    reference: Pool | None,
    judgement: Judgement,
    fitted: Fitted,
    patterns: np.ndarray,
    counts: np.ndarray,
) -> Evidence:
    """Counts what the label models asked for want to look at, and no more.

    Args:
        count: adds up over a pool.
        pool: the pool.
        parts: its shards, with the rows that repeat a uid.
        reference: known-good samples, if there are any.
        judgement: what the config asks for.
        fitted: ranges and ranks.
        patterns: (p patterns, m filters) int8 votes of the pool.
        counts: (p,) how many samples show each.

    Returns:
        The evidence; samples that a required filter drops are no part of it.
    """
    models = [*judgement.models.values(), *([] if judgement.blend is None else [judgement.blend])]
    leaning = reference is not None and any(model.needs_reference or model.uses_reference for model in models)
    trusted, soft = None, None
    if leaning and reference is not None:
        task = CountVotes(reference.source, judgement.filters, fitted)
        found: Patterns = count("Count the reference's votes", reference.parts(), task)
        trusted = _judged(fitted, *found.arrays())
    if judgement.is_soft:
        own: SoftCounts = count("Sum up scores", parts, _soft(pool, judgement, fitted))
        sample = np.zeros((0, len(fitted.names)), np.int16)
        if leaning and reference is not None:
            theirs: SoftCounts = count("Sum up the reference", reference.parts(), _soft(reference, judgement, fitted))
            sample = theirs.sample.soft
        soft = SoftVotes(own.moments, own.sample.soft, sample)
    labelled = None
    if judgement.labels is not None:
        finding = CountLabelledScores(pool.source, judgement.filters, judgement.labels)
        rows: ScoredRows = count("Find labelled samples", parts, finding)
        labelled = rows.judged(judgement.labels, fitted)
    return Evidence(_judged(fitted, patterns, counts), trusted, soft, labelled)


def _judged(fitted: Fitted, patterns: np.ndarray, counts: np.ndarray) -> Votes:
    """Votes on samples that no required filter drops."""
    judged = ~fitted.ruled_out(patterns)
    return Votes(patterns[judged], counts[judged])


def _soft(pool: Pool, judgement: Judgement, fitted: Fitted) -> CountSoft:
    return CountSoft(pool.source, judgement.filters, fitted, judgement.seed, _MOST_SAMPLES)
