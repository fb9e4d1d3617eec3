"""Where a worker scores: the GPU it has leased and the models it has loaded, all of them before any shard is read."""

import contextlib
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chaffinch.pipeline.measuring.batches import LoadedScorer
from chaffinch.pipeline.measuring.feeds import Wanted
from chaffinch.pipeline.measuring.leases import lease, visible_gpus
from chaffinch.scoring.devices import free_memory, is_out_of_memory, on_gpu
from chaffinch.scoring.scorer import Scorer

_LONGEST_REASON = 400


class LoadError(Exception):
    """A scorer cannot be loaded; the message names it and says why and what to do."""

    def __init__(self, message: str, by_settings: bool = False) -> None:
        """Keeps whose fault it is.

        Args:
            message: which scorer, why, and what to do.
            by_settings: whether the scorer's settings are wrong, rather than the machine.
        """
        super().__init__(message)
        self.by_settings = by_settings


class Workbench:
    """A worker's GPU and models.

    Attributes:
        loading: scorer -> seconds until its model was loaded.
    """

    def __init__(self, device: str, wanted: Sequence[Wanted]) -> None:
        """Leases a GPU, where one is needed and there is any, and loads all models.

        Args:
            device: "cpu" or "cuda".
            wanted: the scorers.

        Raises:
            LoadError: a scorer cannot be loaded.
            OSError: no GPU can be leased, because lock files cannot be written.
        """
        self._networks = any(one.scorer.uses_device for one in wanted)
        gpus = visible_gpus() if device == "cuda" and self._networks else []
        self._lease = lease(gpus) if gpus else None
        self._loaded: dict[str, LoadedScorer] = {}
        self.loading: dict[str, float] = {}
        try:
            for one in wanted:
                began = time.perf_counter()
                self._loaded[one.folder] = LoadedScorer(one, self._load(one.name, one.scorer, device))
                self.loading[one.name] = time.perf_counter() - began
        except BaseException:
            self.close()
            raise

    def _load(self, name: str, scorer: Scorer, device: str) -> Any:
        try:
            with self.active():
                return scorer.load(device)
        except Exception as error:
            raise _explain(name, error, device) from error

    def scorers(self, folders: Sequence[str]) -> list[LoadedScorer]:
        """The loaded scorers of some folders."""
        return [self._loaded[folder] for folder in folders]

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Lets "cuda" mean the leased GPU, in this thread and inside the block."""
        with on_gpu(self._lease.position if self._lease else None):
            yield

    def close(self) -> None:
        """Lets the models go and gives the GPU back."""
        self._loaded.clear()
        if self._networks:  # others leave no cycles, and to look through all objects for some takes tenths of a second
            free_memory()
        if self._lease is not None:
            self._lease.release()


def check_loading(scorers: Mapping[str, Scorer], device: str) -> None:
    """Loads scorers one by one and lets them go, to see whether that will be possible later on.

    Args:
        scorers: name -> settings.
        device: "cpu" or "cuda".

    Raises:
        LoadError: one cannot be loaded.
    """
    for name, scorer in scorers.items():
        Workbench(device, [Wanted(name, name, scorer)]).close()


def _explain(name: str, error: Exception, device: str) -> LoadError:
    """Why a scorer cannot be loaded, and what to do about it."""
    reason = " ".join(str(error).split())[:_LONGEST_REASON]
    if isinstance(error, ValueError):  # these say what to do
        return LoadError(f"{name} cannot be loaded: {reason}", by_settings=True)
    reason = f"{type(error).__name__}: {reason}"
    if is_out_of_memory(error):
        remedy = "take a smaller model or a GPU with more memory, or let fewer run.workers share one"
    elif isinstance(error, ImportError):
        remedy = f"pip install {error.name or 'what is missing'}"
    elif device == "cuda" and any(word in reason.lower() for word in ("cuda", "nvidia", "cudnn", "cublas")):
        remedy = "see whether nvidia-smi shows a GPU that nothing else is using up, or set run.device=cpu"
    else:
        remedy = "--verbose shows where"
    return LoadError(f"{name} cannot be loaded: {reason}; {remedy}")


@dataclass
class _Run:
    """What workers in this process share of one run.

    Attributes:
        ready: a workbench that was set up ahead, until a worker takes it.
        all: every workbench.
        failure: what a worker has failed for, and the others stop for.
    """

    ready: list[Workbench]
    all: list[Workbench] = field(default_factory=list)
    failure: Exception | None = None


# Beam copies what it runs, so that its workers are only told a key.
_runs: dict[str, _Run] = {}


@contextlib.contextmanager
def set_up(device: str, wanted: Sequence[Wanted]) -> Iterator[str]:
    """Sets the first workbench up ahead of a run whose workers are threads of this process.

    Args:
        device: "cpu" or "cuda".
        wanted: the scorers.

    Yields:
        A key for `workbench`, `note_failure` and `has_failed`.

    Raises:
        LoadError: a scorer cannot be loaded; the block is not entered.
        Exception: what a worker has noted, or whatever else failed in the block.
    """
    first = Workbench(device, wanted)
    key = uuid.uuid4().hex
    run = _runs[key] = _Run([first], [first])
    try:
        try:
            yield key
        except Exception:
            if run.failure is None:
                raise
        if run.failure is not None:
            raise run.failure
    finally:
        del _runs[key]
        for bench in run.all:
            bench.close()


def workbench(key: str, device: str, wanted: Sequence[Wanted]) -> Workbench:
    """A workbench of a worker's own.

    Args:
        key: what `set_up` has yielded; anything else in processes that know nothing of it.
        device: "cpu" or "cuda".
        wanted: the scorers.

    Returns:
        The one that was set up ahead, or else a new one.

    Raises:
        LoadError: a scorer cannot be loaded.
    """
    run = _runs.get(key)
    with contextlib.suppress(IndexError):
        if run is not None:
            return run.ready.pop()
    bench = Workbench(device, wanted)
    if run is not None:
        run.all.append(bench)
    return bench


def note_failure(key: str, error: Exception) -> bool:
    """Lets `set_up` raise what a worker failed for, as it is; Beam would log it at length and pass its text on alone.

    Args:
        key: as for `workbench`.
        error: the failure.

    Returns:
        Whether it will be raised there, so that the worker need not.
    """
    if key not in _runs:
        return False
    _runs[key].failure = error
    return True


def has_failed(key: str) -> bool:
    """Whether a worker of this run has failed, so that there is nothing left to do."""
    return key in _runs and _runs[key].failure is not None
