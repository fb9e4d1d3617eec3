"""What every scorer is: settings that measure a batch of samples as columns of numbers."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import pyarrow as pa
from PIL import Image

Column: TypeAlias = np.ndarray | pa.Array
"""n values of one column: an array, or an arrow array where values are text, lists or may be null."""


class SampleError(Exception):
    """One sample cannot be measured; its message becomes the sample's reject reason and the run goes on."""


@dataclass(frozen=True)
class Batch:
    """Consecutive samples of one shard, as one scorer sees them.

    Rejected samples are left out, so that n is at most the configured batch size.

    Attributes:
        uids: (n,) 32 hex digits each.
        captions: (n,) texts, never empty; none at all for a scorer that reads no captions.
        pictures: (n,) what this scorer's `prepare` made of each picture; empty for a scorer that reads no pictures.
        columns: what was measured before: the columns that this scorer reads, n values each, none of them null.
    """

    uids: Sequence[str]
    captions: Sequence[str]
    pictures: Sequence[Any] = ()
    columns: Mapping[str, pa.Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.uids)


@dataclass(frozen=True)
class Scorer:
    """Base of all scorers: frozen settings, so that a scorer compares, pickles small and travels to any worker.

    The name of the file that defines a scorer is its kind. The class docstring begins with "Columns:" and gives, for
    each column, its unit, its range and which way is better. A score must not depend on the other samples of its batch.

    Attributes:
        version: raised by one whenever the numbers change for the same settings.
        reads_pictures: False promises that no picture needs to be decoded.
        reads_captions: False promises that no caption needs to be read; with neither, shards stay closed.
        uses_device: whether numbers depend on the device class (cpu or cuda) they were measured on.
        whole_pool: whether a sample's numbers depend on the other samples of the pool, so that it is measured at once.
        where: `required` skips samples that a required filter drops; their rows stay null. Required filters over
            columns of this scorer, or of later ones that skip samples too, are not waited for.
    """

    version: ClassVar[int] = 1
    reads_pictures: ClassVar[bool] = False
    reads_captions: ClassVar[bool] = True
    uses_device: ClassVar[bool] = False
    whole_pool: ClassVar[bool] = False
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    where: Literal["all", "required"] = field(default="all", kw_only=True)

    @property
    def kind(self) -> str:
        """The name of the file that defines this scorer."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """Column names and their arrow types, in the order they are written."""
        raise NotImplementedError

    @property
    def decodes(self) -> bool:
        """Whether it decodes pictures by itself: then `prepare_file` is called in place of `prepare`."""
        return False

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns of other scorers that `score` needs, as `<scorer>.<column>`; of its settings, nothing else."""
        return ()

    def identity(self) -> dict[str, Any]:
        """Everything in the settings that changes the numbers; a scorer with weights adds their digest."""
        return dataclasses.asdict(self)

    def check(self) -> None:
        """Looks for what is wrong with the settings, at little cost and before anything is loaded.

        Raises:
            ValueError: what is wrong, and the remedy.
        """

    def check_columns(self, types: Mapping[str, pa.DataType]) -> None:
        """Looks, at little cost and before anything is loaded, whether the columns it reads are what it can read.

        Args:
            types: the arrow types of the columns named by `reads`.

        Raises:
            ValueError: what is wrong, and the remedy.
        """

    def load(self, device: str) -> Any:
        """Loads what `prepare` and `score` need, once per worker.

        Args:
            device: "cpu" or "cuda".

        Returns:
            The model, or None for scorers that need none.
        """
        return None

    def prepare(self, picture: Image.Image, model: Any) -> Any:
        """Turns one decoded picture into what `score` needs of it; called in the read-ahead threads.

        Args:
            picture: the picture, decoded once for all scorers, mode RGB.
            model: what `load` returned.

        Returns:
            Something small, since a whole batch of it is kept; the decoded picture itself is let go.

        Raises:
            SampleError: this picture cannot be measured.
        """
        return picture

    def prepare_file(self, file: bytes, model: Any) -> Any:
        """The same from the picture's file as it is stored, for scorers that decode by themselves.

        Args:
            file: all its bytes.
            model: what `load` returned.

        Returns:
            As `prepare`.

        Raises:
            SampleError: the file cannot be decoded, or this picture cannot be measured.
        """
        raise NotImplementedError

    def score(self, batch: Batch, model: Any) -> Mapping[str, Column]:
        """Measures n samples.

        Args:
            batch: n samples.
            model: what `load` returned.

        Returns:
            The columns named by `columns`, n values each; NaN means "cannot judge".
        """
        raise NotImplementedError


def fingerprint(scorer: Scorer, device: str, beneath: Mapping[str, Any] | None = None) -> str:
    """Names a score table: 8 hex digits of all that changes its numbers.

    Args:
        scorer: the scorer's settings.
        device: the device class, "cpu" or "cuda"; it counts only where `uses_device` says that numbers depend on it.
        beneath: what else they depend on, such as the tables it reads; plain values. Nothing by default.

    Returns:
        The first 8 hex digits of a sha256.
    """
    settings = {name: value for name, value in scorer.identity().items() if name != "where"}
    identity = {"kind": scorer.kind, "version": scorer.version, "settings": settings}
    if scorer.uses_device:
        identity["device"] = device
    if beneath:
        identity["beneath"] = dict(beneath)
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
