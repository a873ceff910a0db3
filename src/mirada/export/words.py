"""A text tower's tokenizer as files of transformers'."""

import json
from typing import Any

import tokenizers
from tokenizers import normalizers, processors

from mirada.checkpoints.vocabularies import from_merges
from mirada.model import Design
from mirada.tokenizer import WITHOUT_PUNCTUATION

__all__ = ["tokenizer_files"]


def tokenizer_files(design: Design, vocabulary: str | None) -> tuple[dict[str, str], dict[str, Any], list[str]]:
    """`tokenizer.json` and `tokenizer_config.json`, or none where the model has no vocabulary; the ids of its special
    tokens, for the text tower's config; and what to know about them."""
    if design.text is None:
        return {}, {}, []
    contract = design.text.tokenizer
    # Behind its end a text that is read from left to right may be filled up with anything: transformers takes the end.
    pad = contract.end if design.text.causal and contract.end is not None else contract.pad
    special = {"bos_token_id": contract.start, "eos_token_id": contract.end, "pad_token_id": pad}
    own = contract.vocabulary == "clip"
    if own:
        vocabulary = from_merges()
    if vocabulary is None:
        return {}, special, ["the vocabulary is not there, so no tokenizer was written"]
    encoder = tokenizers.Tokenizer.from_str(vocabulary)
    notes = []
    if missing := [step for step in contract.clean if step in ("fix", "unescape")]:
        notes.append(f"transformers does not clean texts of what is rare in them ({', '.join(missing)})")
    if not own:
        _clean(encoder, contract.clean)
        _surround(encoder, contract.start, contract.end)
    kind = "CLIPTokenizer" if own or (design.text.causal and not contract.clean) else "PreTrainedTokenizerFast"
    names = {key: encoder.id_to_token(token) for key, token in special.items() if token is not None}
    config: dict[str, Any] = {
        "tokenizer_class": kind, "model_max_length": contract.context, "padding_side": contract.pad_side,
        "clean_up_tokenization_spaces": False, **{key.removesuffix("_id"): name for key, name in names.items()},
    }  # fmt: skip
    texts = {"tokenizer.json": encoder.to_str(), "tokenizer_config.json": json.dumps(config, indent=2) + "\n"}
    return texts, special, notes


def _clean(encoder: tokenizers.Tokenizer, steps: tuple[str, ...]) -> None:
    """What is done to a text before the vocabulary sees it, as the tokenizer's own first steps."""
    ways: dict[str, list[normalizers.Normalizer]] = {
        "fix": [], "unescape": [], "lower": [normalizers.Lowercase()], "lower each": [normalizers.Lowercase()],
        "strip": [normalizers.Strip()], "underscores": [normalizers.Replace("_", " ")],
        "spaces": [normalizers.Replace(tokenizers.Regex(r"\s+"), " "), normalizers.Strip()],
        "punctuation": [normalizers.Replace(tokenizers.Regex(_class_of(WITHOUT_PUNCTUATION)), "")],
    }  # fmt: skip
    before = [way for step in steps for way in ways[step]]
    if before:
        encoder.normalizer = normalizers.Sequence([*before, *([encoder.normalizer] if encoder.normalizer else [])])


def _surround(encoder: tokenizers.Tokenizer, start: int | None, end: int | None) -> None:
    """What stands before and after each text, and no padding or cutting that the file may have brought along."""
    tokens = [(encoder.id_to_token(token), token) for token in (start, end) if token is not None]
    before = [] if start is None else [encoder.id_to_token(start)]
    after = [] if end is None else [encoder.id_to_token(end)]
    encoder.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after], pair=None, special_tokens=tokens
    )
    encoder.no_padding()
    encoder.no_truncation()


def _class_of(characters: Any) -> str:
    return "[" + "".join(f"\\x{{{code:x}}}" for code in sorted(characters)) + "]"
