"""The model that comes with the package: small, whole, with a card, and knowing words in two languages."""

import json

import pytest
import torch
from commands import document, refused

import mirada
from mirada.errors import MiradaError
from mirada.shipped import SHIPPED, shipped_folder


@pytest.mark.parametrize("ref", SHIPPED)
def test_it_is_small_and_has_a_card(ref: str) -> None:
    folder = shipped_folder(ref)
    assert folder is not None
    assert sum(file.stat().st_size for file in folder.iterdir()) < 12e6
    card = (folder / "README.md").read_text(encoding="utf-8")
    for word in ("Licence", "Apache-2.0", "CC-BY-4.0", "Recipe", "Twemoji", "Noto Emoji"):
        assert word in card
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["provenance"]["licence"] == SHIPPED[ref]


def test_it_loads_by_its_name_and_tells_words_apart() -> None:
    model = mirada.load("mirada:emoji")
    assert next(model.parameters()).dtype == torch.float32
    words = model.encode_text(["cat face", "cara de gato", "fire engine"], normalize=True)
    assert float(words[0] @ words[1]) > float(words[0] @ words[2]) + 0.2
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())


def test_it_is_listed_and_described() -> None:
    (row,) = [row for row in document("models", "emoji") if row["name"] == "mirada:emoji"]
    assert (row["source"], row["licence"]) == ("mirada", "Apache-2.0")
    (one,) = document("models", "mirada:emoji")
    assert one["text_parameters"] > 0
    assert "Twemoji" in one["provenance"]["drawings"]


def test_a_name_that_does_not_ship() -> None:
    with pytest.raises(MiradaError, match="No model 'mirada:emojis' comes with Mirada: did you mean 'mirada:emoji'"):
        mirada.load("mirada:emojis")
    assert "did you mean" in refused(1, "models", "mirada:flags")
