"""The bytes of emitted samples, read by range from their shards, or from a copy that was read in input order."""

import bisect
import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, Self

import numpy as np
import pyarrow as pa

from chaffinch.pipeline.storage import files
from chaffinch.pipeline.storage.disks import scratch


@dataclass(frozen=True)
class Kept:
    """The samples of one input shard that have a place in a block.

    Attributes:
        path: the shard.
        content: digest of what was listed when it was measured.
        table: uid, key, members, offsets, sizes, source_shard, probability and scores, n rows.
        sources: (n,) positions in input order, ascending.
        present: (n,) bool, whether the sample is kept; the others were taken down.
    """

    path: str
    content: str
    table: pa.Table
    sources: np.ndarray
    present: np.ndarray


def _unreadable(path: str, error: OSError) -> OSError:
    return OSError(
        f"{path} cannot be read, and its samples were to be kept: {error.strerror or error}; put it back and run the "
        "same command, or `chaffinch run` to go on without it"
    )


class SampleBytes:
    """The bytes of kept samples, by row."""

    def __init__(self, kept: Sequence[Kept]) -> None:
        """Opens nothing yet.

        Args:
            kept: whose rows follow each other.
        """
        self._ends = list(itertools.accumulate(len(part.sources) for part in kept))
        self._paths = [part.path for part in kept]
        self._open: tuple[int, BinaryIO] | None = None

    def read(self, row: int, start: int, end: int) -> memoryview:
        """Reads from the shard that holds a row.

        Args:
            row: which.
            start: position of its first byte.
            end: position after its last byte.

        Returns:
            The bytes between.

        Raises:
            OSError: the shard is shorter than it was, or cannot be read.
        """
        number = bisect.bisect_right(self._ends, row)
        if self._open is None or self._open[0] != number:
            self.close()
            self._open = (number, self._opened(self._paths[number]))
        file = self._open[1]
        try:
            file.seek(start)
            data = file.read(end - start)
        except OSError as error:
            raise _unreadable(self._paths[number], error) from error
        if len(data) != end - start:
            raise OSError(f"{self._paths[number]} ends at byte {start + len(data)}; it changed since it was scored")
        return memoryview(data)

    @staticmethod
    def _opened(path: str) -> BinaryIO:
        try:
            return files.open_binary(path)
        except OSError as error:
            raise _unreadable(path, error) from error

    def close(self) -> None:
        """Closes the shard that was read last."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Spool:
    """A copy of some of a block's samples in one temporary file, for outputs that read them in shuffled order.

    Made in input order, so that every input shard is opened once and read forwards.
    """

    def __init__(self, samples: SampleBytes, table: pa.Table, rows: np.ndarray) -> None:
        """Copies the samples.

        Args:
            samples: where they are read.
            table: offsets and sizes of all rows.
            rows: (n,) those to copy, ascending.
        """
        self._file = tempfile.TemporaryFile(prefix="chaffinch-")  # noqa: SIM115  # closed by __exit__
        self._starts: dict[int, int] = {}
        chosen = table.select(["offsets", "sizes"]).take(pa.array(rows))
        spans = zip(rows.tolist(), chosen["offsets"].to_pylist(), chosen["sizes"].to_pylist(), strict=True)
        with scratch():
            for row, offsets, sizes in spans:
                self._starts[row] = self._file.tell()
                self._file.write(samples.read(row, offsets[0], offsets[-1] + sizes[-1]))
            self._file.flush()

    def read(self, row: int, start: int, end: int) -> memoryview:
        """Reads one of the rows.

        Args:
            row: which.
            start: position of its first byte in its shard.
            end: position after its last byte there.

        Returns:
            Its bytes.
        """
        self._file.seek(self._starts[row])
        return memoryview(self._file.read(end - start))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
