"""Opens ONNX models for the scorers that run them: a file's digest and signature, and sessions that repeat."""

import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from chaffinch.scoring import weights as weight_files
from chaffinch.scoring.devices import gpu_position

if TYPE_CHECKING:
    from onnx import ModelProto

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_log = logging.getLogger(__name__)

# More than this share memory bandwidth rather than work.
_MOST_RUNS = 16

# The kernels are the same on every run: "exhaustive", the provider's own default, takes whichever was fastest just now.
_CUDA = {"cudnn_conv_algo_search": "DEFAULT", "use_tf32": "0"}


@dataclass(frozen=True)
class Tensor:
    """What goes into a model, or comes out of it.

    Attributes:
        name: as the file spells it.
        kind: numpy's name of the element type, such as float32.
        shape: lengths; None where the file leaves one open.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        lengths = ", ".join("?" if length is None else str(length) for length in self.shape)
        return f"{self.name} {self.kind} [{lengths}]"


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a model, in the file's order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def __str__(self) -> str:
        inputs, outputs = (", ".join(map(str, tensors)) for tensors in (self.inputs, self.outputs))
        return f"{inputs} -> {outputs}"


@dataclass(frozen=True)
class Session:
    """A model that is ready to run; safe to share among threads.

    Attributes:
        session: onnxruntime's own.
        threads: how many runs may go on at a time.
    """

    session: Any
    threads: int

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> list[np.ndarray]:
        """Runs the model once.

        Args:
            inputs: name -> array.
            outputs: names of the wanted outputs; all in the file's order where None.

        Returns:
            The outputs.
        """
        return [np.asarray(one) for one in self.session.run(None if outputs is None else list(outputs), dict(inputs))]

    def map(self, work: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
        """Does work that runs the model, several items at a time; large inputs and outputs may live in it alone.

        With one thread inside a run and one run per core, small networks take half the time of a batch (measured:
        YOLOX-nano on two cores, 20 ms a picture against 37 ms).

        Args:
            work: called once for each item, in any thread.
            items: (n,) of anything.

        Returns:
            (n,) what `work` returned, in the order of the items.
        """
        if self.threads == 1 or len(items) < 2:
            return [work(one) for one in items]
        with ThreadPoolExecutor(min(self.threads, len(items)), "onnx") as threads:
            return list(threads.map(work, items))


def find_weights(weights: str) -> Path:
    """Looks for a file of weights.

    Args:
        weights: the path a user gave.

    Returns:
        The path.

    Raises:
        ValueError: there is no such file.
    """
    path = Path(weights).expanduser()
    if not weights or not path.is_file():
        raise ValueError(f"weights {weights!r} is not a file here: give the path of an .onnx file")
    return path


def digest_weights(weights: str) -> str:
    """Digests a file of weights, for the fingerprint: moving the file changes nothing, another content does.

    Args:
        weights: path of the file.

    Returns:
        64 hex digits, the file's sha256.

    Raises:
        ValueError: there is no such file.
    """
    return weight_files.digest(find_weights(weights))


def read_signature(weights: str) -> Signature:
    """Reads what a model takes and gives, without onnxruntime.

    Args:
        weights: path of an .onnx file.

    Returns:
        Inputs and outputs.

    Raises:
        ValueError: the file is missing, damaged or no ONNX model.
    """
    return _signature(*_version(weights))


def read_model(weights: str, external: bool = False) -> "ModelProto":
    """Reads a model's graph.

    Args:
        weights: path of an .onnx file.
        external: whether weights that lie in files of their own are to be read as well.

    Returns:
        The model as the package onnx holds it.

    Raises:
        ValueError: the file is missing, damaged or no ONNX model.
    """
    path = find_weights(weights)
    import onnx

    try:
        model = onnx.load(path, format="protobuf", load_external_data=external)
    except Exception as error:  # those of protobuf, onnx and the disk have no common ancestor
        raise ValueError(_unusable(weights, error)) from error
    if (
        not model.graph.node or not model.graph.output
    ):  # protobuf reads nothing at all, and some rubbish, without a word
        raise ValueError(_unusable(weights, "it holds no graph"))
    return model


def open_session(weights: str, device: str, extra_outputs: Sequence[str] = (), threads: int | None = None) -> Session:
    """Loads a model into onnxruntime.

    Where cuda is asked for but this onnxruntime was built without it, the model runs on the cpu and a warning says so.

    Args:
        weights: path of an .onnx file.
        device: "cpu" or "cuda".
        extra_outputs: tensors inside the graph that are to become outputs, behind the file's own.
        threads: how many runs may go on at a time, each with one thread inside; as many as there are cores where
            None. On cuda runs follow each other.

    Returns:
        The session.

    Raises:
        ValueError: the file is missing, damaged or no ONNX model, or has no such tensor.
    """
    path = find_weights(weights)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 3  # errors only: exporters leave weights behind that nobody reads
    cuda = device == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if cuda:
        onnxruntime.preload_dlls()  # finds the CUDA libraries that torch brought along
    on_gpu = [("CUDAExecutionProvider", _CUDA | {"device_id": str(gpu_position())})] if cuda else []
    providers: list[Any] = [*on_gpu, "CPUExecutionProvider"]
    content = _with_outputs(weights, extra_outputs) if extra_outputs else str(path)
    try:
        session = onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # onnxruntime's own errors have no common ancestor
        raise ValueError(_unusable(weights, error)) from error
    if device == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
        cuda = False
        _log.warning(
            "%s runs on the cpu, since this onnxruntime cannot use cuda: pip install onnxruntime-gpu in its place",
            path.name,
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Session(session, 1 if cuda else max(1, threads or min(cores, _MOST_RUNS)))


def _with_outputs(weights: str, names: Sequence[str]) -> bytes:
    """The model with more outputs; ValueError where the graph has no such tensor."""
    model = read_model(weights, external=True)
    import onnx

    made = {name for node in model.graph.node for name in node.output}
    known = {one.name for one in model.graph.output}
    for name in names:
        if name not in made:
            raise ValueError(f"weights {weights!r} has no tensor named {name!r}: name one of its graph")
        if name not in known:
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    content: bytes = model.SerializeToString()
    return content


def _unusable(weights: str, reason: object) -> str:
    words = " ".join(str(reason).split())[:300]
    return f"weights {weights!r} cannot be used: is it a complete ONNX model (.onnx)? ({words})"


def _version(weights: str) -> tuple[Path, int, int]:
    """A file's path, size and time of change, to remember what was read only while the file stays the same."""
    path = find_weights(weights)
    status = path.stat()
    return path, status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=32)
def _signature(path: Path, size: int, changed: int) -> Signature:
    graph = read_model(str(path)).graph
    weights = {one.name for one in graph.initializer}  # old files list them among the inputs
    inputs = tuple(_tensor(one) for one in graph.input if one.name not in weights)
    return Signature(inputs, tuple(map(_tensor, graph.output)))


def _tensor(value: Any) -> Tensor:
    """One of the graph's inputs or outputs."""
    import onnx

    held = value.type.tensor_type
    kind = onnx.helper.tensor_dtype_to_np_dtype(held.elem_type).name if held.elem_type else "unknown"
    return Tensor(
        value.name, kind, tuple(one.dim_value if one.HasField("dim_value") else None for one in held.shape.dim)
    )
