"""The benchmark on CIFAR-10N, on planted classes and on the real labels."""

import importlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="module", autouse=True)
def folder():
    """The benchmark's own folder is where its parts find one another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield
    for name in [name for name in sys.modules if name.startswith("cifar10n") or name == "measuring"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def data(folder):
    return importlib.import_module("cifar10n_data")


@pytest.fixture(scope="module")
def finding(folder):
    return importlib.import_module("cifar10n_finding")


@pytest.fixture(scope="module")
def learners(folder):
    return importlib.import_module("cifar10n_learners")


@pytest.fixture(scope="module")
def benchmark(folder):
    return importlib.import_module("cifar10n")


def planted(learners, n, seed, wrong=0.0):
    """Ten overlapping classes in 24 dimensions, a share of whose labels is wrong; and which are."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(10, 24))
    truth = rng.integers(10, size=n)
    inputs = (centres[truth] + 1.2 * rng.normal(size=(n, 24))).astype(np.float32)
    flipped = rng.random(n) < wrong
    labels = np.where(flipped, (truth + rng.integers(1, 10, size=n)) % 10, truth)
    return learners.Data(torch.from_numpy(inputs), torch.from_numpy(labels)), flipped


@pytest.fixture(scope="module")
def trials(folder):
    return importlib.import_module("cifar10n_trial")


# What is measured


@pytest.mark.parametrize(
    ("scores", "wrong", "expected"),
    [
        ([4, 3, 2, 1], [0, 0, 1, 1], 1),
        ([1, 2, 3, 4], [0, 0, 1, 1], 0),
        ([1, 1, 1, 1], [0, 1, 0, 1], 0.5),
        ([3, 2, 2, 1], [0, 0, 1, 1], 0.875),
    ],
)
def test_auc_is_the_share_of_pairs_in_order(finding, scores, wrong, expected):
    assert finding.auc(np.array(scores), np.array(wrong, bool)) == expected


def test_auc_is_a_loop_over_pairs(finding):
    rng = np.random.default_rng(0)
    scores, wrong = rng.integers(9, size=60) / 8, rng.random(60) < 0.4
    pairs = [(right > one) + (right == one) / 2 for right in scores[~wrong] for one in scores[wrong]]
    assert finding.auc(scores, wrong) == pytest.approx(np.mean(pairs))


def test_steps_are_judged_by_mean_and_majority_and_a_draw_keeps(finding):
    scores = np.array([[1, 1], [1, -3], [-1, -1], [2, 2]], np.float32)
    told = finding.judge(scores, np.array([False, False, True, False]), ["sign"])
    assert told["auc"] == pytest.approx(2.5 / 3)
    assert told["f1"] == {"sign": 1}
    assert told["kept"] == {"sign": 0.75}
    assert told["kept right"] == {"sign": 1}
    assert told["f1 of the worst"] in (0, 1)  # one of two with the same mean


def test_every_source_is_judged_at_its_epochs(finding):
    rng = np.random.default_rng(0)
    wrong = rng.random(500) < 0.4
    good = np.where(wrong, -2, 2) + rng.normal(size=500)
    by_epoch = {
        "mimic_score": dict.fromkeys((0, 1, 2, 3, 5, 10), good),
        "mimic_cosine": dict.fromkeys((0, 1, 2, 3), good),
        "loss": dict.fromkeys((0, 1, 2, 3, 5, 10), -good),
    }
    told = finding.find(by_epoch, -good, good > 0, wrong)
    assert list(told["mimic_score"]) == ["0", "1", "2", "5", "10", "mean of 0 to 3"]
    assert list(told["mimic_cosine"]) == ["0", "1", "2", "mean of 0 to 3"]
    assert told["excess_loss"]["0"]["auc"] == 0.5  # both lose the same
    for one in (told["-reference_loss"], told["mimic_score"]["5"], told["-loss"]["1"]):
        assert one["auc"] == told["mimic_cosine"]["0"]["auc"] > 0.97
    assert told["reference disagrees"]["f1"] == told["mimic_score"]["0"]["f1"]["sign"] > 0.9


def test_the_kept_share_is_set_against_the_clean_one(finding):
    found = finding.quality({"a": [0.5, 0.7], "b": [0.8], "c": [0.9]}, {"a": [0.6, 0.6], "b": [0.8], "c": [0.9]})
    assert found["pearson"] == pytest.approx(1)
    assert found["kept"]["a"] == pytest.approx(0.6)
    assert finding.quality({"a": [0.5]}, {"a": [0.6]})["pearson"] is None


# What is learned


@pytest.fixture(scope="module")
def trained(learners):
    """The probe on planted classes, 40% wrong, with its reference."""
    recipe = learners.Recipe(rate=3e-3, decay=1e-5, batch=32, epochs=10, checks=2)
    learner = learners.Probe(recipe)
    (pool, wrong), (trusted, _), (test, _) = (
        planted(learners, n, seed, share) for n, seed, share in ((1500, 0, 0.4), (1500, 1, 0), (1000, 2, 0))
    )
    reference = learners.train(learner, trusted, 0).states[10]
    return learner, pool, wrong, test, reference


def test_equal_seeds_train_equal_models_and_weights_of_one_kind_are_plain(learners, trained):
    learner, pool, _, test, _ = trained
    first, second = (learners.train(learner, pool, 3, test) for _ in range(2))
    assert first.curve == second.curve
    assert first.curve[0][0] == 0
    assert first.curve[-1][0] == 1500 // 32 * 10
    weighed = learners.train(learner, pool, 3, test, weigh=lambda model, data, rows: torch.full((len(rows),), 1 / 32))
    assert weighed.curve == first.curve
    assert first.effective == pytest.approx(32)
    assert learners.train(learner, pool, 4, test).curve != first.curve


def test_weights_of_zero_are_as_good_as_being_left_out(learners, trained):
    learner, pool, wrong, test, _ = trained

    def right_ones(model, data, rows):
        weights = torch.from_numpy(~wrong)[rows].float()
        return weights / weights.sum()

    plain = learners.train(learner, pool, 0, test)
    only = learners.train(learner, pool, 0, test, weigh=right_ones)
    clean = learners.train(learner, pool, 0, test, rows=np.flatnonzero(~wrong))
    assert only.curve[-1][1] > plain.curve[-1][1] + 0.03
    assert clean.curve[-1][1] == pytest.approx(only.curve[-1][1], abs=0.03)
    assert clean.curve[-1][0] == plain.curve[-1][0]


@pytest.mark.parametrize("source", ["mimic_score", "mimic_cosine", "reference_loss", "excess_loss"])
def test_weights_from_a_reference_beat_plain_training(learners, trained, source):
    learner, pool, wrong, test, reference = trained
    losses = learners.losses_of(learners.restore(learner, pool, reference), pool)
    weigher = learners.Weigher(learners.Weigh(source, 0.5, True), learner, reference, losses)
    run = learners.train(learner, pool, 0, test, weigh=weigher)
    assert run.curve[-1][1] > learners.train(learner, pool, 0, test).curve[-1][1] + 0.02
    assert 1 < run.effective < 32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = learner.build(pool.inputs)
    weights = weigher(model, pool, torch.arange(200))
    assert weights[torch.from_numpy(~wrong[:200])].mean() > 2 * weights[torch.from_numpy(wrong[:200])].mean()


@pytest.mark.parametrize("kind", ["Probe", "Network"])
def test_alignment_is_a_backward_pass_for_each_sample(learners, kind):
    learner = getattr(learners, kind)()
    shape = (24,) if kind == "Probe" else (3, 32, 32)
    torch.manual_seed(0)
    pool = learners.Data(torch.randn(6, *shape), torch.randint(10, (6,)))
    model, other = learner.build(pool.inputs), learner.build(pool.inputs)
    reference = other.state_dict()
    way = torch.cat([(reference[name] - one).flatten() for name, one in model.named_parameters()]).detach().double()
    scores, cosines = [], []
    for index in range(6):
        loss = torch.nn.functional.cross_entropy(model(pool.inputs[index : index + 1]), pool.labels[index : index + 1])
        step = -torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(model.parameters()))]).double()
        scores.append(float(step @ way / way.norm()))
        cosines.append(scores[-1] / float(step.norm()))
    np.testing.assert_allclose(learner.align(model, reference, pool).double(), scores, rtol=0, atol=1e-5)
    np.testing.assert_allclose(learner.cosines(model, reference, pool).double(), cosines, rtol=0, atol=1e-5)


def test_parts_are_the_whole(learners, trained):
    learner, pool, _, _, reference = trained
    model = learner.build(pool.inputs)
    whole = learner.align(model, reference, pool)
    parts = learners.in_parts(lambda part: learner.align(model, reference, part), pool, 64)
    np.testing.assert_allclose(parts, whole, rtol=1e-9)


def test_fewer_samples_than_a_batch_are_refused(learners, trained):
    learner, pool, *_ = trained
    with pytest.raises(ValueError, match="9 samples do not fill a batch of 32"):
        learners.train(learner, pool, 0, rows=np.arange(9))


# What is read


def test_the_pool_is_never_trusted_and_fewer_trusted_are_some_of_the_more(data):
    more, fewer = data.split(100, 50, 3), data.split(100, 20, 3)
    assert sorted([*more.pool, *more.trusted]) == list(range(100))
    np.testing.assert_array_equal(fewer.pool, more.pool)
    np.testing.assert_array_equal(fewer.trusted, more.trusted[:20])
    assert set(data.split(100, 50, 4).pool) != set(more.pool)
    with pytest.raises(ValueError, match="trusted is 51: give 1 to 50"):
        data.split(100, 51, 3)


def test_features_are_standardised_by_the_pool_alone(data):
    rng = np.random.default_rng(0)
    features = rng.normal(3, 2, (50, 4))
    features[:, 2] = 7
    ours, theirs = data.standardise(features, features[:5] + 1)
    np.testing.assert_allclose(ours[:, [0, 1, 3]].std(axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(ours.mean(axis=0), 0, atol=1e-6)
    assert (ours[:, 2] == 0).all()
    np.testing.assert_allclose(theirs[:, 0], ours[:5, 0] + 1 / features[:, 0].std(), rtol=1e-5)


@pytest.fixture
def archive(tmp_path):
    """A cat, a ship and an airplane, and what people said of them."""
    path = tmp_path / "train.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in ("00002_airplane", "00000_cat", "00001_ship"):
            content = io.BytesIO()
            Image.new("RGB", (32, 32), (200, 10, 10)).save(content, "JPEG")
            file.writestr(f"{name}.jpg", content.getvalue())
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "split,index,clean,aggre,worse,random1,random2,random3\n"
        "train,0,3,3,5,3,3,3\ntrain,1,8,8,0,8,1,8\ntrain,2,0,0,0,0,0,2\ntest,0,3,,,,,\n"
    )
    return path, labels


def test_pictures_and_labels_meet_by_their_numbers(data, archive):
    pictures = data.read_pictures(archive[0])
    assert (pictures.indices, pictures.truth.tolist()) == ([0, 1, 2], [3, 8, 0])
    assert pictures.pixels().shape == (3, 3, 32, 32)
    assert pictures.pixels()[0, 0].mean() > 150
    labels = data.read_labels(archive[1], pictures)
    assert labels["worst"].tolist() == [5, 0, 0]
    noise = data.noise(labels, pictures.truth)
    assert noise == pytest.approx({"worst": 2 / 3, "random1": 0, "random2": 1 / 3, "random3": 1 / 3, "aggregate": 0})


def test_labels_of_other_classes_are_refused(data, archive):
    archive[1].write_text(archive[1].read_text().replace("train,1,8", "train,1,7"))
    with pytest.raises(ValueError, match="true classes differ from those in the pictures' names"):
        data.read_labels(archive[1], data.read_pictures(archive[0]))


@pytest.mark.real
@pytest.mark.skipif(not (SHARED / "cifar10n").is_dir(), reason="cifar10n is not in ../shared/data")
def test_the_real_labels_are_as_wrong_as_published(data):
    pictures = data.read_pictures(SHARED / "cifar10n" / "train_first10000.zip")
    noise = data.noise(data.read_labels(SHARED / "cifar10n" / "labels.csv", pictures), pictures.truth)
    published = {"worst": 0.4021, "random1": 0.1723, "random2": 0.1812, "random3": 0.1764, "aggregate": 0.0903}
    assert noise == pytest.approx(published, abs=0.012)


@pytest.mark.real
@pytest.mark.skipif(not (SHARED / "cifar10n").is_dir(), reason="cifar10n is not in ../shared/data")
def test_features_are_of_the_picture_and_not_of_the_canvas_and_are_measured_once(data, tmp_path):
    pictures = data.read_pictures(SHARED / "cifar10n" / "train_first10000.zip")
    few = data.Pictures(pictures.files[:3], pictures.indices[:3], pictures.truth[:3])
    found = data.detector_features(few, tmp_path)
    assert found.shape == (3, 7 * 512)
    assert np.isfinite(found).all()
    maps = [64, 64, 128, 64, 128, 64]
    starts = np.cumsum([0, *maps])
    for number, channels in enumerate(maps):
        quarters = found[:, 3 * 512 :][:, 4 * starts[number] : 4 * starts[number + 1]].reshape(3, channels, 4)
        means = found[:, 3 * starts[number] : 3 * starts[number] + channels]
        np.testing.assert_allclose(quarters.mean(axis=2), means, rtol=0, atol=2e-2)
    (path,) = tmp_path.glob("features-*.npy")
    np.save(path, found + 1)
    np.testing.assert_allclose(data.detector_features(few, tmp_path), found + 1, rtol=1e-3)


# The whole of it


def test_a_trial_tells_everything_of_a_set_of_labels(benchmark, trials, learners, monkeypatch):
    monkeypatch.setitem(trials.REFERENCES, "held-out", 400)
    monkeypatch.setitem(trials.REFERENCES, "held-out, 2000", 200)
    (everything, _), (test, _) = planted(learners, 800, 0), planted(learners, 300, 1)
    labels, _ = planted(learners, 800, 0, wrong=0.4)
    world = trials.World(labels.inputs, everything.labels, {"worst": labels.labels}, test)
    recipe = learners.Recipe(rate=3e-3, decay=1e-5, batch=32, epochs=10, checks=2)
    kinds = ["held-out", "same pictures"]
    plan = trials.Plan(kinds, {"held-out": list(trials.ARMS), "same pictures": [trials.MIMIC]}, {"held-out": 3})
    told = trials.Trial(learners.Probe(recipe), plan, world, 0).outcome("worst")
    assert told["wrong"] == pytest.approx(0.4, abs=0.05)
    assert list(told["references"]) == list(told["finding"]) == kinds
    assert len(told["runs"]) == 2 + len(trials.ARMS) + 1
    plain, mimic = told["runs"]["plain"], told["runs"]["mimic, standardised (held-out)"]
    assert plain["accuracy less plain"] == 0
    assert plain["of plain's own"] == 1
    assert mimic["accuracy"] > plain["accuracy"]
    assert told["finding"]["held-out"]["mimic_score"]["0"]["auc"] > 0.8
    assert list(told["finding"]["held-out"]["mimic_cosine"]) == ["0", "1", "2", "mean of 0 to 3"]
    assert "mimic_cosine" not in told["finding"]["same pictures"]
    quality = benchmark.qualities({"worst": [told]}, kinds)["held-out"]["0"]
    kept = told["finding"]["held-out"]["mimic_score"]["0"]["kept"]["sign"]
    assert quality["kept"]["worst"] == pytest.approx(kept, abs=1e-4)
    words = benchmark.prose(
        "probe",
        {
            "seeds": [0],
            "labels": {"worst": benchmark.over_seeds([told])},
            "quality": benchmark.qualities({"worst": [told]}, kinds),
        },
    )
    assert f"mimic, standardised {mimic['accuracy']:.3f}".replace(" 0.", " .") in words
    assert "-reference_loss" in words


def test_seeds_are_brought_together_and_what_one_does_not_reach_is_none(benchmark):
    assert benchmark.over_seeds([{"a": None, "b": 1}, {"a": 3, "b": 2}]) == {"a": [None, 3], "b": [1.5, 0.7071]}
