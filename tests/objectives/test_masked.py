"""Masks, and both reconstruction losses against plain loops."""

import pytest
import torch
from learners import samples
from torch import Tensor

from mirada.backbones import build
from mirada.errors import MiradaError
from mirada.objectives import DINO, Masked
from mirada.objectives.masked import patchify
from mirada.objectives.masks import block_masks, covered, hide, random_masks

MODEL = "vit-pico/4(depth=1, image_size=16)"


@pytest.mark.parametrize("draw", [random_masks, block_masks])
@pytest.mark.parametrize(("grid", "ratio", "hidden"), [((4, 4), 0.6, 10), ((14, 14), 0.4, 78), ((2, 1), 0.9, 1)])
def test_every_image_hides_the_same_number(draw, grid: tuple[int, int], ratio: float, hidden: int) -> None:  # type: ignore[no-untyped-def]
    masks = draw(20, grid, ratio)
    assert masks.shape == (20, *grid)
    assert masks.sum((1, 2)).tolist() == [hidden] * 20
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) > 1


def test_blocks_hang_together() -> None:
    def neighbours(masks: Tensor) -> float:
        return (masks[:, 1:] & masks[:, :-1]).float().mean().item()

    assert neighbours(block_masks(100, (14, 14), 0.4)) > 1.5 * neighbours(random_masks(100, (14, 14), 0.4))


def test_hiding_covers_a_finer_grid() -> None:
    masks = torch.zeros(1, 2, 2, dtype=torch.bool)
    masks[0, 0, 1] = True
    covered = hide(torch.zeros(1, 4, 4, 3), masks, torch.ones(3))[..., 0]
    assert covered[0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_covered_images_show_the_next_one_where_they_are_hidden() -> None:
    images, masks = torch.randn(2, 3, 8, 8), torch.zeros(2, 2, 2, dtype=torch.bool)
    masks[0, 0, 1] = True
    shown = covered(images, masks)
    assert torch.equal(shown[0, :, :4, 4:], images[1, :, :4, 4:])
    assert torch.equal(shown[0, :, 4:], images[0, :, 4:])
    assert torch.equal(shown[1], images[1])
    assert not covered(images[:1], masks[:1])[0, :, :4, 4:].any()


@pytest.mark.parametrize("method", ["simmim", "mae"])
def test_no_stem_is_shown_what_is_hidden(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filters that overlap would see it from the patches beside."""
    backbone, image = build("vit-pico/4(depth=1, image_size=16, stem='deep')"), torch.randn(3, 3, 16, 16)
    embed, shown = backbone.embed, []
    monkeypatch.setattr(backbone, "embed", lambda images: shown.append(images) or embed(images))
    objective = Masked(backbone, method=method)
    torch.manual_seed(3)
    objective(backbone, {"image": image}, 0.0)
    torch.manual_seed(3)
    assert torch.equal(shown[0], covered(image, random_masks(3, (4, 4), objective.ratio)))


def test_patches_are_pixels() -> None:
    images = torch.randn(2, 3, 8, 12)
    patches = patchify(images, 4)
    assert patches.shape == (2, 2, 3, 48)
    assert torch.equal(patches[1, 1, 2], images[1, :, 4:8, 8:12].flatten())


def test_simmim_is_the_mean_absolute_error_of_hidden_pixels() -> None:
    backbone = build(MODEL)
    objective, image = Masked(backbone), torch.randn(3, 3, 16, 16)
    torch.manual_seed(3)
    loss = objective(backbone, {"image": image}, 0.0)["loss"]
    torch.manual_seed(3)
    hidden = random_masks(3, (4, 4), 0.6)
    stem = backbone.embed(image)
    errors = []
    for b, row, column in hidden.nonzero().tolist():
        stem[b, row, column] = objective.mask_token
        errors.append((b, row, column))
    predicted = objective.predict(backbone.encode(stem).patches)
    pixels = [
        (predicted[b, r, c] - image[b, :, 4 * r : 4 * r + 4, 4 * c : 4 * c + 4].flatten()).abs() for b, r, c in errors
    ]
    torch.testing.assert_close(loss, torch.stack(pixels).mean())
    parameters = [objective.mask_token, *objective.predict.parameters()]
    ours, theirs = (torch.autograd.grad(one, parameters) for one in (loss, torch.stack(pixels).mean()))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_mae_encodes_only_what_is_seen_and_puts_it_where_it_was() -> None:
    backbone = build(MODEL)
    objective, image = Masked(backbone, method="mae", decoder_dim=32), torch.randn(3, 3, 16, 16)
    torch.manual_seed(3)
    loss = objective(backbone, {"image": image}, 0.0)["loss"]
    torch.manual_seed(3)
    hidden = random_masks(3, (4, 4), 0.75)
    decoder, errors = objective.decoder, []
    assert decoder is not None
    from mirada.backbones.vit import sincos_positions

    for number, mask in enumerate(hidden.flatten(1)):
        seen = (~mask).nonzero()[:, 0]
        assert len(seen) == 4
        features = backbone.encode(backbone.embed(image[number : number + 1]), keep=seen[None]).patches[0, 0]
        tokens = decoder.mask_token.repeat(16, 1)
        tokens[seen] = decoder.narrow(features)
        x = tokens[None] + sincos_positions(32, (4, 4), image.device)
        for block in decoder.blocks:
            x, _ = block(x)
        predicted = decoder.predict(decoder.norm(x))[0]
        for place in mask.nonzero()[:, 0].tolist():
            row, column = divmod(place, 4)
            pixels = image[number, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].flatten()
            normal = (pixels - pixels.mean()) / (pixels.var() + 1e-6).sqrt()
            errors.append((predicted[place] - normal) ** 2)
    torch.testing.assert_close(loss, torch.stack(errors).mean(), rtol=1e-4, atol=1e-5)
    parameters = [parameter for parameter in decoder.parameters() if parameter.requires_grad]
    ours, theirs = (torch.autograd.grad(one, parameters) for one in (loss, torch.stack(errors).mean()))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_mae_learns() -> None:
    torch.manual_seed(0)
    backbone = build(MODEL)
    objective, image = (
        Masked(backbone, method="mae", decoder_dim=32, normalise=False),
        torch.randn(8, 3, 1, 1).expand(8, 3, 16, 16),
    )
    optimiser = torch.optim.AdamW([*backbone.parameters(), *objective.parameters()], 3e-3)
    losses = []
    for _ in range(20):
        result = objective(backbone, {"image": image}, 0.0)
        optimiser.zero_grad()
        result["loss"].backward()
        optimiser.step()
        losses.append(result["loss"].item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_network_that_cannot_drop_tokens_says_what_fits() -> None:
    backbone = build("resnet-18(small_images=True)")
    with pytest.raises(MiradaError, match=r"MAE drops patches.*use a ViT, or masked\(method='simmim'\)"):
        Masked(backbone, method="mae")(backbone, {"image": torch.randn(2, 3, 16, 16)}, 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "beit"}, "no method 'beit' of masked patches: choose simmim or mae"),
        ({"shape": "rings"}, "choose random or blocks"),
        ({"ratio": 1.0}, "hides nothing or all"),
        ({"method": "mae", "decoder_dim": 30}, "choose another decoder_dim"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, object], message: str) -> None:
    with pytest.raises(MiradaError, match=message):
        Masked(build(MODEL), **options)  # type: ignore[arg-type]


def test_an_image_of_one_patch_is_refused() -> None:
    for objective in (Masked(build(MODEL)), DINO(build(MODEL), masked=1.0)):
        with pytest.raises(MiradaError, match="4x4 pixels are a single one: use a larger image size"):
            objective.views(samples(size=(4, 4)))
