"""Vocabularies as published text towers have them: OpenAI's own, and small ones of SigLIP's and SigLIP 2's kinds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, normalizers, trainers

from mirada.tokenizer import clip_merges


def clip_tokenizer(**options: Any) -> Any:
    """transformers' CLIPTokenizer with OpenAI's vocabulary."""
    from transformers import CLIPTokenizer

    vocabulary, merges = clip_merges(("<|startoftext|>", "<|endoftext|>"))
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77, **options)


def unigrams(texts: Sequence[str], folder: Path, size: int) -> Path:
    """A spiece.model of T5's kind, which SigLIP has: unigrams without bytes to fall back to."""
    import sentencepiece

    (folder / "text.txt").write_text("\n".join(" ".join(text.lower().split()) for text in texts if text.strip()))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"), model_prefix=str(folder / "spiece"), vocab_size=size, hard_vocab_limit=False,
        character_coverage=0.98, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    return folder / "spiece.model"


def t5_tokenizer(model: Path) -> Any:
    """transformers' T5TokenizerFast of that model, padded as SigLIP's is."""
    from transformers import T5TokenizerFast

    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "pad_token": "</s>"}
    (model.parent / "tokenizer_config.json").write_text(json.dumps(config))
    return T5TokenizerFast.from_pretrained(model.parent)


def byte_fallback_pairs(texts: Sequence[str], size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary of Gemma's kind, which SigLIP 2 has, and its merges: byte pairs, and bytes to fall back to."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    encoder = tokenizers.Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    encoder.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, limit_alphabet=400, max_token_length=16, show_progress=False
    )
    encoder.train_from_iterator([text.lower() for text in texts], trainer)
    model = json.loads(encoder.to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]
