"""Small zero-shot detectors with random weights, saved as transformers saves real ones; nothing is downloaded.

Their boxes mean nothing, but spread over the picture with confidences of all levels, so that numbers can be compared.
"""

import string
from pathlib import Path
from typing import Any

import torch
import transformers

FAMILIES = ("grounding-dino", "mm-grounding-dino", "owlvit", "owlv2", "omdet-turbo")

WORDS = """a an the of in on at with and two man woman boy girl dog cat ball beach brown black white red blue green
small running riding sitting horse car street grass water shirt hat house tree photo circle square triangle star"""

# Grounding DINO's code knows the ids that these tokens have in BERT's own vocabulary.
_BERT_IDS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}


def write_detector(folder: Path, family: str, side: int = 96, seed: int = 0) -> Path:
    """Saves a small detector.

    Args:
        folder: where; made if it is missing.
        family: one of FAMILIES.
        side: of the pictures that it sees, the shorter one where they keep their aspect; a multiple of 32, in pixels.
        seed: of the weights.

    Returns:
        The folder.
    """
    torch.manual_seed(seed)
    grounding = family.endswith("grounding-dino")
    tokenizer = _bert_tokenizer() if grounding else _clip_tokenizer(16 if family.startswith("owl") else 77)
    make = {"owlvit": _owl, "owlv2": _owl, "omdet-turbo": _omdet}.get(family, _grounding)
    network, processor = make(family, tokenizer, side)
    _spread(network, family)
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    network.eval().save_pretrained(folder)
    if bars:
        transformers.utils.logging.enable_progress_bar()
    processor.save_pretrained(folder)
    return folder


def _bert_tokenizer() -> Any:
    """Whole words, or letters where a word is unknown; lower case."""
    places = {place: token for token, place in _BERT_IDS.items()}
    tokens = [places.get(number, f"[unused{number}]") for number in range(1030)]
    pieces = [*string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase), *string.digits, *",-'"]
    tokens += dict.fromkeys([*WORDS.split(), *pieces])
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return transformers.BertTokenizer(vocab=vocabulary)


def _clip_tokenizer(length: int) -> Any:
    """Letters, joined to nothing; the end of text has the highest id, as in CLIP's vocabulary."""
    letters = [chr(number) for number in range(33, 127)]
    tokens = ["!", *letters[1:], *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return transformers.CLIPTokenizer(
        vocab=vocabulary, merges=[], pad_token="!", unk_token="<|endoftext|>", model_max_length=length
    )


def _swin(out_indices: list[int]) -> Any:
    return transformers.SwinConfig(
        image_size=64,
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_indices=out_indices,
    )


def _grounding(family: str, tokenizer: Any, side: int) -> tuple[Any, Any]:
    plain = family == "grounding-dino"
    config_class = transformers.GroundingDinoConfig if plain else transformers.MMGroundingDinoConfig
    network_class = (
        transformers.GroundingDinoForObjectDetection if plain else transformers.MMGroundingDinoForObjectDetection
    )
    config = config_class(
        backbone_config=_swin([2, 3, 4]),
        text_config=transformers.BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
        ),
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_queries=30,
    )
    pictures = transformers.GroundingDinoImageProcessor(size={"shortest_edge": side, "longest_edge": side * 5 // 3})
    return network_class(config), transformers.GroundingDinoProcessor(pictures, tokenizer)


def _owl(family: str, tokenizer: Any, side: int) -> tuple[Any, Any]:
    prefix = "OwlViT" if family == "owlvit" else "Owlv2"
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = getattr(transformers, f"{prefix}Config")(
        text_config={**sizes, **special, "vocab_size": len(tokenizer), "max_position_embeddings": 16},
        vision_config={**sizes, "image_size": side, "patch_size": 16},
        projection_dim=32,
    )
    pictures = getattr(transformers, f"{prefix}ImageProcessor")(size={"height": side, "width": side})
    network = getattr(transformers, f"{prefix}ForObjectDetection")(config)
    return network, getattr(transformers, f"{prefix}Processor")(pictures, tokenizer)


def _omdet(family: str, tokenizer: Any, side: int) -> tuple[Any, Any]:
    config = transformers.OmDetTurboConfig(
        backbone_config=_swin([2, 3, 4]),
        apply_layernorm_after_vision_backbone=False,
        text_config=transformers.CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_size=side,
        text_projection_in_dim=32,
        text_projection_out_dim=32,
        class_embed_dim=32,
        task_encoder_hidden_dim=32,
        vision_features_channels=[16, 16, 16],
        encoder_in_channels=[32, 64, 128],
        encoder_hidden_dim=16,
        encoder_attention_heads=2,
        encoder_dim_feedforward=32,
        decoder_hidden_dim=16,
        decoder_num_heads=2,
        decoder_num_layers=2,
        decoder_dim_feedforward=32,
        num_queries=30,
    )
    pictures = transformers.DetrImageProcessor(size={"height": side, "width": side}, do_pad=False)
    return transformers.OmDetTurboForObjectDetection(config), transformers.OmDetTurboProcessor(pictures, tokenizer)


def _spread(network: Any, family: str) -> None:
    """Makes boxes differ, which start as their anchors, and confidences neither all low nor all high."""
    owl = family.startswith("owl")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.01 if owl else 0.05))
        if owl:
            network.box_head.dense2.weight.mul_(3)
            for layer, value in ((network.class_head.logit_scale, 4.0), (network.class_head.logit_shift, -0.3)):
                layer.weight.mul_(0.1)
                layer.bias.fill_(value)
        elif family == "grounding-dino":
            network.model.decoder.layer_norm.weight.mul_(0.2)
        elif family == "mm-grounding-dino":
            for head in network.class_embed:
                head.bias.fill_(-1.5)
        else:
            network.decoder.encoder_bbox_head.layers[-1].bias[2:].add_(2.5)  # large boxes, of which many overlap
            for layer in network.decoder.decoder_class_head:
                layer.weight.mul_(0.1)
                layer.bias.add_(torch.randn_like(layer.bias))
