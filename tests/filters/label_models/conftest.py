"""Every label model, and the settings that make it another, behind one way to fit and to predict."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from chaffinch.filters.label_models import (
    All,
    Alone,
    Anchored,
    Auto,
    CleanVsPool,
    DawidSkene,
    FlyingSquid,
    Gaussian,
    Majority,
    Metal,
    Nothing,
    WeightedMajority,
)
from chaffinch.filters.label_models.label_model import LabelModel


@dataclass(frozen=True)
class Variant:
    """A label model with settings.

    Attributes:
        kind: its class.
        settings: all but the class prior.
        prior_of_abstains: P(keep) of a row of abstains where it is no class prior.
        treats_alike: whether keep and drop are but names.
        merges_copies: whether a source counts once, however many copies there are of it.
        hears_silence: whether a row of nothing but abstains has another probability than the class prior.
    """

    kind: type[LabelModel]
    settings: dict[str, Any]
    prior_of_abstains: float | None = None
    treats_alike: bool = True
    merges_copies: bool = True
    hears_silence: bool = False

    @property
    def is_soft(self):
        return self.kind.is_soft

    @property
    def needs_reference(self):
        return self.kind.needs_reference

    def fit(self, pool, reference=None, prior=None):
        """A fitted model; only who needs a reference is given one."""
        model = self.kind(class_prior=prior, **self.settings)
        return model.fit(pool, reference) if self.needs_reference else model.fit(pool)

    def restored(self, model):
        """The model after a trip through strict JSON; scores are ranked as before."""
        restored = self.kind.restore(json.loads(json.dumps(model.state(), allow_nan=False)))
        if self.is_soft:
            # How scores are read belongs to the pool, and is no part of the label model's state.
            vars(restored).update({name: value for name, value in vars(model).items() if name.startswith("_")})
        return restored

    def planted(self, seed, n=90, m=5, prior=0.4):
        """Votes, or scores, of so many sources in the pool, and of 40 known-good samples."""
        rng = np.random.default_rng(seed)
        gap = np.linspace(2.2, 1.2, m)
        sides = []
        for good in (rng.random(n) < prior, np.ones(40, bool)):
            scores = rng.standard_normal((len(good), m)) + np.where(good[:, None], gap / 2, -gap / 2)
            there = rng.random(scores.shape) < 0.8
            sides.append(
                np.where(there, scores, np.nan)
                if self.is_soft
                else np.where(there, np.where(scores > 0, 1, -1), 0).astype(np.int8)
            )
        return sides

    @property
    def silence(self):
        """What a source gives that cannot judge."""
        return np.nan if self.is_soft else 0


_RULE = {"treats_alike": False}
_VARIANTS = {
    "all": Variant(All, {}, 1.0, **_RULE),
    "none": Variant(Nothing, {}, 1.0, **_RULE),
    "majority": Variant(Majority, {}, 0.5, merges_copies=False),
    "weighted_majority": Variant(WeightedMajority, {}),
    "dawid_skene": Variant(DawidSkene, {}),
    "dawid_skene-one_coin": Variant(DawidSkene, {"form": "one_coin"}),
    "dawid_skene-symbol": Variant(DawidSkene, {"abstain": "symbol"}),
    "dawid_skene-symbol-one_coin": Variant(DawidSkene, {"abstain": "symbol", "form": "one_coin"}),
    "dawid_skene-ignore": Variant(DawidSkene, {"correlated": "ignore"}, merges_copies=False),
    "metal": Variant(Metal, {}),
    "metal-one_coin": Variant(Metal, {"form": "one_coin"}),
    "metal-informative": Variant(Metal, {"voting": "informative"}),
    "flying_squid": Variant(FlyingSquid, {}),
    "flying_squid-mean": Variant(FlyingSquid, {"combine": "mean"}),
    "flying_squid-one_coin": Variant(FlyingSquid, {"form": "one_coin"}),
    "flying_squid-informative": Variant(FlyingSquid, {"voting": "informative"}),
    "auto": Variant(Auto, {}),
    "gaussian": Variant(Gaussian, {}),
    # What is known of good samples is not known of bad ones.
    "anchored": Variant(Anchored, {}, treats_alike=False),
    "anchored-symbol": Variant(Anchored, {"abstain": "symbol"}, treats_alike=False, hears_silence=True),
    "clean_vs_pool": Variant(CleanVsPool, {}, treats_alike=False),
}
_ALL = _VARIANTS | {"alone": Variant(Alone, {})}


def _fixture(variants):
    def give(request):
        return request.param

    return pytest.fixture(scope="session", params=variants.values(), ids=variants.keys())(give)


variant = _fixture(_VARIANTS)  # each label model that takes several sources
any_variant = _fixture(_ALL)
soft_variant = _fixture({name: one for name, one in _ALL.items() if one.is_soft})
voting_variant = _fixture({name: one for name, one in _ALL.items() if not one.is_soft})


@pytest.fixture(scope="session")
def all_variants():
    """All of them at once."""
    return list(_ALL.values())
