import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaffinch.scoring.scorer import SampleError
from chaffinch.scoring.training.recipe import Augmentation, ClassifierRecipe, Recipe, Reweighting


def slow_rates(peak, steps, warmup):
    """open_clip's scheduler, written out."""
    rates = []
    for step in range(steps):
        if step < warmup:
            rates.append(peak * (step + 1) / warmup)
        else:
            done = (step - warmup) / (steps - warmup)
            rates.append(peak * 0.5 * (1 + math.cos(math.pi * done)))
    return rates


@pytest.mark.parametrize(("warmup", "in_steps"), [(0, 0), (7, 7), (0.25, 10), (40, 40), (100, 100), (0.999, 40)])
def test_rates_rise_in_a_line_and_fall_along_a_cosine(warmup, in_steps):
    recipe = Recipe("RN50", warmup=warmup, learning_rate=0.003)
    found = [recipe.rate(step, 40) for step in range(40)]
    assert found == pytest.approx(slow_rates(0.003, 40, in_steps), rel=1e-12)
    assert all(0 < rate <= 0.003 for rate in found)


def test_steps_cover_what_is_to_be_seen():
    assert Recipe("RN50", samples_seen=1000, batch_size=64).steps(500) == 16
    assert Recipe("RN50", epochs=2, batch_size=64).steps(500) == 16
    assert Recipe("RN50", epochs=0.5, batch_size=64).steps(10) == 1
    assert Recipe("RN50", batch_size=64).steps(64) == 32
    assert Recipe("RN50", batch_size=64).batch(10) == 10


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "ViT-B32"}, "no model named 'ViT-B32': did you mean ViT-B-32"),
        ({"model": "chaffinch-tyni"}, "did you mean chaffinch-tiny"),
        ({"model": "missing.json"}, "'missing.json' cannot be read: No such file"),
        ({"pretrained": "missing.pt"}, "'missing.pt' is not a file here"),
        ({"model": "coca_ViT-B-32"}, "choose a plain CLIP"),
        ({"samples_seen": 5, "epochs": 1}, "samples_seen or epochs, not both"),
        ({"batch_size": 1}, "batch_size is 1; it has to be at least 2"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"betas": (0.9, 1.0)}, "betas is"),
        ({"warmup": -1}, "warmup is -1"),
        ({"gradient_clip": 0.0}, "gradient_clip is 0.0"),
        ({"augment": Augmentation(crop=(0.5, 1.5))}, "augment.crop is"),
        ({"augment": Augmentation(flip=2.0)}, "augment.flip is 2.0"),
        ({"seed": -1}, "seed is -1"),
        (
            {"reweight": Reweighting("openai", temperature=0.0)},
            r"temperature is 0\.0; it has to be more than 0",
        ),
        ({"reweight": Reweighting("openai", temperature=math.nan)}, r"reweight\.temperature is nan"),
        ({"reweight": Reweighting("openai", layers=())}, r"reweight\.layers is empty"),
        ({"reweight": Reweighting("missing.pt")}, r"reweight\.reference: 'missing\.pt' is not a file here"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_right(settings, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**({"model": "RN50"} | settings)).check()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": ""}, "labels is empty"),
        ({"classes": 1}, "at least 2 apart"),
        ({"classes": ("a", "b", "a")}, "classes names 'a' twice"),
        ({"captions_key": "captions"}, "reads labels"),
        ({"freeze": True}, "name weights by pretrained"),
        ({"reweight": Reweighting("openai")}, "'openai' is not a file here: name the final.pt of a classifier"),
        ({"model": "ViT-B32"}, "did you mean ViT-B-32"),
    ],
)
def test_classifiers_are_checked_too(settings, message):
    with pytest.raises(ValueError, match=message):
        ClassifierRecipe(**({"model": "RN50", "labels": "cls", "classes": 3} | settings)).check()


@given(st.integers(2, 50), st.integers(-3, 60))
def test_labels_are_numbers_or_names_of_classes(classes, label):
    recipe = ClassifierRecipe("RN50", labels="cls", classes=classes)
    named = ClassifierRecipe("RN50", labels="cls", classes=tuple(f"{number} dogs" for number in range(classes)))
    if 0 <= label < classes:
        assert recipe.class_of(str(label)) == named.class_of(f"{label} dogs") == label
    else:
        for one, text in ((recipe, str(label)), (named, f"{label} dogs")):
            with pytest.raises(SampleError, match=f"label '{text}' is none of the {classes} classes"):
                one.class_of(text)


def test_checking_needs_no_torch():
    program = (
        "import sys; from chaffinch.scoring.training.recipe import Recipe; Recipe('chaffinch-tiny').check()\n"
        "assert not {'torch', 'open_clip'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
