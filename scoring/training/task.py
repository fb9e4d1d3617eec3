"""What is learnt of samples: the part of a training that differs between pairs and labelled pictures."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar

import numpy as np
import torch
from PIL import Image

from chaffinch.scoring.clips.from_open_clip import OpenClipModel
from chaffinch.scoring.training.samples import Loaded, Samples, Wanted, read_ahead
from chaffinch.scoring.training.visits import Visits


class TrainingError(Exception):
    """Training cannot go on; the message says at which step, why and what to do."""


class SettingError(ValueError):
    """A setting cannot be followed.

    Attributes:
        setting: its place below `train:`, with dots.
    """

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(problem)
        self.setting = setting


class Task(ABC):
    """Reads samples, and knows the loss of each.

    Attributes:
        least: how many samples a batch needs for anything to be learnt.
        separable: whether a sample's loss depends on no other of its batch.
        tried: what `evaluate` measures.
        model: prepares pictures and captions.
        network: what is trained, in training mode.
    """

    least: ClassVar[int]
    separable: ClassVar[bool]
    tried: ClassVar[str]
    model: OpenClipModel
    network: torch.nn.Module

    def read(
        self, samples: Samples, batches: Iterable[Sequence[Wanted]], visits: Visits, threads: int
    ) -> Iterator[Loaded]:
        """Reads batches, one after the other.

        Args:
            samples: where from.
            batches: which.
            visits: where chance comes from.
            threads: how many samples to read at a time.

        Yields:
            One for each batch.
        """

        def prepare(picture: Image.Image, captions: Sequence[str], visit: int) -> tuple[torch.Tensor, Any]:
            return self.prepare(picture, captions, visits.chance(visit))

        return read_ahead(samples, batches, prepare, threads)

    @abstractmethod
    def prepare(self, picture: Image.Image, captions: Sequence[str], chance: np.random.Generator) -> tuple[Any, Any]:
        """Makes of a picture, mode RGB, and a sample's captions what `batch` takes; SampleError where it cannot."""

    @abstractmethod
    def batch(self, loaded: Loaded) -> Any:
        """Brings n samples to the device."""

    @abstractmethod
    def losses(self, batch: Any) -> torch.Tensor:
        """The loss of each sample; their mean is what a plain training lowers.

        Args:
            batch: what `batch` gave; the model's arithmetic is set by the caller.

        Returns:
            (n,) float32, nats; lower is better.
        """

    @abstractmethod
    def evaluate(self, samples: Samples, batch_size: int, threads: int) -> Any:
        """Tries the model on other samples, in evaluation mode.

        Args:
            samples: to try it on.
            batch_size: pictures at a time.
            threads: how many samples to read at a time.

        Returns:
            A dataclass of plain values.

        Raises:
            ValueError: none of the samples can be read.
        """

    @abstractmethod
    def reference(self, reference: str) -> Mapping[str, torch.Tensor]:
        """The state_dict of a reference that a setting names; ValueError where it cannot be had or is another's."""

    @abstractmethod
    def save(self, file: BinaryIO, epoch: float, step: int) -> None:
        """Writes the weights and what is needed to use them."""

    def after_step(self) -> None:
        """Keeps weights within their limits, where there are such."""
        return

    @property
    def logit_scale(self) -> float | None:
        """What similarities are multiplied with, if there are such."""
        return None
