"""Labelled pictures of shards by their number, for classifiers."""

import json
from collections.abc import Sequence
from typing import Any

from chaffinch.jobs import kinds
from chaffinch.jobs.training import ShardSamples, find_member
from chaffinch.pipeline.shards import Shard
from chaffinch.scoring.scorer import SampleError

MEMBER = "cls"
"""The member in which WebDatasets hold labels, as a setting calls it; any other name is an entry of the json."""


class LabelledSamples(ShardSamples):
    """Samples whose one caption is their label; they need no text beside it."""

    def __init__(self, shards: Sequence[Shard], labels: str) -> None:
        """Lists the samples.

        Args:
            shards: where they are.
            labels: an entry of the json, or `cls` for the member of this name.
        """
        super().__init__(shards, labels)

    def captions(self, index: int) -> list[str]:
        """The label of a sample, whole numbers as text.

        Raises:
            SampleError: its json has no such entry, or one that is no label; or the member is no text.
        """
        assert self._key is not None
        offset, size = self._places[index, 2:].tolist()
        text = self._read(index, offset, size)
        if self._key == MEMBER:
            try:
                return [text.decode("utf-8").strip()]
            except UnicodeDecodeError as error:
                raise SampleError(f"{MEMBER} is not UTF-8") from error
        entries = json.loads(text)
        if self._key not in entries:
            raise SampleError(f"json has no entry {self._key!r}; {kinds.nearest(self._key, sorted(entries))}")
        found = entries[self._key]
        if isinstance(found, bool) or not isinstance(found, int | str):
            raise SampleError(f"entry {self._key!r} of the json is neither a whole number nor text")
        return [str(found).strip()]

    def _reason(self, row: dict[str, Any]) -> str | None:
        reason: str | None = row["reject"]
        # A missing or broken caption is the last thing that a sample is rejected for: nothing else is wrong with it.
        if reason is not None and not reason.startswith(("no caption", "caption ")):
            return reason
        return None if self._text(row) is not None else f"no {self._member}"

    def _text(self, row: dict[str, Any]) -> int | None:
        return find_member(row, self._member)

    @property
    def _member(self) -> str:
        return MEMBER if self._key == MEMBER else "json"
