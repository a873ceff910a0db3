"""torchvision's networks: outputs, both spellings of its MLPs, image sizes, and how its weights are to be had."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from exchange import exchanged, fits, shapes_of
from hub_server import Hub
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from mirada.checkpoints import table, timm_conv
from mirada.checkpoints.plan import Plan
from mirada.checkpoints.published import open_published
from mirada.checkpoints.torchvision import PRESETS, plan, repository
from mirada.errors import MiradaError
from mirada.model import Model

Parity = Callable[..., None]
Randomise = Callable[..., nn.Module]

HEADS = {"b": (768, 12), "l": (1024, 16), "h": (1280, 16)}


def on_meta(name: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> nn.Module:
    """torchvision's, without memory; its RegNets work out their widths with tensors, so that is done before."""
    if not name.startswith("regnet"):
        with torch.device("meta"):
            return torchvision.models.get_model(name, **options)  # type: ignore[no-any-return]
    with monkeypatch.context() as patch:
        patch.setattr(torchvision.models.regnet, "_regnet", lambda params, *_, **__: params)
        params = torchvision.models.get_model_builder(name)()
    with torch.device("meta"):
        return torchvision.models.RegNet(params)


def planned(name: str, peer: nn.Module) -> Plan:
    return plan(name, None, shapes_of(peer.state_dict()))


def vit(name: str, size: int, layers: int = 1, **options: Any) -> VisionTransformer:
    """torchvision's with fewer layers."""
    _, letter, patch = name.split("_")
    dim, heads = HEADS[letter]
    return VisionTransformer(size, int(patch), layers, heads, dim, 4 * dim, num_classes=7, **options)


@torch.no_grad()
def vit_outputs(ours: Model, theirs: Any, images: Tensor, grid: tuple[int, int]) -> dict[str, tuple[Tensor, Tensor]]:
    tokens = theirs._process_input(images)
    tokens = theirs.encoder(torch.cat([theirs.class_token.expand(len(images), -1, -1), tokens], 1))
    return {
        "encode_image": (ours.encode_image(images), theirs.heads[:-1](tokens[:, 0])),
        "patches": (ours.backbone(images).patches, tokens[:, 1:].unflatten(1, grid)),
        "logits": (ours.logits(images), theirs(images)),
    }


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("vit")])
def test_vit(name: str, randomise: Randomise, parity: Parity) -> None:
    patch = int(name[-2:])
    theirs = randomise(vit(name, 3 * patch, layers=2))
    ours = exchanged(planned(name, theirs), theirs.state_dict())
    parity("torchvision", name, vit_outputs(ours, theirs, torch.randn(2, 3, 3 * patch, 3 * patch), (3, 3)))


@pytest.mark.parametrize("grid", [2, 5, 8])
def test_vit_for_images_of_another_size(grid: int, randomise: Randomise, parity: Parity) -> None:
    """As torchvision's own `interpolate_embeddings`: bicubic, the corners stay in place."""
    theirs = randomise(vit("vit_b_32", 128))
    ours = exchanged(planned("vit_b_32", theirs), theirs.state_dict())
    larger = vit("vit_b_32", 32 * grid).eval()
    larger.load_state_dict(interpolate_embeddings(32 * grid, 32, theirs.state_dict()))
    images = torch.randn(1, 3, 32 * grid, 32 * grid)
    parity("torchvision", f"vit_b_32, 128 to {32 * grid}", vit_outputs(ours, larger, images, (grid, grid)))


def test_vit_with_a_hidden_layer_in_its_head(randomise: Randomise, parity: Parity) -> None:
    theirs = randomise(vit("vit_b_32", 64, representation_size=48))
    ours = exchanged(planned("vit_b_32", theirs), theirs.state_dict())
    assert ours.dim == 48
    parity(
        "torchvision", "vit_b_32 with representation_size", vit_outputs(ours, theirs, torch.randn(2, 3, 64, 64), (2, 2))
    )


def test_files_from_before_the_mlp_was_renamed(randomise: Randomise) -> None:
    theirs = randomise(vit("vit_b_32", 64))
    new = theirs.state_dict()
    old = {name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): new[name] for name in new}
    assert old.keys() != new.keys()
    vit("vit_b_32", 64).load_state_dict(old)  # torchvision reads these too
    made = plan("vit_b_32", None, shapes_of(old))
    wanted = {name: tensor.shape for name, tensor in exchanged(made, new).state_dict().items()}
    read = table.read(made.table, shapes_of(old), old.__getitem__, wanted, "an old file")
    for name, tensor in exchanged(made, new).state_dict().items():
        assert torch.equal(read[name], tensor), name


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "regnet_y_400mf", "regnet_y_800mf"])
def test_residual(name: str, randomise: Randomise, parity: Parity) -> None:
    theirs: Any = randomise(torchvision.models.get_model(name, num_classes=7))
    ours = exchanged(planned(name, theirs), theirs.state_dict())
    images = torch.randn(2, 3, 96, 70)
    with torch.no_grad():
        body = [module for key, module in theirs.named_children() if key not in ("avgpool", "fc")]
        patches = nn.Sequential(*body)(images)
        logits = theirs(images)
        theirs.fc = nn.Identity()
        outputs = {
            "encode_image": (ours.encode_image(images), theirs(images)),
            "patches": (ours.backbone(images).patches, patches.permute(0, 2, 3, 1)),
            "logits": (ours.logits(images), logits),
        }
    parity("torchvision", name, outputs)


def expected(name: str) -> str:
    if name.startswith("vit"):
        size = 518 if name == "vit_h_14" else 224
        return f"{name[:5].replace('_', '-')}/{name[-2:]}(image_size={size}, resample='corners')"
    return name.replace("regnet_y_", "regnety-").replace("_", ".").replace("resnet", "resnet-")


@pytest.mark.parametrize("name", PRESETS)
def test_the_published_sizes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = on_meta(name, monkeypatch, **({"image_size": 518} if name == "vit_h_14" else {}))
    made = planned(name, theirs)
    assert made.design.architecture == expected(name)
    ours = fits(made, theirs.state_dict())
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_pixels_are_those_of_the_published_weights(name: str) -> None:
    published = torchvision.models.get_model_weights(name)
    assert {weights.name for weights in published} == set(PRESETS[name])
    for weights in published:
        theirs, ours = weights.transforms(), PRESETS[name][weights.name]
        assert (ours.crop, ours.resize, ours.interpolation) == (
            theirs.crop_size[0], theirs.resize_size[0], theirs.interpolation.value
        )  # fmt: skip
        assert (theirs.mean, theirs.std) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        if ours.repository is not None:  # what timm keeps there are torchvision's weights
            owner, _, tag = ours.repository.partition("/")
            cfg = timm.models.get_pretrained_cfg(tag)
            assert (owner, cfg.url) == ("timm", weights.url)


def test_a_name_means_torchvisions_default() -> None:
    for name in PRESETS:
        default = torchvision.models.get_model_weights(name).DEFAULT.name
        if PRESETS[name][default].repository is not None:
            assert repository(name) == repository(f"{name}/{default}") == repository(f"{name}/DEFAULT")
    assert repository("resnet50/IMAGENET1K_V1") == "timm/resnet50.tv_in1k"
    with torch.device("meta"):
        theirs = torchvision.models.resnet50()
    newer, older = (planned(name, theirs).design.preprocess for name in ("resnet50", "resnet50/IMAGENET1K_V1"))
    assert (newer.box, newer.size, newer.interpolation) == ((232, 232), (224, 224), "bilinear")
    assert older.box == (256, 256)


def test_a_vit_of_another_size_has_the_pixels_of_its_weights() -> None:
    with torch.device("meta"):
        models = [vit("vit_b_16", size) for size in (224, 384, 112)]
    usual, end_to_end, own = (planned("vit_b_16", model).design.preprocess for model in models)
    assert (usual.size, usual.box, usual.interpolation) == ((224, 224), (256, 256), "bilinear")
    assert (end_to_end.size, end_to_end.box, end_to_end.interpolation) == ((384, 384), (384, 384), "bicubic")
    assert (own.size, own.box) == ((112, 112), (128, 128))


def test_regnets_on_the_hub_are_in_timms_layout(randomise: Randomise) -> None:
    theirs = randomise(timm.create_model("regnety_004", num_classes=7))
    made = planned("regnet_y_400mf", theirs)
    ours = exchanged(made, theirs.state_dict())
    assert (
        made.design.architecture
        == timm_conv.plan("regnety_004", None, shapes_of(theirs.state_dict())).design.architecture
    )
    assert made.design.preprocess.interpolation == "bilinear"  # torchvision's, not timm's
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.logits(images), theirs(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "timms"), [("resnet18", "resnet18"), ("regnet_y_400mf", "regnety_004")])
def test_from_the_hub(name: str, timms: str, randomise: Randomise, hub: Hub, tmp_path: Path) -> None:
    theirs = randomise(timm.create_model(timms))
    timm.models.save_for_hf(theirs, tmp_path / "saved", safe_serialization=True)
    hub.add(repository(name), {file.name: file.read_bytes() for file in (tmp_path / "saved").iterdir()})
    ours = open_published(f"torchvision:{name}", None).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.logits(images), theirs(images), rtol=1e-4, atol=1e-5)
    theirs_pixels = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    assert ours.preprocess.box == (theirs_pixels.resize_size[0],) * 2
    assert ours.preprocess.interpolation == "bilinear"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_b_16", "not on the hub: download the file .* IMAGENET1K_V1 and pass it as weights=FILE"),
        ("regnet_y_400mf/IMAGENET1K_V1", "not on the hub: load torchvision:regnet_y_400mf/IMAGENET1K_V2, or download"),
        ("resnet51", "did you mean torchvision:resnet50"),
        ("swin_t", "there are resnet18, "),
        ("resnet18/IMAGENET1K_V2", "no weights 'IMAGENET1K_V2': there are IMAGENET1K_V1"),
    ],
)
def test_names_without_weights(name: str, message: str) -> None:
    with pytest.raises(MiradaError, match=message):
        repository(name)


def test_a_file_of_another_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    resnet, regnet, wide, large = (
        on_meta(name, monkeypatch) for name in ("resnet18", "regnet_y_400mf", "wide_resnet50_2", "vit_l_16")
    )
    with pytest.raises(MiradaError, match="consists of blocks"):
        planned("regnet_y_400mf", resnet)
    with pytest.raises(MiradaError, match="consists of blocks"):
        planned("resnet18", regnet)
    with pytest.raises(MiradaError, match="wide or grouped"):
        planned("resnet50", wide)
    with pytest.raises(MiradaError, match=r"encoder\.pos_embedding"):
        planned("vit_b_16", resnet)
    with pytest.raises(MiradaError, match="of another shape"):
        fits(planned("vit_b_16", large), large.state_dict())
