"""The closed form of a linear head against forward mode and a loop of backward passes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chaffinch.scoring.alignment.linear import align_head, check_heads
from chaffinch.scoring.mimic import mimic_scores


def losses(model, batch):
    rows, labels = batch
    if model.out_features == 1:
        outputs = model(rows)[:, 0]
        return torch.nn.functional.binary_cross_entropy_with_logits(outputs, labels.to(outputs), reduction="none")
    return torch.nn.functional.cross_entropy(model(rows), labels, reduction="none")


def problem(outputs, bias, n=23, d=7, seed=0, scale=1.0):
    """A current head, a reference, embeddings and labels, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = [torch.nn.Linear(d, outputs, bias=bias).double() for _ in range(2)]
        rows = torch.randn(n, d, dtype=torch.float64) * scale
        labels = torch.randint(0, max(outputs, 2), (n,))
    return *heads, rows, labels


def layer(head):
    weight = head.weight.detach().numpy()
    return weight, np.zeros(len(weight)) if head.bias is None else head.bias.detach().numpy()


def align(current, reference, rows, labels):
    return align_head(rows.numpy(), labels.numpy(), layer(current), layer(reference))


def backward_loop(current, reference, rows, labels):
    """Scores and cosines, one sample and one backward pass after the other, in float64."""
    way = torch.cat(
        [(b - a).flatten() for a, b in zip(current.parameters(), reference.parameters(), strict=True)]
    ).detach()
    scores, cosines = [], []
    for row, label in zip(rows, labels, strict=True):
        loss = losses(current, (row[None], label[None]))[0]
        step = -torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(current.parameters()))])
        scores.append(float(step @ way / way.norm()))
        cosines.append(float(step @ way / way.norm() / step.norm()))
    return np.array(scores), np.array(cosines)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("outputs", [1, 2, 10])
def test_it_is_a_loop_of_backward_passes(outputs, bias):
    current, reference, rows, labels = problem(outputs, bias)
    found = align(current, reference, rows, labels)
    scores, cosines = backward_loop(current, reference, rows, labels)
    np.testing.assert_allclose(found.mimic_score, scores, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.mimic_cosine, cosines, rtol=0, atol=1e-12)
    for head, measured in ((current, found.loss), (reference, found.reference_loss)):
        np.testing.assert_allclose(measured, losses(head, (rows, labels)).detach().numpy(), rtol=1e-12)
    assert np.ptp(found.mimic_score) > 0.1


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("outputs", [1, 2, 10])
def test_it_is_what_forward_mode_gives(outputs, bias):
    current, reference, rows, labels = (one.float() if hasattr(one, "bias") else one for one in problem(outputs, bias))
    found = align(current, reference, rows, labels)
    forward = mimic_scores(current, reference.state_dict(), losses, (rows.float(), labels))
    np.testing.assert_allclose(found.mimic_score, forward.numpy(), rtol=0, atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([1, 3]), st.floats(-1.5, 1.5))
def test_a_step_on_what_scores_above_zero_leads_toward_the_reference(seed, outputs, exponent):
    current, reference, rows, labels = problem(outputs, True, n=5, seed=seed, scale=10**exponent)
    found = align(current, reference, rows, labels)
    here, there = layer(current), layer(reference)

    def distance(head):
        return np.sqrt(sum(((b - a) ** 2).sum() for a, b in zip(head, there, strict=True)))

    for row, label, score in zip(rows, labels, found.mimic_score, strict=True):
        current.zero_grad()
        losses(current, (row[None], label[None])).sum().backward()
        gradient = [one.grad.numpy() for one in current.parameters()]
        length = np.sqrt(sum((one**2).sum() for one in gradient))
        if length < 1e-12 or abs(score) < 1e-3 * length:
            continue  # nothing to learn, or all but at right angles
        moved = [value - 1e-6 * one / length for value, one in zip(here, gradient, strict=True)]
        assert (distance(moved) < distance(here)) == (score > 0)
        # How much nearer a step of unit length leads is the cosine.
        np.testing.assert_allclose((distance(here) - distance(moved)) / 1e-6, score / length, rtol=1e-2)


def test_no_score_depends_on_the_others():
    current, reference, rows, labels = problem(10, True)
    together = align(current, reference, rows, labels)
    for index in range(len(rows)):
        alone = align(current, reference, rows[index : index + 1], labels[index : index + 1])
        np.testing.assert_allclose(alone.mimic_score, together.mimic_score[index : index + 1], rtol=1e-12)


def test_a_sure_head_keeps_its_digits():
    """Of a loss of e^-800 the gradient is gone, of one of e^-40 it is not; nothing overflows on the other side."""
    weight = np.array([[1.0], [0.0]])
    rows, labels = np.array([[40.0], [800.0], [-800.0]]), np.array([0, 0, 0])
    found = align_head(rows, labels, (weight, np.zeros(2)), (2 * weight, np.zeros(2)))
    np.testing.assert_allclose(found.loss, [np.exp(-40), 0, 800], rtol=1e-12)
    single = align_head(rows, labels + 1, (weight[:1], np.zeros(1)), (2 * weight[:1], np.zeros(1)))
    np.testing.assert_allclose(single.loss, found.loss, rtol=1e-12)
    assert found.mimic_cosine[0] == pytest.approx(1 / np.sqrt(2))  # of the other class's weights nothing is wanted
    assert single.mimic_cosine.tolist() == pytest.approx([1, 0, -1])
    assert found.mimic_score[1] == 0


def test_samples_without_a_label_or_numbers_cannot_be_judged():
    current, reference, rows, labels = problem(3, True)
    labels[1], rows[2, 0], rows[4, 1] = -1, np.nan, np.inf
    found = align(current, reference, rows, labels)
    for measured in (found.mimic_score, found.mimic_cosine, found.loss, found.reference_loss):
        assert np.isnan(measured).nonzero()[0].tolist() == [1, 2, 4]


def test_no_samples_give_no_scores():
    for outputs in (1, 3):
        current, reference, rows, labels = problem(outputs, True)
        assert len(align(current, reference, rows[:0], labels[:0]).mimic_score) == 0


@pytest.mark.parametrize(("outputs", "label"), [(1, 2), (3, 3)])
def test_labels_beyond_the_head_are_refused(outputs, label):
    current, reference, rows, labels = problem(outputs, True)
    labels[5] = label
    with pytest.raises(ValueError, match=rf"label {label} is beyond the head, which tells {max(outputs, 2)} classes"):
        align(current, reference, rows, labels)


def test_shapes_and_types_that_do_not_fit_are_refused():
    current, reference, rows, labels = problem(3, True)
    with pytest.raises(ValueError, match=r"embeddings have the shape \(23, 6\): the heads take \(n, 7\)"):
        align(current, reference, rows[:, :6], labels)
    with pytest.raises(ValueError, match=r"labels are float64 .*: give 23 whole numbers"):
        align(current, reference, rows, labels.double())
    with pytest.raises(ValueError, match=r"labels are int64 \(22,\): give 23"):
        align(current, reference, rows, labels[1:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weight, bias: (weight[:2], bias[:2]), r"weights have the shape \[3, 7\] in the current head and \[2, "),
        (lambda weight, bias: (weight[:, :5], bias), r"\[3, 5\] in the reference"),
        (lambda weight, bias: (weight * np.nan, bias), "the reference has weights that are no finite numbers"),
        (lambda weight, bias: (weight, bias + np.inf), "the reference has biases that are no finite numbers"),
        (lambda weight, bias: (weight, bias), "reference and current head are equal: there is no way between them"),
    ],
)
def test_heads_without_a_way_between_them_are_refused(change, message):
    head = layer(problem(3, True)[0])
    with pytest.raises(ValueError, match=message):
        check_heads(head, change(*head))
