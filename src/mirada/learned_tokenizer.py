"""A tokenizer learned from captions, in whatever language they are."""

from collections.abc import Iterable

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from mirada.tokenizer import Tokenizer, TokenizerDesign

__all__ = ["learn_tokenizer"]

PAD, END = "<pad>", "<end>"
AT_LEAST = 2  # how often a pair must occur to become a token


def learn_tokenizer(captions: Iterable[str], size: int, context: int) -> tuple[TokenizerDesign, str, int]:
    """Byte-level byte pair encoding (Sennrich et al. 2016, arXiv:1508.07909) of at most `size` tokens: the design, the
    text of its tokenizer.json, and how many tokens there are.

    Captions are cleaned and lowered first. Every text can be written, also in a script that no caption has, because all
    256 bytes are tokens. An end token follows each text, and padding fills the row up to `context`. The same captions,
    in any order, give the same tokenizer.
    """
    design = TokenizerDesign(
        context=context, clean=("fix", "strip", "spaces", "lower each"), vocabulary="stored", start=None, end=1, pad=0
    )
    cleaner = Tokenizer(design)
    cleaned = sorted({cleaner.clean(caption) for caption in captions})
    encoder = tokenizers.Tokenizer(models.BPE())
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    encoder.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=AT_LEAST, special_tokens=[PAD, END], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    encoder.train_from_iterator(cleaned, trainer)
    return design, encoder.to_str(), encoder.get_vocab_size()
