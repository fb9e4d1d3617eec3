"""Mimic scores of light heads over stored features: twins by backward passes, and pairs of heads that do not fit."""

import dataclasses
import hashlib
import io
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from chaffinch.scoring.light.checkpoint import load_checkpoint, save_checkpoint
from chaffinch.scoring.light.heads import Heads, Size
from chaffinch.scoring.light.negatives import save_pairs
from chaffinch.scoring.light.vocabulary import Vocabulary
from chaffinch.scoring.mimic_light import MimicLight
from chaffinch.scoring.scorer import Batch, fingerprint

WORDS = ("a", "ball", "boat", "dog", "runs", "the")
BANK = [f"the {word} {other}" for word in WORDS for other in WORDS]
CAPTIONS = ["a dog runs", "ein Hund", "the boat", "?", "THE  ball ball"]


def write(path: Path, heads: Heads, words=WORDS) -> str:
    with path.open("wb") as file:
        save_checkpoint(file, heads, Vocabulary(words))
    return str(path)


def moved(heads: Heads, seed: int, by: float = 0.2) -> Heads:
    """The same heads with noise on every parameter."""
    other = Heads(heads.size)
    other.load_state_dict(heads.state_dict())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(by * torch.randn(weight.shape, generator=generator))
    return other


@pytest.fixture(scope="module")
def first() -> Heads:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        heads = Heads(Size(6, len(WORDS) + 1, 8, 4))
        heads.standardise(torch.randn(30, 6) * 2 + 1)
    return heads


@pytest.fixture
def folder(tmp_path, first):
    """First weights, some after an epoch, a reference, and the pairs that were kept beside it."""
    write(tmp_path / "epoch_0.pt", first)
    write(tmp_path / "epoch_1.pt", moved(first, 1))
    write(tmp_path / "final.pt", moved(first, 2))
    features = np.random.default_rng(1).normal(1, 2, (len(BANK), 6)).astype(np.float32)
    with (tmp_path / "pairs.parquet").open("wb") as file:
        save_pairs(file, "features", features, [[text, "another"] for text in BANK], uids(len(BANK), "e"))
    return tmp_path


@pytest.fixture
def scorer(folder) -> MimicLight:
    both = (str(folder / "epoch_0.pt"), str(folder / "epoch_1.pt"))
    return MimicLight("yolox.features", both, str(folder / "final.pt"), bank=8, cosine=True)


def uids(count: int, prefix: str = "0") -> list[str]:
    return [f"{prefix}{row:031x}" for row in range(count)]


def batch(features, captions=CAPTIONS, names=None) -> Batch:
    columns = {"yolox.features": pa.array(list(features), pa.list_(pa.float16()))}
    return Batch(names or uids(len(captions)), captions, (), columns)


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(0).normal(1, 2, (5, 6)).astype(np.float16)


def values(column) -> np.ndarray:
    return np.array(column.to_pylist() if isinstance(column, pa.Array) else column)


def drawn(scorer: MimicLight) -> list[tuple[str, str, np.ndarray]]:
    """The bank as it should be: of the pairs, those whose uids have the least hashes under the seed."""
    rows = pq.read_table(Path(scorer.reference).with_name("pairs.parquet")).to_pylist()
    rows.sort(key=lambda row: hashlib.blake2b(f"{scorer.seed} {row['uid']}".encode(), digest_size=8).digest())
    return [(row["uid"], row["captions"][0], np.float32(row["features"])) for row in rows[: scorer.bank]]


def twin_loss(heads: Heads, uid: str, caption: str, features, bank) -> torch.Tensor:
    """A pair's loss, one embedding after the other."""
    vocabulary = Vocabulary(WORDS)

    def picture(row):
        return heads.embed_pictures(torch.from_numpy(np.float32(row))[None])[0]

    def text(words):
        numbers, starts = vocabulary.numbers([words])
        return heads.embed_captions(torch.from_numpy(numbers), torch.from_numpy(starts))[0]

    def say(words):
        return " ".join(words.split()).lower()

    others = [one for one in bank if one[0] != uid and say(one[1]) != say(caption)]
    scale = heads.logit_scale.exp()
    own = scale * picture(features) @ text(caption)
    to_text = [scale * picture(features) @ text(one[1]) for one in others]
    to_picture = [scale * picture(one[2]) @ text(caption) for one in others]
    return sum(torch.stack([own, *ones]).logsumexp(0) - own for ones in (to_text, to_picture)) / 2


@pytest.mark.parametrize("layers", [("*",), ("words",), ("picture.4", "logit_scale")])
def test_scores_are_those_of_backward_passes(scorer, features, layers):
    scorer = dataclasses.replace(scorer, layers=layers)
    bank = drawn(scorer)
    captions = [*CAPTIONS[:3], bank[0][1].upper(), bank[1][1]]
    names = [*uids(4), bank[2][0]]
    found = scorer.score(batch(features, captions, names), scorer.load("cpu"))
    reference = load_checkpoint(Path(scorer.reference)).heads
    for row in range(5):
        sample = (names[row], captions[row], features[row])
        target = twin_loss(reference, *sample, bank).item()
        assert found["reference_loss"][row] == pytest.approx(target, rel=1e-4)
        for step, path in enumerate(scorer.weights):
            heads = load_checkpoint(Path(path)).heads
            loss = twin_loss(heads, *sample, bank)
            loss.backward()
            chosen = [
                (weight.grad, there - weight)
                for (name, weight), there in zip(heads.named_parameters(), reference.parameters(), strict=True)
                if any(layer == "*" or name.startswith(layer) for layer in layers)
            ]
            slope = sum((gradient * way).sum().item() for gradient, way in chosen)
            length = math.sqrt(sum(way.square().sum().item() for _, way in chosen))
            assert values(found["mimic_score"])[row, step] == pytest.approx(-slope / length, rel=1e-3, abs=1e-5)
            assert values(found["loss"])[row, step] == pytest.approx(loss.item(), rel=1e-4)
            assert values(found["excess_loss"])[row, step] == pytest.approx(loss.item() - target, abs=1e-4)


def test_one_checkpoint_gives_numbers_and_several_vectors(scorer, features):
    alone = dataclasses.replace(scorer, weights=scorer.weights[1])
    assert alone.columns["mimic_score"] == pa.float32()
    assert scorer.columns["mimic_score"] == pa.list_(pa.float32(), 2)
    both = scorer.score(batch(features), scorer.load("cpu"))
    one = alone.score(batch(features), alone.load("cpu"))
    for name in ("mimic_score", "mimic_cosine", "loss", "similarity", "excess_loss"):
        assert np.allclose(one[name], values(both[name])[:, 1], atol=1e-6), name
    assert (np.abs(one["mimic_cosine"]) <= 1).all()
    assert (np.sign(one["mimic_cosine"]) == np.sign(one["mimic_score"])).mean() >= 0.8  # the bank moves, or does not


def test_a_sample_does_not_depend_on_the_others(scorer, features):
    model = scorer.load("cpu")
    together = scorer.score(batch(features), model)
    for row, caption in enumerate(CAPTIONS):
        alone = scorer.score(batch(features[[row]], [caption], [uids(5)[row]]), model)
        for name in scorer.columns:
            assert np.allclose(values(alone[name])[0], values(together[name])[row], atol=1e-5), name


def test_features_that_are_no_numbers_cannot_be_judged(scorer, features):
    model = scorer.load("cpu")
    whole = scorer.score(batch(features), model)
    features[2, 3] = np.nan
    found = scorer.score(batch(features), model)
    for name in scorer.columns:
        unknown = np.isnan(values(found[name]).reshape(5, -1)).all(axis=1)
        assert unknown.tolist() == [False, False, True, False, False], name
        assert np.allclose(values(found[name])[~unknown], values(whole[name])[~unknown], atol=1e-5)
    nothing = scorer.score(batch(np.full((2, 6), np.inf), ["a dog", "a boat"]), model)
    assert np.isnan(values(nothing["mimic_score"])).all()


def test_a_step_of_the_best_sample_leads_toward_the_reference(scorer, features):
    """The sign, by what it says: after a small step of plain gradient descent the distance is less, or more."""
    found = values(scorer.score(batch(features), scorer.load("cpu"))["mimic_score"])[:, 0]
    bank, reference = drawn(scorer), load_checkpoint(Path(scorer.reference)).heads
    for row in range(5):
        heads = load_checkpoint(Path(scorer.weights[0])).heads
        # The bank's embeddings move with the weights, as they do in the score.
        twin_loss(heads, uids(5)[row], CAPTIONS[row], features[row], bank).backward()
        before = sum(float((one - two).square().sum()) for one, two in pairs(heads, reference))
        with torch.no_grad():
            for weight in heads.parameters():
                weight.sub_(1e-4 * weight.grad)
        after = sum(float((one - two).double().square().sum()) for one, two in pairs(heads, reference))
        if abs(found[row]) > 1e-3:
            assert (after < before) == (found[row] > 0)


def pairs(heads, others):
    return zip(
        (one.detach().double() for one in heads.parameters()),
        (one.detach().double() for one in others.parameters()),
        strict=True,
    )


def test_files_may_move_and_trusted_pairs_may_lie_elsewhere(scorer, folder, features, tmp_path_factory):
    other = tmp_path_factory.mktemp("moved")
    for path in folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    weights = tuple(str(other / Path(path).name) for path in scorer.weights)
    there = dataclasses.replace(scorer, weights=weights, reference=str(other / "final.pt"))
    assert fingerprint(there, "cpu") == fingerprint(scorer, "cuda")
    named = dataclasses.replace(there, negatives=str(folder / "pairs.parquet"), captions_key="captions")
    (other / "pairs.parquet").unlink()
    with pytest.raises(ValueError, match=r"there is no pairs\.parquet beside"):
        there.check()
    found, wanted = (one.score(batch(features), one.load("cpu")) for one in (named, scorer))
    for name in scorer.columns:
        assert values(found[name]).tolist() == values(wanted[name]).tolist()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda heads: write_to(moved(heads, 3), (*WORDS[:-1], "them")), "knows other words than the reference"),
        (lambda heads: write_to(Heads(Size(6, 7, 9, 4))), "size.*hidden=9.*one with `pretrained:` the epoch_0.pt"),
        (lambda heads: write_to(shifted(heads)), r"standardises features otherwise.*\(centre differs\)"),
        (lambda heads: write_to(with_nan(heads)), "no finite numbers, in caption.weight"),
        (lambda heads: write_to(heads), None),
        (lambda heads: b"no weights", "cannot load"),
    ],
)
def test_heads_that_do_not_fit_are_refused(scorer, folder, first, spoil, said):
    (folder / "epoch_1.pt").write_bytes(spoil(first))
    if said is None:
        scorer.load("cpu")
        return
    with pytest.raises(ValueError, match=said):
        scorer.load("cpu")


def write_to(heads: Heads, words=WORDS) -> bytes:
    content = io.BytesIO()
    save_checkpoint(content, heads, Vocabulary(words))
    return content.getvalue()


def shifted(heads: Heads) -> Heads:
    other = moved(heads, 3)
    other.centre += 1
    return other


def with_nan(heads: Heads) -> Heads:
    other = moved(heads, 3)
    with torch.no_grad():
        other.caption.weight[0, 0] = math.nan
    return other


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"weights": "{folder}/final.pt"}, "is the current model itself"),
        ({"weights": ()}, "weights is empty"),
        ({"weights": "{folder}/epoch_9.pt"}, r"epoch_9\.pt' is not a file here.*checkpoint_every: 1"),
        ({"reference": "{folder}/no.pt"}, r"reference .*no\.pt' is not a file here"),
        ({"negatives": "{folder}/final.pt"}, r"no store that was scored, no \.parquet file"),
        ({"negatives": "{folder}/pairs.parquet", "captions_key": "texts"}, r"no column 'texts'"),
        ({"bank": 1}, "give 2 or more negatives"),
        ({"layers": ()}, "layers is empty"),
    ],
)
def test_settings_that_cannot_be_are_refused_without_loading(scorer, folder, settings, said):
    changed = {
        name: value.format(folder=folder) if isinstance(value, str) else value for name, value in settings.items()
    }
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(scorer, **changed).check()


def test_weights_that_differ_elsewhere_only_are_refused(scorer, folder, first):
    other = Heads(first.size)
    other.load_state_dict(first.state_dict())
    with torch.no_grad():
        other.logit_scale.add_(0.1)
    write(folder / "final.pt", other)
    alone = dataclasses.replace(scorer, weights=str(folder / "epoch_0.pt"), layers=("words",))
    with pytest.raises(ValueError, match="the same weights in layers words"):
        alone.load("cpu")
    with pytest.raises(ValueError, match="no parameter matches 'wrods'; there are such as words"):
        dataclasses.replace(alone, layers=("wrods",)).load("cpu")


def test_a_bank_that_is_none_is_refused(scorer, folder):
    def keep(features, captions):
        with (folder / "pairs.parquet").open("wb") as file:
            save_pairs(file, "features", features, captions, uids(len(captions)))

    keep(np.full((3, 6), np.nan, np.float32), [["a dog"], ["a boat"], ["the ball"]])
    with pytest.raises(ValueError, match=r"hold 0 pairs .* 2 with different captions are the least"):
        scorer.load("cpu")
    keep(np.zeros((3, 6), np.float32), [["a dog"], [], ["A  dog"]])
    with pytest.raises(ValueError, match="hold 2 pairs"):
        scorer.load("cpu")
    keep(np.zeros((3, 5), np.float32), [["a dog"], ["a boat"], ["the ball"]])
    with pytest.raises(ValueError, match="vectors of 5 numbers, but the heads were trained on 6"):
        scorer.load("cpu")


def test_features_of_another_detector_are_refused(scorer, features):
    scorer.check_columns({"yolox.features": pa.list_(pa.float16())})
    with pytest.raises(ValueError, match="is float, not a vector"):
        scorer.check_columns({"yolox.features": pa.float32()})
    with pytest.raises(ValueError, match=r"vectors of 5 numbers.* trained on 6"):
        scorer.score(batch(features[:, :5]), scorer.load("cpu"))
