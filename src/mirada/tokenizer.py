"""Texts to rows of token ids, by a contract that is data and stored with the model.

A text tower is only as good as its tokens: another padding id, upper case where there was none, or a comma too many
costs a tower tens of points of accuracy and raises no error. So all of it is written down: how texts are cleaned, the
vocabulary, what goes around the tokens, how long a row is and what fills it.
"""

import gzip
import html
import string
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from importlib import resources
from typing import Any, Literal, get_args

import ftfy
import tokenizers
import torch
from tokenizers import models, pre_tokenizers
from torch import Tensor

from mirada.errors import MiradaError

__all__ = ["CANONICAL", "CLIP_CLEANING", "Step", "Tokenizer", "TokenizerDesign", "byte_pairs", "clip_merges"]

Step = Literal["fix", "unescape", "strip", "spaces", "lower", "lower each", "underscores", "punctuation"]
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
STEPS: dict[Step, Callable[[str], str]] = {
    "fix": ftfy.fix_text,  # mojibake, control characters, curly quotes
    "unescape": lambda text: html.unescape(html.unescape(text)),  # twice, as captions from the web need
    "strip": str.strip,
    "spaces": lambda text: " ".join(text.split()),
    "lower": str.lower,
    "lower each": lambda text: "".join(map(str.lower, text)),  # as Rust does: a capital sigma never ends a word
    "underscores": lambda text: text.replace("_", " "),
    "punctuation": lambda text: text.translate(WITHOUT_PUNCTUATION),
}
CLIP_CLEANING: tuple[Step, ...] = ("fix", "unescape", "strip", "spaces", "lower")
CANONICAL: tuple[Step, ...] = ("fix", "unescape", "strip", "underscores", "punctuation", "lower", "spaces")


@dataclass(frozen=True)
class TokenizerDesign:
    """What a text tower expects of its tokens. The defaults are CLIP's (arXiv:2103.00020).

    Attributes:
        context: ids in a row; a longer text is cut, a shorter one filled up.
        clean: what is done to a text first, in order.
        vocabulary: "clip" is OpenAI's, which comes with this package; "stored" is kept with the model.
        start, end: ids before and after those of the text, kept when it is cut; None for none.
        pad: the id that fills a row up.
        pad_side: the side that is filled up.
        markers: with vocabulary "clip", how a text may spell `start` and `end` itself.
    """

    context: int = 77
    clean: tuple[Step, ...] = CLIP_CLEANING
    vocabulary: Literal["clip", "stored"] = "clip"
    start: int | None = 49406
    end: int | None = 49407
    pad: int = 0
    pad_side: Literal["left", "right"] = "right"
    markers: tuple[str, str] = ("<|startoftext|>", "<|endoftext|>")

    def __post_init__(self) -> None:
        steps = get_args(Step)
        if self.context <= (self.start is not None) + (self.end is not None):
            raise MiradaError(f"A context of {self.context} tokens leaves no room for a text: it must be longer.")
        if unknown := [step for step in self.clean if step not in steps]:
            raise MiradaError(f"There is no way {unknown[0]!r} to clean a text: the ways are {', '.join(steps)}.")
        if self.vocabulary not in ("clip", "stored") or self.pad_side not in ("left", "right"):
            raise MiradaError(f"The tokenizer's vocabulary is 'clip' or 'stored', not {self.vocabulary!r}, and its "
                              f"pad_side 'left' or 'right', not {self.pad_side!r}.")  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TokenizerDesign":
        """The inverse of `to_dict`. Raises `MiradaError` for keys that are unknown or missing, or a bad value."""
        require_keys("tokenizer", {field.name for field in fields(cls)}, values)
        options: Any = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return cls(**options)


def require_keys(what: str, known: set[str], values: dict[str, Any]) -> None:
    """Raise `MiradaError` unless the keys of `values` are exactly those that are `known`."""
    problems = [f"unknown {key!r}" for key in sorted(values.keys() - known)]
    problems += [f"missing {key!r}" for key in sorted(known - values.keys())]
    if problems:
        raise MiradaError(f"Cannot read the {what}: {', '.join(problems)}; its keys are {sorted(known)}.")


class Tokenizer:
    """Calling it with texts gives their ids, int64 (B, context).

    Args:
        design: the contract.
        vocabulary: the text of a `tokenizer.json`, for a design whose vocabulary is "stored". What that file says of
            special tokens around the text, of padding and of truncation does not count: the design says it.
    """

    def __init__(self, design: TokenizerDesign, vocabulary: str | None = None) -> None:
        self.design, self.vocabulary = design, vocabulary

    @cached_property
    def encoder(self) -> tokenizers.Tokenizer:
        """The Rust tokenizer, made when a text first needs it: a large vocabulary takes a second."""
        if self.design.vocabulary == "clip":
            return byte_pairs(*clip_merges(self.design.markers), self.design.markers)
        if self.vocabulary is None:
            raise MiradaError(
                "This model's vocabulary is not there, so its text tower cannot read: load it from a folder that also "
                "has the tokenizer.json (or spiece.model) that was published with it."
            )
        try:
            encoder = tokenizers.Tokenizer.from_str(self.vocabulary)
        except Exception as error:  # the library raises plain Exception for a file that it cannot read
            raise MiradaError(f"Cannot read the model's tokenizer.json ({error}): is the file whole?") from error
        encoder.no_padding()
        encoder.no_truncation()
        return encoder

    def clean(self, text: str) -> str:
        """The text as the vocabulary sees it."""
        for step in self.design.clean:
            text = STEPS[step](text)
        return text.encode(errors="replace").decode()  # bytes of a file's name that are no text

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Ids, int64 (B, context)."""
        design = self.design
        texts = [texts] if isinstance(texts, str) else list(texts)
        if wrong := [text for text in texts if not isinstance(text, str)]:
            raise MiradaError(f"A text is a string, and {wrong[0]!r} is none: give a list of strings.")
        before = [] if design.start is None else [design.start]
        after = [] if design.end is None else [design.end]
        room = design.context - len(before) - len(after)
        rows = torch.full((len(texts), design.context), design.pad)
        for row, ids in zip(rows, self._ids([self.clean(text) for text in texts]), strict=True):
            ids = before + ids[:room] + after
            where = slice(0, len(ids)) if design.pad_side == "right" else slice(design.context - len(ids), None)
            row[where] = torch.tensor(ids, dtype=torch.int64)
        return rows

    def _ids(self, texts: list[str]) -> list[list[int]]:
        ids = [encoding.ids for encoding in self.encoder.encode_batch(texts, add_special_tokens=False)]
        if self.design.vocabulary == "clip":
            for index, text in enumerate(texts):
                if any(marker in text for marker in self.design.markers):
                    ids[index] = self._ids_with_markers(text)
        return ids

    def _ids_with_markers(self, text: str) -> list[int]:
        """A marker counts only where the pre-tokenizer makes it a piece of its own: not behind other punctuation."""
        split: Any = self.encoder.pre_tokenizer
        ids: list[int] = []
        for piece, _ in split.pre_tokenize_str(text):  # bytes as letters; those of a marker are its letters
            whole = self.encoder.token_to_id(piece) if piece in self.design.markers else None
            ids += [token.id for token in self.encoder.model.tokenize(piece)] if whole is None else [whole]
        return ids


def clip_merges(markers: tuple[str, str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's vocabulary (token to id) and merges, from the list of merges that comes with this package.

    256 bytes as printable characters, the same at the end of a word, one token for each merge, and the two markers.
    """
    packed = (resources.files("mirada") / "vocabularies" / "clip.txt.gz").read_bytes()
    merges = [(left, right) for left, right in map(str.split, gzip.decompress(packed).decode().splitlines())]
    letters = byte_letters()
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(left + right for left, right in merges), *markers]
    return {token: index for index, token in enumerate(tokens)}, merges


def byte_letters() -> list[str]:
    """A printable character for each byte, in CLIP's order: those that print stand for themselves, then the rest."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(256 - len(printable))]


def byte_pairs(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], markers: tuple[str, str], *, ignore_case: bool = True
) -> tokenizers.Tokenizer:
    """CLIP's byte-level byte pair encoding: words, single digits, or runs of anything else, each encoded on its own.

    The original's expression ignores case, transformers' does not: that matters for two characters, a long s after an
    apostrophe and a combining iota, which the original drops.
    """
    encoder = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>"))
    endings = "|".join([*(marker.replace("|", r"\|") for marker in markers), "'s|'t|'re|'ve|'m|'ll|'d"])
    first, iota = (f"(?i:{endings})", r"\u0345") if ignore_case else (endings, "")
    pieces = tokenizers.Regex(rf"{first}|\p{{L}}+|\p{{N}}|[^\s\p{{L}}\p{{N}}{iota}]+")
    encoder.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pieces, "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return encoder
