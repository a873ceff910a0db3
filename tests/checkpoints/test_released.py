"""The table of published models against the originals: real sizes on no memory, and licences as timm states them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
import torchvision
import transformers
from counting import by_depth
from exchange import shapes_of
from timm.models import get_pretrained_cfg
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

from mirada.catalogue import SIZED, measure
from mirada.checkpoints import open_clip_names
from mirada.checkpoints.files import LocalFiles
from mirada.checkpoints.plan import Plan
from mirada.checkpoints.published import FAMILIES, family_module, layout_of, published_family
from mirada.checkpoints.released import RELEASED, Released
from mirada.model import Model

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")

VIT = {
    "small": {"hidden_size": 384, "num_attention_heads": 6}, "base": {},
    "large": {"hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 24, "intermediate_size": 4096},
    "huge": {"hidden_size": 1280, "num_attention_heads": 16, "num_hidden_layers": 32, "intermediate_size": 5120},
    "giant": {"hidden_size": 1536, "num_attention_heads": 24, "num_hidden_layers": 40, "use_swiglu_ffn": True},
    "so400m": {"hidden_size": 1152, "num_attention_heads": 16, "num_hidden_layers": 27, "intermediate_size": 4304},
}  # fmt: skip
DINOV3 = {  # depth, width, heads, feed-forward width, whether that is gated
    "s": (12, 384, 6, 1536, False), "b": (12, 768, 12, 3072, False), "l": (24, 1024, 16, 4096, False),
    "hplus": (32, 1280, 20, 5120, True), "7b": (40, 4096, 32, 8192, True),
}  # fmt: skip
SEER = {
    "320": ([2, 5, 12, 1], [232, 696, 1392, 3712], 232), "640": ([2, 5, 12, 1], [328, 984, 1968, 4920], 328),
    "1280": ([2, 7, 17, 1], [528, 1056, 2904, 7392], 264), "10b": ([2, 7, 17, 1], [2020, 4040, 11110, 28280], 1010),
}  # fmt: skip
CROP = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256},
        "crop_size": {"height": 224, "width": 224}}  # fmt: skip


def siglip(size: str, side: int, patch: int, words: int) -> Any:
    vision = VIT[size] | {"image_size": side, "patch_size": patch}
    return transformers.SiglipConfig(vision_config=vision, text_config=VIT[size] | {"vocab_size": words})


def on_the_hub(repository: str) -> tuple[str, Any, dict[str, Any]]:
    """transformers' class, config and image processor of a repository."""
    name = repository.partition("/")[2]
    part = name.split("-")
    if name.startswith("clip-vit-large"):
        text = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
        vision = VIT["large"] | {"patch_size": 14}
        return "CLIPModel", transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=768), {}
    if name.startswith("siglip"):
        words = 256000 if part[0] == "siglip2" else 32000
        side = int(part[3])
        pixels = {"image_processor_type": "SiglipImageProcessor", "size": {"height": side, "width": side}}
        return "SiglipModel", siglip(part[1], side, int(part[2].removeprefix("patch")), words), pixels
    if name.startswith("dinov3"):
        depth, width, heads, hidden, gated = DINOV3[part[1].removeprefix("vit").replace("16", "")]
        config: Any = transformers.DINOv3ViTConfig(
            num_hidden_layers=depth, hidden_size=width, num_attention_heads=heads, intermediate_size=hidden,
            use_gated_mlp=gated, hidden_act="silu" if gated else "gelu", num_register_tokens=4,
            query_bias="7b" not in name, value_bias="7b" not in name,
        )  # fmt: skip
        return "DINOv3ViTModel", config, {}
    if name.startswith("dinov2-with-registers"):
        config = transformers.Dinov2WithRegistersConfig(**VIT[part[3]], image_size=518, patch_size=14)
        return "Dinov2WithRegistersModel", config, CROP
    if name.startswith("dinov2"):
        return "Dinov2Model", transformers.Dinov2Config(**VIT[part[1]], image_size=518, patch_size=14), CROP
    if name.startswith("vit-mae"):
        config = transformers.ViTMAEConfig(**VIT[part[2]], patch_size=14 if part[2] == "huge" else 16)
        return "ViTMAEForPreTraining", config, {}
    if name.startswith("dino-"):
        size = {"s": "small", "b": "base"}[part[1][3]]
        more: Any = VIT[size] | ({"intermediate_size": 1536} if size == "small" else {})
        return "ViTModel without", transformers.ViTConfig(**more, patch_size=int(part[1][4:])), {}
    if name.startswith("regnet-y"):
        depths, widths, group = SEER[part[2]]
        config = transformers.RegNetConfig(depths=depths, hidden_sizes=widths, groups_width=group)
        return "RegNetModel", config, {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 384,
                                       "crop_pct": 0.875}  # fmt: skip
    thousand = {"num_labels": 1000}
    return {
        "clip-vit-base-patch32": ("CLIPModel", transformers.CLIPConfig(), {}),
        "vit-base-patch16-224": ("ViTForImageClassification", transformers.ViTConfig(**thousand), {}),
        "vit-base-patch16-224-in21k": ("ViTModel", transformers.ViTConfig(), {}),
        "deit-base-distilled-patch16-224": (
            "DeiTForImageClassificationWithTeacher", transformers.DeiTConfig(**thousand), {}),
        "resnet-50": ("ResNetForImageClassification", transformers.ResNetConfig(**thousand),
                      {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 224, "crop_pct": 0.875}),
    }[name]  # fmt: skip


def theirs(name: str, folder: Path) -> tuple[Plan, Mapping[str, Tensor]]:
    """The plan for the tensors of the original, as its repository is laid out; configs are written to `folder`."""
    family, _, rest = name.partition(":")
    repository: str = family_module(family).repository(rest)
    if family in ("openai", "open_clip"):
        known = open_clip.get_model_config(open_clip_name(repository))
        assert known is not None
        kind = open_clip.CustomTextCLIP if known.pop("custom_text", False) else open_clip.CLIP
        tensors = kind(**known).state_dict()
        return family_module(family).plan(rest, None, shapes_of(tensors)), tensors
    if repository.startswith("timm/"):
        peer = timm.create_model(repository.partition("/")[2])
        cfg: Any = peer.pretrained_cfg
        config = {"architecture": cfg["architecture"], "pretrained_cfg": cfg, "num_classes": cfg["num_classes"]}
        (folder / "config.json").write_text(json.dumps(config))
        tensors = peer.state_dict()
    else:
        kind, config, pixels = on_the_hub(repository)
        options = {"add_pooling_layer": False} if kind == "ViTModel without" else {}
        peer = getattr(transformers, kind.partition(" ")[0])(config, **options)
        (folder / "config.json").write_text(peer.config.to_json_string(use_diff=False))
        if pixels:
            (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
        tensors = revert_weight_conversion(peer, peer.state_dict())  # as save_pretrained names them
    files = LocalFiles(folder)
    return family_module(layout_of(files, family)).plan(rest, files, shapes_of(tensors)), tensors


def open_clip_name(repository: str) -> str:
    return next(name for name, tags in open_clip_names.PRETRAINED.items() if repository in tags.values())


@pytest.mark.parametrize("name", RELEASED)
def test_sizes_are_those_of_the_original(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirada.catalogue.multiply_adds", by_depth)
    assert published_family(name) in FAMILIES
    with torch.device("meta"):
        plan, _ = theirs(name, tmp_path)
        row = measure(Model.from_design(plan.design))
    licence, gated = RELEASED[name].licence, RELEASED[name].gated
    assert RELEASED[name] == Released(
        row["architecture"], row["parameters"], row["gflops"], row["size"][0], row["dim"], licence,
        row["head"], row["text_parameters"], gated,
    )  # fmt: skip


def test_counts_are_those_that_torchvision_publishes() -> None:
    sizes = {"ViT_B_16": "vit-b/16", "ViT_L_16": "vit-l/16", "ResNet18": "resnet-18", "ResNet50": "resnet-50",
             "ResNet152": "resnet-152", "RegNet_Y_400MF": "regnety-400mf", "RegNet_Y_3_2GF": "regnety-3.2gf",
             "RegNet_Y_32GF": "regnety-32gf"}  # fmt: skip
    for theirs, ours in sizes.items():
        meta: Any = torchvision.models.get_weight(f"{theirs}_Weights.IMAGENET1K_V1").meta
        parameters, gflops, dim, _ = SIZED[ours]
        assert parameters + dim * 1000 + 1000 == meta["num_params"]
        assert round(gflops, 1) == round(meta["_ops"], 1)
    for name, row in RELEASED.items():
        model, _, tag = name.removeprefix("torchvision:").partition("/")
        if name.startswith("torchvision:"):
            weights = torchvision.models.get_model_weights(model)
            meta = weights[tag or "DEFAULT"].meta
            assert (row.parameters, row.gflops, row.head) == (meta["num_params"], meta["_ops"], len(meta["categories"]))


# --- licences --------------------------------------------------------------------------------------------------------

SAME = {  # as timm has them, too
    "dino:dino_vits16": "vit_small_patch16_224.dino", "dino:dino_vitb16": "vit_base_patch16_224.dino",
    "dino:dinov2_vits14": "vit_small_patch14_dinov2.lvd142m", "dino:dinov2_vitb14": "vit_base_patch14_dinov2.lvd142m",
    "dino:dinov2_vitl14": "vit_large_patch14_dinov2.lvd142m", "dino:dinov2_vitg14": "vit_giant_patch14_dinov2.lvd142m",
    "dino:dinov2_vits14_reg": "vit_small_patch14_reg4_dinov2.lvd142m",
    "dino:dinov2_vitb14_reg": "vit_base_patch14_reg4_dinov2.lvd142m",
    "dino:dinov2_vitl14_reg": "vit_large_patch14_reg4_dinov2.lvd142m",
    "dino:dinov3_vits16": "vit_small_patch16_dinov3.lvd1689m", "dino:dinov3_vitb16": "vit_base_patch16_dinov3.lvd1689m",
    "dino:dinov3_vitl16": "vit_large_patch16_dinov3.lvd1689m",
    "dino:dinov3_vith16plus": "vit_huge_plus_patch16_dinov3.lvd1689m",
    "dino:dinov3_vit7b16": "vit_7b_patch16_dinov3.lvd1689m", "mae:mae_vit_base_patch16": "vit_base_patch16_224.mae",
    "mae:mae_vit_large_patch16": "vit_large_patch16_224.mae", "mae:mae_vit_huge_patch14": "vit_huge_patch14_224.mae",
    "vissl:regnet-y-320-seer": "regnety_320.seer", "vissl:regnet-y-1280-seer": "regnety_1280.seer",
    "vissl:regnet-y-2560-seer-in1k": "regnety_2560.seer_ft_in1k",
    "open_clip:ViT-B-32/metaclip_400m": "vit_base_patch32_clip_224.metaclip_400m",
    "open_clip:ViT-B-16-SigLIP/webli": "vit_base_patch16_siglip_224.webli",
    "open_clip:ViT-SO400M-14-SigLIP-384/webli": "vit_so400m_patch14_siglip_384.webli",
    "open_clip:ViT-B-16-SigLIP2/webli": "vit_base_patch16_siglip_224.v2_webli",
    "open_clip:ViT-SO400M-16-SigLIP2-384/webli": "vit_so400m_patch16_siglip_384.v2_webli",
    "hf:google/siglip-base-patch16-224": "vit_base_patch16_siglip_224.webli",
    "hf:google/siglip-so400m-patch14-384": "vit_so400m_patch14_siglip_384.webli",
    "hf:google/siglip2-base-patch16-224": "vit_base_patch16_siglip_224.v2_webli",
    "hf:google/siglip2-so400m-patch14-384": "vit_so400m_patch14_siglip_378.v2_webli",
    "hf:google/vit-base-patch16-224-in21k": "vit_base_patch16_224.augreg_in21k",
    "hf:google/vit-base-patch16-224": "vit_base_patch16_224.augreg_in21k_ft_in1k",
    "hf:facebook/deit-base-distilled-patch16-224": "deit_base_distilled_patch16_224.fb_in1k",
}  # fmt: skip


def test_licences_are_as_timm_states_them() -> None:
    """Of all weights that timm has too, but OpenAI's and LAION's, which it gives another licence than they did."""
    elsewhere = {"openai:", "hf:openai", "open_clip:", "vissl:regnet-y-10b", "hf:microsoft"}
    checked = 0
    for name, row in RELEASED.items():
        family, _, rest = name.partition(":")
        theirs = SAME.get(name)
        if family in ("timm", "torchvision"):
            theirs = family_module(family).repository(rest).partition("/")[2]
        if theirs is None:
            assert name.startswith(tuple(elsewhere)), name
            continue
        cfg = get_pretrained_cfg(theirs)
        assert cfg is not None, theirs
        assert row.licence == cfg.license, name
        checked += 1
    assert checked > 45


def test_licences_of_a_family_are_one() -> None:
    for start, licence in {
        "openai:": "mit",
        "hf:openai/": "mit",
        "vissl:": "seer-license",
        "mae:": "cc-by-nc-4.0",
    }.items():
        assert {row.licence for name, row in RELEASED.items() if name.startswith(start)} == {licence}
    laion = [row.licence for name, row in RELEASED.items() if "/laion" in name or "/datacomp" in name]
    assert set(laion) == {"mit"}


def test_published_names_exist() -> None:
    """On the hub, as far as the libraries' own lists know."""
    of_timm, of_open_clip = set(timm.list_pretrained()), open_clip.list_pretrained()
    for name in RELEASED:
        family, _, rest = name.partition(":")
        repository: str = family_module(family).repository(rest)
        if family != "openai" and family != "open_clip" and repository.startswith("timm/"):
            assert repository.removeprefix("timm/") in of_timm, name
        if family == "open_clip":
            assert tuple(rest.split("/")) in of_open_clip, name
