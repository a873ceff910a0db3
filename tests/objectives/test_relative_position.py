"""Pairs are neighbours on the side that the label names; mixed patches come from where the label says."""

import pytest
import torch
from torch import Tensor

from mirada.backbones import build
from mirada.data.augment import augmentation
from mirada.data.samples import Samples
from mirada.errors import MiradaError
from mirada.objectives import Learner, relative_position
from mirada.objectives.relative_position import SIDES, RelativePosition, pairs, shuffled

NONE = augmentation("none")
PICO = "vit-pico/4(depth=1, image_size=16)"


def samples(canvases: Tensor, size: tuple[int, int] | None = None, seed: int = 1) -> Samples:
    half, count, size = torch.full((3,), 0.5), len(canvases), size or (canvases.shape[2], canvases.shape[3])
    return Samples(canvases, torch.ones(count), torch.zeros(count), size=size, seed=seed, mean=half, std=half)


def ramp(side: int, count: int) -> Tensor:
    """Canvases whose first channel is the row of a pixel, and whose second its column."""
    rows = torch.arange(side, dtype=torch.uint8)[:, None].expand(side, side)
    return torch.stack([rows, rows.T, torch.zeros_like(rows)]).repeat(count, 1, 1, 1)


def noise(side: int, count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def raw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles keep their pixels, in 0..255."""

    def keep(samples: Samples, tiles: Tensor, _: float = 0.0) -> Tensor:
        return (samples.pixels(tiles) * 255).round().long()

    monkeypatch.setattr(relative_position, "plain", keep)


@pytest.mark.usefixtures("raw")
@pytest.mark.parametrize(("side", "stride", "tile", "jitter"), [(32, 4, 8, 1), (48, 8, 16, 2), (16, 4, 4, 1)])
def test_the_second_tile_is_on_the_labels_side(side: int, stride: int, tile: int, jitter: int) -> None:
    batch = pairs(samples(ramp(side, 2000)), NONE, stride, 0.0)
    assert batch["image"].shape == (4000, 3, tile, tile)
    corners = batch["image"][:, :2, 0, 0].unflatten(0, (2000, 2))
    last = batch["image"][:, :2, -1, -1].unflatten(0, (2000, 2))
    assert (last - corners == tile - 1).all()  # all of a tile is inside of the image
    off = corners[:, 1] - corners[:, 0] - torch.tensor(SIDES)[batch["label"]] * tile * 3 // 2
    assert off.min() == -jitter
    assert off.max() == jitter
    counts = batch["label"].bincount(minlength=8)
    assert counts.min() > 200


@pytest.mark.usefixtures("raw")
def test_one_tile_alone_does_not_tell_the_side() -> None:
    """Each tile is seen over most of the image for every label; a fixed grid would give each side its own place."""
    batch = pairs(samples(ramp(48, 4000)), NONE, 4, 0.0)
    corners = batch["image"][:, :2, 0, 0].unflatten(0, (4000, 2))
    for label, (down, right) in enumerate(SIDES):
        mine = corners[batch["label"] == label]
        assert (mine[:, 0].amax(0) - mine[:, 0].amin(0) >= 6).all()
        if down == 0:
            assert mine[:, :, 0].min() == 0
        if right == 0:
            assert mine[:, :, 1].max() == 32


def test_pairs_have_no_brightness_and_a_share_is_grey() -> None:
    tiles = pairs(samples(noise(16, 1000)), NONE, 4, 0.3)["image"]
    torch.testing.assert_close(tiles.mean((2, 3)), torch.zeros(2000, 3), atol=1e-5, rtol=0)
    grey = ((tiles - tiles.mean(1, keepdim=True)).abs().amax(dim=(1, 2, 3)) < 1e-4).view(1000, 2)
    assert 0.25 < grey.all(1).float().mean() < 0.35


def test_mixed_patches_come_from_where_the_label_says() -> None:
    data = samples(ramp(20, 50), (16, 16))  # four patches of 4 a side, in cells of 5
    batch = shuffled(data, NONE, 4)
    assert batch["image"].shape == (50, 3, 16, 16)
    assert batch["label"].sort(1).values.equal(torch.arange(16).expand(50, 16))
    pixels = (data.pixels(batch["image"]) * 255).round().long()
    jitters = set()
    for image, label in zip(pixels, batch["label"], strict=True):
        for place, origin in enumerate(label.tolist()):
            top, left = place // 4 * 4, place % 4 * 4
            patch = image[:2, top : top + 4, left : left + 4]
            down, right = (patch[:, 0, 0] - torch.tensor([origin // 4 * 5, origin % 4 * 5])).tolist()
            jitters |= {down, right}
            assert (patch[:, -1, -1] - patch[:, 0, 0]).tolist() == [3, 3]
    assert jitters == {0, 1}


def test_oblong_images_are_mixed_too() -> None:
    batch = shuffled(samples(noise(20, 3), (8, 16)), NONE, 4)
    assert batch["image"].shape == (3, 3, 8, 16)
    assert batch["label"].shape == (3, 8)
    assert pairs(samples(noise(40, 3), (16, 32)), NONE, 4, 0.0)["image"].shape == (6, 3, 4, 4)


def test_the_loss_of_pairs_is_a_head_on_two_features() -> None:
    torch.manual_seed(0)
    backbone = build(PICO).eval()
    objective = RelativePosition(backbone, hidden=16)
    torch.nn.init.normal_(objective.head[-1].weight)
    batch = objective.views(samples(noise(16, 5)))
    losses = []
    for image, label in enumerate(batch["label"].tolist()):
        first, second = (backbone(batch["image"][2 * image + k][None]).pooled[0] for k in (0, 1))
        losses.append(-objective.head(torch.cat([first, second])).log_softmax(0)[label])
    torch.testing.assert_close(objective(backbone, batch, 0.0)["loss"], torch.stack(losses).mean())


@pytest.mark.parametrize("model", [PICO, "resnet-18(small_images=True)"])
def test_places_can_be_learnt_and_on_another_grid(model: str) -> None:
    torch.manual_seed(0)
    learner = Learner(build(model), "relative_position(form='location')")
    optimiser = torch.optim.AdamW(learner.parameters(), 2e-3)
    losses = []
    for step in range(20):
        result = learner(learner.views(samples(noise(20, 8), (16, 16), seed=2)), step / 20)
        optimiser.zero_grad()
        result["loss"].backward()
        optimiser.step()
        losses.append(result["loss"].item())
    assert min(losses[-3:]) < 0.8 * losses[0]
    assert [name for name, p in learner.named_parameters() if p.grad is None] == []
    assert learner(learner.views(samples(noise(32, 2), (24, 32))), 0.0)["loss"].isfinite()


def test_the_place_in_the_image_says_nothing_about_the_label() -> None:
    """So the positions that a ViT adds are of no help."""
    label = shuffled(samples(noise(8, 2000), (8, 8)), NONE, 4)["label"]
    counts = torch.stack([column.bincount(minlength=4) for column in label.T])
    assert ((counts > 430) & (counts < 570)).all()


def test_mistakes_are_explained() -> None:
    with pytest.raises(MiradaError, match="no form 'place' of relative position: choose 'pairs' or"):
        RelativePosition(build(PICO), form="place")
    with pytest.raises(MiradaError, match="needs images of 48 pixels, not 20x20: use an image size of 48"):
        pairs(samples(noise(20, 2)), NONE, 16, 0.0)
    with pytest.raises(MiradaError, match="16x16 pixels have no two patches of 16 to mix up: use an image size of 32"):
        shuffled(samples(noise(16, 2)), NONE, 16)
