"""The orders are the greedy farthest ones, tiles are cut where they should be, and shortcuts are closed."""

import itertools

import pytest
import torch

from mirada.backbones import build
from mirada.data.augment import augmentation
from mirada.data.samples import Samples
from mirada.errors import MiradaError
from mirada.objectives import jigsaw
from mirada.objectives.jigsaw import Jigsaw, cut, every_order, large_enough, orders, plain, views

NONE = augmentation("none")


def samples(canvases: torch.Tensor | None = None, side: int = 16) -> Samples:
    if canvases is None:
        generator = torch.Generator().manual_seed(0)
        canvases = torch.randint(0, 256, (64, 3, side, side), dtype=torch.uint8, generator=generator)
    half, count, size = torch.full((3,), 0.5), len(canvases), (canvases.shape[2], canvases.shape[3])
    return Samples(canvases, torch.ones(count), torch.zeros(count), size=size, seed=1, mean=half, std=half)


def ramp(side: int, count: int = 8) -> torch.Tensor:
    """Canvases whose first channel is the row of a pixel, and whose second its column."""
    rows = torch.arange(side, dtype=torch.uint8)[:, None].expand(side, side)
    return torch.stack([rows, rows.T, torch.zeros_like(rows)]).repeat(count, 1, 1, 1)


def test_every_order_is_lexicographic() -> None:
    assert every_order(4).tolist() == [list(order) for order in itertools.permutations(range(4))]


def test_orders_are_those_of_the_papers_algorithm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Algorithm 1 as plain loops, for four tiles; ties as documented."""
    known = list(itertools.permutations(range(4)))
    chosen = [known[0]]
    while len(chosen) < 9:
        best, best_score = None, (-1, -1)
        for order in known:
            if order in chosen:
                continue
            distances = [sum(x != y for x, y in zip(order, other, strict=True)) for other in chosen]
            if (sum(distances), min(distances)) > best_score:
                best, best_score = order, (sum(distances), min(distances))
        assert best is not None
        chosen.append(best)
    table = every_order(4)
    monkeypatch.setattr(jigsaw, "every_order", lambda _: table)
    assert orders.__wrapped__(9).tolist() == [list(order) for order in chosen]


def test_orders_are_far_apart() -> None:
    table = orders(100)
    assert table.sort(1).values.equal(torch.arange(9).expand(100, 9))
    distance = (table[:, None] != table).sum(2)
    apart = distance[~torch.eye(100, dtype=torch.bool)]
    assert (distance[:9, :9] + 9 * torch.eye(9)).eq(9).all()  # nine orders can differ everywhere
    assert apart.float().mean() >= 8.08  # the paper's table 3
    assert apart.min() >= 3


@pytest.mark.parametrize(("side", "stride", "tile"), [(16, 4, 4), (32, 4, 8), (64, 8, 16), (24, 4, 4), (75, 8, 24)])
def test_tiles_are_multiples_of_the_stride_with_gaps(side: int, stride: int, tile: int) -> None:
    found = views(samples(side=side), NONE, stride, 10, 0.0)["tiles"]
    assert found.shape == (64 * 9, 3, tile, tile)


def test_tiles_come_from_their_cells_in_the_order_of_the_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jigsaw, "plain", lambda samples, tiles, _: samples.pixels(tiles) * 255)
    batch = views(samples(ramp(32, 200)), NONE, 4, 100, 0.0)
    corners = batch["tiles"][:, :2, 0, 0].round().long().unflatten(0, (200, 9))  # top and left
    assert (corners // 10 * torch.tensor([3, 1])).sum(2).equal(orders(100)[batch["label"]])
    assert sorted(set((corners % 10).flatten().tolist())) == [0, 1, 2]
    last = batch["tiles"][:, :2, -1, -1].round().long().unflatten(0, (200, 9))
    assert (last - corners == 7).all()
    assert len(set(batch["label"].tolist())) > 70


def test_cut_is_slicing() -> None:
    images = torch.randn(3, 2, 9, 11)
    tops, lefts = torch.randint(5, (3, 4)), torch.randint(7, (3, 4))
    tiles = cut(images, tops, lefts, 4)
    for image, places in enumerate(zip(tops.tolist(), lefts.tolist(), strict=True)):
        for number, (top, left) in enumerate(zip(*places, strict=True)):
            assert torch.equal(tiles[image, number], images[image, :, top : top + 4, left : left + 4])


def test_brightness_contrast_and_tint_of_a_tile_do_not_show() -> None:
    data, tiles = samples(), torch.rand(2, 9, 3, 8, 8) - 0.5
    factor, offset = 0.5 + torch.rand(2, 9, 3, 1, 1), torch.rand(2, 9, 3, 1, 1) - 0.5
    torch.testing.assert_close(plain(data, tiles * factor + offset, 0.0), plain(data, tiles, 0.0), atol=1e-4, rtol=0)
    result = plain(data, tiles, 0.0)
    torch.testing.assert_close(result.mean((3, 4)), torch.zeros(2, 9, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(result.std((3, 4), correction=0), torch.ones(2, 9, 3), atol=1e-4, rtol=0)


def test_a_flat_tile_stays_flat() -> None:
    noise = torch.full((1, 9, 3, 4, 4), 0.3) + 1e-3 * torch.randn(1, 9, 3, 4, 4)
    assert plain(samples(), noise, 0.0).abs().max() < 0.2


def test_a_share_of_the_images_is_grey_as_a_whole() -> None:
    tiles = plain(samples(), torch.rand(1000, 9, 3, 4, 4) - 0.5, 0.3)
    grey = (tiles - tiles.mean(2, keepdim=True)).abs().amax(dim=(2, 3, 4)) < 1e-4  # (images, tiles)
    assert grey.all(1).equal(grey.any(1))
    assert 0.25 < grey.all(1).float().mean() < 0.35


def test_too_small_images_are_drawn_larger_or_refused() -> None:
    assert large_enough((16, 16), 15, "Jigsaw", 4) == (16, 16)
    assert large_enough((16, 16), 27, "Jigsaw", 8) == (27, 27)
    assert large_enough((16, 32), 27, "Jigsaw", 8) == (27, 54)
    assert views(samples(), NONE, 8, 10, 0.0)["tiles"].shape[2:] == (8, 8)
    with pytest.raises(MiradaError, match="needs images of 51 pixels, not 16x16: use an image size of 51"):
        views(samples(), NONE, 16, 10, 0.0)


@pytest.mark.parametrize("count", [1, 10001])
def test_impossible_numbers_of_orders_are_refused(count: int) -> None:
    with pytest.raises(MiradaError, match=f"among {count} orders: use from 2 to 10000"):
        Jigsaw(build("vit-pico/4(depth=1, image_size=16)"), orders=count)


def test_features_of_nine_tiles_meet_in_the_head() -> None:
    """The loss is the cross-entropy of a head on the features of tiles, one image at a time."""
    torch.manual_seed(0)
    backbone = build("vit-pico/4(depth=1, image_size=16)").eval()
    objective = Jigsaw(backbone, orders=5, hidden=16)
    torch.nn.init.normal_(objective.head[-1].weight)
    batch = objective.views(samples(ramp(16, 4)))
    losses, right = [], []
    for image, label in enumerate(batch["label"].tolist()):
        tiles = batch["tiles"][9 * image : 9 * image + 9]
        logits = objective.head(torch.cat([backbone(tile[None]).pooled[0] for tile in tiles]))
        losses.append(-logits.log_softmax(0)[label])
        right.append(float(int(logits.argmax()) == label))
    result = objective(backbone, batch, 0.0)
    torch.testing.assert_close(result["loss"], torch.stack(losses).mean())
    parameters = [*backbone.parameters(), *objective.parameters()]
    ours, theirs = (torch.autograd.grad(one, parameters, allow_unused=True)
                    for one in (result["loss"], torch.stack(losses).mean()))  # fmt: skip
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)
    assert result["accuracy"].item() == pytest.approx(sum(right) / 4)
