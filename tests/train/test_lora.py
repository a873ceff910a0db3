"""Low-rank changes: nothing at first, little memory, plain weights in the end."""

from pathlib import Path

import pytest
import torch

from mirada.backbones import build
from mirada.errors import MiradaError, Misuse
from mirada.loading import load
from mirada.train.lora import add_lora, merge_lora, merged
from mirada.train.run import train
from mirada.train.settings import Settings


def test_it_starts_as_the_model_it_adapts_and_ends_as_plain_weights() -> None:
    backbone = build("vit-pico/8(depth=2, image_size=24)").eval()
    images, names = torch.randn(2, 3, 24, 24), set(backbone.state_dict())
    with torch.no_grad():
        before = backbone(images).pooled
    add_lora(backbone, 2)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images).pooled, before)
    trained = [name for name, parameter in backbone.named_parameters() if parameter.requires_grad]
    assert trained
    assert all(name.endswith((".up", ".down")) for name in trained)
    assert all(backbone.layer_index(name) in (1, 2) for name in trained)
    (backbone(images).pooled * torch.arange(64)).sum().backward()
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
        changed = backbone(images).pooled
    assert not torch.allclose(changed, before)
    copied = build("vit-pico/8(depth=2, image_size=24)").eval()
    copied.load_state_dict(merged(backbone))
    with torch.no_grad():
        torch.testing.assert_close(copied(images).pooled, changed)
        torch.testing.assert_close(backbone(images).pooled, changed)  # it stays as it was
    merge_lora(backbone)
    assert set(backbone.state_dict()) == names
    with torch.no_grad():
        torch.testing.assert_close(backbone(images).pooled, changed)


def test_of_that_rank() -> None:
    backbone = build("vit-pico/8(depth=1, image_size=24)")
    weight = backbone.blocks[0].attention.qkv.weight.detach().clone()
    add_lora(backbone, 3)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    change = backbone.blocks[0].attention.qkv.weight.detach() - weight
    assert int(torch.linalg.matrix_rank(change, rtol=1e-4)) == 3


def test_a_network_without_blocks_is_refused() -> None:
    with pytest.raises(Misuse, match="A ResNet has no transformer blocks"):
        add_lora(build("resnet-18"), 2)


@pytest.mark.parametrize("objective", ["dino(hidden=32, bottleneck=16, prototypes=32)", "supervised + rotation"])
def test_what_a_run_leaves_can_be_loaded(
    objective: str, folder_of_shapes: Path, trained_run: Path, tmp_path: Path
) -> None:
    settings = Settings(model="", init=str(trained_run), image_size=24, batch=16, steps=3, precision="float32",
                        objective=objective, learning_rate=1e-2, validate=0, lora=2)  # fmt: skip
    result = train(str(folder_of_shapes), settings, out=str(tmp_path / "run"))
    before, after = load(trained_run).backbone.state_dict(), load(result["run"]).backbone.state_dict()
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_run_with_it(folder_of_shapes: Path, trained_run: Path, tmp_path: Path) -> None:
    settings = Settings(model="", init=str(trained_run), image_size=24, batch=16, steps=6, precision="float32",
                        learning_rate=1e-2, validate=0, lora=2)  # fmt: skip
    result = train(str(folder_of_shapes), settings, out=str(tmp_path / "run"))
    before, after = load(trained_run).state_dict(), load(result["run"]).state_dict()
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(("backbone.blocks.", "head.")) for name in changed)
    assert not any("norm" in name for name in changed)
    with pytest.raises(MiradaError, match="use a rank of 1 or more, with init and without freeze"):
        Settings(lora=2)
