"""What `chaffinch train` reads: the settings checked, and samples of shards by their number."""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from chaffinch.jobs import kinds
from chaffinch.jobs.config import list_shards, make_scorer
from chaffinch.jobs.documents import Document, Place, read_document
from chaffinch.jobs.experiment import JobError
from chaffinch.jobs.sections import ClassifierSettings, LightSettings, Sections, TrainSettings, train_settings
from chaffinch.jobs.validation import make, validate
from chaffinch.pipeline.samples import index_shard
from chaffinch.pipeline.shards import Shard
from chaffinch.pipeline.storage import files
from chaffinch.pipeline.storage.archive import split_name
from chaffinch.scoring.scorer import SampleError, Scorer


@dataclass(frozen=True)
class Training:
    """A training that was checked.

    Attributes:
        document: the config as it was written.
        sections: the whole config.
        settings: its `train:` section.
        features: for light heads, the scorer that measures the features they read.
        shards: to train on.
        place: the setting that named them.
        evaluation: shards to try retrieval on, or none.
    """

    document: Document
    sections: Sections
    settings: TrainSettings | LightSettings
    shards: list[Shard]
    place: Place
    evaluation: list[Shard]
    features: Scorer | None = None

    @property
    def folder(self) -> str:
        """Where checkpoints, log and results go."""
        return self.settings.folder or files.join(self.sections.output, "training")


def load_training(path: str, overrides: list[str]) -> Training:
    """Reads and checks a config for training; it needs `output` and `train`, and `input` only without `train.input`.

    Args:
        path: a YAML file.
        overrides: `key=value` settings from the command line.

    Returns:
        The training.

    Raises:
        ConfigError: anything that can be seen to be wrong.
    """
    document = read_document(path, overrides)
    content = document.content
    if not isinstance(content.get("train"), dict):
        raise document.error(("train",), "is missing: `train: {model: ..., samples_seen: ...}` says what to train")
    # The pool that was curated may be gone by the time that what was kept is trained on.
    placeholder = {"input": "-"} if "input" not in content else {}
    sections: Sections = validate(document, (), TypeAdapter(Sections), placeholder | content)
    settings = make(document, ("train",), train_settings(content["train"]), content["train"])
    place: Place = ("train", "input")
    features = None
    if isinstance(settings, LightSettings):
        features = _features_scorer(document, sections, settings)
    if settings.input is not None:
        inputs: str | list[str] = settings.input
    elif features is not None:
        if sections.reference is None:
            raise document.error(place, "is missing: name trusted pairs to learn from, here or as reference:")
        inputs, place = sections.reference, ("reference",)
    elif sections.filters or placeholder:
        inputs = files.join(sections.output, "shards")
        if not files.exists(inputs):
            what = "emit wrote nothing yet: run `chaffinch run` first, or name shards to train on"
            raise document.error(place, f"{inputs} is not there; {what}")
    else:
        inputs, place = sections.input, ("input",)
    shards = list_shards(document, place, inputs)
    evaluation: list[Shard] = []
    if settings.evaluate is not None:
        evaluation = list_shards(document, ("train", "evaluate", "input"), settings.evaluate.input)
        labelled = isinstance(settings, ClassifierSettings)
        other = "captions_key" if labelled else "labels"
        if getattr(settings.evaluate, other) is not None:
            what = "classifiers are tried on labels" if labelled else "labels are for classifiers: set train.labels"
            raise document.error(("train", "evaluate", other), what)
    return Training(document, sections, settings, shards, place, evaluation, features)


def _features_scorer(document: Document, sections: Sections, settings: LightSettings) -> Scorer:
    """The scorer whose features light heads read."""
    place: Place = ("train", "features")
    name, _, column = settings.features.partition(".")
    if name not in sections.scorers:
        raise document.error(place, f"there is no scorer {name!r}; {kinds.nearest(name, list(sections.scorers))}")
    scorer = make_scorer(document, name, sections.scorers[name])
    if column not in scorer.columns:
        known = kinds.nearest(column, list(scorer.columns))
        raise document.error(place, f"scorer {name} writes no {column!r}; is it told `features: true`? {known}")
    if scorer.reads:
        raise document.error(place, f"{name} reads other columns; the features have to be measured on pictures")
    return scorer


class ShardSamples:
    """The usable samples of shards by their number, for `chaffinch.scoring.training`; each is read when asked for.

    Shards on other filesystems are copied to the local disk for as long as this is open.

    Attributes:
        rejected: why samples of the shards are not usable -> how many.
        uids: of the usable ones.
        digest: of all that the shards hold.
    """

    def __init__(self, shards: Sequence[Shard], captions_key: str | None = None) -> None:
        """Lists the samples.

        Args:
            shards: where they are.
            captions_key: an entry of the json that lists several captions; None takes the caption member.
        """
        self.rejected: dict[str, int] = {}
        self._key = captions_key
        self._handles: list[int] = []
        self._open = ExitStack()
        self.uids: list[str | None] = []
        contents, spans = [], []
        with ExitStack() as undo:
            undo.enter_context(self._open)
            for shard in shards:
                table = index_shard(shard)
                contents.append((table.schema.metadata or {}).get(b"content", b"").decode())
                usable = [row for row in table.to_pylist() if self._is_usable(row)]
                spans += [self._spans(row) for row in usable]
                self.uids += [row["uid"] for row in usable]
                self._handles += [self._open_shard(shard)] * (len(spans) - len(self._handles))
            undo.pop_all()  # listed without an error: the shards stay open until this is closed
        self._places = np.array(spans, np.int64).reshape(-1, 4)  # offset and size of picture, of text
        self.digest = hashlib.sha256(json.dumps([contents, captions_key]).encode()).hexdigest()

    def __enter__(self) -> "ShardSamples":
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def __len__(self) -> int:
        return len(self._places)

    def picture(self, index: int) -> bytes:
        """The picture file of a sample."""
        offset, size = self._places[index, :2].tolist()
        return self._read(index, offset, size)

    def captions(self, index: int) -> list[str]:
        """The captions of a sample.

        Raises:
            SampleError: its json has no such entry, or one that is no list of texts.
        """
        offset, size = self._places[index, 2:].tolist()
        text = self._read(index, offset, size)
        if self._key is None:
            return [text.decode("utf-8")]
        entries = json.loads(text)
        if self._key not in entries:
            raise SampleError(f"json has no entry {self._key!r}; {kinds.nearest(self._key, sorted(entries))}")
        found = entries[self._key]
        listed = [found] if isinstance(found, str) else found
        if (
            not isinstance(listed, list)
            or not listed
            or not all(isinstance(one, str) and one.strip() for one in listed)
        ):
            raise SampleError(f"entry {self._key!r} of the json is no list of texts")
        return listed

    def _open_shard(self, shard: Shard) -> int:
        handle = os.open(self._open.enter_context(files.local_copy(shard.path)), os.O_RDONLY)
        self._open.callback(os.close, handle)
        return handle

    def _is_usable(self, row: dict[str, Any]) -> bool:
        reason = self._reason(row)
        if reason is not None:
            self.rejected[reason] = self.rejected.get(reason, 0) + 1
        return reason is None

    def _reason(self, row: dict[str, Any]) -> str | None:
        """Why a sample is not usable, or None."""
        reason: str | None = row["reject"]
        return "no json" if reason is None and self._text(row) is None else reason

    def _text(self, row: dict[str, Any]) -> int | None:
        """The index of the member that holds the captions."""
        index: int | None = row["caption"]
        return index if self._key is None else find_member(row, "json")

    def _spans(self, row: dict[str, Any]) -> tuple[int, int, int, int]:
        picture, text = row["picture"], self._text(row)
        return row["offsets"][picture], row["sizes"][picture], row["offsets"][text], row["sizes"][text]

    def _read(self, index: int, offset: int, size: int) -> bytes:
        data = os.pread(self._handles[index], size, offset)
        if len(data) != size:
            raise JobError("a shard became shorter while it was read: run the same command again")
        return data


def find_member(row: dict[str, Any], extension: str) -> int | None:
    """The index of a sample's member, by its extension."""
    names = [split_name(name) for name in row["members"]]
    return next((index for index, parts in enumerate(names) if parts is not None and parts[1] == extension), None)
