"""What is said of models: counts that are right, and the tables that keep them."""

from pathlib import Path

import pytest
import torch
from counting import by_depth

from mirada import catalogue as module
from mirada.catalogue import SIZED, catalogue, describe, is_model, measure, multiply_adds
from mirada.checkpoints.released import RELEASED
from mirada.errors import MiradaError
from mirada.loading import known_names, untrained
from mirada.model import Design, Model, Projection
from mirada.preprocess import Preprocess
from mirada.shipped import SHIPPED
from mirada.text import TextDesign


def test_multiply_adds_by_hand() -> None:
    width, patches, tokens, depth = 64, 14 * 14, 14 * 14 + 1, 4
    linear = (3 + 1 + 4 + 4) * width * width * tokens  # queries, keys, values; projection; feed-forward, both ways
    attention = 2 * tokens * tokens * width  # queries with keys, weights with values
    assert multiply_adds("vit-pico/16", (224, 224)) == patches * 3 * 16 * 16 * width + depth * (linear + attention)
    assert multiply_adds("vit-pico/16", (112, 224)) < multiply_adds("vit-pico/16", (224, 224)) / 2
    other = "vit-ti/16(registers=4, activation='swiglu', pre_norm=True, layer_scale=1.0, pooling='attention')"
    assert by_depth(other, (96, 96)) == multiply_adds(other, (96, 96))


def test_what_an_image_meets_and_what_words_meet() -> None:
    """Projection and head count as parameters and as work, the text tower on its own."""
    text = TextDesign(vocabulary_size=100, width=32, depth=1, num_heads=2, hidden=64, dim=24)
    design = Design("vit-pico/16", Preprocess((64, 64)), ("a", "b", "c"), "projected", Projection(24), text)
    bare, whole = (measure(Model.from_design(one)) for one in (Design("vit-pico/16", Preprocess((64, 64))), design))
    linear = 64 * 24 + 24 * 3
    assert whole["parameters"] == bare["parameters"] + linear + 3
    assert whole["gflops"] == round((multiply_adds("vit-pico/16", (64, 64)) + linear) / 1e9, 3)
    assert (bare["dim"], bare["head"], bare["text_parameters"]) == (64, None, None)
    assert (whole["dim"], whole["head"], whole["size"], whole["stride"], whole["family"]) == (
        24,
        3,
        [64, 64],
        16,
        "vit",
    )
    norms, block = 2 * 32 * 3, 4 * 32 * 32 + 4 * 32 + 2 * 32 * 64 + 64 + 32
    assert whole["text_parameters"] == 100 * 32 + 77 * 32 + norms + block + 32 * 24 + 1


@pytest.mark.parametrize("name", known_names())
def test_the_table_of_sizes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "multiply_adds", by_depth)
    with torch.device("meta"):
        row = measure(untrained(name))
    assert SIZED[name] == (row["parameters"], row["gflops"], row["dim"], row["stride"])
    assert row["size"] == [224, 224]


def test_the_list_has_every_size_and_published_model() -> None:
    rows = catalogue()
    assert [row["name"] for row in rows] == [*known_names(), *SHIPPED, *RELEASED]
    keys = {"name", "family", "architecture", "parameters", "gflops", "size", "dim", "stride", "head",
            "text_parameters"}  # fmt: skip
    assert all(row.keys() >= keys for row in rows)
    assert {row["family"] for row in rows} == {"vit", "coatnet", "resnet", "regnet"}
    clip = next(row for row in rows if row["name"] == "openai:ViT-B/32")
    assert (clip["source"], clip["stride"], clip["licence"], clip["gated"]) == ("openai", 32, "mit", False)
    gated = {row["name"] for row in rows if row.get("gated")}
    assert gated == {name for name in RELEASED if name.startswith("dino:dinov3")}


def test_a_size_that_is_not_in_the_table_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    before = catalogue("vit-pico")
    monkeypatch.delitem(SIZED, "vit-pico/16")
    assert catalogue("vit-pico") == before


def test_a_part_of_names() -> None:
    assert {row["name"] for row in catalogue("DINOv3")} == {name for name in RELEASED if "dinov3" in name}
    assert [row["name"] for row in catalogue("resnet-1")] == ["resnet-18", "resnet-101", "resnet-152"]
    assert catalogue("no such thing") == []
    assert all(row["source"] == "timm" for row in catalogue("timm:"))


def test_what_is_one_model(tmp_path: Path) -> None:
    for ref in (str(tmp_path), "vit-s", "vit-s/8(registers=4)", "timm:anything", "hf:a/b"):
        assert is_model(ref)
    for ref in ("vit", "dino", "timm:", "siglip2", "vit-smal/16"):
        assert not is_model(ref)
    with pytest.raises(MiradaError, match="did you mean timm:anything"):
        is_model("tim:anything")


def test_a_folder(tmp_path: Path) -> None:
    design = Design("vit-pico/16(image_size=64)", Preprocess((64, 64)), ("cat", "dog"), provenance={"source": "here"})
    row = describe(str(Model.from_design(design).save(tmp_path / "model")))
    assert (row["name"], row["classes"], row["provenance"]["source"]) == (design.architecture, ["cat", "dog"], "here")
    assert (row["preprocess"], row["text"], row["head"]) == (design.preprocess.to_dict(), None, 2)
    assert row["parameters"] == sum(parameter.numel() for parameter in Model.from_design(design).parameters())


def test_a_size_in_patches_of_ones_own() -> None:
    row = describe("vit-ti/4(image_size=32)")
    assert (row["stride"], row["size"], row["classes"], row["gflops"]) == (4, [32, 32], None, 0.365)
