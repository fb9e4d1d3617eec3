"""The language a caption is written in."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chaffinch.filters.filter import Bounds, Filter

LID_176 = (
    "af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv cy da de "
    "diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr hsb ht hu hy ia id ie ilo "
    "io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn mr mrj ms "
    "mt mwl my myv mzn nah nap nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn "
    "sco sd sh si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo wa war wuu xal xmf "
    "yi yo yue zh"
)
CODES = frozenset(LID_176.split())
"""The languages that fastText's lid.176 tells apart; any other code would score 0 everywhere without a word."""


@dataclass(frozen=True, kw_only=True)
class Language(Filter):
    """Score: probability that the caption is in one of the wanted languages, in [0, 1]; higher is better.

    It is the sum over the wanted languages among the caption's five most probable ones, so that Serbian next to
    Croatian and Bosnian can be asked for together. Short captions are hard to tell: leave a gap between `keep` and
    `drop` to abstain on them.

    Attributes:
        languages: the wanted ones, as fastText's codes: en, de, zh, ...
        keep: as of every filter; from 0.5 where nothing is said.
    """

    languages: tuple[str, ...]
    keep: Bounds | None = (0.5, None)

    @property
    def reads(self) -> tuple[str, ...]:
        """The languages of the captions."""
        return ("captions.languages",)

    def check(self) -> None:
        """Checks the wanted languages.

        Raises:
            ValueError: no language is named, or one that no caption can have.
        """
        if isinstance(self.languages, str) or not self.languages:
            raise ValueError(f"languages is {self.languages!r}: give a list of codes, such as [en]")
        for code in self.languages:
            if code not in CODES:
                close = difflib.get_close_matches(code.lower(), sorted(CODES), n=1, cutoff=0.7)
                hint = f"did you mean {close[0]!r}?" if close else "English is 'en', German 'de', Chinese 'zh'"
                raise ValueError(
                    f"languages: {code!r} is no code of fastText's lid.176, so no caption would ever have it; {hint}"
                )

    def score(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """Adds up the probabilities of the wanted languages.

        Args:
            columns: captions.languages, n lists of {language: string, probability: float}, null for rejected samples.

        Returns:
            (n,) float32 in [0, 1]; NaN where the list is null, 0 where it is empty.
        """
        lists = columns["captions.languages"]
        if pa.types.is_null(lists.type):
            return np.full(len(lists), np.nan, dtype=np.float32)
        offsets = lists.offsets.to_numpy()
        entries = lists.values[offsets[0] : offsets[-1]]  # what a slice of the lists covers, bounds included
        codes, probabilities = entries.flatten()
        wanted = pc.is_in(codes, value_set=pa.array(self.languages, type=codes.type)).to_numpy(zero_copy_only=False)
        weights = probabilities.fill_null(0.0).to_numpy(zero_copy_only=False)
        owners = np.repeat(np.arange(len(lists)), np.diff(offsets))
        # Added row by row: differences of a running sum would make a score depend on the rows before it.
        sums = np.bincount(owners[wanted], weights=weights[wanted], minlength=len(lists))
        scores = np.clip(sums, 0.0, 1.0).astype(np.float32)
        scores[lists.is_null().to_numpy(zero_copy_only=False)] = np.nan
        return scores
