"""The vocabulary of a transformers folder, and the contract around it, from whichever files there are."""

import json
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from mirada.checkpoints.files import Files
from mirada.errors import MiradaError
from mirada.tokenizer import Step, TokenizerDesign, byte_pairs, clip_merges

__all__ = ["from_merges", "from_sentencepiece", "transformers_tokenizer"]

CLIP_MARKERS = ("<|startoftext|>", "<|endoftext|>")
NORMAL, UNKNOWN, CONTROL = 1, 2, 3  # ModelProto.SentencePiece.Type
UNIGRAM = 1  # TrainerSpec.ModelType
SIGLIP_CLEANING: tuple[Step, ...] = ("lower", "punctuation", "spaces")


def transformers_tokenizer(
    files: Files | None, family: str, context: int, clean: Sequence[Step] | None = None
) -> tuple[TokenizerDesign, str | None]:
    """The contract and the vocabulary of a folder of transformers' layout.

    Args:
        files: the folder; None, or one without a vocabulary, gives a design that cannot read texts until it has one.
        family: "clip", "siglip", or "open_clip", which reads a tokenizer.json only.
        context: how many positions the text tower has.
        clean: how texts are cleaned, where the source says so elsewhere (open_clip); None: as the folder's class does.
    """
    config = (files and files.json("tokenizer_config.json")) or {}
    special = (files and files.json("special_tokens_map.json")) or {}
    vocabulary, kind = _vocabulary(files, config, family)
    if vocabulary is None:
        # The ids that the family's published models have; without a vocabulary they matter to nobody.
        if family == "clip":
            return TokenizerDesign(context, (), "stored", pad=49407), None
        return TokenizerDesign(context, tuple(clean or SIGLIP_CLEANING), "stored", None, 1, 1), None
    encoder = tokenizers.Tokenizer.from_str(vocabulary)
    padding = encoder.padding or {}
    start, end = _around(encoder, config, kind)
    name = _content(config.get("pad_token")) or _content(special.get("pad_token")) or padding.get("pad_token")
    pad = encoder.token_to_id(name) if name else end
    left = config.get("tokenizer_class") in ("GemmaTokenizer", "Siglip2Tokenizer")  # unless they say something else
    side: Any = config.get("padding_side") or padding.get("direction", "").lower() or ("left" if left else "right")
    if pad is None:
        raise MiradaError(f"The padding {name!r} of {files and files.where} is not in its vocabulary: was it edited?")
    if clean is None:
        clean = _cleaning(kind, config, encoder)
    return TokenizerDesign(context, tuple(clean), "stored", start, end, pad, side), vocabulary


def _vocabulary(files: Files | None, config: dict[str, Any], family: str) -> tuple[str | None, str]:
    """The text of a tokenizer.json, and how it is used: as by CLIP's, SigLIP's or Gemma's tokenizer, or as it says."""
    name = str(config.get("tokenizer_class") or "").removesuffix("Fast")
    if files is None:
        return None, family
    # transformers' own SigLIP tokenizer reads spiece.model only; a tokenizer.json beside it is somebody's conversion.
    if name in ("", "SiglipTokenizer") and family == "siglip" and (path := files.path("spiece.model")) is not None:
        return from_sentencepiece(path.read_bytes(), str(path)), "siglip"
    text = files.text("tokenizer.json")
    if text is not None:
        try:
            model = json.loads(text)["model"]["type"]
        except (ValueError, KeyError, TypeError) as error:
            raise MiradaError(f"The tokenizer.json of {files.where} is damaged ({error!r}): fetch it again.") from error
        return text, ("siglip" if model == "Unigram" else "gemma") if family == "siglip" else family
    if family == "clip" and (vocabulary := files.json("vocab.json")) and (merges := files.text("merges.txt")):
        if unknown := (files.json("added_tokens.json") or {}).keys() - vocabulary.keys():
            raise MiradaError(
                f"{files.where} adds tokens ({', '.join(sorted(unknown))}) to its vocabulary and has no "
                "tokenizer.json: save its tokenizer again with a recent transformers, which writes one."
            )
        lines = [line for line in merges.splitlines() if line.strip() and not line.startswith("#version")]
        return from_merges(vocabulary, [tuple(line.split()) for line in lines], config), "clip"
    return None, family


def _cleaning(kind: str, config: dict[str, Any], encoder: tokenizers.Tokenizer) -> tuple[Step, ...]:
    """What is done to a text before its tokenizer.json: CLIP's does it all itself."""
    if kind == "siglip":
        return SIGLIP_CLEANING if config.get("do_lower_case", True) else SIGLIP_CLEANING[1:]
    # SigLIP 2 was trained on lower case. Only newer files (Siglip2Tokenizer) say so, older ones are plain Gemma's.
    lowers = "Lowercase" in repr(encoder.normalizer)
    return ("lower each",) if kind == "gemma" and not lowers else ()


def _around(encoder: tokenizers.Tokenizer, config: dict[str, Any], kind: str) -> tuple[int | None, int | None]:
    """The ids before and after a text's own."""
    if kind == "siglip":
        return None, encoder.token_to_id(_content(config.get("eos_token")) or "</s>")
    if kind != "clip" and ("add_bos_token" in config or "add_eos_token" in config):
        names = [_content(config.get(f"{which}_token")) or f"<{which}>" for which in ("bos", "eos")]
        start, end = (
            encoder.token_to_id(name) if config.get(f"add_{which}_token") else None
            for name, which in zip(names, ("bos", "eos"), strict=True)
        )
        return start, end
    encoder.no_padding()
    encoder.no_truncation()
    bare, full = (encoder.encode("a", add_special_tokens=special).ids for special in (False, True))
    where = next(index for index in range(len(full)) if full[index : index + len(bare)] == bare)
    before, after = full[:where], full[where + len(bare) :]
    if len(before) > 1 or len(after) > 1:
        raise MiradaError(f"The tokenizer puts {before} before and {after} after each text: one id each is supported.")
    return (before[0] if before else None), (after[0] if after else None)


def _content(token: Any) -> str | None:
    """The text of a special token, which files hold as text or with how it is matched."""
    return token.get("content") if isinstance(token, dict) else token


def from_merges(
    vocabulary: dict[str, int] | None = None, merges: Any = None, config: dict[str, Any] | None = None
) -> str:
    """A tokenizer.json as transformers' CLIPTokenizer makes it of vocab.json and merges.txt; by default OpenAI's."""
    config = config or {}
    markers = (
        _content(config.get("bos_token")) or CLIP_MARKERS[0], _content(config.get("eos_token")) or CLIP_MARKERS[1],
    )  # fmt: skip
    if vocabulary is None:
        vocabulary, merges = clip_merges(markers)
    if missing := [marker for marker in markers if marker not in vocabulary]:
        raise MiradaError(f"The vocabulary has no {missing[0]!r}: is it CLIP's?")
    try:
        encoder = byte_pairs(vocabulary, merges, markers, ignore_case=False)
    except Exception as error:  # the library raises plain Exception for merges that are not in the vocabulary
        raise MiradaError(f"vocab.json and merges.txt do not fit together ({error}): fetch both again.") from error
    encoder.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(tokenizers.Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    encoder.add_special_tokens([tokenizers.AddedToken(marker, special=True) for marker in markers])
    start, end = ((marker, vocabulary[marker]) for marker in markers)
    encoder.post_processor = processors.RobertaProcessing(end, start, False, False)
    return encoder.to_str()


def from_sentencepiece(model: bytes, where: str) -> str:
    """A tokenizer.json that gives the ids of a SentencePiece unigram model (Kudo 2018, arXiv:1804.10959).

    Two rarities are left to the tokenizers library: of two equally likely ways to cut a word it may take the other one
    (SentencePiece adds in float32, and rounding decides), and letters with two or more loose accents are normalised as
    a whole.

    Raises:
        MiradaError: for a model of another type, or with what a tokenizer.json cannot express.
    """
    try:
        message = list(_fields(model))
        pieces = [dict(_fields(value)) for key, value in message if key == 1]
        trainer = dict(_fields(next(value for key, value in message if key == 2)))
        normaliser = dict(_fields(next(value for key, value in message if key == 3)))
        scored = [(piece[1].decode(), struct.unpack("<f", piece.get(2, bytes(4)))[0]) for piece in pieces]
    except (StopIteration, ValueError, KeyError, IndexError, AttributeError, struct.error) as error:
        raise MiradaError(f"{where} is no SentencePiece model ({error!r}): is the file whole?") from error
    kinds = {piece.get(3, NORMAL) for piece in pieces}
    if trainer.get(3, UNIGRAM) != UNIGRAM or kinds - {NORMAL, UNKNOWN, CONTROL} or trainer.get(35):
        raise MiradaError(
            f"{where} is a SentencePiece model of a kind that cannot be read exactly (only unigram models without "
            "pieces of bytes or of the user's can): put a tokenizer.json beside it."
        )
    unknown = next(index for index, piece in enumerate(pieces) if piece.get(3, NORMAL) == UNKNOWN)
    encoder = tokenizers.Tokenizer(models.Unigram(scored, unknown, False))
    steps = [normalizers.Replace("▁", " "), normalizers.Replace(tokenizers.Regex(" {2,}"), " "), normalizers.Strip()]
    if charsmap := normaliser.get(2):
        steps.insert(1, normalizers.Precompiled(charsmap))
    encoder.normalizer = normalizers.Sequence(steps)
    encoder.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always", True)
    return encoder.to_str()


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a protocol buffer: an int, or the bytes of what is longer."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
            continue
        size = {1: 8, 5: 4}.get(kind) or varint()
        if kind not in (1, 2, 5) or at + size > len(message):
            raise ValueError(f"a field of kind {kind} at byte {at}")
        yield key >> 3, message[at : at + size]
        at += size
