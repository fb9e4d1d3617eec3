"""What every visit of a training said of its sample, as columns that filters read without a second pass."""

from collections.abc import Mapping, Sequence
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


class VisitLog:
    """Numbers of n samples at e visits each: 4 bytes of memory for each."""

    def __init__(self, columns: Sequence[str], samples: int, visits: int) -> None:
        """Begins an empty log.

        Args:
            columns: what is noted of a visit.
            samples: n.
            visits: of all samples together; every sample is visited once before any is again.
        """
        self._samples = samples
        epochs = -(-visits // samples)
        self._values = {name: np.full((samples, epochs), np.nan, np.float32) for name in columns}

    def note(self, samples: Sequence[int], visits: Sequence[int], values: Mapping[str, np.ndarray]) -> None:
        """Notes k visits.

        Args:
            samples: (k,) which samples were visited.
            visits: (k,) the numbers of the visits, counted over all samples from 0.
            values: column -> (k,) numbers.
        """
        rows, epochs = np.asarray(samples, np.int64), np.asarray(visits, np.int64) // self._samples
        for name, noted in values.items():
            self._values[name][rows, epochs] = noted

    def write(self, file: BinaryIO, uids: Sequence[str | None]) -> None:
        """Writes a parquet file of n rows; equal logs give equal bytes.

        Columns: uid; visits, how often the sample was seen; of each column a list of e float32, NaN where it was not
        seen; mimic_mean, the mean of mimic_score over the visits, NaN where there was none.

        Args:
            file: open for writing.
            uids: (n,) of the samples.
        """
        lists = {name: _lists(values) for name, values in self._values.items()}
        scores = self._values["mimic_score"]
        known = ~np.isnan(scores)
        total = np.where(known, scores, 0).sum(axis=1, dtype=np.float64)
        with np.errstate(invalid="ignore"):  # of samples that were not seen
            mean = (total / known.sum(axis=1)).astype(np.float32)
        visits = (~np.isnan(self._values["loss"])).sum(axis=1).astype(np.int32)
        table = pa.table({"uid": pa.array(uids, pa.string()), "visits": visits, "mimic_mean": mean} | lists)
        pq.write_table(table, file, compression="zstd", use_dictionary=False)

    def read(self, file: BinaryIO) -> None:
        """Goes on from what `write` wrote; ValueError where that is a log of other samples or visits."""
        try:
            table = pq.read_table(file, columns=list(self._values))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"it is damaged ({' '.join(str(error).split())[:200]})") from error
        for name, values in self._values.items():
            found = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            if table.num_rows != len(values) or found.size != values.size:
                raise ValueError("it is a log of other samples")
            values[:] = found.reshape(values.shape)


def _lists(values: np.ndarray) -> pa.Array:
    """(n, e) numbers as n lists."""
    ends = np.arange(0, values.size + 1, values.shape[1], dtype=np.int64)
    return pa.LargeListArray.from_arrays(ends, values.reshape(-1)).cast(pa.list_(pa.float32()))
