"""Frozen layers keep their weights and statistics; the others train."""

import pytest
import torch

from mirada.backbones import build
from mirada.errors import Misuse
from mirada.objectives import Learner
from mirada.train.freeze import freeze


@pytest.mark.parametrize("layers", [0, 1, 2, -1])
def test_the_first_layers_are_out_of_training(layers: int) -> None:
    backbone = build("vit-pico/4(depth=2, image_size=16)")
    freeze(backbone, layers)
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad == (layers != -1 and backbone.layer_index(name) >= layers), name


@pytest.mark.parametrize("layers", [-2, 4])
def test_layers_that_are_not_there_are_refused(layers: int) -> None:
    with pytest.raises(Misuse, match=r"Cannot freeze -?\d layers of a backbone of 4: use 0 to 3, or -1"):
        freeze(build("vit-pico/4(depth=2, image_size=16)"), layers)


def test_frozen_batch_norm_keeps_its_statistics_and_the_rest_moves() -> None:
    backbone = build("resnet-18(small_images=True)")
    freeze(backbone, 3)
    learner = Learner(backbone, "rotation")
    before = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    learner.train()
    backbone(torch.randn(4, 3, 16, 16))
    moved = {backbone.layer_index(name) for name, buffer in backbone.named_buffers()
             if not torch.equal(buffer, before[name])}  # fmt: skip
    assert moved == set(range(3, backbone.num_layers))  # the last layer has none


def test_a_frozen_backbone_drops_no_paths_while_heads_train() -> None:
    backbone = build("vit-pico/4(depth=2, image_size=16, drop_path=0.5)")
    freeze(backbone, -1)
    learner = Learner(backbone, "rotation").train()
    images = torch.randn(4, 3, 16, 16)
    assert torch.equal(backbone(images).pooled, backbone(images).pooled)
    assert learner.objectives["rotation"].training
