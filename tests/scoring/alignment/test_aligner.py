"""Mimic scores of CLIPs of every kind against a loop of backward passes; and what they may not depend on."""

import concurrent.futures
import copy
import logging

import numpy as np
import pytest
import torch
import torch.autograd.forward_ad as forward_mode
from scipy import stats

from chaffinch.scoring.alignment.negatives import Negative
from chaffinch.scoring.clips.from_open_clip import OpenClipModel

EVERY_MODEL = ["vit", "resnet", "siglip", "relative", "convnext"]


def measure(aligner, samples, cosine=False):
    pictures = [aligner.model.transform(one.picture) for one in samples]
    return aligner.measure([one.uid for one in samples], [one.caption for one in samples], pictures, cosine)


def agree(found, expected, tolerance=1e-4):
    """Relative to each value, and for those near 0 to the largest."""
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max() / 10)


def with_network(model, network):
    return OpenClipModel(network, model.device, model.precision, model.evaluation, model.tokenizer)


def snapshot(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("name", EVERY_MODEL)
def test_scores_are_those_of_a_loop_of_backward_passes(case, twin, samples, name):
    aligner = case(name).aligner()
    found = measure(aligner, samples)
    expected = twin(case(name), samples, lambda parameter: True)
    agree(found.mimic_score[:, 0], expected["score"])
    agree(found.loss[:, 0], expected["loss"])
    assert np.ptp(expected["score"]) > 0.01  # or anything would agree
    with torch.no_grad():
        model = case(name).current
        one = samples[1]
        picture = model.network.encode_image(model.evaluation(one.picture)[None], normalize=True)[0]
        similarity = picture @ model.network.encode_text(model.tokenizer([one.caption]), normalize=True)[0]
    assert found.similarity[1, 0] == pytest.approx(float(similarity), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "layers", "chosen"),
    [
        ("vit", ["logit_scale"], lambda name: name == "logit_scale"),
        ("vit", ["visual"], lambda name: name.startswith("visual.")),
        ("vit", ["transformer.resblocks.1", "ln_*"], lambda name: name.startswith(("transformer.resblocks.1.", "ln_"))),
        ("vit", ["token_embedding.weight"], lambda name: name == "token_embedding.weight"),
        ("vit", ["visual.conv1.weight", "*.bias"], lambda name: name == "visual.conv1.weight" or ".bias" in name),
        ("vit", ["*in_proj_bias"], lambda name: name.endswith("in_proj_bias")),
        ("resnet", ["visual.attnpool.*"], lambda name: name.startswith("visual.attnpool")),
        ("resnet", ["visual.layer?.0.bn1"], lambda name: ".0.bn1." in name),
        ("siglip", ["logit_bias", "text"], lambda name: name == "logit_bias" or name.startswith("text.")),
        ("relative", ["*.mlp.*"], lambda name: ".mlp." in name),
        ("relative", ["*rel_pos*"], lambda name: "rel_pos" in name),
    ],
)
def test_so_are_those_of_chosen_layers(case, twin, samples, name, layers, chosen):
    found = measure(case(name).aligner(layers), samples[:3])
    expected = twin(case(name), samples[:3], chosen)
    assert np.abs(expected["score"]).max() > 1e-4
    agree(found.mimic_score[:, 0], expected["score"])


@pytest.mark.parametrize("name", ["vit", "resnet", "siglip"])
def test_cosines_are_those_among_a_bank_that_stands_still(case, twin, samples, name):
    for layers, chosen in ((["*"], lambda name: True), (["visual*"], lambda name: name.startswith("visual"))):
        found = measure(case(name).aligner(layers), samples[:3], cosine=True)
        expected = twin(case(name), samples[:3], chosen, still=True)
        agree(found.mimic_cosine[:, 0], expected["cosine"])
        assert np.abs(found.mimic_cosine).max() <= 1
    assert not np.allclose(found.mimic_score[:, 0], expected["score"], rtol=5e-4)  # the bank does move otherwise


def test_a_sample_is_no_negative_of_itself_nor_are_equal_captions(case, twin, samples):
    bank = case("vit").negatives
    planted = [
        bank[1],
        Negative(bank[2].uid, "the same picture with another caption", samples[0].picture),
        Negative("f" * 32, "  Picture 0\nof DOGS ", samples[1].picture),
        Negative("e" * 32, "no such pair", samples[2].picture),
    ]
    found = measure(case("vit").aligner(), planted)
    expected = twin(case("vit"), planted, lambda name: True)
    agree(found.mimic_score[:, 0], expected["score"])
    agree(found.loss[:, 0], expected["loss"])
    strange = measure(case("vit").aligner(), [Negative("d" * 32, one.caption + " x", one.picture) for one in planted])
    assert (np.abs(strange.loss - found.loss)[:3] > 0.05).all()  # a negative less is seen


@pytest.mark.parametrize("name", ["vit", "resnet", "siglip"])
def test_scores_do_not_depend_on_batches_order_or_neighbours(case, samples, name):
    """Not bitwise: how a matrix product is summed up depends on how many rows there are."""
    aligner = case(name).aligner()
    together = measure(aligner, samples)
    alone = [measure(aligner, [one]) for one in samples]
    backwards = measure(aligner, samples[::-1])
    halves = [measure(aligner, samples[:2]), measure(aligner, samples[2:])]
    for column in ("mimic_score", "loss", "similarity"):
        values = getattr(together, column)
        for others in (alone, halves):
            found = np.concatenate([getattr(one, column) for one in others])
            np.testing.assert_allclose(found, values, rtol=0, atol=1e-5 * max(np.ptp(values), 1), err_msg=column)
        found = getattr(backwards, column)[::-1]
        np.testing.assert_allclose(found, values, rtol=0, atol=1e-5 * max(np.ptp(values), 1), err_msg=column)
        np.testing.assert_array_equal(getattr(measure(aligner, samples), column), values)  # the same batch: bitwise


def test_several_checkpoints_give_the_columns_of_each_alone(case, samples):
    one = case("resnet")
    other = with_network(one.current, copy.deepcopy(one.reference.network))
    with torch.no_grad():  # half the way
        for here, there in zip(other.network.parameters(), one.current.network.parameters(), strict=True):
            here.lerp_(there, 0.5)
        for name, buffer in other.network.named_buffers():
            if name.endswith("running_mean"):
                buffer += 0.3
    both = measure(one.aligner(currents=[one.current, other]), samples, cosine=True)
    for column, model in enumerate((one.current, other)):
        single = measure(one.aligner(currents=[model]), samples, cosine=True)
        for name in ("mimic_score", "mimic_cosine", "loss", "similarity"):
            np.testing.assert_array_equal(getattr(both, name)[:, column], getattr(single, name)[:, 0])
        np.testing.assert_array_equal(both.reference_loss, single.reference_loss)
    assert (both.mimic_score[:, 0] != both.mimic_score[:, 1]).all()


def test_the_loss_and_similarity_of_the_reference_are_those_it_would_have_as_the_current_model(case, samples):
    there = case("resnet")
    as_current = there.aligner(currents=[there.reference], reference=there.current)
    found, expected = measure(there.aligner(), samples), measure(as_current, samples)
    np.testing.assert_allclose(found.reference_loss, expected.loss[:, 0], atol=1e-5)
    np.testing.assert_allclose(found.reference_similarity, expected.similarity[:, 0], atol=1e-6)


@pytest.mark.parametrize("name", ["vit", "resnet", "convnext"])
@pytest.mark.parametrize("layers", [("*",), ("visual",)])
def test_central_differences_come_near(case, samples, name, layers):
    exact = measure(case(name).aligner(layers), samples, cosine=True)
    rough = measure(case(name).aligner(layers, "central"), samples, cosine=True)
    spread = np.ptp(exact.mimic_score)
    error = 0.02 if name == "resnet" else 1e-3  # units of ReLU go on and off within a step
    assert 0 < np.abs(rough.mimic_score - exact.mimic_score).max() < error * spread
    np.testing.assert_allclose(rough.mimic_cosine, exact.mimic_cosine, atol=error)
    np.testing.assert_allclose(rough.loss, exact.loss, rtol=1e-3)


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_bfloat16_keeps_the_order_and_gives_float32(case, samples, name):
    rng = np.random.default_rng(0)
    many = [
        Negative(f"{row:032x}", one.caption + f" {row}", one.picture.rotate(int(rng.integers(360))))
        for row, one in enumerate(samples * 8)
    ]
    there = case(name)
    exact = measure(there.aligner(), many)
    half, target = (
        OpenClipModel(model.network, "cpu", "bfloat16", model.evaluation, model.tokenizer)
        for model in (there.current, there.reference)
    )
    rough = measure(there.aligner(currents=[half], reference=target), many, cosine=True)
    for column in ("mimic_score", "loss"):
        here, right = getattr(rough, column)[:, 0], getattr(exact, column)[:, 0]
        assert here.dtype == np.float32
        assert stats.spearmanr(here, right).statistic > 0.99, column
        assert 0 < np.abs(here - right).max() < 0.1 * np.ptp(right)
    assert np.isfinite(rough.mimic_cosine).all()


def test_models_are_left_as_they_were(case, samples):
    there = case("resnet")
    networks = [there.current.network, there.reference.network]
    before = [snapshot(network) for network in networks]
    modes = [[module.training for module in network.modules()] for network in networks]
    identities = [[id(one) for one in network.parameters()] for network in networks]
    for method in ("forward", "central"):
        aligner = there.aligner(method=method)
        measure(aligner, samples, cosine=True)
        with pytest.raises(TypeError):  # in the middle of a forward pass
            aligner.measure(["0" * 32], ["a caption"], ["no picture"], True)
    for network, weights, mode, ids in zip(networks, before, modes, identities, strict=True):
        assert [module.training for module in network.modules()] == mode
        assert [id(one) for one in network.parameters()] == ids
        assert all(parameter.grad is None for parameter in network.parameters())
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, weights[name]), name
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.is_grad_enabled()


def test_threads_do_not_meet(case, samples):
    """Workers of one process are threads, and torch has one level of forward derivatives for all of them."""
    aligners = [case("vit").aligner(), case("convnext").aligner()]
    expected = [measure(aligner, samples).mimic_score for aligner in aligners]

    def work(number):
        return [measure(aligners[number], samples).mimic_score for _ in range(15)]

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for found, values in zip(pool.map(work, range(2)), expected, strict=True):
            for scores in found:
                np.testing.assert_array_equal(scores, values)
    with forward_mode.dual_level():  # the level is closed again
        pass


def test_a_reference_no_better_than_the_current_model_is_told_of(case, caplog):
    there = case("vit")
    losses = {}
    for name, model, reference in (("forth", there.current, there.reference), ("back", there.reference, there.current)):
        caplog.clear()
        there.aligner(currents=[model], reference=reference)
        losses[name] = [record.getMessage() for record in caplog.records]
    told = [message for messages in losses.values() for message in messages]
    assert len(told) == 1  # one of them is the better one
    assert "the reference is no better than step 0 on the negatives (loss" in told[0]
    assert "take a reference that was trained for longer or on cleaner pairs" in told[0]


def train(model, samples, steps):
    """A model that has learnt the samples by heart."""
    network = copy.deepcopy(model.network)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    seen = torch.stack([model.evaluation(one.picture) for one in samples])
    tokens = model.tokenizer([one.caption for one in samples])
    for _ in range(steps):
        pictures, captions = network.encode_image(seen, normalize=True), network.encode_text(tokens, normalize=True)
        table = network.logit_scale.exp() * pictures @ captions.T
        loss = torch.nn.functional.cross_entropy(table, torch.arange(len(table)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return with_network(model, network.eval())


def test_a_current_model_that_has_memorised_the_pool_is_told_of_once(case, samples, caplog):
    there = case("vit")
    rng = np.random.default_rng(1)
    bank = [
        Negative(f"{row:032x}", f"{row} {one.caption}", one.picture.rotate(int(rng.integers(360))))
        for row, one in enumerate(samples * 4)
    ]
    learnt = train(there.current, samples, 25)
    aligner = there.aligner(["logit_scale"], currents=[there.current, learnt], negatives=bank)
    batch = samples * 32  # 160
    caplog.clear()
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        measure(aligner, batch)
    assert not caplog.records  # 480 samples say nothing yet
    for _ in range(5):
        measure(aligner, batch)
    (record,) = caplog.records
    assert record.getMessage().startswith("step 1 fits the pool better than the negatives (loss")
    assert "take an earlier checkpoint" in record.getMessage()
