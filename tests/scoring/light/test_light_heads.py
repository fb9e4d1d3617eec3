"""Words and heads of a light CLIP, and their training, against slow twins and a planted world."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chaffinch.scoring.light.checkpoint import Model, load_checkpoint, save_checkpoint
from chaffinch.scoring.light.heads import Heads, Size
from chaffinch.scoring.light.recipe import LightRecipe
from chaffinch.scoring.light.training import LightTrainer, Pairs, first_heads
from chaffinch.scoring.light.vocabulary import MOST_WORDS, UNKNOWN, Vocabulary, words
from chaffinch.scoring.training.retrieval import recall_of

TOPICS = ("dog", "boat", "tree", "ball", "house", "car", "horse", "lamp")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class TestWords:
    def test_are_runs_of_letters_and_digits_without_case(self):
        assert words("A dog's 2nd BALL, straße_noon!") == ["a", "dog", "s", "2nd", "ball", "strasse", "noon"]
        assert words("一只狗 в парке") == ["一只狗", "в", "парке"]

    def test_of_a_long_caption_only_the_beginning_is_read(self):
        assert len(words("word " * 10_000)) == MOST_WORDS
        assert len(words("x" * 1_000_000)[0]) == 10_000

    def test_the_vocabulary_holds_what_enough_captions_use(self):
        vocabulary = Vocabulary.of(["a dog dog", "a cat", "the dog"], 2)
        assert vocabulary.entries == ("a", "dog")
        numbers, starts = vocabulary.numbers(["The DOG", "!", "a a cat"])
        assert numbers.tolist() == [UNKNOWN, 2, UNKNOWN, 1, 1, UNKNOWN]
        assert starts.tolist() == [0, 2, 3]

    @given(st.lists(st.text(max_size=30), min_size=1, max_size=8))
    def test_captions_are_looked_up_one_by_one(self, captions):
        vocabulary = Vocabulary.of(captions, 1)
        numbers, starts = vocabulary.numbers(captions)
        parts = np.split(numbers, starts[1:])
        alone = [vocabulary.numbers([caption])[0] for caption in captions]
        assert [part.tolist() for part in parts] == [part.tolist() for part in alone]
        assert all(len(part) for part in parts)


class TestHeads:
    @pytest.fixture
    def heads(self):
        torch.manual_seed(0)
        heads = Heads(Size(features=6, words=9, hidden=8, dimensions=5)).eval()
        torch.nn.init.normal_(heads.gates.weight)
        heads.standardise(torch.randn(20, 6) * 3 + 1)
        return heads

    def test_a_caption_is_the_gated_mean_of_its_words(self, heads):
        captions = [[1, 2, 2], [0], [8, 3, 4, 5]]
        numbers = torch.tensor([number for caption in captions for number in caption])
        found = heads.embed_captions(numbers, torch.tensor([0, 3, 4]))
        for row, caption in zip(found, captions, strict=True):
            gates = [torch.log1p(torch.exp(heads.gates.weight[number, 0])) for number in caption]
            total = sum(gate * heads.words.weight[number] for gate, number in zip(gates, caption, strict=True))
            twin = heads.caption(total / sum(gates))
            assert torch.allclose(row, twin / twin.norm(), atol=1e-6)

    def test_pictures_are_standardised_as_the_training_pictures_were(self, heads):
        features = torch.randn(4, 6)
        found = heads.embed_pictures(features)
        hidden = heads.picture[1](((features - heads.centre) / heads.spread).clamp(-8, 8))
        twin = heads.picture[4](torch.nn.functional.gelu(hidden))
        assert torch.allclose(found, twin / twin.norm(dim=1, keepdim=True), atol=1e-6)

    def test_a_feature_that_never_varied_does_no_harm(self):
        heads = Heads(Size(2, 3, 4, 4)).eval()
        heads.standardise(torch.tensor([[1.0, 5.0], [2.0, 5.0]]))
        assert torch.isfinite(heads.embed_pictures(torch.tensor([[1.5, 9.0]]))).all()

    def test_derivatives_go_forward_as_well(self, heads):
        """As mimic scores need them: equal to those of the backward pass."""
        state = {name: value.detach() for name, value in heads.named_parameters()}
        tangents = {name: torch.randn_like(value) for name, value in state.items()}
        features, numbers, starts = torch.randn(3, 6), torch.tensor([1, 2, 3, 4]), torch.tensor([0, 2, 3])

        def similarity(weights):
            def forward(module):
                return (module.embed_pictures(features) * module.embed_captions(numbers, starts)).sum()

            return torch.func.functional_call(_Whole(heads, forward), {f"heads.{k}": v for k, v in weights.items()}, ())

        _, forward = torch.func.jvp(similarity, (state,), (tangents,))
        gradients = torch.func.grad(similarity)(state)
        backward = sum((gradients[name] * tangents[name]).sum() for name in state)
        assert torch.allclose(forward, backward, atol=1e-5)


class _Whole(torch.nn.Module):
    def __init__(self, heads, function):
        super().__init__()
        self.heads, self._function = heads, function

    def forward(self):
        return self._function(self.heads)


def planted(n: int, seed: int) -> Pairs:
    """Pictures of two topics each: the features say which, with noise; captions name them among other words."""
    rng = np.random.default_rng(seed)
    features, captions = [], []
    for _ in range(n):
        topics = rng.choice(len(TOPICS), 2, replace=False)
        row = rng.normal(0, 0.2, 2 * len(TOPICS))
        row[topics] += 3
        features.append(row)
        first, second = (TOPICS[topic] for topic in topics)
        captions.append([f"a {first} and a {second}", f"the {second} is beside the {first}"])
    return Pairs(np.array(features, np.float32), captions)


def recipe(**settings) -> LightRecipe:
    return LightRecipe("light_clip", "yolox.features", hidden=32, dimensions=16, batch_size=32, **settings)


def trained(pairs: Pairs, **settings) -> Model:
    trainer = LightTrainer(recipe(**settings), pairs)
    for _ in trainer.run():
        pass
    return Model(trainer.heads, trainer.vocabulary)


def equal(heads: Heads, others: Heads) -> set[str]:
    """The tensors in which two heads are the same to the bit."""
    there = others.state_dict()
    return {name for name, value in heads.state_dict().items() if torch.equal(value, there[name])}


class TestTraining:
    def test_finds_the_planted_pairs(self):
        model = trained(planted(400, 0), epochs=30, dropout=0.1)
        others = planted(24, 1)
        texts = [listed[0] for listed in others.captions]
        found = recall_of(model.embed_pictures(others.features), model.embed_captions(texts), np.arange(24))
        assert min(found[0]["R@5"], found[1]["R@5"]) > 0.9  # two scenes in 28 name the same two things
        unknown = model.embed_captions(["ein Hund und ein Boot"])
        right = (model.embed_pictures(others.features) * model.embed_captions(texts)).sum(axis=1)
        assert (model.embed_pictures(others.features) @ unknown[0]).mean() < right.mean() - 0.2

    def test_the_same_seed_gives_the_same_bytes_and_leaves_other_chance_alone(self, tmp_path):
        files = []
        torch.manual_seed(7)
        before = torch.get_rng_state()
        for seed in (0, 0, 1):
            model = trained(planted(60, 0), epochs=3, seed=seed)
            content = io.BytesIO()
            save_checkpoint(content, model.heads, model.vocabulary)
            files.append(content.getvalue())
        assert torch.equal(torch.get_rng_state(), before)
        assert files[0] == files[1] != files[2]
        (tmp_path / "final.pt").write_bytes(files[0])
        again = load_checkpoint(tmp_path / "final.pt")
        pairs = planted(5, 3)
        assert again.vocabulary.entries == model.vocabulary.entries
        assert again.embed_pictures(pairs.features).shape == (5, 16)

    def test_says_what_it_cannot_learn_from(self):
        with pytest.raises(ValueError, match="1 usable pairs are too few"):
            LightTrainer(recipe(), planted(1, 0))
        with pytest.raises(ValueError, match="no word occurs in 99 captions"):
            LightTrainer(recipe(least_count=99), planted(9, 0))

    def test_goes_on_from_given_heads_with_their_words_and_their_standard(self, tmp_path):
        begun = LightTrainer(recipe(epochs=2), planted(60, 0))
        path = tmp_path / "epoch_0.pt"
        with path.open("wb") as file:
            save_checkpoint(file, begun.heads, begun.vocabulary)
        settings = recipe(epochs=2, pretrained=str(path), seed=5)
        first = first_heads(settings)
        others = Pairs(planted(60, 1).features * 2 + 1, [["a strange dog"]] * 30 + [["a lamp"]] * 30)
        trainer = LightTrainer(settings, others, first)
        assert trainer.vocabulary == begun.vocabulary
        assert equal(trainer.heads, begun.heads) == set(begun.heads.state_dict())
        epochs = list(trainer.run())
        assert [epoch.complete for epoch in epochs] == [True] * len(epochs)
        assert equal(trainer.heads, begun.heads) == {"centre", "spread"}
        assert equal(first.heads, begun.heads) == set(begun.heads.state_dict())  # they were copied
        # Going on and drawing are the same training where the pairs are.
        straight = LightTrainer(recipe(epochs=2), planted(60, 0))
        again = LightTrainer(recipe(epochs=2, pretrained=str(path)), planted(60, 0), first)
        for one in (straight, again):
            list(one.run())
        assert equal(straight.heads, again.heads) == set(begun.heads.state_dict())

    def test_refuses_to_go_on_from_what_does_not_fit(self, tmp_path):
        begun = LightTrainer(recipe(), planted(60, 0))
        path = tmp_path / "epoch_0.pt"
        with path.open("wb") as file:
            save_checkpoint(file, begun.heads, begun.vocabulary)
        with pytest.raises(ValueError, match="hidden is 512, and 32 in pretrained: say so here"):
            first_heads(LightRecipe("light_clip", "yolox.features", pretrained=str(path)))
        with pytest.raises(ValueError, match="is not a file here"):
            first_heads(recipe(pretrained=str(tmp_path / "no.pt")))
        narrow = Pairs(np.zeros((9, 5), np.float32), [["a dog"]] * 9)
        with pytest.raises(ValueError, match=r"reads 16 features, and yolox\.features has 5: name heads"):
            LightTrainer(recipe(), narrow, first_heads(recipe(pretrained=str(path))))

    def test_an_epoch_that_is_cut_short_is_not_complete(self):
        trainer = LightTrainer(recipe(samples_seen=32 * 5), planted(64, 0))
        assert [epoch.complete for epoch in trainer.run()] == [True, True, False]

    def test_the_scale_stays_within_its_limit(self):
        trainer = LightTrainer(recipe(epochs=1), planted(64, 0))
        torch.nn.init.constant_(trainer.heads.logit_scale, 9.0)
        list(trainer.run())
        assert trainer.heads.logit_scale.exp().item() <= 100.001

    @pytest.mark.parametrize("name", ["epochs", "samples_seen"])
    def test_steps(self, name):
        assert recipe(**{name: 5}).steps(64) == (10 if name == "epochs" else 1)
        rates = [recipe().rate(step, 100) for step in range(100)]
        assert max(rates) == recipe().learning_rate
        assert rates[0] < rates[5] < rates[9] >= rates[10] > rates[99] > 0
