import collections
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from chaffinch.scoring.head_weights import peek
from chaffinch.scoring.linear_head import LinearHead
from chaffinch.scoring.scorer import Batch, fingerprint

COLUMN = "b32.image_embedding"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "weights"


def stored(rows: np.ndarray) -> pa.Array:
    """As clip stores embeddings."""
    flat = np.ascontiguousarray(rows, np.float16).ravel()
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), rows.shape[1])


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def measure(scorer: LinearHead, rows: np.ndarray) -> dict:
    batch = Batch([""] * len(rows), (), (), {COLUMN: stored(rows)})
    return dict(scorer.score(batch, scorer.load("cpu")))


def save(path: Path, module: torch.nn.Module) -> str:
    torch.save(module.state_dict(), path)
    return str(path)


@pytest.fixture
def rows() -> np.ndarray:
    """As they are stored: what is lost by float16 is lost before."""
    return unit(np.random.default_rng(0).normal(size=(7, 24))).astype(np.float16).astype(np.float64)


def twin(module: torch.nn.Module, rows: np.ndarray) -> np.ndarray:
    """One vector at a time, through the module whose weights were saved."""
    with torch.no_grad():
        return np.stack([module.double()(torch.from_numpy(row)).numpy() for row in unit(rows)])


def test_one_layer_is_what_torch_makes_of_it(tmp_path, rows):
    torch.manual_seed(0)
    head = torch.nn.Linear(24, 1)
    measured = measure(LinearHead(COLUMN, save(tmp_path / "head.pth", head)), rows)
    assert list(measured) == ["score"]
    assert measured["score"].dtype == np.float32
    np.testing.assert_allclose(measured["score"], twin(head, rows)[:, 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("activation", "between"), [("none", torch.nn.Dropout(0.2)), ("relu", torch.nn.ReLU())])
@pytest.mark.parametrize(
    ("output", "last"),
    [("raw", torch.nn.Identity()), ("sigmoid", torch.nn.Sigmoid()), ("softmax", torch.nn.Softmax(-1))],
)
def test_stacks_are_what_torch_makes_of_them(tmp_path, rows, activation, between, output, last):
    torch.manual_seed(0)
    layers = [torch.nn.Linear(24, 16), torch.nn.Linear(16, 8, bias=False), torch.nn.Linear(8, 3)]
    body = torch.nn.Sequential(layers[0], between, layers[1], between, layers[2])
    wrapped = torch.nn.ModuleDict({"layers": body})
    names = ("drawing", "neutral", "explicit")
    path = save(tmp_path / "head.pt", wrapped)
    measured = measure(LinearHead(COLUMN, path, activation=activation, output=output, outputs=names), rows)
    expected = twin(torch.nn.Sequential(body, last).eval(), rows)
    assert tuple(measured) == names
    np.testing.assert_allclose(np.stack(list(measured.values()), axis=1), expected, rtol=0, atol=1e-6)
    if output == "softmax":
        np.testing.assert_allclose(sum(measured.values()), 1, atol=1e-6)


def test_ten_layers_keep_their_order(tmp_path, rows):
    torch.manual_seed(0)
    body = torch.nn.Sequential(*(torch.nn.Linear(24, 24) for _ in range(11)), torch.nn.Linear(24, 1))
    measured = measure(LinearHead(COLUMN, save(tmp_path / "head.pt", body)), rows)
    np.testing.assert_allclose(measured["score"], twin(body, rows)[:, 0], rtol=0, atol=1e-6)


def test_other_forms_of_file_hold_the_same(tmp_path, rows):
    torch.manual_seed(0)
    head = torch.nn.Linear(24, 1)
    first = measure(LinearHead(COLUMN, save(tmp_path / "head.pth", head)), rows)["score"]
    save_file(head.state_dict(), tmp_path / "head.safetensors")
    torch.save({"epoch": 3, "state_dict": head.state_dict()}, tmp_path / "trained.ckpt")
    torch.save(dict(head.named_parameters()), tmp_path / "parameters.pt")
    torch.save(head.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({name: one.double() for name, one in head.state_dict().items()}, tmp_path / "double.pt")
    for name in ("head.safetensors", "trained.ckpt", "parameters.pt", "old.pt", "double.pt"):
        np.testing.assert_array_equal(measure(LinearHead(COLUMN, str(tmp_path / name)), rows)["score"], first, name)
        assert peek(tmp_path / name) == (None if name == "old.pt" else (24, 1))


def test_vectors_are_scaled_unless_they_are_to_stay(tmp_path, rows):
    head = torch.nn.Linear(24, 1)
    path = save(tmp_path / "head.pth", head)
    scaled, plain = LinearHead(COLUMN, path), LinearHead(COLUMN, path, normalize=False)
    np.testing.assert_allclose(measure(scaled, rows * 4)["score"], measure(scaled, rows)["score"], rtol=1e-6)
    expected = rows * 4 @ head.weight.detach().double().numpy()[0] + head.bias.item()
    np.testing.assert_allclose(measure(plain, rows * 4)["score"], expected, rtol=0, atol=1e-6)


def test_what_has_no_direction_cannot_be_judged(tmp_path, rows):
    path = save(tmp_path / "head.pth", torch.nn.Linear(24, 1))
    rows[2], rows[4, 3] = 0, np.nan
    for output in ("raw", "sigmoid", "softmax"):
        measured = measure(LinearHead(COLUMN, path, output=output), rows)["score"]
        assert np.isnan(measured).nonzero()[0].tolist() == [2, 4]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=12), st.sampled_from(["none", "relu"]))
def test_scores_follow_their_rows_in_any_company(tmp_path_factory, order, activation):
    torch.manual_seed(0)
    body = torch.nn.Sequential(torch.nn.Linear(24, 8), torch.nn.Linear(8, 1))
    path = save(tmp_path_factory.mktemp("head") / "head.pt", body)
    scorer = LinearHead(COLUMN, path, activation=activation)
    some = np.random.default_rng(0).normal(size=(7, 24))
    alone = measure(scorer, some)["score"]
    np.testing.assert_allclose(measure(scorer, some[order])["score"], alone[order], rtol=0, atol=1e-6)


def test_the_fingerprint_follows_the_weights_and_not_their_place(tmp_path):
    path = save(tmp_path / "head.pth", torch.nn.Linear(24, 1))
    moved = shutil.copy(path, tmp_path / "elsewhere.pth")
    first = LinearHead(COLUMN, path)
    assert fingerprint(first, "cpu") == fingerprint(LinearHead(COLUMN, moved), "cpu")
    assert str(tmp_path) not in json.dumps(first.identity())
    others = [
        LinearHead("l14.image_embedding", path),
        LinearHead(COLUMN, path, output="sigmoid"),
        LinearHead(COLUMN, save(tmp_path / "other.pth", torch.nn.Linear(24, 1))),
    ]
    assert len({fingerprint(one, "cpu") for one in [first, *others]}) == 4


class Evil:
    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Evil(), "cannot be read as tensors alone: save its state_dict() with torch.save, or as .safetensors"),
        ({"weight": Evil()}, "cannot be read as tensors alone"),
        (b"", "cannot be read as tensors alone"),
        (b"not weights", "cannot be read as tensors alone"),
        ([torch.ones(3)], "no stack of linear layers: the file holds no names"),
        ({}, "no stack of linear layers: there is no weight among them"),
        ({"bias": torch.ones(1)}, "no stack of linear layers: bias is not of one"),
        ({"weight": torch.ones(1, 4), "running_mean": torch.ones(4)}, "running_mean is not of one"),
        ({"weight": torch.ones(4)}, "weight is not of one"),
        ({"a.weight": torch.ones(2, 4), "b.weight": torch.ones(1, 3)}, "a.weight gives 2, b.weight takes 3"),
        ({"weight": torch.ones(2, 4), "bias": torch.ones(3)}, "bias has the shape (3,)"),
        ({"weight": torch.ones(3, 4)}, "have 3 outputs, and outputs names 1: name each of them"),
    ],
)
def test_what_is_no_head_is_refused_with_a_remedy(tmp_path, content, message, capsys):
    path = tmp_path / "head.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        LinearHead(COLUMN, str(path)).load("cpu")
    assert message in str(error.value)
    assert "unpickled" not in capsys.readouterr().out


def test_shapes_are_read_without_running_anything(tmp_path, capsys):
    torch.save({"weight": Evil(), "bias": torch.ones(1)}, tmp_path / "evil.pth")
    assert peek(tmp_path / "evil.pth") is None
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(collections.OrderedDict(weight=Evil())))
    assert peek(tmp_path / "bare.pth") is None
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weights": "missing.pth"}, "weights 'missing.pth' is not a file here: correct the path"),
        ({"weights": ""}, "weights '' is not a file here"),
        ({"activation": "gelu"}, "activation 'gelu' is unknown: use one of none, relu"),
        ({"output": "logit"}, "output 'logit' is unknown: use one of raw, sigmoid, softmax"),
        ({"outputs": ("a", "a")}, "outputs ['a', 'a'] cannot name columns"),
        ({"outputs": ("reject",)}, "outputs ['reject'] cannot name columns"),
        ({"outputs": ("not safe",)}, "outputs ['not safe'] cannot name columns"),
        ({"outputs": ()}, "have 1 outputs, and outputs names 0"),
        ({"outputs": ("a", "b")}, "have 1 outputs, and outputs names 2: name each of them"),
    ],
)
def test_wrong_settings_are_refused_with_a_remedy(tmp_path, values, message):
    path = save(tmp_path / "head.pth", torch.nn.Linear(24, 1))
    with pytest.raises(ValueError) as error:  # noqa: PT011
        LinearHead(**({"embedding": COLUMN, "weights": path} | values)).check()
    assert message in str(error.value)


def test_columns_that_are_no_such_embedding_are_refused_before_anything_is_loaded(tmp_path, rows):
    path = save(tmp_path / "head.pth", torch.nn.Linear(24, 1))
    scorer = LinearHead(COLUMN, path)
    scorer.check_columns({COLUMN: pa.list_(pa.float16(), 24)})
    with pytest.raises(ValueError, match=r"b32.image_embedding holds float, not vectors; clip has them with `embedd"):
        scorer.check_columns({COLUMN: pa.float32()})
    with pytest.raises(
        ValueError, match=r"has 768 dimensions, and .*head.pth takes 24: name an embedding of the model"
    ):
        scorer.check_columns({COLUMN: pa.list_(pa.float16(), 768)})
    # Where only torch can tell, the first batch does.
    torch.save({"weight": torch.ones(1, 25)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    old = LinearHead(COLUMN, str(tmp_path / "old.pt"))
    old.check_columns({COLUMN: pa.list_(pa.float16(), 24)})
    with pytest.raises(ValueError, match=r"has 24 dimensions, and .*old.pt takes 25"):
        measure(old, rows)


def test_checks_need_no_torch(tmp_path):
    path = save(tmp_path / "head.pth", torch.nn.Linear(24, 1))
    program = (
        "import sys; import pyarrow as pa; from chaffinch.scoring.linear_head import LinearHead\n"
        "from chaffinch.scoring.scorer import fingerprint\n"
        f"scorer = LinearHead({COLUMN!r}, {path!r}); scorer.check(); fingerprint(scorer, 'cpu')\n"
        f"scorer.check_columns({{{COLUMN!r}: pa.list_(pa.float16(), 24)}}); print(list(scorer.columns))\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "['score']"


@pytest.mark.real
@pytest.mark.skipif(not SHARED.is_dir(), reason="LAION's heads are not in ../shared/data beside the repository")
@pytest.mark.parametrize(
    ("name", "dimensions"),
    [
        ("sa_0_4_vit_b_32_linear.pth", 512),
        ("sa_0_4_vit_l_14_linear.pth", 768),
        ("sac+logos+ava1-l14-linearMSE.pth", 768),
    ],
)
def test_laions_heads_are_what_their_modules_make_of_them(name, dimensions):
    state = torch.load(SHARED / name, map_location="cpu", weights_only=True)
    if "weight" in state:
        module: torch.nn.Module = torch.nn.Linear(dimensions, 1)
    else:
        sizes, drop = [1024, 128, 64, 16, 1], torch.nn.Dropout
        layers = [torch.nn.Linear(a, b) for a, b in zip([dimensions, *sizes], sizes, strict=False)]
        body = [layers[0], drop(0.2), layers[1], drop(0.2), layers[2], drop(0.1), layers[3], layers[4]]
        module = torch.nn.Module()
        module.layers = torch.nn.Sequential(*body)
        module.forward = module.layers.forward
    module.load_state_dict(state)
    module.eval()
    rows = unit(np.random.default_rng(0).normal(size=(50, dimensions)))
    measured = measure(LinearHead(COLUMN, str(SHARED / name)), rows)["score"]
    with torch.no_grad():
        expected = module(torch.from_numpy(rows.astype(np.float32)))[:, 0].numpy()
    np.testing.assert_allclose(measured, expected, rtol=0, atol=5e-3)  # of ten points; float16 is what costs
    assert 0 < measured.mean() < 10
