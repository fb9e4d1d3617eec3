"""Zero-shot detectors as transformers saves them: folders and hub names, checked, digested and opened."""

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaffinch.scoring import weights
from chaffinch.scoring.detecting.families import NAMES

_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_PREPROCESSING = ("processor_config.json", "preprocessor_config.json")
# Without any of them transformers would make up an empty tokenizer.
_TOKENIZER = ("tokenizer.json", "vocab.txt", "vocab.json")
_HUB_NAME = re.compile(r"[\w.-]+(?:/[\w.-]+)?")
# What transformers reads of a folder; a README or a licence changes no number.
_READ = (".json", ".safetensors", ".bin", ".txt", ".model")


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint.

    Attributes:
        family: the config's model_type, one of families.NAMES.
        network: in evaluation mode, float32 weights.
        processor: transformers' own, with `image_processor` and `tokenizer`.
    """

    family: str
    network: Any
    processor: Any


def check_checkpoint(name: str, revision: str | None) -> None:
    """Looks for a local folder's files and what they are, without torch; hub names are only looked at.

    Args:
        name: a folder, or a name on the Hugging Face hub.
        revision: of a hub name.

    Raises:
        ValueError: what is wrong, and the remedy.
    """
    folder = _folder(name)
    if folder is None:
        return
    if revision is not None:
        raise ValueError(f"revision {revision!r} belongs to a name on the hub, and checkpoint {name!r} is a folder")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        family = config["model_type"]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"checkpoint {name!r} has no config.json that names its model_type: "
            "give a folder that transformers' save_pretrained wrote"
        ) from error
    _check_family(name, family)
    for needed, what in (
        (_WEIGHTS, "weights"),
        (_PREPROCESSING, "settings of its image processor"),
        (_TOKENIZER, "tokenizer"),
    ):
        if not any((folder / file).is_file() for file in needed):
            raise ValueError(f"checkpoint {name!r} has no {what}: one of {', '.join(needed)} must lie in the folder")


def identify(name: str, revision: str | None) -> str:
    """What a fingerprint says of a checkpoint: a folder's digest, or a hub name with its revision.

    Args:
        name: a folder, or a name on the hub.
        revision: of a hub name.

    Returns:
        A sha256 in hex over names and contents of the folder's files, so that moving it changes nothing; or the name.

    Raises:
        ValueError: the name means a folder, and there is none.
    """
    folder = _folder(name)
    if folder is None:
        return name if revision is None else f"{name}@{revision}"
    found = [path for path in folder.iterdir() if path.is_file() and path.suffix in _READ]
    return weights.digest_all(found)


def open_checkpoint(name: str, revision: str | None) -> Checkpoint:
    """Opens a checkpoint on the cpu, from a folder or from the Hugging Face cache or hub.

    Downloads are left to huggingface_hub; with HF_HUB_OFFLINE=1 in the environment it makes none.

    Args:
        name: a folder, or a name on the hub.
        revision: of a hub name; None is its main branch.

    Returns:
        The checkpoint.

    Raises:
        ValueError: what `check_checkpoint` finds; files are missing or damaged, or belong to another model.
    """
    check_checkpoint(name, revision)
    import torch
    import transformers

    folder = _folder(name)
    place = name if folder is None else str(folder.resolve())  # absolute: never taken for a name on the hub
    remedy = "is the folder complete?"
    if folder is None:
        remedy = "no such folder is here; for a name on the hub, download it once with a network"
    options = {"revision": revision, "trust_remote_code": False}
    try:
        with _quiet():
            family = transformers.AutoConfig.from_pretrained(place, **options).model_type
            _check_family(name, family)
            network, report = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(
                place, dtype=torch.float32, output_loading_info=True, **options
            )
            processors: Any = transformers.AutoProcessor
            processor = processors.from_pretrained(place, **options)
            processor.tokenizer, processor.image_processor  # noqa: B018  # an image processor alone has no tokenizer
    except _WrongFamilyError:
        raise
    except Exception as error:  # damaged files raise whatever the reader of their format raises
        reason = " ".join(str(error).split())[:400]
        raise ValueError(f"cannot open checkpoint {name!r}: {remedy} ({reason})") from error
    if missing := sorted(report["missing_keys"]):
        raise ValueError(
            f"checkpoint {name!r} lacks {len(missing)} weights of {NAMES[family]}, such as {missing[0]}: "
            "its weights belong to another model, or are not complete"
        )
    return Checkpoint(family, network.eval(), processor)


class _WrongFamilyError(ValueError):
    """The checkpoint is no zero-shot detector; its message is for the user."""


def _check_family(name: str, family: Any) -> None:
    if family not in NAMES:
        raise _WrongFamilyError(
            f"checkpoint {name!r} is a model of type {family!r}, no zero-shot detector: use {', '.join(NAMES.values())}"
        )


def _folder(name: str) -> Path | None:
    """The local folder that a setting means; None where it is a name on the hub."""
    path = Path(name).expanduser()
    if name and path.is_dir():
        return path
    if path.is_file():
        raise ValueError(f"checkpoint {name!r} is a file: give the folder that holds it, config.json included")
    if not _HUB_NAME.fullmatch(name) or name.startswith("."):
        raise ValueError(
            f"checkpoint {name!r} is no folder here: correct the path, or give a name on the hub such as "
            "IDEA-Research/grounding-dino-tiny"
        )
    return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps transformers' progress bars and tables of weights away: what matters is checked, and said in one line."""
    import transformers

    logging: Any = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
