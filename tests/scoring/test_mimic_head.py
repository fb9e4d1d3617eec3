import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file

from chaffinch.scoring.mimic import mimic_scores
from chaffinch.scoring.mimic_head import MimicHead
from chaffinch.scoring.scorer import Batch, fingerprint

EMBEDDING, LABEL = "b32.image_embedding", "metadata.label"
SCALARS = ["mimic_score", "mimic_cosine", "loss", "reference_loss", "excess_loss"]


def save(path, seed, inputs=24, outputs=4, bias=True) -> str:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.save(torch.nn.Linear(inputs, outputs, bias=bias).state_dict(), path)
    return str(path)


def opened(path) -> torch.nn.Linear:
    state = torch.load(path, weights_only=True)
    head = torch.nn.Linear(state["weight"].shape[1], len(state["weight"]), bias="bias" in state)
    head.load_state_dict(state)
    return head


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(9, 24)).astype(np.float16)


@pytest.fixture
def labels() -> list[int]:
    return [0, 1, 2, 3, 0, 1, 2, 3, 1]


@pytest.fixture
def head(tmp_path):
    """(settings) -> the scorer over two heads."""
    current, reference = save(tmp_path / "current.pt", 0), save(tmp_path / "reference.pt", 1)

    def make(**settings) -> MimicHead:
        return MimicHead(EMBEDDING, LABEL, **({"weights": current, "reference": reference} | settings))

    return make


def measure(scorer, rows, labels):
    stored = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
    labels = labels if isinstance(labels, pa.Array) else pa.array(labels)
    batch = Batch([""] * len(rows), (), (), {EMBEDDING: stored, LABEL: labels})
    return dict(scorer.score(batch, scorer.load("cpu")))


def losses(model, batch):
    return torch.nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


@pytest.mark.parametrize("normalize", [True, False])
def test_it_is_what_forward_mode_makes_of_the_heads(head, rows, labels, normalize):
    scorer = head(normalize=normalize)
    found = measure(scorer, rows, labels)
    vectors = torch.from_numpy(rows.astype(np.float32))
    vectors = torch.nn.functional.normalize(vectors) if normalize else vectors
    batch = vectors, torch.tensor(labels)
    current, reference = opened(scorer.weights), opened(scorer.reference)
    expected = mimic_scores(current, reference.state_dict(), losses, batch).numpy()
    assert list(found) == SCALARS
    np.testing.assert_allclose(found["mimic_score"], expected, rtol=0, atol=1e-5)
    with torch.no_grad():
        lost = [losses(one, batch).numpy() for one in (current, reference)]
    np.testing.assert_allclose(found["loss"], lost[0], rtol=1e-5)
    np.testing.assert_allclose(found["reference_loss"], lost[1], rtol=1e-5)
    np.testing.assert_allclose(found["excess_loss"], lost[0] - lost[1], rtol=0, atol=1e-5)
    assert (np.abs(found["mimic_cosine"]) <= 1).all()
    assert (np.sign(found["mimic_cosine"]) == np.sign(found["mimic_score"])).all()


def test_several_heads_give_a_vector_each(head, rows, labels, tmp_path):
    files = [save(tmp_path / f"step{seed}.pt", seed) for seed in (5, 6, 7)]
    found = measure(head(weights=tuple(files)), rows, labels)
    assert {name: values.type for name, values in found.items() if name != "reference_loss"} == dict.fromkeys(
        ["mimic_score", "mimic_cosine", "loss", "excess_loss"], pa.list_(pa.float32(), 3)
    )
    for step, one in enumerate(files):
        alone = measure(head(weights=one), rows, labels)
        for name in SCALARS:
            values = found[name]
            if isinstance(values, pa.Array):
                values = np.array(values.to_pylist(), np.float32)[:, step]
            np.testing.assert_array_equal(values, alone[name], name)
    assert measure(head(weights=(files[0],)), rows, labels)["loss"].type == pa.list_(pa.float32(), 1)


def test_other_forms_of_files_and_labels_hold_the_same(head, rows, labels, tmp_path):
    scorer = head()
    first = measure(scorer, rows, labels)
    save_file(opened(scorer.weights).state_dict(), tmp_path / "current.safetensors")
    torch.save({"epoch": 1, "state_dict": opened(scorer.reference).state_dict()}, tmp_path / "trained.ckpt")
    other = head(weights=str(tmp_path / "current.safetensors"), reference=str(tmp_path / "trained.ckpt"))
    for kind in (pa.int8(), pa.uint64(), pa.float32(), pa.float64()):
        found = measure(other, rows, pa.array(labels).cast(kind))
        for name in SCALARS:
            np.testing.assert_array_equal(found[name], first[name], name)


def test_one_output_takes_labels_of_two_kinds(head, rows, tmp_path):
    files = {
        name: save(tmp_path / f"{name}1.pt", seed, outputs=1) for seed, name in enumerate(("weights", "reference"))
    }
    whole = measure(head(**files), rows, [0, 1, 1, 0, 1, 0, 0, 1, 1])
    truth = measure(head(**files), rows, [False, True, True, False, True, False, False, True, True])
    for name in SCALARS:
        np.testing.assert_array_equal(whole[name], truth[name])
    assert np.isfinite(whole["mimic_score"]).all()


def test_what_has_no_label_or_no_direction_cannot_be_judged(head, rows, labels):
    rows[2], rows[4, 3] = 0, np.nan
    labels = [-1 if index == 6 else label for index, label in enumerate(labels)]
    found = measure(head(), rows, labels)
    for name in SCALARS:
        assert np.isnan(found[name]).nonzero()[0].tolist() == [2, 4, 6]
    missing = pa.array([np.nan if label < 0 else label for label in labels], pa.float32())
    for name, values in measure(head(), rows, missing).items():
        np.testing.assert_array_equal(values, found[name])


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (4, "label: metadata.label: label 4 is beyond the head, which tells 4 classes apart: number them from 0"),
        (1.5, "label: metadata.label: 1.5 is no whole number"),
        (np.inf, "beyond the head"),
    ],
)
def test_labels_that_are_no_classes_are_refused(head, rows, labels, label, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        measure(head(), rows, [*labels[:-1], label])
    assert message in str(error.value)


def test_the_fingerprint_follows_the_weights_and_not_their_place(head, tmp_path):
    scorer = head()
    moved = str(shutil.copy(scorer.weights, tmp_path / "elsewhere.pt"))
    assert fingerprint(scorer, "cpu") == fingerprint(head(weights=moved), "cpu")
    assert str(tmp_path) not in json.dumps(scorer.identity())
    others = [
        head(weights=(scorer.weights,)),
        head(weights=(scorer.weights, save(tmp_path / "more.pt", 2))),
        head(weights=save(tmp_path / "other.pt", 2)),
        head(reference=save(tmp_path / "better.pt", 3)),
        head(normalize=False),
        MimicHead(EMBEDDING, "metadata.class", scorer.weights, scorer.reference),
    ]
    assert len({fingerprint(one, "cpu") for one in [scorer, *others]}) == 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": "missing.pt"}, "weights 'missing.pt' is not a file here"),
        ({"reference": "missing.pt"}, "weights 'missing.pt' is not a file here"),
        ({"weights": ()}, "weights is empty: name the current head's weights"),
    ],
)
def test_files_that_are_missing_are_named(head, settings, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        head(**settings).check()
    assert message in str(error.value)


def test_pairs_that_cannot_be_are_refused_before_anything_is_read(head, tmp_path):
    scorer = head()
    copied = str(shutil.copy(scorer.reference, tmp_path / "copy.pt"))
    with pytest.raises(ValueError, match="is the current head itself: name weights that were trained on labels"):
        head(weights=(scorer.weights, copied)).check()
    with pytest.raises(ValueError, match=r"take 24 numbers to 4 outputs, reference .* 24 to 5: both have to tell"):
        head(reference=save(tmp_path / "five.pt", 1, outputs=5)).check()


def test_heads_that_cannot_be_are_refused_when_they_are_read(head, rows, labels, tmp_path):
    scorer = head()
    state = opened(scorer.reference).state_dict()
    torch.save({"epoch": 2, "state_dict": state}, tmp_path / "again.pt")
    with pytest.raises(ValueError, match=r"again.pt': reference and current head are equal"):
        head(weights=str(tmp_path / "again.pt")).load("cpu")
    torch.save(state | {"bias": torch.full((4,), torch.nan)}, tmp_path / "broken.pt")
    with pytest.raises(ValueError, match=r"broken.pt'.* has biases that are no finite numbers"):
        head(weights=str(tmp_path / "broken.pt")).load("cpu")
    body = torch.nn.Sequential(torch.nn.Linear(24, 24), torch.nn.Linear(24, 4))
    torch.save(body.state_dict(), tmp_path / "deep.pt")
    with pytest.raises(ValueError, match=r"deep.pt' are 2 layers, and the closed form is one layer's: .*mimic_scores"):
        head(reference=str(tmp_path / "deep.pt")).load("cpu")
    torch.save({"weight": torch.ones(4, 25)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"\[4, 24\] in the current head and \[4, 25\] in the reference"):
        head(reference=str(tmp_path / "old.pt")).load("cpu")


@pytest.mark.parametrize(
    ("types", "message"),
    [
        ({EMBEDDING: pa.list_(pa.float16(), 25)}, "b32.image_embedding has 25 dimensions, and"),
        ({EMBEDDING: pa.float32()}, "b32.image_embedding holds float, not vectors"),
        ({LABEL: pa.string()}, "label: metadata.label holds string, not numbers of classes: number them from 0"),
    ],
)
def test_columns_that_do_not_fit_are_refused(head, types, message):
    scorer, fitting = head(), {EMBEDDING: pa.list_(pa.float16(), 24), LABEL: pa.int64()}
    scorer.check_columns(fitting)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        scorer.check_columns(fitting | types)
    assert message in str(error.value)


def test_checks_need_no_torch_nor_do_scores_of_safetensors(head, tmp_path):
    scorer = head()
    for name in ("weights", "reference"):
        save_file(opened(getattr(scorer, name)).state_dict(), tmp_path / f"{name}.safetensors")
    program = (
        "import sys; import numpy as np; import pyarrow as pa; from chaffinch.scoring.mimic_head import MimicHead\n"
        "from chaffinch.scoring.scorer import Batch, fingerprint\n"
        f"scorer = MimicHead({EMBEDDING!r}, {LABEL!r}, *sys.argv[1:]); scorer.check(); fingerprint(scorer, 'cpu')\n"
        "rows = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(24, np.float16)), 24)\n"
        f"batch = Batch([''], (), (), {{{EMBEDDING!r}: rows, {LABEL!r}: pa.array([3])}})\n"
        "print(list(scorer.score(batch, scorer.load('cpu')))); assert 'torch' not in sys.modules"
    )
    files = [str(tmp_path / "weights.safetensors"), str(tmp_path / "reference.safetensors")]
    done = subprocess.run([sys.executable, "-c", program, *files], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(SCALARS)
