"""A tokenizer made from captions writes every text, and is the same each time."""

import random

from hypothesis import given
from hypothesis import strategies as st

from mirada.learned_tokenizer import learn_tokenizer
from mirada.text import TextDesign, TextTower
from mirada.tokenizer import Tokenizer

CAPTIONS = ["A red car", "a red  house", "Un coche rojo", "una casa roja", "grinning face", "кошка", "猫", "a car"] * 3


def learned(captions: list[str], size: int = 400, context: int = 16) -> Tokenizer:
    design, words, _ = learn_tokenizer(captions, size, context)
    return Tokenizer(design, words)


def test_the_same_captions_in_any_order_give_the_same_tokenizer() -> None:
    shuffled = CAPTIONS.copy()
    random.Random(1).shuffle(shuffled)
    assert learn_tokenizer(CAPTIONS, 400, 16) == learn_tokenizer(shuffled, 400, 16)


def test_frequent_words_are_one_token_and_case_and_space_do_not_count() -> None:
    tokenizer = learned(CAPTIONS)
    red, shouted = tokenizer(["a red car", " A  RED car "])
    assert red.tolist() == shouted.tolist()
    assert int((red != 0).sum()) == 4  # three words and the end
    assert red[3] == 1


def test_size_is_a_bound() -> None:
    for size in (258, 270, 4096):
        design, words, count = learn_tokenizer(CAPTIONS, size, 16)
        assert count <= size
        assert int(Tokenizer(design, words)(CAPTIONS).max()) < count


@given(st.text(max_size=40))
def test_every_text_can_be_written(text: str) -> None:
    tokenizer = learned(CAPTIONS, context=256)
    ids = tokenizer([text])[0]
    end = ids.tolist().index(1)
    assert 0 not in ids[:end]
    assert not ids[end + 1 :].any()
    cleaned = tokenizer.clean(text)
    assert tokenizer.encoder.decode(ids[:end].tolist()).strip() == cleaned.strip()


def test_long_captions_are_cut_and_keep_their_end() -> None:
    ids = learned(CAPTIONS, context=8)(["red " * 10_000])[0]
    assert ids[-1] == 1
    assert len(ids) == 8


def test_a_text_tower_reads_it() -> None:
    design, words, size = learn_tokenizer(CAPTIONS, 300, 16)
    tower = TextTower(TextDesign(design, size, 16, 1, 2, 16, 8, causal=True, pooling="end", end=design.end))
    ids = Tokenizer(design, words)(["a red car", "猫"])
    short = tower.without_padding(ids)
    assert short.shape[1] < 16
    assert tower(short).allclose(tower(ids), atol=1e-6)
