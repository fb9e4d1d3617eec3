import json
import shutil
import subprocess
import sys

import numpy as np
import open_clip
import pyarrow as pa
import pytest
import torch

from chaffinch.scoring.clip import Clip
from chaffinch.scoring.prompt_pair import PromptPair
from chaffinch.scoring.scorer import Batch, fingerprint

TINY = "ViT-S-32-alt"
COLUMN = "b32.image_embedding"


@pytest.fixture(scope="module")
def embeddings(checkpoint, photos) -> pa.Array:
    """What clip stores of the photos."""
    scorer = Clip(TINY, str(checkpoint), embeddings=True)
    model = scorer.load("cpu")
    batch = Batch([""] * 5, ["any"] * 5, [scorer.prepare(photo, model) for photo in photos])
    return scorer.score(batch, model)["image_embedding"]


def measure(scorer: PromptPair, model: np.ndarray, stored: pa.Array) -> np.ndarray:
    return scorer.score(Batch([""] * len(stored), (), (), {COLUMN: stored}), model)["probability"]


def twin(checkpoint, photo, good, bad) -> float:
    """CLIP-IQA as its paper says it, with open_clip alone: one picture, one pair of prompts, softmax."""
    network, _, transform = open_clip.create_model_and_transforms(TINY, pretrained=str(checkpoint))
    network.eval()
    tokenizer = open_clip.get_tokenizer(TINY)
    with torch.no_grad():
        image = network.encode_image(transform(photo)[None], normalize=True)
        texts = torch.cat(
            [
                network.encode_text(tokenizer(list(side)), normalize=True).mean(dim=0, keepdim=True)
                for side in (good, bad)
            ]
        )
        texts /= texts.norm(dim=1, keepdim=True)
        return float((network.logit_scale.exp() * image @ texts.T).softmax(dim=-1)[0, 0])


@pytest.mark.parametrize(
    ("good", "bad"),
    [(("Good photo.",), ("Bad photo.",)), (("a dog", "a puppy", "hounds"), ("a cat on a sofa", "an empty street"))],
)
def test_probabilities_are_those_of_the_softmax_over_both_prompts(checkpoint, embeddings, photos, good, bad):
    scorer = PromptPair(COLUMN, TINY, str(checkpoint), good=good, bad=bad)
    measured = measure(scorer, scorer.load("cpu"), embeddings)
    assert measured.dtype == np.float32
    expected = [twin(checkpoint, photo, good, bad) for photo in photos]
    np.testing.assert_allclose(measured, expected, rtol=0, atol=2e-3)  # the embeddings are float16
    assert np.ptp(measured) > 2e-3


def test_the_opposite_question_has_the_opposite_answer(checkpoint, embeddings):
    one = PromptPair(COLUMN, TINY, str(checkpoint), good=("sharp",), bad=("blurred",))
    other = PromptPair(COLUMN, TINY, str(checkpoint), good=("blurred",), bad=("sharp",))
    answers = [measure(scorer, scorer.load("cpu"), embeddings) for scorer in (one, other)]
    np.testing.assert_allclose(answers[0] + answers[1], 1, atol=1e-6)


def test_what_is_like_one_prompt_is_near_its_end(checkpoint):
    """Planted: the embeddings of the prompts themselves, and what lies between them."""
    scorer = PromptPair(COLUMN, TINY, str(checkpoint), good=("a red ball",), bad=("two men in the rain",))
    model = Clip(TINY, str(checkpoint)).load("cpu")
    ends = model.embed_captions([*scorer.good, *scorer.bad]).numpy()
    rows = np.stack([ends[0], ends[1], ends.mean(axis=0), np.zeros_like(ends[0])]).astype(np.float16)
    stored = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
    good, bad, between, nothing = measure(scorer, scorer.load("cpu"), stored)
    assert good > between > bad
    assert between == pytest.approx(0.5, abs=2e-3)
    assert np.isnan(nothing)


def test_scores_do_not_depend_on_the_neighbours(checkpoint, embeddings):
    scorer = PromptPair(COLUMN, TINY, str(checkpoint))
    model = scorer.load("cpu")
    alone = [measure(scorer, model, embeddings.slice(row, 1))[0] for row in range(5)]
    np.testing.assert_allclose(measure(scorer, model, embeddings), alone, rtol=0, atol=1e-6)


def test_the_fingerprint_follows_prompts_and_weights_and_not_their_place(checkpoint, tmp_path):
    moved = shutil.copy(checkpoint, tmp_path / "elsewhere.pt")
    first = PromptPair(COLUMN, TINY, str(checkpoint))
    assert fingerprint(first, "cpu") == fingerprint(PromptPair(COLUMN, TINY, str(moved)), "cpu")
    assert fingerprint(first, "cpu") == fingerprint(first, "cuda")  # the text side is asked on the cpu
    assert str(checkpoint) not in json.dumps(first.identity())
    others = [
        PromptPair(COLUMN, TINY, str(checkpoint), good=("Sharp photo.",)),
        PromptPair(COLUMN, TINY, str(checkpoint), bad=("Dark photo.",)),
        PromptPair("l14.image_embedding", TINY, str(checkpoint)),
        PromptPair(COLUMN, TINY, "openai"),
    ]
    assert len({fingerprint(one, "cpu") for one in [first, *others]}) == 5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"good": ()}, "good is empty: give one prompt or more, such as [Good photo.]"),
        ({"bad": ("Bad photo.", " ")}, "bad is empty: give one prompt or more, such as [Bad photo.]"),
        ({"good": ("a", "b"), "bad": ("b", "a")}, "good and bad say the same"),
        ({"model": "ViT-B32"}, "no model named 'ViT-B32': did you mean ViT-B-32"),
        ({"pretrained": ""}, "pretrained is empty"),
        ({"pretrained": "missing.pt"}, "'missing.pt' is not a file here"),
        ({"library": "transformers"}, "'openai' goes with open_clip"),
    ],
)
def test_wrong_settings_are_refused_with_a_remedy(values, message):
    scorer = PromptPair(**({"embedding": COLUMN, "model": TINY, "pretrained": "openai"} | values))
    for verb in (scorer.check, lambda: scorer.load("cpu")):
        with pytest.raises(ValueError) as error:  # noqa: PT011
            verb()
        assert message in str(error.value)


def test_columns_that_are_no_such_embedding_are_refused(checkpoint, embeddings):
    scorer = PromptPair(COLUMN, TINY, str(checkpoint))
    scorer.check_columns({COLUMN: embeddings.type})
    with pytest.raises(ValueError, match=r"b32.image_embedding holds float, not vectors; clip has them with `embedd"):
        scorer.check_columns({COLUMN: pa.float32()})
    with pytest.raises(ValueError, match=r"has 768 dimensions, and ViT-S-32-alt takes 256: name an embedding of the"):
        scorer.check_columns({COLUMN: pa.list_(pa.float16(), 768)})
    with pytest.raises(ValueError, match=r"has 256 dimensions, and ViT-S-32-alt takes 3"):
        measure(scorer, np.ones(3), embeddings)


def test_checks_need_no_torch(checkpoint):
    program = (
        "import sys; import pyarrow as pa; from chaffinch.scoring.prompt_pair import PromptPair\n"
        "from chaffinch.scoring.scorer import fingerprint\n"
        f"scorer = PromptPair({COLUMN!r}, {TINY!r}, {str(checkpoint)!r}); scorer.check(); fingerprint(scorer, 'cpu')\n"
        f"scorer.check_columns({{{COLUMN!r}: pa.list_(pa.float16(), 256)}}); print(list(scorer.columns))\n"
        "assert not {'torch', 'open_clip', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "['probability']"
