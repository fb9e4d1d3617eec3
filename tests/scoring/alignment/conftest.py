"""Tiny models of every kind, with a reference and a bank; and mimic scores as a loop of backward passes has them."""

import copy
import functools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from chaffinch.scoring.alignment.aligner import Aligner
from chaffinch.scoring.alignment.negatives import Negative
from chaffinch.scoring.clips.from_open_clip import OpenClipModel
from chaffinch.scoring.training.architectures import find_architecture, packaged

MERGES = "merges-4096.txt.gz"
TEXT = {
    "context_length": 12,
    "vocab_size": 4610,
    "width": 32,
    "heads": 2,
    "layers": 2,
    "tokenizer_kwargs": {"bpe_path": MERGES},
}
VIT = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}


def timm(name: str, pool: str, size: int) -> dict:
    return {
        "image_size": size,
        "timm_model_name": name,
        "timm_model_pretrained": False,
        "timm_pool": pool,
        "timm_proj": "linear",
    }


MODELS = {
    "vit": {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TEXT},
    # ModifiedResNet: BatchNorm, and attention with separate projections as its pool
    "resnet": {
        "embed_dim": 24,
        "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "image_size": 32},
        "text_cfg": TEXT,
    },
    # as SigLIP's: a tower of timm's, a text tower that sees all of a caption, a bias of the logits
    "siglip": {
        "embed_dim": 24,
        "init_logit_bias": -4,
        "custom_text": True,
        "vision_cfg": timm("test_vit3", "map", 160),
        "text_cfg": TEXT | {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
    },
    # learnt biases of positions, which are added to attention's scores
    "relative": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": timm("test_vit_relpos", "avg", 160),
        "text_cfg": TEXT,
    },
    "convnext": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": timm("test_convnext", "avg", 32),
        "text_cfg": TEXT,
    },
}
CAPTIONS = ["a red dog", "two cats on a sofa", "IMG_0031.JPG", "a dog by the sea", "snow"]


def _tower(name: str) -> OpenClipModel:
    network, transform, tokenizer = find_architecture(str(_folder / f"{name}.json")).create()
    return OpenClipModel(network.eval(), "cpu", "float32", transform, tokenizer)


_folder = Path()


def moved(network: torch.nn.Module, by: float, seed: int) -> torch.nn.Module:
    """A copy whose weights have moved at random, each tensor by a share of its own size."""
    generator = torch.Generator().manual_seed(seed)
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            size = float(parameter.square().mean().sqrt())
            size = size if size > 1e-3 else 1.0  # layers that begin as if they were not there
            parameter += by * size * torch.randn(parameter.shape, generator=generator)
    return other


def pictures(count: int, seed: int) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).resize((40, 30)) for _ in range(count)]


@dataclass(frozen=True)
class Case:
    """A current model, a reference and a bank.

    Attributes:
        current: the model.
        reference: of the same architecture.
        negatives: the bank.
    """

    current: OpenClipModel
    reference: OpenClipModel
    negatives: list[Negative]

    def aligner(self, layers=("*",), method="forward", currents=None, **changed) -> Aligner:
        currents = currents or [self.current]
        names = [f"step {number}" for number, _ in enumerate(currents)]
        parts = {"reference": self.reference, "negatives": self.negatives} | changed
        return Aligner(currents, names, parts["reference"], parts["negatives"], layers, method)


def _case(name: str) -> Case:
    torch.manual_seed(0)
    current = _tower(name)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():  # statistics as a trained model has them, and nothing at its first value
        for buffer in current.network.buffers():
            if buffer.is_floating_point() and torch.isfinite(buffer).all():
                buffer += 0.1 * torch.rand(buffer.shape, generator=generator)
    current = with_network(current, moved(current.network, 0.1, seed=1))
    reference = with_network(current, moved(current.network, 0.3, seed=2))
    bank = [
        Negative(f"{row:032x}", f"picture {row} of {what}", picture)
        for row, (what, picture) in enumerate(zip(("dogs", "cats", "boats", "trees"), pictures(4, 9), strict=True))
    ]
    return Case(current, reference, bank)


def with_network(model: OpenClipModel, network: torch.nn.Module) -> OpenClipModel:
    return OpenClipModel(network.eval(), model.device, model.precision, model.evaluation, model.tokenizer)


def encode(model: OpenClipModel, negatives) -> tuple[torch.Tensor, torch.Tensor]:
    """(k, d) embeddings of pictures and of captions, from open_clip itself."""
    seen = torch.stack([model.evaluation(one.picture) for one in negatives])
    tokens = model.tokenizer([one.caption for one in negatives])
    return model.network.encode_image(seen, normalize=True), model.network.encode_text(tokens, normalize=True)


def backward_scores(case: Case, samples, chosen, still: bool = False) -> dict[str, np.ndarray]:
    """What the aligner measures, from one backward pass for each sample, through the bank too unless it stands still.

    Args:
        case: the models and the bank.
        samples: negatives by another name: uid, caption and picture of n samples.
        chosen: name of a parameter -> whether it counts.
        still: whether the bank's embeddings are constants.

    Returns:
        score, cosine and loss, (n,) each.
    """
    network = case.current.network
    weights = {name: one for name, one in network.named_parameters() if chosen(name)}
    targets = dict(case.reference.network.named_parameters())
    way = torch.cat([(targets[name] - weights[name]).detach().double().ravel() for name in weights])
    found = {"score": [], "cosine": [], "loss": []}
    for sample in samples:
        bank = encode(case.current, case.negatives)
        if still:
            bank = tuple(one.detach() for one in bank)
        (picture,), (caption,) = encode(case.current, [sample])
        others = [row for row, one in enumerate(case.negatives) if not same(one, sample)]
        scale, bias = network.logit_scale.exp(), getattr(network, "logit_bias", None)
        losses = []
        for own, negatives in ((picture, bank[1]), (caption, bank[0])):
            candidates = torch.stack([picture @ caption, *(negatives[others] @ own)]) * scale.squeeze()
            if bias is None:
                losses.append(functional.cross_entropy(candidates[None], torch.zeros(1, dtype=torch.long)))
            else:
                signs = torch.tensor([1.0] + [-1.0] * len(others))
                wrong = -functional.logsigmoid(signs * (candidates + bias.squeeze()))
                losses.append(wrong.sum())
        loss = (losses[0] + losses[1]) / 2
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        gradient = torch.cat(
            [
                torch.zeros(one.numel()).double() if part is None else part.double().ravel()
                for part, one in zip(gradients, weights.values(), strict=True)
            ]
        )
        found["loss"].append(loss.item())
        found["score"].append(float(-gradient @ way / way.norm()))
        length = float(gradient.norm())
        found["cosine"].append(found["score"][-1] / length if length else 0.0)
    return {name: np.array(values) for name, values in found.items()}


def same(one: Negative, other: Negative) -> bool:
    return one.uid == other.uid or one.caption.lower().split() == other.caption.lower().split()


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """The folder of the descriptions."""
    global _folder
    _folder = tmp_path_factory.mktemp("models")
    shutil.copy(packaged()["chaffinch-tiny"].with_name(MERGES), _folder)
    for name, described in MODELS.items():
        content = {"model_cfg": described, "preprocess_cfg": {"resize_mode": "squash"}}
        (_folder / f"{name}.json").write_text(json.dumps(content))
    return _folder


@pytest.fixture(scope="session")
def case(models):
    """(name of a model) -> current, reference and bank."""
    return functools.cache(_case)


@pytest.fixture(scope="session")
def twin():
    """Scores as a loop of backward passes has them."""
    return backward_scores


@pytest.fixture(scope="session")
def samples():
    """Pairs to be measured."""
    return [
        Negative(f"{100 + row:032x}", caption, picture)
        for row, (caption, picture) in enumerate(zip(CAPTIONS, pictures(len(CAPTIONS), 3), strict=True))
    ]
