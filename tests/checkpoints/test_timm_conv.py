"""timm's CoAtNets, ResNets and RegNets: its outputs are ours, for other image sizes too, and its tensors come back."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from exchange import exchanged, fits, shapes_of
from timm.models import save_for_hf
from torch import Tensor, nn

import mirada
from mirada.backbones.coatnet import VARIANTS
from mirada.checkpoints import table, timm_conv
from mirada.checkpoints.plan import Plan
from mirada.errors import MiradaError
from mirada.model import Model

Parity = Callable[..., None]
Randomise = Callable[..., nn.Module]

SMALL = {"depths": (1, 2, 2, 1), "embed_dim": (32, 64, 64, 96), "img_size": 96}
COATNETS = {
    "coatnet_0_224": SMALL | {"stem_width": 32, "head_hidden_size": 80},
    "coatnet_2_224": SMALL | {"stem_width": 16, "head_hidden_size": 96},
    **{f"coatnet_{name}_224": SMALL | {"stem_width": (16, 32)} for name in VARIANTS if "_rw" in name},
}
RESIDUAL: dict[str, dict[str, Any]] = {
    "resnet18": {},
    "resnet34": {"layers": (1, 2, 1, 1)},
    "resnet50": {"layers": (1, 1, 1, 2)},
    "resnet26": {"channels": (8, 16, 32, 64)},
    "regnety_002": {},
    "regnety_004": {},
    "regnety_008": {},
    "regnety_008_tv": {},
    "regnety_006": {"depth": 12, "stem_width": 16},
}


def made(name: str, randomise: Randomise, **options: Any) -> nn.Module:
    model = randomise(timm.create_model(name, **options))
    for module in model.modules():
        if hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()  # constants that are in no file
        if isinstance(module, nn.BatchNorm2d):
            assert module.num_batches_tracked is not None
            module.num_batches_tracked.fill_(7)
    return model


def planned(name: str, peer: nn.Module, config: dict[str, Any] | None = None) -> Plan:
    return timm_conv.plan(name, config, shapes_of(peer.state_dict()))


@torch.no_grad()
def outputs(ours: Model, theirs: Any, images: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    features = theirs.forward_features(images)
    compared = {
        "encode_image": (ours.encode_image(images), theirs.forward_head(features, pre_logits=True)),
        "patches": (ours.backbone(images).patches, features.permute(0, 2, 3, 1)),
    }
    return compared if ours.head is None else compared | {"logits": (ours.logits(images), theirs(images))}


@pytest.mark.parametrize("name", COATNETS)
def test_coatnet(name: str, randomise: Randomise, parity: Parity) -> None:
    theirs = made(name, randomise, num_classes=7, **COATNETS[name])
    ours = exchanged(planned(name, theirs), theirs.state_dict())
    parity("timm", name, outputs(ours, theirs, torch.randn(2, 3, 96, 96)))


@pytest.mark.parametrize("name", ["coatnet_0_224", "coatnet_0_rw_224", "coatnet_rmlp_nano_rw_224"])
@pytest.mark.parametrize("size", [(64, 64), (128, 64), (192, 224)])
def test_coatnet_for_images_of_another_size(
    name: str, size: tuple[int, int], randomise: Randomise, parity: Parity
) -> None:
    """timm resamples the tables as BEiT does; a network in place of the tables has nothing to resample."""
    theirs: Any = made(name, randomise, num_classes=7, **COATNETS[name])
    ours = exchanged(planned(name, theirs), theirs.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm indexes in ways that PyTorch advises against
        theirs.set_input_size(size)
    parity("timm", f"{name}, 96 to {size[0]}x{size[1]}", outputs(ours, theirs, torch.randn(1, 3, *size)))


@pytest.mark.parametrize("name", RESIDUAL)
def test_residual(name: str, randomise: Randomise, parity: Parity) -> None:
    theirs = made(name, randomise, num_classes=7, **RESIDUAL[name])
    ours = exchanged(planned(name, theirs), theirs.state_dict())
    parity("timm", name, outputs(ours, theirs, torch.randn(2, 3, 96, 70)))


@pytest.mark.parametrize("name", ["coatnet_0_224", "coatnet_nano_rw_224", "resnet18", "regnety_004"])
def test_without_a_classifier(name: str, randomise: Randomise) -> None:
    theirs = made(name, randomise, num_classes=0, **COATNETS.get(name, {}))
    plan = planned(name, theirs)
    ours = exchanged(plan, theirs.state_dict())
    images = torch.randn(1, 3, 96, 96)
    assert plan.design.classes is ours.head is None
    with torch.no_grad():
        torch.testing.assert_close(ours.encode_image(images), theirs(images), rtol=1e-4, atol=1e-5)


ARCHITECTURES = {
    "coatnet_0_224": "coatnet-0(variant='timm', image_size=224)",
    "coatnet_1_224": "coatnet-1(variant='timm', image_size=224)",
    "coatnet_2_224": "coatnet-2(variant='timm', image_size=224)",
    "coatnet_5_224":
        "coatnet-0(widths=(192, 256, 512, 1280, 2048), depths=(2, 12, 28, 2), variant='timm', image_size=224)",
    "coatnet_nano_rw_224":
        "coatnet-0(widths=(64, 64, 128, 256, 512), depths=(3, 4, 6, 3), variant='nano_rw', image_size=224)",
    "coatnet_0_rw_224":
        "coatnet-0(widths=(64, 96, 192, 384, 768), depths=(2, 3, 7, 2), variant='0_rw', image_size=224)",
    "coatnet_2_rw_224": "coatnet-2(variant='2_rw', image_size=224)",
    "coatnet_rmlp_2_rw_384": "coatnet-2(variant='rmlp_2_rw')",
    "resnet18": "resnet-18",
    "resnet34": "resnet-34",
    "resnet50": "resnet-50",
    "resnet101": "resnet-101",
    "resnet152": "resnet-152",
    "resnet200": "resnet-50(depths=(3, 24, 36, 3))",
    "regnety_004": "regnety-400mf",
    "regnety_008": "regnety-800mf(rounding='nearest')",
    "regnety_008_tv": "regnety-800mf",
    "regnety_016": "regnety-1.6gf",
    "regnety_032": "regnety-3.2gf",
    "regnety_040": "regnety-400mf(plan=((128, 2, 64), (192, 6, 64), (512, 12, 64), (1088, 2, 64)))",
    "regnety_080": "regnety-8gf(rounding='nearest')",
    "regnety_080_tv": "regnety-8gf",
    "regnety_120": "regnety-400mf(plan=((224, 2, 112), (448, 5, 112), (896, 11, 112), (2240, 1, 112)))",
    "regnety_160": "regnety-16gf",
    "regnety_320": "regnety-32gf",
    "regnety_640": "regnety-64gf",
    "regnety_1280": "regnety-128gf",
    "regnety_2560": "regnety-256gf",
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_published_sizes(name: str) -> None:
    with torch.device("meta"):
        theirs = timm.create_model(name)
    plan = planned(name, theirs)
    assert plan.design.architecture == ARCHITECTURES[name]
    ours = fits(plan, theirs.state_dict())
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert ours.dim == theirs.num_features
    assert ours.classes == [str(number) for number in range(1000)]
    assert ours.preprocess.size == ((384, 384) if name.endswith("_384") else (224, 224))


def saved(folder: Path, name: str, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    model = timm.create_model(name, **options)
    save_for_hf(model, folder, safe_serialization=True, model_config=options.pop("model_config", None))
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return model, config


@pytest.mark.parametrize("name", ["coatnet_0_224", "coatnet_0_rw_224", "resnet34", "regnety_006"])
def test_a_saved_folder(name: str, randomise: Randomise, tmp_path: Path) -> None:
    """What timm wrote down about how the model was made is understood."""
    options = COATNETS.get(name) or RESIDUAL[name]
    theirs = made(name, randomise, num_classes=7, **options)
    save_for_hf(theirs, tmp_path, safe_serialization=True)
    assert set(options) <= set(json.loads((tmp_path / "config.json").read_text())["model_args"])
    ours = mirada.load(tmp_path)
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours.logits(images), theirs(images), rtol=1e-4, atol=1e-5)


def test_a_saved_config_says_what_to_do_with_pixels(tmp_path: Path) -> None:
    model, config = saved(tmp_path, "coatnet_nano_rw_224", depths=(1, 1, 1, 1), img_size=128)
    design = planned("coatnet_nano_rw_224", model, config).design
    assert "image_size=128" in design.architecture
    assert design.preprocess.size == (128, 128)
    assert design.preprocess.box == (142, 142)  # timm rounds 128 / 0.9 down
    assert design.preprocess.mean == (0.5, 0.5, 0.5)
    model, config = saved(tmp_path, "resnet18")
    design = planned("resnet18", model, config).design
    assert (design.preprocess.size, design.preprocess.box) == ((224, 224), (235, 235))
    assert design.preprocess.interpolation == "bicubic"


@pytest.mark.parametrize("names", [["cat", "dog"], {"0": "cat", "1": "dog"}])
def test_class_names_come_from_the_config(names: Any) -> None:
    model = timm.create_model("resnet18", num_classes=2, layers=(1, 1, 1, 1))
    assert planned("resnet18", model, {"label_names": names}).design.classes == ("cat", "dog")
    assert planned("resnet18", model, {"pretrained_cfg": {"label_names": names}}).design.classes == ("cat", "dog")


def test_old_files_do_not_count_batches(randomise: Randomise) -> None:
    theirs = made("resnet18", randomise)
    tensors = theirs.state_dict()
    old = {name: tensor for name, tensor in tensors.items() if "num_batches" not in name}
    assert len(old) < len(tensors)
    plan = timm_conv.plan("resnet18", None, shapes_of(old))
    with pytest.raises(AssertionError):  # they come back with counters, which timm wants
        exchanged(plan, old)
    with torch.device("meta"):
        wanted = {name: tensor.shape for name, tensor in Model.from_design(plan.design).state_dict().items()}
    read = table.read(plan.table, shapes_of(old), old.__getitem__, wanted, "an old file")
    counters = [tensor for name, tensor in read.items() if "num_batches" in name]
    assert len(counters) == len(tensors) - len(old)
    assert all(counter.dtype == torch.int64 and counter == 0 for counter in counters)


@pytest.mark.parametrize(
    "name",
    ["resnet50d", "resnet18d", "resnet10t", "resnet50s", "resnet50_gn", "resnetaa50", "seresnet50", "wide_resnet50_2",
     "resnext50_32x4d", "resnetv2_50", "coatnet_bn_0_rw_224", "coatnet_nano_cc_224", "coatnext_nano_rw_224",
     "regnetx_002", "regnety_040_sgn", "regnetv_040", "regnetz_005"],
)  # fmt: skip
def test_other_networks_are_refused_by_name(name: str) -> None:
    with torch.device("meta"):
        theirs = timm.create_model(name)
    with pytest.raises(MiradaError, match=rf"timm's {name} (is another network|has other blocks)"):
        planned(name, theirs)


def test_other_networks_under_a_good_name_are_refused() -> None:
    with torch.device("meta"):
        wide, grouped, plain, coatnet = (
            timm.create_model(name)
            for name in ("wide_resnet50_2", "resnext50_32x4d", "regnetx_002", "coatnet_0_rw_224")
        )
    for theirs in (wide, grouped):
        with pytest.raises(MiradaError, match="wide or grouped"):
            planned("resnet50", theirs)
    with pytest.raises(MiradaError, match="squeeze-excite"):
        planned("regnety_002", plain)
    with pytest.raises(MiradaError, match=r"missing .*stages\.0\.blocks\.0\.se\.fc1"):
        fits(planned("coatnet_nano_rw_224", coatnet), coatnet.state_dict())
    with pytest.raises(MiradaError, match="consists of blocks"):
        planned("resnet18", coatnet)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_args": {"output_stride": 8}}, "made with output_stride"),
        ({"global_pool": "avgmax"}, "global_pool='avgmax'"),
        ({"model_args": {"global_pool": "max"}}, "global_pool='max'"),
    ],
)
def test_what_shapes_do_not_show_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(MiradaError, match=message):
        planned("resnet18", timm.create_model("resnet18", layers=(1, 1, 1, 1)), config)


def test_tables_for_oblong_images_are_refused() -> None:
    theirs = timm.create_model("coatnet_pico_rw_224", depths=(1, 1, 1, 1), img_size=(96, 64))
    with pytest.raises(MiradaError, match="not square"):
        planned("coatnet_pico_rw_224", theirs)
