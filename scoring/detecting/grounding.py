"""Grounding DINO and MM Grounding DINO: the whole caption goes in, and every box says which tokens it shows.

Sources: Liu et al. 2023, Grounding DINO, arXiv 2303.05499; Zhao et al. 2024, MM Grounding DINO, arXiv 2401.02361.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from chaffinch.scoring.detecting.objects import Found, Limits, corners, select
from chaffinch.scoring.detecting.phrases import find_phrases, normalise

if TYPE_CHECKING:
    import torch

    from chaffinch.scoring.detecting.canvases import Prepared

# Text is padded to a multiple of so many tokens. Padding is masked and changes nothing but time and, with other sums,
# the last bits.
_STEP = 32


@dataclass(frozen=True)
class Tokens:
    """A prompt.

    Attributes:
        ids: (t,) token ids: [CLS], the text, "." and [SEP].
        phrases: (p,) the caption's noun phrases, or the vocabulary.
        phrase_of: (t,) which phrase a token belongs to; -1 where to none.
    """

    ids: np.ndarray
    phrases: tuple[str, ...]
    phrase_of: np.ndarray


class Grounding:
    """A model that grounds a caption as it stands."""

    needs_phrases = False

    def __init__(self, network: Any, tokenizer: Any, vocabulary: Sequence[str] | None, limits: Limits) -> None:
        """Keeps the network, and computes the text side of a fixed vocabulary.

        Args:
            network: on its device.
            tokenizer: the checkpoint's own.
            vocabulary: phrases to look for in every picture; None to read captions.
            limits: what is kept.

        Raises:
            ValueError: the vocabulary does not fit the model.
        """
        self._network, self._tokenizer, self._limits = network, tokenizer, limits
        self._length = network.config.max_text_len
        self._stop = tokenizer.convert_tokens_to_ids(".")
        self._vocabulary = None if vocabulary is None else self._join(vocabulary)
        if self._vocabulary is not None:
            network.model.text_backbone = _remember(network.model.text_backbone)

    @property
    def backbone(self) -> Any:
        """The part of the network that sees the picture alone."""
        return self._network.model.backbone.conv_encoder.model

    def read(self, captions: Sequence[str]) -> list[Tokens]:
        """Tokenises captions: lower case, at most 256 tokens, a full stop at the end.

        Args:
            captions: (n,) texts.

        Returns:
            (n,) prompts; of a fixed vocabulary the same each time.
        """
        if self._vocabulary is not None:
            return [self._vocabulary] * len(captions)
        if not captions:
            return []
        texts = [normalise(caption).rstrip(" .") for caption in captions]
        encoded = self._tokenizer(
            texts,
            add_special_tokens=False,
            truncation=True,
            max_length=self._length - 3,
            return_offsets_mapping=True,
            return_attention_mask=False,
        )
        prompts = []
        for text, ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            phrases = find_phrases(text)
            places = np.array(offsets, np.int64).reshape(-1, 2)
            phrase_of = np.full(len(ids), -1)
            for number, phrase in enumerate(phrases):
                for start, end in phrase.spans:
                    phrase_of[(places[:, 0] >= start) & (places[:, 1] <= end)] = number
            prompts.append(self._frame(ids, tuple(phrase.text for phrase in phrases), phrase_of))
        return prompts

    def detect(
        self,
        pictures: "Sequence[Prepared]",
        pixels: "torch.Tensor",
        mask: "torch.Tensor",
        prompts: Sequence[Tokens],
    ) -> list[Found]:
        """Finds what n captions name in n pictures.

        Args:
            pictures: (n,) as prepared.
            pixels: (n, 3, height, width) float32.
            mask: (n, height, width) bool, where a picture is.
            prompts: (n,) what `read` returned for the captions.

        Returns:
            (n,) objects; a phrase is made of the tokens above the text threshold, as transformers does it, or is the
            entry of the vocabulary whose token is surest.
        """
        import torch

        ids, attention = self._pad(prompts)
        output = self._network(
            pixel_values=pixels,
            pixel_mask=mask,
            input_ids=ids,
            token_type_ids=torch.zeros_like(ids),
            attention_mask=attention,
        )
        confidences = output.logits[..., : ids.shape[1]].float().sigmoid()  # (n, q, t)
        picked = select(corners(output.pred_boxes), confidences.amax(dim=2), self._limits)
        tokens = torch.gather(confidences, 1, picked.index[..., None].expand(-1, -1, ids.shape[1]))  # (n, k, t)
        counts = picked.kept.sum(dim=1).tolist()
        boxes, sure = picked.boxes.cpu().numpy(), picked.confidences.cpu().numpy()
        best, shown = confidences.amax(dim=1).cpu().numpy(), tokens.cpu().numpy()
        found = []
        for row, (prompt, k) in enumerate(zip(prompts, counts, strict=True)):
            phrases = self._name(prompt, shown[row, :k])
            found.append(
                Found(boxes[row, :k], sure[row, :k], phrases, prompt.phrases, _best_of_each(prompt, best[row]))
            )
        return found

    def _join(self, vocabulary: Sequence[str]) -> Tokens:
        """The vocabulary as one prompt, a full stop after each entry."""
        entries = [normalise(entry) for entry in vocabulary]
        for entry in entries:
            if "." in entry or "?" in entry:
                raise ValueError(
                    f"prompt {entry!r} holds a full stop or a question mark, which ends a phrase here: leave it out"
                )
        encoded = self._tokenizer(entries, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        ids, phrase_of = [], []
        for number, entry in enumerate(encoded):
            ids += [*entry, self._stop]
            phrase_of += [number] * len(entry) + [-1]
        if len(ids) + 2 > self._length:
            raise ValueError(
                f"prompt is a vocabulary of {len(ids) + 2} tokens, and the model reads {self._length}: "
                "shorten it, or use OWL-ViT, OWLv2 or OmDet-Turbo"
            )
        return self._frame(ids[:-1], tuple(vocabulary), np.array(phrase_of[:-1]))

    def _frame(self, ids: Sequence[int], phrases: tuple[str, ...], phrase_of: np.ndarray) -> Tokens:
        tokenizer = self._tokenizer
        framed = np.array([tokenizer.cls_token_id, *ids, self._stop, tokenizer.sep_token_id])
        return Tokens(framed, phrases, np.concatenate([[-1], phrase_of, [-1, -1]]).astype(np.int64))

    def _pad(self, prompts: Sequence[Tokens]) -> tuple["torch.Tensor", "torch.Tensor"]:
        """(n, t) token ids and attention mask."""
        import torch

        longest = max(len(prompt.ids) for prompt in prompts)
        length = min(-(-longest // _STEP) * _STEP, self._length)
        ids = np.full((len(prompts), length), self._tokenizer.pad_token_id, np.int64)
        mask = np.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt.ids)] = prompt.ids
            mask[row, : len(prompt.ids)] = 1
        device = self._network.device
        return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)

    def _name(self, prompt: Tokens, tokens: np.ndarray) -> list[str]:
        """What each of k boxes shows, from (k, t) confidences of its tokens."""
        if self._vocabulary is not None:
            entries = np.where(prompt.phrase_of >= 0, tokens[:, : len(prompt.ids)], -1)
            return [prompt.phrases[number] for number in prompt.phrase_of[entries.argmax(axis=1)]]
        above = tokens[:, : len(prompt.ids)] > self._limits.text_threshold  # (k, t)
        # transformers leaves out the first token, and the last of all that the model reads.
        above[:, 0] = False
        above[:, self._length - 1 :] = False
        kinds, which = np.unique(above, axis=0, return_inverse=True)
        texts = self._tokenizer.batch_decode([prompt.ids[kind].tolist() for kind in kinds])
        return [texts[number] for number in which.reshape(-1)]


def _best_of_each(prompt: Tokens, best: np.ndarray) -> np.ndarray:
    """(p,) the highest confidence of any token of each phrase, 0 where the model reads none of it."""
    confidences = np.zeros(len(prompt.phrases), np.float32)
    of_phrase = prompt.phrase_of >= 0
    np.maximum.at(confidences, prompt.phrase_of[of_phrase], best[: len(prompt.ids)][of_phrase])
    return confidences


def _remember(backbone: Any) -> Any:
    """Wraps the text backbone of a fixed prompt: it runs once, and the first row of its output stands for all."""
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    class Remembered(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone
            self.hidden: torch.Tensor | None = None

        def forward(self, input_ids: torch.Tensor, *masks: torch.Tensor, **options: Any) -> BaseModelOutput:
            if self.hidden is None:
                self.hidden = self.backbone(input_ids[:1], *(mask[:1] for mask in masks), **options)[0]
            return BaseModelOutput(last_hidden_state=self.hidden.expand(len(input_ids), -1, -1))

    return Remembered()
