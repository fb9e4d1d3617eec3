"""What the user sees: messages and progress on standard error, results on standard output."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tqdm import tqdm

_POLL_SECONDS = 1.0
_PLAIN_SECONDS = 10.0
_MOST_READ = 500  # footers; of the tables after that, as many samples and rejects are supposed as of these


@dataclass(frozen=True)
class Console:
    """Where messages go.

    Attributes:
        quiet: only errors and results.
        json: results as one JSON object.
    """

    quiet: bool = False
    json: bool = False

    def say(self, message: str) -> None:
        """A message to the user."""
        if not self.quiet:
            print(message, file=sys.stderr, flush=True)  # noqa: T201

    def warn(self, message: str) -> None:
        """Something the user should know even when quiet."""
        print(f"warning: {message}", file=sys.stderr, flush=True)  # noqa: T201

    def result(self, text: str) -> None:
        """What was asked for."""
        print(text, flush=True)  # noqa: T201

    @contextmanager
    def progress(self, stage: str, tables: dict[str, str], finished: Callable[[], set[str]]) -> Iterator[None]:
        """Shows how far a stage is, from what lies finished on disk, so that it works on any runner.

        Args:
            stage: its name.
            tables: shard -> a parquet file of it that tells rows and rejects once it is finished.
            finished: lists the shards that are finished; called about once a second.
        """
        if self.quiet or not tables:
            yield
            return
        watch = _Watch(stage, tables, finished)
        watch.start()
        try:
            yield
        finally:
            watch.stop()


class _Watch(threading.Thread):
    """Looks for finished shards and draws a bar, or writes plain lines where nobody watches."""

    def __init__(self, stage: str, tables: dict[str, str], finished: Callable[[], set[str]]) -> None:
        super().__init__(name=f"progress of {stage}", daemon=True)
        self._stage = stage
        self._tables = tables
        self._finished = finished
        self._known: set[str] = set()
        self._read = self._samples = self._rejects = 0
        self._over = threading.Event()
        self._began = self._said = time.monotonic()
        self._bar = tqdm(total=len(tables), desc=stage, unit="shard", file=sys.stderr) if sys.stderr.isatty() else None

    def run(self) -> None:
        while not self._over.is_set():
            before = time.monotonic()
            self._look()
            # A listing of a large pool may take a while; it must not become the work.
            self._over.wait(max(_POLL_SECONDS, 10 * (time.monotonic() - before)))

    def stop(self) -> None:
        """Ends the display with what is there now."""
        self._over.set()
        self.join()
        self._look()
        if self._bar is not None:
            self._bar.close()
        else:
            self._say()

    def _look(self) -> None:
        try:
            done = self._finished() & self._tables.keys()
            if not self._known <= done:  # what an earlier run had left was cleared away
                self._known, self._read, self._samples, self._rejects = set(), 0, 0, 0
            new = done - self._known
            for shard in sorted(new)[: _MOST_READ - self._read]:
                rows, rejects = _rows_and_rejects(self._tables[shard])
                self._read += 1
                self._samples, self._rejects = self._samples + rows, self._rejects + rejects
        except Exception as error:  # progress is a courtesy: whatever is wrong with a listing, the job itself reports
            new, self._stage = set(), self._stage if "?" in self._stage else f"{self._stage} ({error}?)"
        self._known |= new
        seconds = max(time.monotonic() - self._began, 1e-9)
        if self._bar is not None:
            samples, rejects, about = self._counts()
            self._bar.set_postfix_str(f"{samples / seconds:.0f} samples/s, {about}{rejects} rejected")
            self._bar.update(len(new))
        elif new and time.monotonic() - self._said > _PLAIN_SECONDS and not self._over.is_set():
            self._say()

    def _counts(self) -> tuple[int, int, str]:
        """Samples and rejects of all finished shards, and a word for whether all their footers were read."""
        if self._read == len(self._known):
            return self._samples, self._rejects, ""
        share = len(self._known) / max(self._read, 1)
        return round(self._samples * share), round(self._rejects * share), "about "

    def _say(self) -> None:
        self._said = time.monotonic()
        seconds = self._said - self._began
        done, total = len(self._known), len(self._tables)
        left = f", {seconds / done * (total - done):.0f} s left" if 0 < done < total else ""
        samples, rejects, about = self._counts()
        print(  # noqa: T201
            f"{self._stage}: {done} of {total} shards, {about}{samples} samples, {about}{rejects} rejected, "
            f"{samples / max(seconds, 1e-9):.0f} samples/s, {seconds:.0f} s{left}",
            file=sys.stderr,
            flush=True,
        )


def _rows_and_rejects(path: str) -> tuple[int, int]:
    """Reads both from a parquet footer alone."""
    # It brings Beam along, which takes a second that `kinds` need not wait for.
    from chaffinch.pipeline.storage import parquet

    metadata = parquet.open_table(path).metadata
    names = metadata.schema.to_arrow_schema().names
    column = metadata.schema.names.index("reject") if "reject" in names else None
    rejects = 0
    for group in range(metadata.num_row_groups if column is not None else 0):
        statistics = metadata.row_group(group).column(column).statistics
        rejects += metadata.row_group(group).num_rows - (statistics.null_count if statistics else 0)
    return metadata.num_rows, rejects


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lays out columns of text; the first to the left, the others to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
