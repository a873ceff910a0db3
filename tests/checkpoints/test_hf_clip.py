"""transformers' image-and-text models, saved by transformers: both towers give what they give there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from conftest import Parity
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    Siglip2Config,
    Siglip2Model,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipModel,
    SiglipTokenizer,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from vocabularies import byte_fallback_pairs, clip_tokenizer, unigrams

import mirada
from mirada.checkpoints import table
from mirada.checkpoints.hf_clip import BY_MODEL_TYPE
from mirada.errors import MiradaError
from mirada.model import Model

TEXTS = ["A photo of a dog.", "un niño con un perro, ¡qué bien!", "🐶", "", "many words " * 60]
SMALL = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
IMAGE = {"image_size": 56, "patch_size": 14}
Randomise = Callable[..., nn.Module]


@pytest.fixture(scope="module")
def siglip_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return SiglipTokenizer(str(unigrams(TEXTS * 20, tmp_path_factory.mktemp("siglip"), 90)))


def siglip2_tokenizer() -> Any:
    vocabulary, merges = byte_fallback_pairs(TEXTS, 400)
    return Siglip2Tokenizer(
        vocab=vocabulary, merges=merges, padding_side="right", add_bos_token=False, add_eos_token=True
    )


def saved(folder: Path, model: nn.Module, *others: Any) -> Path:
    for each in (model, *others):
        each.save_pretrained(folder)  # type: ignore[operator]
    return folder


def towers(ours: Model, theirs: Any, ids: Tensor, images: Tensor, patches: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    return {
        "encode_image": (ours.encode_image(images), theirs.get_image_features(images).pooler_output),
        "patches": (ours.backbone(images).patches.flatten(1, 2), patches),
        "encode_text": (ours.encode_text(TEXTS), theirs.get_text_features(ids).pooler_output),
    }


@pytest.mark.parametrize(
    ("variant", "vision", "text", "projection"),
    [
        # openai/clip-vit-base-patch32, whose config file has the old end token
        ("clip-vit-base-patch32", {"num_hidden_layers": 2}, {"num_hidden_layers": 2, "eos_token_id": 2}, 512),
        ("small, gelu", SMALL | IMAGE | {"hidden_act": "gelu"}, SMALL | {"hidden_act": "gelu"}, 24),
    ],
)
@torch.no_grad()
def test_clip(
    variant: str, vision: Any, text: Any, projection: int, randomise: Randomise, parity: Parity, tmp_path: Path
) -> None:
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=projection)
    theirs: Any = randomise(CLIPModel(config))
    tokenizer = clip_tokenizer()
    ours = mirada.load(saved(tmp_path, theirs, tokenizer))
    inputs = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    side = config.vision_config.image_size
    images = torch.randn(2, 3, side, side)
    patches = theirs.vision_model.post_layernorm(theirs.vision_model(images).last_hidden_state[:, 1:])
    parity("transformers", f"CLIPModel, {variant}", towers(ours, theirs, inputs.input_ids, images, patches))
    assert ours.logit_scale == pytest.approx(theirs.logit_scale.exp().item(), rel=1e-6)
    assert ours.logit_bias == 0.0
    scores = theirs(**inputs, pixel_values=images).logits_per_image
    mine = ours.logit_scale * ours.encode_image(images, normalize=True) @ ours.encode_text(TEXTS, normalize=True).T
    torch.testing.assert_close(mine, scores, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_where_a_text_ends(randomise: Randomise, tmp_path: Path) -> None:
    """Added tokens have larger ids than the end token: only the old rule takes them for it."""
    for end, pooling in ((49407, "end"), (2, "largest")):
        config = CLIPConfig(
            text_config=SMALL | {"vocab_size": 49410, "eos_token_id": end}, vision_config=SMALL | IMAGE,
            projection_dim=24,
        )  # fmt: skip
        theirs: Any = randomise(CLIPModel(config))
        tokenizer = clip_tokenizer()
        tokenizer.add_tokens(["wombat", "quokka"])
        ours = mirada.load(saved(tmp_path / pooling, theirs, tokenizer))
        assert ours.text is not None
        assert ours.text.design.pooling == pooling
        texts = ["a wombat and a dog", "a dog and a quokka", "a dog"]
        ids = tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
        assert ids.max() == 49409
        torch.testing.assert_close(ours.encode_text(texts), theirs.get_text_features(ids).pooler_output)


@pytest.mark.parametrize("kind", [CLIPVisionModelWithProjection, CLIPVisionModel, SiglipVisionModel])
@torch.no_grad()
def test_image_towers_alone(kind: Any, randomise: Randomise, parity: Parity, tmp_path: Path) -> None:
    config = (SiglipVisionConfig if kind is SiglipVisionModel else CLIPVisionConfig)(**SMALL, **IMAGE)
    theirs: Any = randomise(kind(config))
    ours = mirada.load(saved(tmp_path, theirs))
    images = torch.randn(2, 3, 56, 56)
    output = theirs(images)
    feature = output.image_embeds if kind is CLIPVisionModelWithProjection else output.pooler_output
    parity("transformers", kind.__name__, {"encode_image": (ours.encode_image(images), feature)})
    with pytest.raises(MiradaError, match="no text tower"):
        ours.encode_text(["a"])
    # transformers 4 wrote the tower's name before every tensor's
    named = {f"vision_model.{name}": tensor for name, tensor in theirs.state_dict().items()}
    if kind is not CLIPVisionModelWithProjection:
        safetensors.torch.save_file(named, tmp_path / "model.safetensors", {"format": "pt"})
        torch.testing.assert_close(mirada.load(tmp_path).encode_image(images), ours.encode_image(images))


@pytest.mark.parametrize(
    ("variant", "vision", "text"),
    [
        ("siglip-base-patch16-224", {"num_hidden_layers": 2}, {"num_hidden_layers": 2}),
        # 384 pixels are 27 patches of 14, and 6 pixels that nobody sees
        ("small, 60 by 14", SMALL | {"image_size": 60, "patch_size": 14}, SMALL | {"projection_size": 32}),
    ],
)
@torch.no_grad()
def test_siglip(
    variant: str, vision: Any, text: Any, siglip_tokenizer: Any, randomise: Randomise, parity: Parity, tmp_path: Path
) -> None:
    text = text | {"vocab_size": len(siglip_tokenizer), "bos_token_id": None, "eos_token_id": 1}
    config = SiglipConfig(vision_config=vision, text_config=text)
    theirs: Any = randomise(SiglipModel(config))
    ours = mirada.load(saved(tmp_path, theirs, siglip_tokenizer))
    side = config.vision_config.image_size
    images = torch.randn(2, 3, side, side)
    ids = siglip_tokenizer(TEXTS, padding="max_length", truncation=True, return_tensors="pt").input_ids
    patches = theirs.vision_model(images).last_hidden_state
    parity("transformers", f"SiglipModel, {variant}", towers(ours, theirs, ids, images, patches))
    assert ours.logit_scale == pytest.approx(theirs.logit_scale.exp().item(), rel=1e-6)
    assert ours.logit_bias == pytest.approx(theirs.logit_bias.item(), rel=1e-6)


@torch.no_grad()
def test_siglip_2_of_one_size(randomise: Randomise, parity: Parity, tmp_path: Path) -> None:
    tokenizer = siglip2_tokenizer()
    text = SMALL | {"vocab_size": len(tokenizer), "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    theirs: Any = randomise(SiglipModel(SiglipConfig(vision_config=SMALL | IMAGE, text_config=text)))
    ours = mirada.load(saved(tmp_path, theirs, tokenizer))
    images = torch.randn(2, 3, 56, 56)
    ids = tokenizer(TEXTS, padding="max_length", max_length=64, truncation=True, return_tensors="pt").input_ids
    patches = theirs.vision_model(images).last_hidden_state
    parity("transformers", "SiglipModel (SigLIP 2), small", towers(ours, theirs, ids, images, patches))


@torch.no_grad()
def test_siglip_2_of_any_aspect_ratio(randomise: Randomise, parity: Parity, tmp_path: Path) -> None:
    tokenizer = siglip2_tokenizer()
    text = SMALL | {"vocab_size": len(tokenizer), "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    vision = SMALL | {"num_patches": 16, "patch_size": 14}
    theirs: Any = randomise(Siglip2Model(Siglip2Config(vision_config=vision, text_config=text)))
    ours = mirada.load(saved(tmp_path, theirs, tokenizer))
    ids = tokenizer(TEXTS, padding="max_length", max_length=64, truncation=True, return_tensors="pt").input_ids
    for height, width in ((4, 4), (2, 7), (6, 2), (3, 3)):
        images = torch.randn(2, 3, 14 * height, 14 * width)
        flat = images.unflatten(3, (width, 14)).unflatten(2, (height, 14)).permute(0, 2, 4, 3, 5, 1).flatten(3)
        inputs = {
            "pixel_values": flat.flatten(1, 2),
            "pixel_attention_mask": torch.ones(2, height * width, dtype=torch.int64),
            "spatial_shapes": torch.tensor([[height, width]] * 2),
        }  # fmt: skip
        output = theirs.vision_model(inputs["pixel_values"], inputs["pixel_attention_mask"], inputs["spatial_shapes"])
        parity("transformers", f"Siglip2Model, NaFlex, {height} by {width} patches", {
            "encode_image": (ours.encode_image(images), output.pooler_output),
            "patches": (ours.backbone(images).patches.flatten(1, 2), output.last_hidden_state),
            "encode_text": (ours.encode_text(TEXTS), theirs.get_text_features(ids).pooler_output),
        })  # fmt: skip
    assert ours.preprocess.size == (56, 56)
    assert "keeps the aspect ratio" in ours.provenance["preprocess"]


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@torch.no_grad()
def test_other_image_sizes(kind: str, randomise: Randomise, tmp_path: Path) -> None:
    """Positions are resampled bicubically, without antialiasing."""
    theirs: Any
    if kind == "clip":
        theirs = randomise(CLIPModel(CLIPConfig(vision_config=SMALL | IMAGE, text_config=SMALL, projection_dim=24)))
    else:
        theirs = randomise(SiglipModel(SiglipConfig(vision_config=SMALL | IMAGE, text_config=SMALL)))
    ours = mirada.load(saved(tmp_path, theirs))
    for height, width in ((84, 28), (28, 28)):
        images = torch.randn(2, 3, height, width)
        expected = theirs.get_image_features(images, interpolate_pos_encoding=True).pooler_output
        torch.testing.assert_close(ours.encode_image(images), expected, rtol=1e-4, atol=2e-5)


SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
HUGE = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
BIG_G = {"hidden_size": 1664, "intermediate_size": 8192, "num_hidden_layers": 48, "num_attention_heads": 16}
OPT = {"hidden_size": 1536, "intermediate_size": 6144, "num_hidden_layers": 40, "num_attention_heads": 16}
SIZES = {
    "openai/clip-vit-base-patch16": CLIPConfig(vision_config={"patch_size": 16}),
    "openai/clip-vit-large-patch14-336": CLIPConfig(
        vision_config=LARGE | {"patch_size": 14, "image_size": 336},
        text_config={"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}, projection_dim=768,
    ),
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": CLIPConfig(
        vision_config=HUGE | {"patch_size": 14, "hidden_act": "gelu"},
        text_config=LARGE | {"hidden_act": "gelu"}, projection_dim=1024,
    ),
    "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k": CLIPConfig(
        vision_config=BIG_G | {"patch_size": 14, "hidden_act": "gelu"},
        text_config=HUGE | {"num_attention_heads": 20, "hidden_act": "gelu"}, projection_dim=1280,
    ),
    "google/siglip-base-patch16-224": SiglipConfig(),
    "google/siglip-so400m-patch14-384": SiglipConfig(
        vision_config=SO400M | {"patch_size": 14, "image_size": 384}, text_config=SO400M
    ),
    "google/siglip2-giant-opt-patch16-384": SiglipConfig(
        vision_config=OPT | {"image_size": 384}, text_config=SO400M | {"vocab_size": 256000, "projection_size": 1536}
    ),
    "google/siglip2-so400m-patch16-naflex": Siglip2Config(
        vision_config=SO400M | {"num_patches": 256}, text_config=SO400M | {"vocab_size": 256000}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_real_sizes_find_their_places(name: str) -> None:
    """Without memory: every tensor of the real model has a place of its shape here, and the way back leads to it."""
    config = SIZES[name]
    with torch.device("meta"):
        theirs = getattr(transformers, {"clip": "CLIP", "siglip": "Siglip", "siglip2": "Siglip2"}[config.model_type]
                         + "Model")(config).state_dict()  # fmt: skip
    shapes = {key: tuple(tensor.shape) for key, tensor in theirs.items()}
    plan = BY_MODEL_TYPE[config.model_type](config.to_dict(), None, shapes)
    with torch.device("meta"):
        model = Model.from_design(plan.design)
    wanted = {key: tensor.shape for key, tensor in model.state_dict().items()}
    found = table.read(plan.table, shapes, lambda key: theirs[key], wanted, name)
    assert found.keys() == wanted.keys()
    back = table.write(plan.table, found, name)
    assert {key: tuple(tensor.shape) for key, tensor in back.items()} == shapes


@torch.no_grad()
def test_the_way_back(randomise: Randomise, tmp_path: Path) -> None:
    vision = SMALL | {"num_patches": 16, "patch_size": 14}
    for number, theirs in enumerate([
        CLIPModel(CLIPConfig(vision_config=SMALL | IMAGE, text_config=SMALL, projection_dim=24)),
        Siglip2Model(Siglip2Config(vision_config=vision, text_config=SMALL)),
    ]):  # fmt: skip
        randomise(theirs)
        ours = mirada.load(saved(tmp_path / str(number), theirs))
        config, original = theirs.config.to_dict(), theirs.state_dict()
        shapes = {key: tuple(tensor.shape) for key, tensor in original.items()}
        plan = BY_MODEL_TYPE[config["model_type"]](config, None, shapes)
        back = table.write(plan.table, ours.state_dict(), "back")
        assert back.keys() == original.keys()
        assert all(torch.equal(back[key], original[key]) for key in back)


def test_a_folder_without_a_vocabulary(tmp_path: Path) -> None:
    """CLIP's ships, so it reads all the same; SigLIP's does not."""
    clip = CLIPModel(CLIPConfig(vision_config=SMALL | IMAGE, text_config=SMALL, projection_dim=24))
    ours = mirada.load(saved(tmp_path / "clip", clip))
    ids = clip_tokenizer()(TEXTS, padding="max_length", truncation=True, return_tensors="pt").input_ids
    assert ours.tokenizer is not None
    assert torch.equal(ours.tokenizer(TEXTS), ids)
    assert "assumed" in ours.provenance["preprocess"]
    siglip = SiglipModel(SiglipConfig(vision_config=SMALL | IMAGE, text_config=SMALL))
    ours = mirada.load(saved(tmp_path / "siglip", siglip))
    assert ours.encode_image(torch.randn(1, 3, 56, 56)).shape == (1, 48)
    with pytest.raises(MiradaError, match=r"vocabulary is not there.*has the tokenizer\.json \(or spiece\.model\)"):
        ours.encode_text(["a"])


def test_configs_from_before_2023(randomise: Randomise, tmp_path: Path) -> None:
    """They say the towers' sizes twice, and sometimes only in the second place."""
    theirs: Any = randomise(CLIPModel(CLIPConfig(vision_config=SMALL | IMAGE, text_config=SMALL, projection_dim=24)))
    saved(tmp_path, theirs)
    config = json.loads((tmp_path / "config.json").read_text())
    images = torch.randn(1, 3, 56, 56)
    expected = mirada.load(tmp_path).encode_image(images)
    for name in ("vision", "text"):
        config[f"{name}_config_dict"] = config.pop(f"{name}_config")
        config[f"{name}_config"] = {"hidden_size": 99}
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.testing.assert_close(mirada.load(tmp_path).encode_image(images), expected)


def test_what_the_second_place_leaves_out_is_a_default(randomise: Randomise, tmp_path: Path) -> None:
    config = CLIPConfig(vision_config=SMALL | IMAGE, text_config=SMALL | {"hidden_act": "gelu"}, projection_dim=24)
    saved(tmp_path, randomise(CLIPModel(config)))
    values = json.loads((tmp_path / "config.json").read_text())
    values["text_config_dict"] = {key: value for key, value in values["text_config"].items() if key in SMALL}
    (tmp_path / "config.json").write_text(json.dumps(values))
    ours, theirs = mirada.load(tmp_path), CLIPModel.from_pretrained(tmp_path).eval()
    assert ours.tokenizer is not None
    ids = ours.tokenizer(TEXTS)
    with torch.no_grad():
        expected = theirs.get_text_features(ids)
    expected = getattr(expected, "pooler_output", expected)
    torch.testing.assert_close(ours.encode_text(TEXTS), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("model_type", "change", "said"), [
    ("clip", {"architectures": ["CLIPForImageClassification"]}, "CLIPForImageClassification is not a model of image"),
    ("clip", {"vision_config": {"hidden_act": "relu"}}, "activation 'relu' is not one of quick_gelu"),
    ("clip", {"vision_config": {"image_size": [224, 336]}}, "image_size is .224, 336.: Mirada knows squares only"),
    ("siglip", {"vision_config": {"num_channels": 1}}, "sees 1 channels"),
    ("siglip", {"vision_config": {"vision_use_head": False}}, "no pooling .vision_use_head is false"),
    ("siglip2", {"vision_config": {"num_patches": 200}}, "positions for 200 patches, which are no square"),
])  # fmt: skip
def test_what_cannot_be_loaded(model_type: str, change: dict[str, Any], said: str) -> None:
    with pytest.raises(MiradaError, match=said):
        BY_MODEL_TYPE[model_type]({"model_type": model_type} | change, None, {})
