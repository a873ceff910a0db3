"""The contract of `features.py`, kept by every row of the table of sizes.

Rows below 30 million parameters run everything on tiny images; the larger ones, which are the same classes with larger
numbers, are counted and shaped on the meta device.
"""

from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from mirada.backbones import SIZES, build
from mirada.errors import MiradaError
from mirada.features import Backbone, Features, Layer

TIMM = "timm 1.0.31, num_classes=0"
TORCHVISION = "torchvision, published with its weights; with the 1000-way head"
PUBLISHED = {  # parameters, classes of the head among them, source
    "vit-ti/16": (5_524_416, 0, TIMM),
    "vit-s/16": (21_665_664, 0, TIMM),
    "vit-b/16": (85_798_656, 0, TIMM),
    "vit-l/16": (303_301_632, 0, TIMM),
    "vit-h/14": (630_764_800, 0, TIMM),
    "vit-g/14": (1_011_202_432, 0, f"{TIMM}: vit_giant_patch14_224"),
    "vit-so400m/14(pooling='attention')": (427_680_704, 0, f"{TIMM}: vit_so400m_patch14_siglip_224"),
    "coatnet-0": (
        25_036_820 - 768 * 769,
        1000,
        "timm 1.0.31 coatnet_0_224, less the hidden layer of its head",
    ),
    "coatnet-1": (42_225_776 - 768 * 769, 1000, "as coatnet-0"),
    "coatnet-2": (74_684_744 - 1024 * 1025, 1000, "as coatnet-0"),
    "coatnet-3": (166_966_264 - 1536 * 1537, 1000, "as coatnet-0"),
    "coatnet-4": (275_425_288 - 1536 * 1537, 1000, "as coatnet-0"),
    "resnet-18": (11_689_512, 1000, TORCHVISION),
    "resnet-34": (21_797_672, 1000, TORCHVISION),
    "resnet-50": (25_557_032, 1000, TORCHVISION),
    "resnet-101": (44_549_160, 1000, TORCHVISION),
    "resnet-152": (60_192_808, 1000, TORCHVISION),
    "regnety-400mf": (4_344_144, 1000, TORCHVISION),
    "regnety-800mf": (6_432_512, 1000, TORCHVISION),
    "regnety-1.6gf": (11_202_430, 1000, TORCHVISION),
    "regnety-3.2gf": (19_436_338, 1000, TORCHVISION),
    "regnety-8gf": (39_381_472, 1000, TORCHVISION),
    "regnety-16gf": (83_590_140, 1000, TORCHVISION),
    "regnety-32gf": (145_046_770, 1000, TORCHVISION),
    "regnety-64gf": (281_378_786, 1000, "timm 1.0.31 regnety_640"),
    "regnety-128gf": (644_812_894, 1000, TORCHVISION),
    "regnety-256gf": (1_282_601_138, 1000, "timm 1.0.31 regnety_2560"),
    # Ours, which nobody published, and one that was published with one digit; pinned so that they do not drift.
    "vit-pico/4(image_size=32)": (207_424, 0, "this package"),
    "vit-nano/4(image_size=32)": (1_204_608, 0, "this package"),
    "vit-m/16": (38_324_736, 0, "this package"),
    "regnety-10b": (9_323_934_872, 0, "this package; arXiv:2202.08360 says 10 billion"),
    "resnet-18(small_images=True)": (11_168_832, 0, "this package"),
    "coatnet-0(variant='timm')": (25_036_820 - 768 * 769, 1000, "as coatnet-0"),
    "coatnet-0(variant='0_rw', depths=(2, 3, 7, 2))": (27_435_562, 1000, "timm 1.0.31 coatnet_0_rw_224"),
    "coatnet-0(variant='nano_rw', widths=(64, 64, 128, 256, 512), depths=(3, 4, 6, 3))": (
        15_141_244,
        1000,
        "timm 1.0.31 coatnet_nano_rw_224",
    ),
    "regnety-400mf(plan=((24, 1, 8), (56, 1, 8), (152, 4, 8), (368, 7, 8)))": (
        3_162_996,
        1000,
        "timm 1.0.31 regnety_002",
    ),
    "regnety-800mf(rounding='nearest')": (6_263_168, 1000, "timm 1.0.31 regnety_008"),
    "regnety-8gf(rounding='nearest')": (39_180_068, 1000, "timm 1.0.31 regnety_080"),
}
PAPER_MILLIONS = {"coatnet-0": 25, "coatnet-1": 42, "coatnet-2": 75, "coatnet-3": 168, "coatnet-4": 275}  # table 4


def on_meta(name: str) -> Backbone:
    with torch.device("meta"):
        return build(name)


def count(backbone: Backbone) -> int:
    return sum(parameter.numel() for parameter in backbone.parameters())


SMALL = [name for name in SIZES if count(on_meta(name)) < 30e6]
RUN = [f"{name}/16" if name.startswith("vit") else name for name in SMALL]
RUN += ["vit-nano/8(stem='convolutional', pooling='attention', positions='rotary', registers=2)",
        "coatnet-0(widths=(32, 32, 64, 96, 128), depths=(1, 1, 2, 1), variant='0_rw')",
        "coatnet-0(widths=(32, 32, 64, 96, 128), depths=(1, 2, 2, 1), variant='rmlp_2_rw')",
        "resnet-18(small_images=True)", "resnet-18(widths=(16, 32, 48, 64), stem_width=24)"]  # fmt: skip


def randomised(name: str, seed: int = 0) -> Backbone:
    """A model in which nothing is zero or one by construction, so that every parameter matters to the output."""
    torch.manual_seed(seed)
    backbone = build(name, image_size=64).eval()
    for tensor in [*backbone.parameters(), *backbone.buffers()]:
        if tensor.is_floating_point() and tensor.ndim < 2:
            tensor.data += 0.2 * torch.rand_like(tensor)
    return backbone


@pytest.fixture(scope="module", params=RUN)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return randomised(request.param)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(1)


def is_convolutional(backbone: Backbone) -> bool:
    return type(backbone).__name__ in ("ResNet", "RegNet")


def equal(a: Features, b: Features) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a[:3], b[:3], strict=True))


def check_shapes(backbone: Backbone, size: tuple[int, int], features: Features) -> None:
    height, width = (-(-side // backbone.stride) for side in size)
    batch = features.pooled.shape[0]
    prefix = getattr(backbone, "prefix_tokens", 0)
    assert features.pooled.shape == (batch, backbone.dim)
    assert features.patches.shape == (batch, height, width, backbone.dim)
    assert features.prefix.shape == (batch, prefix, backbone.dim)
    assert features.trace == ()


def test_every_row_is_counted() -> None:
    assert {name.partition("(")[0].partition("/")[0] for name in PUBLISHED} == set(SIZES)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_count_is_the_published_one(name: str) -> None:
    expected, classes, _ = PUBLISHED[name]
    backbone = on_meta(name)
    counted = count(backbone) + (backbone.dim + 1) * classes
    assert counted == expected
    if name in PAPER_MILLIONS:
        assert counted == pytest.approx(1e6 * PAPER_MILLIONS[name], rel=0.025)


@pytest.mark.parametrize("name", sorted(set(SIZES) - set(SMALL)))
def test_shapes_of_the_larger_rows(name: str) -> None:
    backbone = on_meta(name).eval()
    for size in [(224, 224), (224, 448)]:
        images = torch.empty(2, 3, *size, device="meta")
        check_shapes(backbone, size, backbone(images))


def test_shapes_and_that_forward_is_encode_of_embed(backbone: Backbone) -> None:
    sizes = [(64, 64), (32, 96), (64, 32)]
    if type(backbone).__name__ != "ViT":
        sizes.append((65, 47))
    with torch.inference_mode():
        for size in sizes:
            images = torch.randn(2, 3, *size)
            patches = backbone.embed(images)
            assert patches.ndim == 4
            assert patches.shape[0] == 2
            assert patches.shape[-1] == backbone.stem_dim
            features = backbone(images)
            check_shapes(backbone, size, features)
            assert equal(features, backbone.encode(patches))
            assert features.pooled.isfinite().all()


def test_pooled_alone_is_the_pooled_feature_and_teaches_the_same(backbone: Backbone) -> None:
    images = torch.randn(2, 3, 64, 32)
    wanted, found = backbone(images).pooled, backbone.pooled(images)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    direction = torch.randn_like(wanted)
    parameters = list(backbone.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(found, parameters, direction), torch.autograd.grad(wanted, parameters, direction),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()) + 1e-6)


def test_images_do_not_see_each_other(backbone: Backbone) -> None:
    images = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        together, alone = backbone(images), backbone(images[1:2])
    for all_of_them, one in zip(together[:3], alone[:3], strict=True):
        torch.testing.assert_close(all_of_them[1:2], one, rtol=1e-3, atol=1e-4)


def test_a_probe_changes_no_bit_and_sees_the_attention_that_ran(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused = F.scaled_dot_product_attention
    attended: list[Tensor] = []

    def recording(*arguments: Any, **options: Any) -> Tensor:
        attended.append(fused(*arguments, **options))
        return attended[-1]

    for size in [(64, 64), (32, 96)]:
        images = torch.randn(2, 3, *size)
        with torch.inference_mode():
            plain = backbone(images)
            with monkeypatch.context() as patch:
                patch.setattr(F, "scaled_dot_product_attention", recording)
                attended.clear()
                features = backbone(images, probe=lambda layer: layer)
        assert equal(plain, features)
        if is_convolutional(backbone):
            assert features.trace == ()
            continue
        layers: tuple[Layer, ...] = features.trace
        assert [layer.index for layer in layers] == list(range(len(layers)))
        assert len(layers) == len(list(getattr(backbone, "blocks", getattr(backbone, "transformers", []))))
        for layer, output in zip(layers, attended, strict=False):
            tokens = layer.prefix + layer.grid[0] * layer.grid[1]
            attention = layer.attention()
            assert attention.shape == (2, layer.query.shape[1], tokens, tokens)
            assert layer.tokens.shape[:2] == (2, tokens)
            torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:3]))
            torch.testing.assert_close(attention @ layer.value, output, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(layer.attention([1]), attention[:, [1]])
        last = layers[-1]
        assert last.prefix == features.prefix.shape[1]
        with torch.inference_mode():
            normed = backbone.get_submodule("norm")(last.tokens)
        assert torch.equal(normed[:, last.prefix :].unflatten(1, last.grid), features.patches)


def test_gradients_reach_every_parameter(backbone: Backbone) -> None:
    backbone.train()
    buffers = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    features = backbone(torch.randn(2, 3, 64, 64))
    sum((part * torch.randn_like(part)).sum() for part in features[:3]).backward()  # type: ignore[union-attr]
    silent = [name for name, parameter in backbone.named_parameters()
              if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()]  # fmt: skip
    backbone.zero_grad(set_to_none=True)
    backbone.load_state_dict(buffers, strict=False)
    backbone.eval()
    assert silent == []


def test_save_and_load_keep_every_bit(backbone: Backbone, request: pytest.FixtureRequest, tmp_path: Any) -> None:
    save_file(backbone.state_dict(), tmp_path / "model.safetensors")
    other = randomised(request.node.callspec.params["backbone"], seed=2)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert not equal(other(images), backbone(images))
        other.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
        assert equal(other(images), backbone(images))


def test_export_equals_eager_for_any_batch(backbone: Backbone) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(
        backbone, (torch.randn(2, 3, 64, 64),), dynamic_shapes={"images": {0: batch}}, strict=False
    ).module()
    images = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        assert equal(exported(images), backbone(images))


def test_compile_equals_eager(backbone: Backbone) -> None:
    torch.compiler.reset()
    compiled = torch.compile(backbone, backend="aot_eager", fullgraph=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(images)[:3], backbone(images)[:3], rtol=1e-3, atol=1e-4)


def test_bfloat16(backbone: Backbone, request: pytest.FixtureRequest) -> None:
    images = torch.randn(2, 3, 32, 64)
    with torch.inference_mode():
        exact = backbone(images).pooled
        with torch.autocast("cpu", torch.bfloat16):
            features = backbone(images, probe=lambda layer: layer.attention())
        for attention in features.trace:
            assert attention.dtype == torch.float32
            torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:3]))
        assert F.cosine_similarity(features.pooled.float(), exact).min() > 0.98
        other = randomised(request.node.callspec.params["backbone"])
        other.load_state_dict(backbone.state_dict())
        half = other.bfloat16()(images.bfloat16())
        assert {part.dtype for part in half[:3]} == {torch.bfloat16}
        assert F.cosine_similarity(half.pooled.float(), exact).min() > 0.98


def test_channels_last_is_the_same_function(backbone: Backbone) -> None:
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = backbone(images).pooled
        pooled = backbone(images.contiguous(memory_format=torch.channels_last)).pooled
    torch.testing.assert_close(pooled, expected, rtol=1e-3, atol=1e-4)


def test_layer_indices_count_from_stem_to_head(backbone: Backbone) -> None:
    indices = {name: backbone.layer_index(name) for name, _ in backbone.named_parameters()}
    assert {index for name, index in indices.items() if name.startswith("stem.")} == {0}
    assert set(range(backbone.num_layers)) <= set(indices.values()) <= set(range(backbone.num_layers + 1))
    blocks = ("blocks.", "convolutions.", "transformers.")
    in_order = [index for name, index in indices.items() if name.startswith(blocks)]
    assert in_order == sorted(in_order)
    assert indices.get("norm.weight", backbone.num_layers) == backbone.num_layers


def test_keep_drops_tokens_or_says_what_can(backbone: Backbone) -> None:
    patches = backbone.embed(torch.randn(2, 3, 64, 64))
    keep = torch.tensor([[3, 0], [1, 2]])
    if type(backbone).__name__ == "ViT":
        assert backbone.encode(patches, keep=keep).patches.shape == (2, 1, 2, backbone.dim)
    else:
        with pytest.raises(MiradaError, match=r"cannot drop tokens.*ViT.*mask tokens"):
            backbone.encode(patches, keep=keep)


@pytest.mark.parametrize("name", ["vit-pico/16", "coatnet-0", "resnet-18", "regnety-400mf"])
def test_other_channels_and_drop_path(name: str) -> None:
    backbone = build(name, image_size=64, in_channels=5, drop_path=0.5)
    images = torch.randn(4, 5, 64, 64)
    backbone.eval()
    assert equal(backbone(images), backbone(images))
    if name.startswith(("resnet", "regnet")):
        for parameter in backbone.parameters():  # residual branches start at zero, where dropping them shows nothing
            parameter.data += 0.1
    backbone.train()
    assert not torch.equal(backbone(images).pooled, backbone(images).pooled)
