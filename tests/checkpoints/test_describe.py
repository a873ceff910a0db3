"""What is said of a published model before it is fetched, from repositories as their libraries write them."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from hub_server import Hub
from safetensors.torch import load_file
from timm.models import save_for_hf
from typer.testing import CliRunner

import mirada
from mirada.catalogue import describe
from mirada.checkpoints.released import RELEASED
from mirada.cli.main import app
from mirada.errors import MiradaError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")

HEADER = "bytes=0-100000"  # what is asked for of a checkpoint, in which its header mostly is
CARD = "---\nlicense: {}\n---\nA model.\n"
DINOV3 = "facebook/dinov3-vits16-pretrain-lvd1689m"


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["models", *arguments])
    assert result.exit_code == 0, (result.stderr, result.exception)
    return result.stdout


def lines(ref: str) -> dict[str, str]:
    """What is printed of one model, by its labels."""
    return {line[:12].strip(): line[12:] for line in shown(ref).splitlines()}


def only_the_header(hub: Hub, name: str = "model.safetensors") -> bool:
    """Whether nothing else of the checkpoint was sent, and something was."""
    asked = hub.downloads(name)
    return bool(asked) and all(one.headers["Range"] == HEADER for one in asked)


def numbers(tensors: dict[str, torch.Tensor], start: str = "") -> int:
    return sum(tensor.numel() for name, tensor in tensors.items() if name.startswith(start))


@pytest.fixture
def of_timm(hub: Hub) -> str:
    """A small ViT as timm saves it, half a megabyte and more."""
    folder = hub.add("timm/vit_tiny_patch16_224.mine", {"README.md": CARD.format("mit")})
    model = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=3)
    save_for_hf(model, str(folder), safe_serialization=True, model_args={"depth": 2})  # type: ignore[arg-type]
    config = json.loads((folder / "config.json").read_text())
    config["label_names"] = ["cat", "dog", "fish"]
    (folder / "config.json").write_text(json.dumps(config))
    return "timm:vit_tiny_patch16_224.mine"


@pytest.fixture
def of_transformers(hub: Hub) -> str:
    """A small CLIP as transformers saves it; its vocabulary is the one that all have."""
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = transformers.CLIPConfig(
        text_config=text, vision_config=text | {"image_size": 96, "patch_size": 16}, projection_dim=24
    )
    folder = hub.add("someone/clip", {})
    transformers.CLIPModel(config).save_pretrained(hub.root / "someone/clip")  # type: ignore[operator]
    transformers.CLIPImageProcessor(size={"shortest_edge": 96}, crop_size={"height": 96, "width": 96}).save_pretrained(
        folder
    )
    return "hf:someone/clip"


def test_a_repository_of_timms(hub: Hub, of_timm: str, tmp_path: Path) -> None:
    file = hub.root / "timm/vit_tiny_patch16_224.mine/model.safetensors"
    row = describe(of_timm)
    assert only_the_header(hub)
    assert not list((tmp_path / "hf").rglob("*.safetensors"))
    assert (row["parameters"], row["dim"], row["head"], row["size"]) == (numbers(load_file(file)), 192, 3, [224, 224])
    assert (row["name"], row["family"], row["source"]) == (of_timm, "vit", "timm")
    assert (row["licence"], row["gated"], row["bytes"], row["cached"]) == ("mit", False, file.stat().st_size, False)
    assert (row["classes"], row["text"]) == (["cat", "dog", "fish"], None)

    said = lines(of_timm)
    assert said["images"] == (
        "224x224 pixels: the shorter side becomes 248, and the middle is cut out; bicubic, as Pillow does"
    )
    assert said["colours"] == "red, green and blue from 0 to 1, minus 0.5, divided by 0.5"
    assert said["weights"] == "timm/vit_tiny_patch16_224.mine, 4 MB, not on this machine yet"
    assert (said["classes"], said["licence"]) == ("3: cat, dog, fish", "mit")
    assert only_the_header(hub)

    loaded = mirada.load(of_timm)
    assert loaded.design.to_dict()["preprocess"] == row["preprocess"]
    assert describe(of_timm)["cached"]
    assert lines(of_timm)["weights"].endswith("on this machine already")


def test_a_repository_of_transformers(hub: Hub, of_transformers: str) -> None:
    tensors = load_file(hub.root / "someone/clip/model.safetensors")
    row = describe(of_transformers)
    assert only_the_header(hub)
    words = numbers(tensors, "text_") + 1  # the scale of logits belongs to the text tower here
    assert (row["parameters"], row["text_parameters"]) == (numbers(tensors) - words, words)
    assert (row["dim"], row["head"], row["classes"], row["size"]) == (24, None, None, [96, 96])
    assert row["text"]["tokenizer"]["context"] == 77
    assert row["text"]["lower_case"] is True
    assert (row["licence"], row["source"]) == (None, "hf")

    said = lines(of_transformers)
    assert said["parameters"] == f"{numbers(tensors) - words:,} for images, {words:,} for words"
    assert said["words"] == (
        "77 tokens, with id 49406 before and id 49407 after a text's own; longer texts are cut, shorter ones filled up "
        "on the right with id 49407"
    )
    assert said["letters"] == "lower-cased; its own vocabulary of 49,408"
    assert said["images"].endswith("and the middle is cut out; bicubic, as PyTorch does on bytes")
    assert said["licence"] == "not stated"
    assert only_the_header(hub)


def test_a_gated_one_says_so(hub: Hub, of_timm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    card = "---\nlicense: other\nlicense_name: dinov3-license\n---\n"
    config = transformers.DINOv3ViTConfig(
        num_hidden_layers=1, hidden_size=32, num_attention_heads=4, num_register_tokens=4
    )
    hub.add(DINOV3, {"README.md": card})
    transformers.DINOv3ViTModel(config).save_pretrained(hub.root / DINOV3)  # type: ignore[operator]
    hub.gated |= {DINOV3, "timm/vit_tiny_patch16_224.mine"}

    known = RELEASED["dino:dinov3_vits16"]
    row = describe("dino:dinov3_vits16")
    assert (row["gated"], row["licence"], row["parameters"]) == (True, "dinov3-license", known.parameters)
    assert row["bytes"] == (hub.root / DINOV3 / "model.safetensors").stat().st_size
    said = lines("dino:dinov3_vits16")
    assert said["licence"].startswith("dinov3-license; gated: accept it on the model's page, then log in")
    assert said["expects"] == "what its files say, which are to be had once its licence is accepted"

    unlisted = describe(of_timm)  # nothing is known of its sizes
    assert (unlisted["gated"], unlisted["parameters"], unlisted["family"]) == (True, None, None)
    assert "; gated: accept it" in lines(of_timm)["licence"]
    assert hub.downloads("model.safetensors") == []

    hub.tokens.add("hf_right")
    monkeypatch.setenv("HF_TOKEN", "hf_right")  # now its files can be had, and count more than the table
    row = describe("dino:dinov3_vits16")
    assert (row["gated"], row["dim"], row["preprocess"]["size"]) == (True, 32, [224, 224])
    assert only_the_header(hub)


def test_a_pickled_one(hub: Hub) -> None:
    """Its sizes are known from the table, its page's licence is not its authors', and nothing of it is fetched."""
    hub.add("facebook/vit-mae-base", {"README.md": CARD.format("apache-2.0"), "pytorch_model.bin": b"P" * 12345,
                                      "config.json": '{"model_type": "vit_mae"}'})  # fmt: skip
    row = describe("mae:mae_vit_base_patch16")
    assert (row["parameters"], row["bytes"], row["gflops"]) == (85_798_656, 12345, 17.563)
    assert (row["licence"], row["licence_of_authors"]) == ("apache-2.0", "cc-by-nc-4.0")
    said = lines("mae:mae_vit_base_patch16")
    assert said["licence"] == "cc-by-nc-4.0 by its authors, apache-2.0 on its page"
    assert said["weights"] == "facebook/vit-mae-base, 12 KB, not on this machine yet"
    assert said["expects"] == "what pytorch_model.bin says, which is of a kind that has to be fetched whole to be read"
    assert hub.downloads("pytorch_model.bin") == []


def test_one_that_is_in_no_table(hub: Hub) -> None:
    hub.add("someone/old", {"pytorch_model.bin": b"P" * 7, "config.json": '{"model_type": "vit"}'})
    row = describe("hf:someone/old")
    assert (row["name"], row["family"], row["parameters"], row["bytes"]) == ("hf:someone/old", None, None, 7)
    assert lines("hf:someone/old").keys() == {"name", "expects", "weights", "licence"}


def test_a_header_that_does_not_arrive(hub: Hub, of_timm: str) -> None:
    hub.fail["model.safetensors"] = 500
    row = describe(of_timm)
    assert (row["parameters"], row["licence"]) == (None, "mit")
    assert lines(of_timm)["expects"] == "what its files say, of which the beginning did not arrive: try again"


def test_no_checkpoint(hub: Hub) -> None:
    hub.add("someone/empty", {"config.json": '{"model_type": "vit"}'})
    said = lines("hf:someone/empty")
    assert said["expects"] == "nobody knows: there is no checkpoint among its files"
    assert said["weights"] == "someone/empty, of unknown size, not on this machine yet"


def test_offline(hub: Hub, of_timm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = r"The checkpoint of timm/vit_tiny_patch16_224\.mine is not in the cache .*, and HF_HUB_OFFLINE is set: run"
    with pytest.raises(MiradaError, match=said):
        describe(of_timm)
    result = CliRunner().invoke(app, ["models", of_timm])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "run `hf download timm/vit_tiny_patch16_224.mine` where there is a network" in result.stderr
    assert hub.requests == []

    monkeypatch.delenv("HF_HUB_OFFLINE")
    online: dict[str, Any] = describe(of_timm)
    mirada.load(of_timm)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = len(hub.requests)
    assert describe(of_timm) == online | {"cached": True, "licence": None, "gated": None}
    assert len(hub.requests) == before


def test_a_repository_that_is_no_model(hub: Hub) -> None:
    hub.add("someone/text", {"README.md": "nothing", "model.safetensors": b"1234"})
    with pytest.raises(MiradaError, match=r"has no config\.json of"):
        describe("hf:someone/text")
    with pytest.raises(MiradaError, match="There is no model someone/gone"):
        describe("hf:someone/gone")
