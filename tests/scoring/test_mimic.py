"""Mimic scores of any model and loss against backward passes, by what a step does; and the scorer: settings, errors."""

import copy
import dataclasses
import itertools
import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from chaffinch.scoring.alignment.losses import Logits, classification, within_batch
from chaffinch.scoring.alignment.negatives import draw_negatives, find_negatives
from chaffinch.scoring.mimic import Mimic, mimic_scores
from chaffinch.scoring.scorer import Batch, SampleError, fingerprint

MODEL = "chaffinch-tiny"
CAPTIONS = ["a red circle", "two green squares on snow", "IMG_0031.JPG", "A blue star.", "nothing"]


class Language(nn.Module):
    """Classifies a text by a mean of embeddings that are the output layer too."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 5)
        self.mixing = nn.Linear(5, 5)
        self.output = nn.Linear(5, 7, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, tokens):
        return self.output(torch.tanh(self.mixing(self.embedding(tokens).mean(dim=1))))


class Towers(nn.Module):
    """The least that has two towers, a scale and a bias."""

    def __init__(self):
        super().__init__()
        self.pictures = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4))
        self.captions = nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 4))
        self.logit_scale = nn.Parameter(torch.tensor(1.5))
        self.logit_bias = nn.Parameter(torch.tensor(-1.0))

    def forward(self, pairs):
        return tuple(
            nn.functional.normalize(tower(part), dim=1)
            for tower, part in zip((self.pictures, self.captions), pairs, strict=True)
        )


def convolutional(norm):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        norm(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=2, bias=False),
        norm(8),
        nn.SiLU(),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 4),
    )


def classified(model, batch):
    inputs, labels = batch
    return classification(model(inputs), labels)


def contrasted(model, batch):
    return within_batch(*model(batch), Logits(model.logit_scale.exp()))


def separated(model, batch):
    return within_batch(*model(batch), Logits(model.logit_scale.exp(), model.logit_bias))


def case(name, seed=0):
    """A model, a reference not far away, a loss and a batch of 6."""
    torch.manual_seed(seed)
    images, labels = torch.randn(6, 3, 12, 10), torch.randint(4, (6,))
    pairs = (torch.randn(6, 6), torch.randn(6, 5))
    model, loss, batch = {
        "BatchNorm": (convolutional(nn.BatchNorm2d), classified, (images, labels)),
        "GroupNorm": (convolutional(lambda width: nn.GroupNorm(2, width)), classified, (images, labels)),
        "tied": (Language(), classified, (torch.randint(7, (6, 4)), torch.randint(7, (6,)))),
        "contrastive": (Towers(), contrasted, pairs),
        "sigmoid": (Towers(), separated, pairs),
    }[name]
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer += torch.rand_like(buffer)
    reference = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    for buffer in reference.buffers():  # they go with the reference, and are not looked at
        if buffer.is_floating_point():
            buffer += 5
    return model, reference, loss, batch


EVERY_CASE = ["BatchNorm", "GroupNorm", "tied", "contrastive", "sigmoid"]


def backward(model, reference, loss, batch, chosen=lambda name: True):
    """Scores from a backward pass for each sample."""
    model = copy.deepcopy(model).eval()
    targets = dict(reference.named_parameters())
    weights = {name: one for name, one in model.named_parameters() if chosen(name)}
    way = torch.cat([(targets[name] - one).detach().double().ravel() for name, one in weights.items()])
    scores = []
    for one in loss(model, batch):
        parts = torch.autograd.grad(one, list(weights.values()), retain_graph=True, allow_unused=True)
        gradient = torch.cat(
            [
                (torch.zeros_like(weight) if part is None else part).double().ravel()
                for part, weight in zip(parts, weights.values(), strict=True)
            ]
        )
        scores.append(float(-gradient @ way / way.norm()))
    return np.array(scores)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", EVERY_CASE)
def test_scores_are_those_of_a_loop_of_backward_passes(name, layout):
    model, reference, loss, batch = case(name)
    if name.endswith("Norm"):
        model, batch = model.to(memory_format=layout), (batch[0].to(memory_format=layout), batch[1])
    found = mimic_scores(model, reference.state_dict(), loss, batch)
    expected = backward(model, reference, loss, batch)
    assert found.dtype == torch.float32
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", EVERY_CASE)
def test_so_are_those_of_each_parameter_alone(name):
    model, reference, loss, batch = case(name)
    for parameter, _ in model.named_parameters():
        found = mimic_scores(model, reference.state_dict(), loss, batch, [parameter])
        expected = backward(model, reference, loss, batch, lambda other, parameter=parameter: other == parameter)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6, err_msg=parameter)


def test_double_precision_is_kept_until_the_score():
    model, reference, _, batch = case("BatchNorm")
    model, reference, batch = model.double(), reference.double(), (batch[0].double(), batch[1])

    def exact(model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    found = mimic_scores(model, reference.state_dict(), exact, batch)
    np.testing.assert_allclose(found, backward(model, reference, exact, batch), rtol=1e-6)


@pytest.mark.parametrize("name", EVERY_CASE)
def test_central_differences_come_near(name):
    model, reference, loss, batch = case(name)
    exact = mimic_scores(model, reference.state_dict(), loss, batch)
    rough = mimic_scores(model, reference.state_dict(), loss, batch, derivative="central")
    assert 0 < (exact - rough).abs().max() < (0.05 if name.endswith("Norm") else 2e-3) * np.ptp(exact.numpy())


def test_central_differences_refuse_reduced_precision():
    model, reference, loss, batch = case("contrastive")
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(ValueError, match="central differences need float32: leave autocast, or use forward"),
    ):
        mimic_scores(model, reference.state_dict(), loss, batch, derivative="central")


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=40)
@given(st.sampled_from(EVERY_CASE), st.integers(0, 1000), st.integers(0, 5))
def test_a_small_step_on_a_sample_goes_as_far_toward_the_reference_as_its_score_says(name, seed, row):
    """Sign and scale: a step w - lr g changes the distance to the reference by -lr s, to the first order."""
    model, reference, loss, batch = case(name, seed)
    score = float(mimic_scores(model, reference.state_dict(), loss, batch)[row])
    stepped = copy.deepcopy(model).double().eval()
    targets = [one.double() for one in copy.deepcopy(reference).parameters()]
    weights = list(stepped.parameters())

    def distance(parameters):
        return float(sum((one - there).square().sum() for one, there in zip(parameters, targets, strict=True)).sqrt())

    double = tuple(one.double() if one.is_floating_point() else one for one in batch)
    gradients = torch.autograd.grad(_losses(name, stepped, double)[row], weights, allow_unused=True)
    gradients = [torch.zeros_like(one) if part is None else part for part, one in zip(gradients, weights, strict=True)]
    length = float(sum(one.square().sum() for one in gradients).sqrt())
    with torch.no_grad():
        before = distance(weights)
        rate = 1e-4 * before / max(length, 1e-3)
        after = distance([weight - rate * part for weight, part in zip(weights, gradients, strict=True)])
    second_order = (rate * length) ** 2 / before
    assert after - before == pytest.approx(-rate * score, abs=second_order + 1e-4 * rate * length)
    if abs(score) > 1e-2 * length:
        assert (after < before) == (score > 0)


def _losses(name, model, batch):
    if name in ("contrastive", "sigmoid"):
        return {"contrastive": contrasted, "sigmoid": separated}[name](model, batch)
    return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


@pytest.mark.parametrize("derivative", ["forward", "central"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_model_is_left_as_it_was(derivative, fails):
    model, reference, loss, batch = case("BatchNorm")
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    kept = [(id(one), one.requires_grad) for one in model.parameters()]
    target = {name: one.clone() for name, one in reference.state_dict().items()}

    def spoilt(model, batch):
        losses = loss(model, batch)
        if fails:
            raise KeyError("nothing of ours")
        return losses

    if fails:
        with pytest.raises(KeyError, match="nothing of ours"):
            mimic_scores(model, target, spoilt, batch, derivative=derivative)
    else:
        mimic_scores(model, target, spoilt, batch, derivative=derivative)
    assert [module.training for module in model] == [number != 1 for number in range(len(model))]
    assert model.training
    assert [(id(one), one.requires_grad) for one in model.parameters()] == kept
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
        assert torch.equal(target[name], reference.state_dict()[name])
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.is_grad_enabled()
    loss(model, batch).sum().backward()  # and no tangent is left behind


def test_losses_that_are_not_one_number_a_sample_are_refused():
    model, reference, _, batch = case("BatchNorm")
    with pytest.raises(ValueError, match="loss gave a tensor of 2 dimensions: return one number for each sample"):
        mimic_scores(model, reference.state_dict(), lambda model, batch: model(batch[0]), batch)


def test_other_architectures_and_equal_weights_are_refused():
    model, _, loss, batch = case("BatchNorm")
    other = case("GroupNorm")[0].state_dict()
    with pytest.raises(ValueError, match=r"^the reference has no 1\.running_mean: both have to be checkpoints of one"):
        mimic_scores(model, other, loss, batch)
    with pytest.raises(ValueError, match="reference and current model have the same weights"):
        mimic_scores(model, copy.deepcopy(model).state_dict(), loss, batch)


# The scorer.


def save(path, network):
    torch.save({"epoch": 1, "state_dict": network.state_dict()}, path)
    return str(path)


def moved(network, by, seed=1):
    other = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += by * parameter.abs().mean() * torch.randn(parameter.shape, generator=generator)
    return other


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small_pool):
    """Weights of small models: of one lineage, of another, damaged; and shards of trusted pairs."""
    from chaffinch.scoring.training.architectures import find_architecture

    folder = tmp_path_factory.mktemp("mimic")
    torch.manual_seed(0)
    network = find_architecture(MODEL).create()[0]
    save(folder / "current.pt", network)
    save(folder / "later.pt", moved(network, 0.2, 2))
    save(folder / "reference.pt", moved(network, 0.5, 3))
    torch.save({"epoch": 7, "state_dict": network.state_dict()}, folder / "renamed.pt")
    spoilt = moved(network, 0.1)
    with torch.no_grad():
        spoilt.visual.conv1.weight[0, 0, 0, 0] = float("nan")
    save(folder / "nan.pt", spoilt)
    save(folder / "stranger.pt", find_architecture(MODEL).create()[0])
    wider = json.loads(json.dumps(dict(find_architecture(MODEL).model)))
    wider["vision_cfg"]["width"] = 32
    (folder / "wider.json").write_text(json.dumps({"model_cfg": wider}))
    shutil.copy(find_architecture(MODEL).merges, folder)
    save(folder / "wider.pt", find_architecture(str(folder / "wider.json")).create()[0])
    (folder / "html.pt").write_text("<html>")
    small_pool(folder / "trusted", shards=2, samples=5)
    (folder / "empty").mkdir()
    return folder


@pytest.fixture(scope="module")
def build(folder):
    """(settings) -> a scorer of the small models."""

    def make(**changed) -> Mimic:
        given = {"pretrained": "current.pt", "reference": "reference.pt", "negatives": "trusted"} | changed
        for name in ("pretrained", "reference", "negatives"):
            value = given[name]
            given[name] = (
                tuple(str(folder / one) for one in value)
                if isinstance(value, tuple)
                else value
                if "://" in value or not value
                else str(folder / value)
            )
        return Mimic(MODEL, **given)

    return make


def measure(scorer, captions, pictures, uids=None, model=None):
    model = model or scorer.load("cpu")
    prepared = [scorer.prepare(picture, model) for picture in pictures]
    uids = uids or [f"{row:032x}" for row in range(len(captions))]
    return dict(scorer.score(Batch(uids, captions, prepared), model))


def rows(column):
    return np.array(column.to_pylist()) if isinstance(column, pa.Array) else column


def test_one_checkpoint_gives_numbers_and_several_give_vectors(build, photos):
    both = measure(build(pretrained=("current.pt", "later.pt"), cosine=True), CAPTIONS, photos)
    assert both["mimic_score"].type == pa.list_(pa.float32(), 2)
    for step, name in enumerate(("current.pt", "later.pt")):
        one = measure(build(pretrained=name, cosine=True), CAPTIONS, photos)
        for column, values in one.items():
            assert values.dtype == np.float32
            assert np.isfinite(values).all()
            together = rows(both[column])
            np.testing.assert_array_equal(values, together if together.ndim == 1 else together[:, step], err_msg=column)
    np.testing.assert_allclose(one["excess_loss"], one["loss"] - one["reference_loss"], atol=1e-6)
    assert (np.sign(one["mimic_cosine"]) == np.sign(one["mimic_score"])).mean() > 0.5
    single = measure(build(pretrained=("later.pt",)), CAPTIONS, photos)
    np.testing.assert_array_equal(rows(single["mimic_score"])[:, 0], one["mimic_score"])


def test_a_pair_of_the_bank_in_the_pool_is_no_negative_of_itself(build, folder, photos):
    """By its uid, whatever its caption: it has one negative less to be told from."""
    scorer = build(bank=4)
    model = scorer.load("cpu")
    other = measure(scorer, ["a caption"], photos[:1], ["f" * 32], model)["loss"][0]
    for pair in draw_negatives(find_negatives([str(folder / "trusted")]), 4, 0):
        own = measure(scorer, ["a caption"], photos[:1], [pair.uid], model)["loss"][0]
        assert other - own > 0.1


def test_strips_are_refused_before_they_take_memory(build):
    from PIL import Image

    scorer = build()
    with pytest.raises(SampleError, match="too elongated"):
        scorer.prepare(Image.new("RGB", (60_000, 2)), scorer.load("cpu"))


def test_the_fingerprint_follows_all_that_changes_a_number(build, folder, tmp_path):
    base = build()
    elsewhere = Mimic(
        MODEL,
        *(str(shutil.copy(folder / name, tmp_path / f"other_{name}")) for name in ("current.pt", "reference.pt")),
        str(shutil.copytree(folder / "trusted", tmp_path / "moved")),
    )
    assert fingerprint(elsewhere, "cpu") == fingerprint(base, "cpu")
    assert str(folder) not in json.dumps(base.identity())
    changed = [
        {"pretrained": "later.pt"},
        {"pretrained": ("current.pt",)},
        {"pretrained": ("current.pt", "later.pt")},
        {"pretrained": ("later.pt", "current.pt")},
        {"reference": "later.pt"},
        {"layers": ("visual",)},
        {"bank": 5},
        {"seed": 1},
        {"cosine": True},
        {"derivative": "central"},
        {"precision": "bfloat16"},
        {"negatives": "trusted/00000000.tar"},
    ]
    names = [fingerprint(build(**one), "cpu") for one in changed] + [
        fingerprint(base, kind) for kind in ("cpu", "cuda")
    ]
    assert len(set(names)) == len(names)


def test_columns_and_checks_need_no_torch(build):
    scorer = build(pretrained=("current.pt", "later.pt"))
    program = (
        "import sys; from chaffinch.scoring.mimic import Mimic; from chaffinch.scoring.scorer import fingerprint\n"
        f"scorer = Mimic(**{dataclasses.asdict(scorer)!r}); scorer.check(); fingerprint(scorer, 'cpu')\n"
        "print(scorer.columns['loss']); assert not {'torch', 'open_clip', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(pa.list_(pa.float32(), 2))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"reference": "current.pt"},
            "is the current model itself: name weights that were trained for longer, or on cl",
        ),
        ({"pretrained": ("later.pt", "reference.pt")}, "is the current model itself"),
        ({"pretrained": ()}, "pretrained is empty: name the current model's weights"),
        ({"pretrained": "missing.pt"}, "missing.pt' is not a file here: correct the path"),
        ({"reference": "missing.pt"}, "missing.pt' is not a file here: correct the path"),
        ({"negatives": "empty"}, "is no .tar file and no folder of them: name shards of trusted pairs"),
        ({"negatives": "s3://bucket/pairs"}, "are not on the local disk: copy them there, and name the copy"),
        ({"negatives": ()}, "negatives is empty: name shards of trusted pairs"),
        ({"layers": ()}, "layers is empty: name some, or leave it out to take all"),
        ({"bank": 1}, "bank is 1: give 2 or more negatives"),
        ({"precision": "float16"}, "precision 'float16' is unknown: use one of auto, float32, bfloat16"),
        ({"derivative": "backward"}, "derivative 'backward' is unknown: use one of forward, central"),
        (
            {"derivative": "central", "precision": "bfloat16"},
            "derivative central needs precision float32: bfloat16 rounds its small step away",
        ),
    ],
)
def test_settings_that_cannot_be_right_are_told_of_before_anything_is_loaded(build, changed, message):
    for call in (lambda: build(**changed).check(), lambda: build(**changed).load("cpu")):
        with pytest.raises(ValueError, match=message) as told:
            call()
        assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"reference": "renamed.pt"},
            "current.pt: reference and current model have the same weights: name a reference",
        ),
        (
            {"reference": "nan.pt"},
            r"the reference has weights that are no finite numbers, in visual\.conv1\.weight: take",
        ),
        (
            {"pretrained": "nan.pt"},
            r"nan.pt: the current model has weights that are no finite numbers, in visual\.conv1",
        ),
        (
            {"pretrained": ("current.pt", "nan.pt"), "layers": ("transformer",)},
            r"nan.pt: the current model has weights that are no finite numbers, in visual\.conv1\.weight: take another",
        ),
        ({"reference": "stranger.pt"}, r"are strangers: the cosine between their weights is -?0\.00\d; take one that"),
        ({"layers": ("transfromer",)}, r"layers: no parameter matches 'transfromer'; there are such as transformer"),
        ({"reference": "wider.pt"}, r"cannot load .*wider.pt' into chaffinch-tiny: .*size mismatch for visual\.conv1"),
        ({"pretrained": "html.pt"}, "cannot load .*html.pt' into chaffinch-tiny: is it a checkpoint of chaffinch-tiny"),
    ],
)
def test_weights_that_do_not_go_together_are_told_of(build, changed, message):
    scorer = build(**changed)
    scorer.check()
    with pytest.raises(ValueError, match=message) as told:
        scorer.load("cpu")
    assert "\n" not in str(told.value)


def test_negatives_that_are_none_are_told_of(build, folder, tmp_path, write_shard, sample):
    write_shard(tmp_path / "one.tar", sample("a"))
    cut = tmp_path / "cut.tar"
    cut.write_bytes((folder / "trusted" / "00000000.tar").read_bytes()[:5000])
    for name, message in (("one", "there are 1 pairs that can be used"), ("cut", "cut.tar cannot be read to its end")):
        scorer = dataclasses.replace(build(), negatives=str(tmp_path / f"{name}.tar"))
        with pytest.raises(ValueError, match=message):
            scorer.load("cpu")


def test_chosen_layers_and_methods_give_other_scores_of_the_same_losses(build, photos):
    found = {
        name: measure(build(**changed), CAPTIONS, photos)
        for name, changed in {
            "all": {},
            "visual": {"layers": ("visual",)},
            "scale": {"layers": ("logit_scale",)},
            "central": {"derivative": "central"},
            "bfloat16": {"precision": "bfloat16"},
        }.items()
    }
    for one, other in itertools.combinations(found, 2):
        assert (found[one]["mimic_score"] != found[other]["mimic_score"]).any(), (one, other)
    for name in ("visual", "scale"):
        np.testing.assert_allclose(found[name]["loss"], found["all"]["loss"], rtol=1e-5)
    spread = np.ptp(found["all"]["mimic_score"])
    np.testing.assert_allclose(found["central"]["mimic_score"], found["all"]["mimic_score"], atol=0.02 * spread)
    assert found["bfloat16"]["mimic_score"].dtype == np.float32
