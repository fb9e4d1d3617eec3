"""`ensemble:` of a config: which label model judges each aspect, and which is blended with them."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from chaffinch.filters.filter import Filter
from chaffinch.filters.label_models.label_model import LabelModel
from chaffinch.filters.label_models.soft_label_model import SoftLabelModel
from chaffinch.jobs import kinds
from chaffinch.jobs.documents import Document, Place
from chaffinch.jobs.sections import Sections
from chaffinch.jobs.validation import make


def make_label_models(
    document: Document, sections: Sections, filters: Mapping[str, Filter]
) -> tuple[dict[str, LabelModel], SoftLabelModel | None]:
    """Builds and checks the label models; a filter that has its aspect to itself is calibrated instead.

    Args:
        document: the config, for places in errors.
        sections: its sections.
        filters: name -> filter.

    Returns:
        Aspect -> label model, and the one that is blended with them, if any; not fitted.

    Raises:
        ConfigError: there is no such label model or aspect, or a model needs what the config has not.
    """
    members = Counter(judge.aspect for judge in filters.values() if not judge.require)
    for aspect in sections.ensemble.aspects:
        if aspect not in members:
            raise document.error(
                ("ensemble", "aspects", aspect), f"no filter has this aspect; {kinds.nearest(aspect, list(members))}"
            )
    common = {"label_model": sections.ensemble.label_model, **(sections.ensemble.model_extra or {})}
    found = {}
    for aspect in members or {"quality": 0}:
        own = sections.ensemble.aspects.get(aspect)
        place: Place = ("ensemble",) if own is None else ("ensemble", "aspects", aspect)
        settings = common if own is None else {"label_model": common["label_model"], **own}
        if not members:
            settings = {"label_model": "none"}
        elif members[aspect] == 1 and own is None and _class(document, place, settings).needs_peers:
            # The class prior of the ensemble is that of aspects it was written for, not of this one among several.
            prior = {"class_prior": common.get("class_prior")} if len(members) == 1 else {}
            settings = {"label_model": "alone", **prior}
        found[aspect] = _make(document, sections, place, settings)
    return found, _make_blend(document, sections)


def _make_blend(document: Document, sections: Sections) -> SoftLabelModel | None:
    blend = sections.ensemble.blend
    if blend is None:
        return None
    place: Place = ("ensemble", "blend")
    model = _make(document, sections, place, {"label_model": blend} if isinstance(blend, str) else blend)
    if not isinstance(model, SoftLabelModel):
        soft = [name for name, cls in kinds.label_models().items() if cls.is_soft]
        raise document.error(place, f"{model.kind} judges by votes: take one that judges by scores, {', '.join(soft)}")
    return model


def _make(document: Document, sections: Sections, place: Place, settings: Mapping[str, Any]) -> LabelModel:
    cls = _class(document, place, settings)
    if cls.needs_reference and not sections.reference:
        raise document.error(
            (*place, "label_model"), f"{settings['label_model']} needs a reference:, known-good samples"
        )
    model: LabelModel = make(
        document, place, cls, {key: value for key, value in settings.items() if key != "label_model"}
    )
    return model


def _class(document: Document, place: Place, settings: Mapping[str, Any]) -> type[LabelModel]:
    kind, known = str(settings.get("label_model")), kinds.label_models()
    if kind not in known:
        raise document.error((*place, "label_model"), f"no label model {kind!r}; {kinds.nearest(kind, list(known))}")
    return known[kind]
