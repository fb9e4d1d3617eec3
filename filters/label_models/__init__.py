"""Label models weigh sources that vote: -1 drop, 0 abstain, +1 keep.

>>> from chaffinch.filters.label_models import DawidSkene
>>> votes = [[1, 1, 0], [1, 1, 1], [-1, -1, 1], [-1, 0, -1]]
>>> DawidSkene(class_prior=0.5).fit(votes).predict_proba(votes).round(2)
array([0.86, 0.89, 0.14, 0.19])
"""

from chaffinch.filters.label_models.all import All
from chaffinch.filters.label_models.alone import Alone
from chaffinch.filters.label_models.anchored import Anchored
from chaffinch.filters.label_models.auto import Auto
from chaffinch.filters.label_models.clean_vs_pool import CleanVsPool
from chaffinch.filters.label_models.dawid_skene import DawidSkene
from chaffinch.filters.label_models.flying_squid import FlyingSquid
from chaffinch.filters.label_models.gaussian import Gaussian
from chaffinch.filters.label_models.majority import Majority
from chaffinch.filters.label_models.metal import Metal
from chaffinch.filters.label_models.none import Nothing
from chaffinch.filters.label_models.weighted_majority import WeightedMajority

__all__ = [
    "All",
    "Alone",
    "Anchored",
    "Auto",
    "CleanVsPool",
    "DawidSkene",
    "FlyingSquid",
    "Gaussian",
    "Majority",
    "Metal",
    "Nothing",
    "WeightedMajority",
]
