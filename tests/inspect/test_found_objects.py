"""Objects without labels, on hand-made features, and beside slow versions of the papers' formulas."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import eigh
from torch.nn import functional as F

from mirada.backbones import build
from mirada.errors import MiradaError
from mirada.inspect.objects.attention_masks import attention_masks
from mirada.inspect.objects.boxes import Box, box, boxes, component, overlap, to_pixels
from mirada.inspect.objects.lost import lost
from mirada.inspect.objects.mask_cut import mask_cut
from mirada.inspect.objects.patches import see
from mirada.inspect.objects.refine import refine
from mirada.inspect.objects.token_cut import second_eigenvector, token_cut

SEEDS = st.integers(0, 2**32 - 1)


def blobs(seed, height=9, width=11, dim=24, noise=0.6):
    """Features (H, W, D) of a plane with a rectangle on it, with noise."""
    random = torch.Generator().manual_seed(seed)
    plane, thing = torch.randn(2, dim, generator=random)
    top, left = (int(torch.randint(0, 4, (), generator=random)) for _ in range(2))
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[top : top + 3, left : left + 4] = True
    features = torch.where(mask[..., None], thing, plane)
    return features + noise * torch.randn(height, width, dim, generator=random), mask


def drawn(*places, height=10, width=12):
    """Orthogonal features for a plain background and for one-coloured rectangles (top, left, bottom, right)."""
    features = torch.zeros(height, width, len(places) + 1)
    features[..., 0] = 1.0
    masks = []
    for number, (top, left, bottom, right) in enumerate(places, 1):
        features[top:bottom, left:right] = F.one_hot(torch.tensor(number), len(places) + 1).float()
        masks.append(torch.zeros(height, width, dtype=torch.bool))
        masks[-1][top:bottom, left:right] = True
    return features, masks


def slow_cut(features, threshold):
    """Eigenvector and mask of the generalised problem, (D - E) y = lambda D y, entry by entry and dense."""
    rows = features.flatten(0, 1).double()
    count = len(rows)
    weights = np.empty((count, count))
    for i in range(count):
        for j in range(count):
            norms = float(rows[i].norm() * rows[j].norm())
            cosine = float(rows[i] @ rows[j]) / norms if norms else 0.0
            weights[i, j] = 1.0 if cosine >= threshold else 1e-5
    degree = np.diag(weights.sum(1))
    y = eigh(degree - weights, degree)[1][:, 1]
    y = y * np.sign(y[np.abs(y).argmax()])
    return y, torch.from_numpy(y > y.mean()).view(features.shape[:2])


def slow_lost(features, most):
    rows = features.flatten(0, 1).double()
    count = len(rows)
    degree = [sum(float(rows[p] @ rows[q]) >= 0 for q in range(count)) for p in range(count)]
    ordered = sorted(range(count), key=lambda p: (degree[p], float((rows @ rows[p]).sum())))
    seed = ordered[0]
    seeds = [q for q in ordered[:most] if float(rows[q] @ rows[seed]) >= 0]
    mask = [sum(float(rows[q] @ rows[s]) for s in seeds) >= 0 for q in range(count)]
    return seed, torch.tensor(mask).view(features.shape[:2])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_token_cut_is_the_dense_generalised_eigenproblem(seed, noise):
    features, _ = blobs(seed, noise=noise)
    y, mask = slow_cut(features, 0.2)
    cut = token_cut(features)
    assert cut.mask.equal(mask)
    assert cut.score.flatten().numpy() == pytest.approx((y - y.min()) / (y.max() - y.min()), abs=1e-4)
    assert cut.score[cut.seed] in (0.0, 1.0)
    assert bool(cut.mask[cut.seed])


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, count=st.integers(3, 60))
def test_the_second_eigenvector_solves_the_equation(seed, count):
    """With weights that are anything, below and above the size from which Lanczos' method is used."""
    half = np.random.default_rng(seed).uniform(0.01, 1, (count, count))
    weights = half + half.T
    degree = weights.sum(1)
    y = second_eigenvector(weights)
    value = float(y @ (degree * y - weights @ y) / (y @ (degree * y)))
    assert np.abs(degree * y - weights @ y - value * degree * y).max() < 1e-5 * np.abs(degree * y).max()
    assert value == pytest.approx(eigh(np.diag(degree) - weights, np.diag(degree))[0][1], abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_lost_is_the_slow_loop(seed):
    features, _ = blobs(seed)
    for most, given_most in ((25, None), (12, 12), (1, 1)):  # 99 patches, of which a quarter is 25
        found = lost(features, given_most)
        seed_patch, mask = slow_lost(features, most)
        assert found.seed == divmod(seed_patch, features.shape[1])
        assert found.mask.equal(mask)


@settings(max_examples=20, deadline=None)
@given(top=st.integers(0, 6), left=st.integers(0, 8), tall=st.integers(2, 4), wide=st.integers(2, 4))
def test_one_thing_on_a_plain_ground_is_found_exactly(top, left, tall, wide):
    features, (mask,) = drawn((top, left, top + tall, left + wide))
    features[..., 0] -= 0.2  # the paper's LOST links what is not negative, so that orthogonal will not do
    features[..., 1] -= 0.2
    for found in (token_cut(features), lost(features), mask_cut(features, 1)[0]):
        assert found.mask.equal(mask)
        assert bool(mask[found.seed])
        assert bool(found.score[mask].min() > found.score[~mask].max())
    assert box(mask) == Box(left, top, left + wide, top + tall)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_order_of_patches_rotation_and_scale_of_features_do_not_matter(seed):
    features, _ = blobs(seed % 1000, noise=0.4)
    height, width, dim = features.shape
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(height * width, generator=random)
    rotation = torch.linalg.qr(torch.randn(dim, dim, generator=random, dtype=torch.float64))[0]
    turned = (3 * features.double() @ rotation).flatten(0, 1)[order].view(height, width, dim)
    for find in (token_cut, lost):
        assert find(turned).mask.flatten().equal(find(features).mask.flatten()[order])


def test_mask_cut_finds_two_things_one_after_the_other():
    features, masks = drawn((1, 1, 4, 4), (5, 6, 9, 11))
    found = mask_cut(features, 3)
    assert len(found) >= 2
    for mask in masks:
        assert sum(one.mask.equal(mask) for one in found) == 1
    assert int(torch.stack([one.mask for one in found]).sum(0).max()) == 1
    first = token_cut(features, 0.15)
    assert found[0].mask.equal(component(first.mask, first.seed))


@pytest.mark.parametrize("seed", range(3))
def test_the_second_mask_is_the_slow_cut_of_what_is_left(seed):
    features, _ = blobs(seed, noise=0.3)
    first, *others = mask_cut(features, 2)
    left = features * ~first.mask[..., None]
    y, mask = slow_cut(left, 0.15)
    corners = mask[:: len(mask) - 1, :: mask.shape[1] - 1].sum()
    if corners > 2:
        mask, y = ~mask, -y
        y[~mask.flatten().numpy()] = -np.inf
    expected = component(mask, divmod(int(np.abs(y).argmax() if corners <= 2 else y.argmax()), mask.shape[1]))
    expected &= ~first.mask
    assert [one.mask.tolist() for one in others] == ([expected.tolist()] if expected.any() else [])


def test_a_background_in_the_corners_is_turned_round():
    """A cut may make the smaller part the background, when what is in the middle is large."""
    features, (middle,) = drawn((1, 1, 9, 11))
    assert token_cut(features).mask.equal(~middle)
    assert mask_cut(features, 1)[0].mask.equal(middle)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 7), (6, 1), (1, 50), (3, 3)])
@pytest.mark.parametrize("kind", ["zero", "constant", "random", "orthogonal"])
def test_degenerate_grids_and_features(shape, kind):
    features = {
        "zero": torch.zeros(*shape, 8),
        "constant": torch.ones(*shape, 8),
        "random": torch.randn(*shape, 8, generator=torch.Generator().manual_seed(0)),
        "orthogonal": torch.eye(shape[0] * shape[1]).view(*shape, -1),
    }[kind]
    found = [token_cut(features), lost(features), *mask_cut(features)]
    for one in found:
        assert one.mask.shape == one.score.shape == shape
        assert one.mask.dtype == torch.bool
        assert bool(one.score.isfinite().all())
        assert 0 <= one.score.min() <= one.score.max() <= 1
    if kind in ("zero", "constant"):
        assert not any(bool(one.mask.any()) for one in found)
        assert mask_cut(features) == []
    elif kind == "orthogonal":
        assert not bool(token_cut(features).mask.any())


def test_features_that_are_not_finite_are_refused():
    for find in (token_cut, lost, mask_cut):
        with pytest.raises(MiradaError, match="not finite"):
            find(torch.full((2, 2, 3), torch.nan))


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, mass=st.floats(0.05, 0.95))
def test_attention_masks_are_the_fewest_patches_with_the_mass(seed, mass):
    attention = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(seed)) ** 4
    masks = attention_masks(attention, mass)
    for one, mask in zip(attention.flatten(0, 1), masks.flatten(0, 1), strict=True):
        values, total, count = sorted(one.flatten().tolist(), reverse=True), 0.0, 0
        while total < mass * float(one.double().sum()):
            total, count = total + values[count], count + 1
        assert int(mask.sum()) == count
        assert count == 20 or one[mask].min() >= one[~mask].max()
    assert not attention_masks(torch.zeros(1, 4, 4)).any()


def test_boxes_of_parts():
    mask = torch.zeros(6, 8, dtype=torch.bool)
    mask[0, 0] = mask[1, 1] = True  # corner to corner
    mask[3:6, 4:8] = True
    assert boxes(mask) == [Box(4, 3, 8, 6), Box(0, 0, 2, 2)]
    assert box(mask) == Box(0, 0, 8, 6)
    assert component(mask, (0, 0)).sum() == 1
    assert component(mask, (4, 5)).sum() == 12
    assert not component(mask, (0, 5)).any()
    assert box(torch.zeros(2, 2, dtype=torch.bool)) is None
    assert overlap(Box(0, 0, 2, 2), Box(1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap(Box(0, 0, 1, 1), Box(5, 5, 6, 6)) == 0


def test_patches_become_squares_of_pixels():
    mask = torch.rand(3, 4, generator=torch.Generator().manual_seed(0)) > 0.5
    assert to_pixels(mask, (24, 32)).equal(mask.repeat_interleave(8, 0).repeat_interleave(8, 1))
    assert to_pixels(torch.rand(2, 3, 4), (10, 9)).shape == (2, 10, 9)


def test_the_guided_filter_moves_edges_to_those_of_the_image():
    """A disc known by 8-pixel patches only, on a picture where it stands out."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    disc = (y - 30) ** 2 + (x - 33) ** 2 < 300
    image = torch.where(
        disc, torch.tensor([0.9, 0.3, 0.1])[:, None, None], torch.tensor([0.1, 0.3, 0.6])[:, None, None]
    )
    coarse = F.avg_pool2d(disc[None, None].float(), 8)[0, 0] > 0.5
    before = to_pixels(coarse, (64, 64))
    after = refine(before, image) > 0.5

    def agreement(mask):
        return float((mask & disc).sum() / (mask | disc).sum())

    assert agreement(before) < 0.9
    assert agreement(after) > 0.97


def test_the_guided_filter_is_the_slow_loop():
    random = torch.Generator().manual_seed(0)
    image, mask = torch.rand(3, 7, 6, generator=random), torch.rand(7, 6, generator=random)
    radius, epsilon = 2, 0.05
    slopes = torch.empty(7, 6, 4)

    def window(y, x):
        return slice(max(0, y - radius), y + radius + 1), slice(max(0, x - radius), x + radius + 1)

    for y in range(7):
        for x in range(6):
            rows, columns = window(y, x)
            colours, wanted = image[:, rows, columns].flatten(1), mask[rows, columns].flatten()
            centred = colours - colours.mean(1, keepdim=True)
            covariance = centred @ centred.T / len(wanted) + epsilon * torch.eye(3)
            slope = torch.linalg.inv(covariance) @ (centred @ (wanted - wanted.mean()) / len(wanted))
            slopes[y, x, :3], slopes[y, x, 3] = slope, wanted.mean() - slope @ colours.mean(1)
    expected = torch.empty(7, 6)
    for y in range(7):
        for x in range(6):
            rows, columns = window(y, x)
            a = slopes[rows, columns].flatten(0, 1).mean(0)
            expected[y, x] = a[:3] @ image[:, y, x] + a[3]
    assert torch.allclose(refine(mask, image, radius, epsilon), expected.clamp(0, 1), atol=1e-5)


@pytest.mark.parametrize(
    "name", ["vit-pico/8(image_size=32, registers=2)", "vit-pico/8(image_size=32, pooling='average')"]
)
def test_the_keys_of_the_last_layer_without_class_token_and_registers(name):
    backbone, images, layers = build(name), torch.randn(2, 3, 32, 40), []
    backbone.train()
    before = backbone(images).pooled
    seen = see(backbone, images)
    assert backbone.training
    assert backbone(images).pooled.equal(before)
    backbone.eval()(images, probe=layers.append)
    last = layers[-1]
    heads, dim = last.key.shape[1], last.key.shape[-1]
    assert seen.features.shape == (2, 4, 5, heads * dim)
    assert seen.features[1, 2, 3, dim : 2 * dim].equal(last.key[1, 1, last.prefix + 2 * 5 + 3])
    matrix = last.attention()[..., last.prefix :]
    row = matrix[:, :, 0] if last.prefix else matrix.mean(2)
    assert torch.allclose(seen.attention.flatten(2), row, atol=1e-6)


def test_without_attention_the_patch_features_are_looked_at():
    backbone = build("resnet-18").eval()
    images = torch.randn(1, 3, 64, 96)
    seen = see(backbone, images)
    assert seen.attention is None
    assert torch.allclose(seen.features, backbone(images).patches)
