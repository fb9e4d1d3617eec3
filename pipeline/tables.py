"""Score tables: what a scorer measured batch by batch, as rows that match those of the samples table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from chaffinch.scoring.scorer import Column, Scorer


@dataclass
class TableBuilder:
    """Collects one scorer's columns batch by batch into a table with a row for every sample found.

    Attributes:
        scorer: whose columns.
        samples: the samples table, s rows; its rejects are copied.
    """

    scorer: Scorer
    samples: pa.Table
    _rows: list[int] = field(default_factory=list)
    _parts: dict[str, list[pa.Array]] = field(default_factory=dict)
    _rejects: dict[int, str] = field(default_factory=dict)

    def reject(self, reasons: Mapping[int, str]) -> None:
        """Notes rows that this scorer cannot use."""
        self._rejects |= reasons

    def add(self, rows: Sequence[int], columns: Mapping[str, Column]) -> None:
        """Adds what a batch of n samples measured.

        Args:
            rows: (n,) their rows in the samples table.
            columns: what `score` returned.

        Raises:
            ValueError: the scorer broke its contract; names the scorer and the column.
        """
        expected = self.scorer.columns
        if set(columns) != set(expected):
            raise ValueError(f"scorer {self.scorer.kind} wrote {sorted(columns)} instead of {sorted(expected)}")
        for name, kind in expected.items():
            values = columns[name]
            try:
                array = _as_arrow(values, kind)
            except (pa.ArrowException, TypeError, ValueError) as error:
                raise ValueError(f"scorer {self.scorer.kind} wrote {name} that is not {kind}: {error}") from error
            if len(array) != len(rows):
                raise ValueError(
                    f"scorer {self.scorer.kind} wrote {len(array)} values of {name} for {len(rows)} samples"
                )
            self._parts.setdefault(name, []).append(array)
        self._rows.extend(rows)

    def copy(self, table: pa.Table, rows: np.ndarray) -> None:
        """Takes over rows of another table of the same samples and columns.

        Args:
            table: s rows.
            rows: (s,) bool, which of them.
        """
        reasons = table["reject"].to_pylist()
        self.reject({row: reasons[row] for row in np.flatnonzero(rows).tolist() if reasons[row] is not None})
        measured = np.flatnonzero(rows & table["reject"].is_null().to_numpy())
        taken = table.take(pa.array(measured))
        self.add(measured.tolist(), {name: taken[name].combine_chunks() for name in self.scorer.columns})

    def finish(self) -> pa.Table:
        """The table: s rows, the scorer's columns and reject."""
        total = self.samples.num_rows
        positions = np.full(total, -1)
        positions[self._rows] = np.arange(len(self._rows))
        indices = pa.array(positions, mask=positions < 0)
        arrays = {}
        for name, kind in self.scorer.columns.items():
            parts = self._parts.get(name)
            arrays[name] = pa.concat_arrays(parts).take(indices) if parts else pa.nulls(total, kind)
        rejects = self.samples["reject"].to_pylist()
        for row, reason in self._rejects.items():
            rejects[row] = reason
        return pa.table({**arrays, "reject": pa.array(rejects, pa.string())})


def _as_arrow(values: Column, kind: pa.DataType) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    # from_pandas=False: NaN means "cannot judge" and must not become null, which means rejected.
    array = values if isinstance(values, pa.Array) else pa.array(values, from_pandas=False)
    return array.cast(kind) if array.type != kind else array
