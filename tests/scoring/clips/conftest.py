"""Small checkpoints with random weights, as transformers saves them, tokenizers and all."""

from pathlib import Path

import pytest

KINDS = ("clip", "siglip", "siglip2 of fixed size", "siglip2 of any aspect")

_TEXTS = [
    "a dog on the beach",
    "two children play with a red ball",
    "zwei kinder spielen am strand",
    "the quick brown fox jumps over the lazy dog",
    "img 01 jpg",
] * 20


def _clip_tokenizer():
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    merges = [("t", "h"), ("d", "o"), ("do", "g</w>"), ("th", "e</w>")]
    names = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    names += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {name: number for number, name in enumerate(names)}
    return CLIPTokenizer(vocabulary, merges, model_max_length=77), len(names)


def _sentencepiece_tokenizer(folder: Path):
    import sentencepiece
    from transformers import SiglipTokenizer

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_TEXTS),
        model_prefix=str(folder / "spiece"),
        vocab_size=40,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    # Published ones return no mask: the model was trained to look at the padding.
    return SiglipTokenizer(str(folder / "spiece.model"), model_input_names=["input_ids"]), 40


def _gemma_tokenizer(kind):
    letters = sorted({letter for text in _TEXTS for letter in text.replace(" ", "▁") + text.upper()} - {" "})
    merges = [("d", "o"), ("do", "g"), ("▁", "t")]
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    names += list(map("".join, merges))
    vocabulary = {name: number for number, name in enumerate(names)}
    settings = {"model_input_names": ["input_ids"], "padding_side": "right"}
    return kind(vocabulary, merges, **settings), len(names)


def _save(kind: str, folder: Path) -> None:
    import torch
    import transformers as library

    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    fixed = {**layers, "image_size": 64, "patch_size": 16}
    square = {"height": 64, "width": 64}
    if kind == "clip":
        tokenizer, count = _clip_tokenizer()
        text = {**layers, "vocab_size": count, "eos_token_id": count - 1, "bos_token_id": count - 2}
        config = library.CLIPConfig(text_config=text, vision_config=fixed, projection_dim=24)
        pictures = library.CLIPImageProcessor(size={"shortest_edge": 72}, crop_size=square)
        network, processor = library.CLIPModel, library.CLIPProcessor
    elif kind == "siglip":
        tokenizer, count = _sentencepiece_tokenizer(folder)
        config = library.SiglipConfig(text_config={**layers, "vocab_size": count}, vision_config=fixed)
        pictures, network, processor = library.SiglipImageProcessor(size=square), library.SiglipModel, None
    elif kind == "siglip2 of fixed size":
        tokenizer, count = _gemma_tokenizer(library.GemmaTokenizer)
        config = library.SiglipConfig(text_config={**layers, "vocab_size": count}, vision_config=fixed)
        pictures, network, processor = library.SiglipImageProcessor(size=square), library.SiglipModel, None
    else:
        tokenizer, count = _gemma_tokenizer(library.Siglip2Tokenizer)
        vision = {**layers, "num_patches": 256, "patch_size": 16}
        config = library.Siglip2Config(text_config={**layers, "vocab_size": count}, vision_config=vision)
        pictures = library.Siglip2ImageProcessor()
        network, processor = library.Siglip2Model, library.Siglip2Processor
    torch.manual_seed(0)
    model = network(config)
    with torch.no_grad():  # as initialised, every picture and every text has nearly the same embedding
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.mul_(4)
    model.save_pretrained(folder)
    (processor or library.SiglipProcessor)(pictures, tokenizer).save_pretrained(folder)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kind -> folder."""
    folders = {kind: tmp_path_factory.mktemp(kind.replace(" ", "-")) for kind in KINDS}
    for kind, folder in folders.items():
        _save(kind, folder)
    return folders
