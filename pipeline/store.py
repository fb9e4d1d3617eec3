"""The store: where a pool's samples and scores lie, and which of them are missing or out of date.

Whether anything is to do is seen from listings alone; no table is opened to find that out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chaffinch.pipeline.shards import Shard
from chaffinch.pipeline.storage import files, listings
from chaffinch.scoring.scorer import Scorer, fingerprint

UNREADABLE = "unreadable-"
"""How the stamp of a shard begins that could not be read: the next scoring tries again."""


@dataclass(frozen=True)
class Store:
    """Paths below a store.

    Beside the tables there is an empty file per shard in `stamps/`, whose name says which version of the shard the
    tables were made from. It is written last and compared first.

    Attributes:
        root: the store's folder, on any filesystem.
    """

    root: str

    def samples(self, shard: str) -> str:
        """The samples table of a shard."""
        return files.join(self.root, "samples", shard + ".parquet")

    def scores(self, folder: str, shard: str) -> str:
        """One scorer's table of a shard; `folder` is what `table_folder` says."""
        return files.join(self.root, "scores", folder, shard + ".parquet")

    def stamp(self, shard: str, stamp: str) -> str:
        """The file that says which version of a shard was measured."""
        return files.join(self.root, "stamps", f"{shard}.{stamp}")

    def stamps(self) -> dict[str, frozenset[str]]:
        """Shard name -> the stamps found for it: one where its tables are complete."""
        found: dict[str, set[str]] = {}
        for entry in listings.names_below(files.join(self.root, "stamps")):
            name, _, stamp = entry.rpartition(".")
            found.setdefault(name, set()).add(stamp)
        return {name: frozenset(stamps) for name, stamps in found.items()}

    def score_folders(self) -> list[str]:
        """Every scorer's folder in this store, of whatever experiment."""
        return listings.folders_in(files.join(self.root, "scores"), ".parquet")


def table_folder(name: str, scorer: Scorer, device: str, beneath: Mapping[str, Any] | None = None) -> str:
    """The folder of a scorer's tables below `scores`.

    Args:
        name: the scorer's name in the config.
        scorer: its settings.
        device: the device class it measures on, "cpu" or "cuda".
        beneath: what else its numbers depend on, such as the tables it reads.

    Returns:
        `<name>-<fingerprint>`.
    """
    return f"{name}-{fingerprint(scorer, device, beneath)}"


@dataclass(frozen=True)
class Inventory:
    """What a listing of a store says.

    Attributes:
        stamps: shard name -> stamps found for it.
        samples: shards with a samples table.
        scores: folder -> shards with a table in it.
    """

    stamps: Mapping[str, frozenset[str]]
    samples: frozenset[str]
    scores: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, store: Store, folders: Sequence[str]) -> "Inventory":
        """Lists a store.

        Args:
            store: the store.
            folders: the score folders of interest.
        """
        return cls(
            store.stamps(),
            frozenset(listings.names_below(files.join(store.root, "samples"), ".parquet")),
            {
                folder: frozenset(listings.names_below(files.join(store.root, "scores", folder), ".parquet"))
                for folder in folders
            },
        )

    def is_current(self, shard: Shard) -> bool:
        """Whether the tables of a shard were made from the file as it is now."""
        return self.stamps.get(shard.name) == frozenset([shard.stamp]) and shard.name in self.samples

    def is_unreadable(self, shard: Shard) -> bool:
        """Whether the shard could not be read when it was last tried; its tables say so."""
        stamps = self.stamps.get(shard.name, frozenset())
        unreadable = len(stamps) == 1 and all(stamp.startswith(UNREADABLE) for stamp in stamps)
        return unreadable and shard.name in self.samples
