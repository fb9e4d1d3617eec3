"""Neighbours: a scorer that looks at a whole pool, as passes over shards and groups of cells that share files alone.

    draw sample -> train clusters -> send every row to its cells -> compare in cells -> write each shard's table

The first two are for embeddings only. Every pass leaves files, written whole or not at all and the same whoever writes
them, so that a run that was stopped goes on where it was; when all tables are there, the files go.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from chaffinch.pipeline.deciding.judgement import Pool
from chaffinch.pipeline.deciding.learn import EmptyPoolError, measure
from chaffinch.pipeline.engines.engine import Engine, add_up
from chaffinch.pipeline.measuring.batches import THREADS
from chaffinch.pipeline.measuring.feeds import Wanted
from chaffinch.pipeline.measuring.spent import Spent
from chaffinch.pipeline.storage import files, listings
from chaffinch.pipeline.whole_pool.cell_work import Work
from chaffinch.pipeline.whole_pool.clustering import SAMPLES_PER_CLUSTER, CountSamples, DrawSample, TrainClusters
from chaffinch.pipeline.whole_pool.comparing import CompareInCells, SendToCells, Sent, WriteNeighbours
from chaffinch.pipeline.whole_pool.exchange import Exchange, group_cells
from chaffinch.scoring.neighbourhood.search import Search
from chaffinch.scoring.neighbours import Neighbours

BYTES_PER_GROUP = 1 << 28
"""What one worker reads of all shards at once, unless a single cell is larger."""
_GROUPS_PER_WORKER = 4


def score_pool(
    engine: Engine,
    pool: Pool,
    wanted: Wanted,
    device: str,
    scratch: str,
    reference: Pool | None = None,
    bytes_per_group: int = BYTES_PER_GROUP,
) -> Spent:
    """Measures a pool and writes the tables that are missing.

    Args:
        engine: where to run.
        pool: indexed shards, with the tables that the scorer and its gate read.
        wanted: the scorer, of kind `neighbours`.
        device: "cpu" or "cuda".
        scratch: a folder that workers and driver share.
        reference: the experiment's reference, with the same tables, where the scorer asks for it.
        bytes_per_group: what one worker reads of all shards at once; changes no number.

    Returns:
        Where the time went.

    Raises:
        SetError: a set of pictures that the settings name cannot be used.
    """
    scorer, store = wanted.scorer, pool.source.store
    assert isinstance(scorer, Neighbours)

    def count(label: str, items: Sequence[Any], function: Callable[[Any], Any]) -> Any:
        return add_up(engine, label, items, function, scratch)

    among = _among(pool)
    exchange = Exchange(
        files.join(_exchanges(store.root), f"{wanted.folder}-{among}"), [shard.name for shard in pool.shards]
    )
    search = Search(device, max(1, THREADS // engine.workers))
    work = Work(wanted.name, wanted.folder, scorer, wanted.gate, pool.source, exchange, search)
    work.reference_set()
    work.evaluation_set()  # what is wrong with either is better seen now
    try:
        repeated = measure(count, Pool(pool.shards, work.rejecting), {}, {}, set()).repeated
    except EmptyPoolError:
        repeated = {}
    parts, spent = pool.parts(repeated), Spent()
    if scorer.embedding is not None:
        found = count("Count samples", parts, CountSamples(pool.source)).samples
        k = scorer.clusters or max(1, round(found / SAMPLES_PER_CLUSTER))
        share = min(1.0, k * scorer.sample_per_cluster / max(found, 1))
        spent.merge(count("Draw sample", parts, DrawSample(work, share)))
        work.check_sets()
        spent.merge(count("Train clusters", [k], TrainClusters(work, reference)))
    sent: Sent = count("Send to cells", parts, SendToCells(work))
    # Of a copy: what is handed to workers is not to hold the clusters, which they read themselves.
    most = bytes_per_group // replace(work).record.itemsize
    fair = int(sent.sizes.sum()) // (_GROUPS_PER_WORKER * engine.workers)
    groups = group_cells(sent.sizes, max(1, min(most, fair)))
    spent.merge(sent.spent)
    spent.merge(count("Compare in cells", groups, CompareInCells(work)))
    spent.merge(count("Write neighbours", parts, WriteNeighbours(work, tuple(groups), among)))
    clear_exchanges(store.root, wanted.folder)
    return spent


def clear_exchanges(store: str, folder: str) -> None:
    """Removes what runs left that were stopped: all of a scorer's tables are there, so that nobody needs it any more.

    Args:
        store: the store's folder.
        folder: the scorer's folder of tables.
    """
    place = _exchanges(store)
    for name in {name.split("/", 1)[0] for name in listings.names_below(place)}:
        if name.rpartition("-")[0] == folder:
            listings.remove_below(files.join(place, name))
    if files.is_local(place):
        with contextlib.suppress(OSError):  # another scorer's is there too, or there never was one
            os.rmdir(place)


def _exchanges(store: str) -> str:
    return files.join(store, "exchange")


def _among(pool: Pool) -> str:
    """8 hex digits of which versions of the shards were indexed: what could not be read at first may be read later."""
    stamps = pool.source.store.stamps()
    content = [[shard.name, sorted(stamps.get(shard.name, ()))] for shard in pool.shards]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]
