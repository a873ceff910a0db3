"""open_clip's image-and-text models, saved by open_clip: both towers give what they give there."""

import copy
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import open_clip
import pytest
import safetensors.torch
import timm
import torch
from conftest import Parity
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIPTextCfg, CLIPVisionCfg, resize_pos_embed
from open_clip.pretrained import _PRETRAINED
from open_clip.push_to_hf_hub import save_for_hf
from open_clip.tokenizer import HFTokenizer
from torch import Tensor, nn
from vocabularies import byte_fallback_pairs, clip_tokenizer, t5_tokenizer, unigrams

import mirada
from mirada.checkpoints import open_clip as layout
from mirada.checkpoints import open_clip_names, table
from mirada.checkpoints.files import LocalFiles
from mirada.checkpoints.open_clip_names import PRETRAINED, QUICK, model_config, preprocess_config, repository
from mirada.errors import MiradaError
from mirada.model import Model

TEXTS = ["A photo of a dog.", "un niño con un perro, ¡qué bien!", '🐶 &amp; "it\'s"', "", "many words " * 60]
Randomise = Callable[..., nn.Module]

SMALL: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 56, "layers": 2, "width": 48, "head_width": 12, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2},
}


def small(vision: Any = None, text: Any = None, **model: Any) -> dict[str, Any]:
    return SMALL | model | {
        "vision_cfg": SMALL["vision_cfg"] | (vision or {}), "text_cfg": SMALL["text_cfg"] | (text or {})
    }  # fmt: skip


def peer(config: dict[str, Any], **options: Any) -> Any:
    config = copy.deepcopy(config)
    kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    model = kind(**config, **options)
    model.visual.image_mean, model.visual.image_std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    model.visual.preprocess_cfg = {"interpolation": "bicubic", "resize_mode": "squash"}
    return model


def saved(folder: Path, model: Any, config: dict[str, Any], tokenizer: Any) -> Path:
    save_for_hf(model, tokenizer, config, str(folder), safe_serialization=True)
    return folder


def outputs(ours: Model, theirs: Any, ids: Tensor, side: int) -> dict[str, tuple[Tensor, Tensor]]:
    images = torch.randn(2, 3, side, side)
    if hasattr(theirs.visual, "trunk"):
        patches = theirs.visual.trunk.forward_features(images)
    else:
        theirs.visual.output_tokens = True
        patches = theirs.visual(images)[1]
        theirs.visual.output_tokens = False
    assert ours.logit_scale == pytest.approx(theirs.logit_scale.exp().item(), rel=1e-6)
    assert ours.logit_bias == pytest.approx(0.0 if theirs.logit_bias is None else theirs.logit_bias.item(), rel=1e-6)
    return {
        "encode_image": (ours.encode_image(images), theirs.encode_image(images)),
        "patches": (ours.backbone(images).patches.flatten(1, 2), patches),
        "encode_text": (ours.encode_text(TEXTS), theirs.encode_text(ids)),
    }


VARIANTS: dict[str, dict[str, Any]] = {
    "ViT-B-32-quickgelu, 2 layers": model_config("ViT-B-32-quickgelu") | {
        "vision_cfg": model_config("ViT-B-32")["vision_cfg"] | {"layers": 2},
        "text_cfg": model_config("ViT-B-32")["text_cfg"] | {"layers": 2},
    },
    "small": small(),
    "small, layer scale": small({"ls_init_value": 0.1, "mlp_ratio": 4.3637}),
    "small, GELU by tanh, other epsilon": small(
        {"act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 1e-3}}, {"norm_kwargs": {"eps": 1e-3}}
    ),
    "small, a text tower of SigLIP's kind": small(None, {
        "no_causal_mask": True, "proj_bias": True, "pool_type": "last", "act_kwargs": {"approximate": "tanh"},
    }, init_logit_bias=-10),
    "small, of a class of its own": small(None, None, custom_text=True, init_logit_bias=-3, nonscalar_logit_scale=True),
    "small, no projection of texts": small(None, {"width": 24, "proj_type": "none", "pool_type": "first"}),
    "small, end token": small(None, {"pool_type": "eos", "eos_id": 49407}),
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_clip(variant: str, randomise: Randomise, parity: Parity, tmp_path: Path) -> None:
    config = VARIANTS[variant]
    theirs: Any = randomise(peer(config))
    ours = mirada.load(saved(tmp_path, theirs, config, clip_tokenizer()))
    ids = open_clip.tokenize(TEXTS)
    assert ours.tokenizer is not None
    assert torch.equal(ours.tokenizer(TEXTS), ids)
    parity("open_clip", variant, outputs(ours, theirs, ids, config["vision_cfg"]["image_size"]))
    assert (ours.preprocess.mean, ours.preprocess.resize) == ((0.4, 0.5, 0.6), "squash")


@pytest.fixture
def two_layers(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Cuts timm's ViT-B to two blocks, there and here: its depth is no option of open_clip's."""

    def cut(model: Any) -> Any:
        model.visual.trunk.blocks = model.visual.trunk.blocks[:2]
        return model

    monkeypatch.setitem(layout.TIMM_SIZES, "base", (768, 2, 12, 3072))
    return cut


@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP", "ViT-B-32-SigLIP2-256"])
@torch.no_grad()
def test_siglip(
    name: str, two_layers: Callable[[Any], Any], randomise: Randomise, parity: Parity, tmp_path: Path
) -> None:
    if name.endswith("SigLIP"):
        (tmp_path / "t5").mkdir()
        tokenizer = t5_tokenizer(unigrams(TEXTS * 20, tmp_path / "t5", 90))
    else:
        from transformers import GemmaTokenizer

        vocabulary, merges = byte_fallback_pairs(TEXTS, 400)
        tokenizer = GemmaTokenizer(
            vocab=vocabulary, merges=merges, padding_side="right", add_bos_token=False, add_eos_token=True
        )
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    original: dict[str, Any] = open_clip.get_model_config(name)
    text = {"layers": 2, "vocab_size": len(tokenizer), "hf_tokenizer_name": str(tmp_path / "tokenizer")}
    config = original | {"text_cfg": original["text_cfg"] | text}
    theirs: Any = randomise(two_layers(peer(config)))
    reader = HFTokenizer(str(tmp_path / "tokenizer"), context_length=64, clean="canonicalize")
    ours = mirada.load(saved(tmp_path / "model", theirs, config, reader))
    ids = reader(TEXTS)
    assert ours.tokenizer is not None
    assert torch.equal(ours.tokenizer(TEXTS), ids)
    parity("open_clip", f"{name}, 2 layers", outputs(ours, theirs, ids, config["vision_cfg"]["image_size"]))


@torch.no_grad()
def test_a_trunk_with_a_projection(two_layers: Callable[[Any], Any], randomise: Randomise, tmp_path: Path) -> None:
    vision = {"image_size": 256, "timm_model_name": "vit_base_patch32_siglip_256", "timm_pool": "map",
              "timm_proj": "linear", "timm_proj_bias": True}  # fmt: skip
    config = SMALL | {"vision_cfg": vision}
    theirs: Any = randomise(two_layers(peer(config)))
    ours = mirada.load(saved(tmp_path, theirs, config, clip_tokenizer()))
    images = torch.randn(1, 3, 256, 256)
    torch.testing.assert_close(ours.encode_image(images), theirs.encode_image(images))


@torch.no_grad()
def test_other_image_sizes(randomise: Randomise, tmp_path: Path) -> None:
    """Positions are resampled as open_clip does on loading for another size: bicubically, with antialiasing."""
    config = small()
    theirs: Any = randomise(peer(config))
    ours = mirada.load(saved(tmp_path, theirs, config, clip_tokenizer()))
    for side in (84, 28):
        larger: Any = peer(small({"image_size": side}))
        state = theirs.state_dict()
        resize_pos_embed(state, larger)
        larger.load_state_dict(state)
        images = torch.randn(2, 3, side, side)
        torch.testing.assert_close(ours.encode_image(images), larger.eval().encode_image(images))


@torch.no_grad()
def test_weights_by_name_and_the_way_back(
    randomise: Randomise, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(open_clip_names.SIZES, "S", (2, 48, 12, 4.0, 32, 4, 2, 24))
    theirs: Any = randomise(peer(model_config("ViT-S-32")))
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "weights.safetensors")
    ours = mirada.load("open_clip:ViT-S-32", weights=tmp_path / "weights.safetensors")
    images = torch.randn(2, 3, 224, 224)
    torch.testing.assert_close(ours.encode_image(images), theirs.encode_image(images))
    torch.testing.assert_close(ours.encode_text(TEXTS), theirs.encode_text(open_clip.tokenize(TEXTS)))
    shapes = {name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()}
    back = table.write(layout.plan("ViT-S-32", None, shapes).table, ours.state_dict(), "back")
    assert back.keys() == shapes.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs.state_dict().items())
    more = tmp_path / "more.safetensors"
    safetensors.torch.save_file(theirs.state_dict() | {"visual.extra": torch.zeros(1)}, more)
    with pytest.raises(MiradaError, match=r"unknown visual\.extra"):
        mirada.load("open_clip:ViT-S-32", weights=more)


# --- names and sizes, beside open_clip's own ---------------------------------------------------------------------


def known(name: str) -> dict[str, Any] | None:
    try:
        return model_config(name)
    except MiradaError:
        return None


def test_what_names_say_is_what_open_clip_says() -> None:
    seen = 0
    for name in open_clip.list_models():
        ours, theirs = known(name), open_clip.get_model_config(name)
        if ours is None:
            continue
        seen += 1
        for key, kind in (("vision_cfg", CLIPVisionCfg), ("text_cfg", CLIPTextCfg)):
            mine, other = (asdict(kind(**config[key])) for config in (ours, theirs))
            assert mine | {"hf_tokenizer_name": ""} == other | {"hf_tokenizer_name": ""}, name
            assert bool(mine.get("hf_tokenizer_name")) == bool(other.get("hf_tokenizer_name")), name
        for option in ("embed_dim", "init_logit_bias"):
            assert ours.get(option) == theirs.get(option), name
        assert ours.get("quick_gelu", False) == theirs.get("quick_gelu", False), name
    assert seen >= 50
    assert all(known(name) for name in PRETRAINED)


def test_repositories_are_those_of_open_clip() -> None:
    for name, tags in PRETRAINED.items():
        for tag, repo in tags.items():
            there = _PRETRAINED[name][tag]
            assert there["hf_hub"] == repo + "/", (name, tag)
            assert bool(there.get("quick_gelu")) == bool(QUICK.fullmatch(repo)), (name, tag)
            pixels = preprocess_config(name, tag)
            assert pixels.get("resize_mode", "shortest") == (there.get("resize_mode") or "shortest"), (name, tag)
            assert there["interpolation"] == "bicubic"
            for key, usual in (("mean", OPENAI_DATASET_MEAN), ("std", OPENAI_DATASET_STD)):
                assert tuple(there.get(key) or usual) == tuple(pixels.get(key, usual)), (name, tag)
    assert repository("ViT-B-32") == "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    assert repository("ViT-B-32-quickgelu") == "timm/vit_base_patch32_clip_224.openai"
    assert repository("ViT-L-14/openai") == "timm/vit_large_patch14_clip_224.openai"
    assert repository("hf-hub:me/mine") == "me/mine"


def test_quickgelu_where_it_was_trained_with() -> None:
    """open_clip takes the activation from the name before the slash, and only warns when that is wrong."""
    for name, activation in (
        ("ViT-B-32/openai", "quickgelu"), ("ViT-B-32/laion400m_e32", "quickgelu"), ("ViT-L-14/laion400m_e32", "gelu"),
        ("ViT-B-16/dfn2b", "quickgelu"), ("ViT-B-32/laion2b_s34b_b79k", "gelu"), ("ViT-B-32-quickgelu", "quickgelu"),
    ):  # fmt: skip
        design = layout.plan(name, None, {}).design
        assert design.text is not None
        assert design.text.activation == activation
        assert f"activation='{activation}'" in design.architecture


class Repository(LocalFiles):
    """A folder that says it is on the hub."""

    repo = "apple/DFN2B-CLIP-ViT-B-16"


def test_quickgelu_where_a_published_config_forgets_it(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": SMALL, "preprocess_cfg": {}}))
    for files, activation in ((Repository(tmp_path), "quickgelu"), (LocalFiles(tmp_path), "gelu")):
        design = layout.plan("ViT-B-16/dfn2b", files, {}).design
        assert design.text is not None
        assert design.text.activation == activation


@pytest.mark.parametrize("name", [
    "ViT-B-16-plus-240", "ViT-L-14-336", "ViT-H-14-378-quickgelu", "ViT-g-14", "ViT-bigG-14", "ViT-L-16-SigLIP2-512",
    "ViT-SO400M-14-SigLIP-384", "ViT-SO400M-16-SigLIP-i18n-256", "ViT-gopt-16-SigLIP2-384", "ViT-bigG-14-worldwide-378",
])  # fmt: skip
def test_real_sizes_find_their_places(name: str) -> None:
    """Without memory: every tensor of the real model has a place of its shape here."""
    config = open_clip.get_model_config(name)
    with torch.device("meta"):
        theirs = peer(config).state_dict()
    shapes = {key: tuple(tensor.shape) for key, tensor in theirs.items()}
    plan = layout.plan(name, None, shapes)
    with torch.device("meta"):
        model = Model.from_design(plan.design)
    wanted = {key: tensor.shape for key, tensor in model.state_dict().items()}
    assert table.read(plan.table, shapes, lambda key: theirs[key], wanted, name).keys() == wanted.keys()


def test_timms_towers_are_as_timm_says() -> None:
    assert all(layout.TIMM_SIGLIP.fullmatch(name) for name in timm.list_models("vit_*siglip*") if "gap" not in name)
    for name in (
        "base_patch16_siglip_224", "base_patch32_siglip_256", "large_patch16_siglip_384", "large_patch16_siglip_512",
        "so400m_patch14_siglip_384", "so400m_patch16_siglip_256", "giantopt_patch16_siglip_256",
    ):  # fmt: skip
        name = f"vit_{name}"
        with torch.device("meta"):
            trunk: Any = timm.create_model(name)
        match = layout.TIMM_SIGLIP.fullmatch(name)
        assert match is not None
        block = trunk.blocks[0]
        there = (trunk.embed_dim, len(trunk.blocks), block.attn.num_heads, block.mlp.fc1.out_features)
        assert layout.TIMM_SIZES[match[1]] == there
        for part in (block, trunk.attn_pool):
            assert bool(layout.TANH.match(name)) == ("Tanh" in type(part.mlp.act).__name__), name
        assert trunk.norm.eps == trunk.attn_pool.norm.eps == 1e-6
        assert trunk.attn_pool.num_heads == there[2]


# --- what cannot be loaded ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("config", "said"), [
    (small(multimodal_cfg={"layers": 2}), "is one a CoCa|with a third tower"),
    (small(None, {"hf_model_name": "roberta-base"}), "with a text tower of transformers"),
    (small(None, {"embed_cls": True}), "class token in its texts"),
    (small({"attentional_pool": True}), "attentional pooling"),
    (small({"no_ln_pre": True}), "without a norm before its first block"),
    (small({"qk_norm": True}), "with qk_norm"),
    (small({"layers": [3, 4, 6, 3]}), "sees with a ResNet"),
    (small({"pool_type": "avg"}), "pools images by 'avg'"),
    (small({"timm_model_name": "convnext_base", "timm_pool": ""}), "timm's convnext_base"),
    (small({"image_size": [224, 336]}), "square images"),
    (small({"act_kwargs": {"approximate": "other"}}), "an activation with"),
    (small({"norm_kwargs": {"bias": False}}), "norms with"),
    (small(None, {"tokenizer_kwargs": {"strip_sep_token": True}}), "tokenizer does {'strip_sep_token': True}"),
    ({"embed_dim": 3}, "no model_cfg with vision_cfg and text_cfg"),
])  # fmt: skip
def test_configurations_that_are_refused(config: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    with pytest.raises(MiradaError, match=said):
        layout.plan("x", LocalFiles(tmp_path), {})


@pytest.mark.parametrize(("name", "said"), [
    ("coca_ViT-L-14", "is a CoCa"), ("roberta-ViT-B-32", "text tower of transformers"),
    ("xlm-roberta-base-ViT-B-32", "text tower of transformers"), ("convnext_base_w", "another image tower"),
    ("RN50", "another image tower"), ("EVA02-L-14", "another image tower"), ("ViT-L-14-CLIPA", "no norm before"),
    ("ViT-B-23", "did you mean 'ViT-B-32'"), ("ViT-B-32/laion", "has no weights 'laion'.*choose one of laion2b"),
    ("nonsense", "which are ViT-B-32, "),
])  # fmt: skip
def test_names_that_are_refused(name: str, said: str) -> None:
    with pytest.raises(MiradaError, match=said):
        repository(name)
    if "/" not in name and name != "ViT-B-23":
        with pytest.raises(MiradaError, match=said):
            model_config(name)
