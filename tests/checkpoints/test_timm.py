"""timm's vision transformers: random weights give the same features, patches and logits here and there."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import mirada
from mirada.checkpoints import table
from mirada.checkpoints.files import LocalFiles
from mirada.checkpoints.timm import plan, repository, usual_pixels
from mirada.errors import MiradaError
from mirada.model import Model

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:timm", "ignore::FutureWarning:timm")
Randomise = Callable[..., nn.Module]

FULL = [
    "vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224", "vit_base_patch32_clip_224",
    "vit_base_patch32_clip_quickgelu_224", "deit_tiny_patch16_224", "deit3_small_patch16_224",
    "vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3",
    "vit_small_patch16_dinov3_qkvb", "vit_base_patch16_siglip_224", "vit_base_patch16_siglip_gap_224",
]  # fmt: skip
CUT = [  # two blocks of full width: every tensor of theirs is one of many alike
    "vit_large_patch16_224", "vit_base_patch14_dinov2", "vit_giant_patch14_dinov2", "vit_giant_patch14_reg4_dinov2",
    "vit_small_plus_patch16_dinov3", "vit_huge_plus_patch16_dinov3_qkvb", "vit_so400m_patch14_siglip_384",
    "vit_giantopt_patch16_siglip_256", "deit3_base_patch16_384", "vit_large_patch14_clip_336",
    "vit_gigantic_patch14_clip_224", "vit_medium_patch16_clip_224",
]  # fmt: skip
TAGGED = ["vit_small_patch16_224.dino", "vit_base_patch16_224.mae", "vit_base_patch16_siglip_224.v2_webli"]
SHAPED = [  # every tensor of the network at its real depth, without memory for them
    "vit_large_patch16_384", "vit_huge_patch14_224", "vit_giant_patch14_224", "vit_gigantic_patch14_224",
    "vit_large_patch14_reg4_dinov2", "vit_giant_patch14_dinov2", "vit_large_patch16_dinov3", "vit_7b_patch16_dinov3",
    "vit_huge_plus_patch16_dinov3", "deit3_huge_patch14_224", "deit3_medium_patch16_224", "deit3_large_patch16_384",
    "vit_so400m_patch14_siglip_384", "vit_so400m_patch16_siglip_512", "vit_large_patch16_siglip_384",
    "vit_giantopt_patch16_siglip_384", "vit_huge_patch14_clip_378", "vit_giant_patch14_clip_224",
    "vit_base_patch32_siglip_256", "vit_base_patch8_224", "vit_xsmall_patch16_clip_224", "vit_betwixt_patch32_clip_224",
]  # fmt: skip


def made(name: str, randomise: Randomise, **options: Any) -> nn.Module:
    return randomise(timm.create_model(name, **options))


def saved(peer: nn.Module, path: Path) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in peer.state_dict().items()}, path)
    return path


def loaded(peer: nn.Module, folder: Path, **made_with: Any) -> Model:
    """The model as timm's own `save_for_hf` writes it, with what it was made with."""
    timm.models.save_for_hf(peer, folder, safe_serialization=True, model_args=made_with)
    return mirada.load(folder)


@torch.no_grad()
def outputs(ours: Model, peer: nn.Module, images: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """What both say of these images; theirs by timm's own verbs."""
    tokens = peer.forward_features(images)  # type: ignore[operator]
    theirs = {
        "encode_image": peer.forward_head(tokens, pre_logits=True),  # type: ignore[operator]
        "patches": tokens[:, peer.num_prefix_tokens :],  # type: ignore[misc]
    }
    found = {
        "encode_image": ours.encode_image(images),
        "patches": ours.backbone(images).patches.flatten(1, 2),
    }
    if ours.head is not None:
        theirs["logits"], found["logits"] = peer(images), ours.logits(images)
    return {name: (found[name], theirs[name]) for name in found}


@pytest.mark.parametrize("name", [*FULL, *CUT, *TAGGED])
def test_parity(name: str, randomise: Randomise, parity: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"depth": 2} if name in CUT else {}
    if "dinov2" in name:
        options["img_size"] = 98  # the table of 518 pixels makes for slow tests; see below for the real size
    peer = made(name, randomise, **options)
    if options:
        ours = loaded(peer, tmp_path, **options)
    else:
        ours = mirada.load(f"timm:{name}", weights=saved(peer, tmp_path / "model.safetensors"))
    side = options.get("img_size", peer.default_cfg["input_size"][-1])  # type: ignore[index]
    parity("timm", name, outputs(ours, peer, torch.randn(1, 3, side, side)))
    assert (ours.classes is None) == (getattr(peer, "num_classes") == 0)  # noqa: B009


@pytest.mark.parametrize("name", SHAPED)
def test_every_tensor_of_the_real_size_has_its_place(name: str) -> None:
    with torch.device("meta"):
        peer = timm.create_model(name)
        shapes = {key: tuple(tensor.shape) for key, tensor in peer.state_dict().items()}
        made = plan(name, None, shapes)
        ours = Model.from_design(made.design)
        wanted = {key: tensor.shape for key, tensor in ours.state_dict().items()}
        found = table.read(made.table, shapes, lambda key: torch.empty(shapes[key]), wanted, name)
    assert found.keys() == wanted.keys()


@pytest.mark.parametrize("name", [
    "vit_tiny_patch16_224", "vit_small_patch16_dinov3", "vit_base_patch16_siglip_224", "deit3_small_patch16_224",
])  # fmt: skip
def test_what_is_written_back_is_what_was_read(name: str, randomise: Randomise, tmp_path: Path) -> None:
    peer = made(name, randomise, depth=1)
    shapes = {key: tuple(tensor.shape) for key, tensor in peer.state_dict().items()}
    ours = loaded(peer, tmp_path, depth=1)
    written = table.write(plan(name, None, shapes).table, ours.state_dict(), name)
    assert written.keys() == peer.state_dict().keys()
    assert all(torch.equal(written[key], tensor) for key, tensor in peer.state_dict().items())


@pytest.mark.parametrize(
    ("name", "size"), [("vit_tiny_patch16_224", (96, 160)), ("vit_small_patch16_dinov3", (96, 160))]
)
def test_positions_for_another_size_are_timms(
    name: str, size: tuple[int, int], randomise: Randomise, parity: Any, tmp_path: Path
) -> None:
    peer = made(name, randomise, depth=2, dynamic_img_size=True)
    ours = loaded(peer, tmp_path, depth=2)
    images = torch.randn(1, 3, *size)
    with torch.no_grad():
        theirs = peer.forward_head(peer.forward_features(images), pre_logits=True)  # type: ignore[operator]
    parity("timm", f"{name} at {size[0]}x{size[1]}", {"encode_image": (ours.encode_image(images), theirs)})


def test_what_save_for_hf_writes_loads_with_its_pixels_and_classes(randomise: Randomise, tmp_path: Path) -> None:
    peer = made("vit_tiny_patch16_224.augreg_in21k_ft_in1k", randomise, num_classes=3, img_size=96)
    labels = {"num_classes": 3, "label_names": ["ant", "bee", "cow"]}
    timm.models.save_for_hf(peer, tmp_path, safe_serialization=True, model_config=labels, model_args={"img_size": 96})
    ours = mirada.load(tmp_path)
    images = torch.randn(1, 3, 96, 96)
    assert torch.allclose(ours.logits(images), peer(images), atol=1e-5)
    assert ours.classes == ["ant", "bee", "cow"]
    assert ours.preprocess.mean == (0.5, 0.5, 0.5)
    assert ours.provenance["source"] == str(tmp_path)


def test_another_depth_than_the_name_says_is_refused(randomise: Randomise, tmp_path: Path) -> None:
    peer = made("vit_tiny_patch16_224", randomise, depth=2)
    with pytest.raises(MiradaError, match=r"blocks\.2\."):
        mirada.load("timm:vit_tiny_patch16_224", weights=saved(peer, tmp_path / "model.safetensors"))


@pytest.mark.parametrize("name", [*FULL, *TAGGED])
def test_pixels_without_a_config_are_those_of_timms_default(name: str) -> None:
    with torch.device("meta"):
        peer = timm.create_model(name)
        shapes = {key: tuple(tensor.shape) for key, tensor in peer.state_dict().items()}
    found = plan(name, None, shapes).design.preprocess
    cfg = peer.pretrained_cfg
    assert (found.mean, found.std) == (tuple(cfg["mean"]), tuple(cfg["std"]))
    assert found.size == tuple(cfg["input_size"][1:])


def known_to_us() -> list[str]:
    """All weights of timm's, with their tags, of architectures whose names we read."""
    found = []
    for name in timm.list_pretrained(["vit_*", "deit*"]):
        try:
            usual_pixels(*name.split("."))
        except MiradaError:
            continue
        found.append(name)
    return found


def test_without_a_config_every_tag_has_the_pixels_and_the_repository_that_timm_says() -> None:
    names = known_to_us()
    assert len(names) > 200
    for name in names:
        ours, theirs = usual_pixels(*name.split(".")), timm.get_pretrained_cfg(name).to_dict()
        for key in ("mean", "std", "input_size", "crop_pct"):
            assert ours[key] == pytest.approx(theirs[key]), (name, key)
        assert ours.get("crop_mode", "center") == (theirs.get("crop_mode") or "center"), name
        hub = theirs["hf_hub_id"]
        assert repository(name) == (f"{hub}{name}" if hub.endswith("/") else hub), name


@pytest.mark.parametrize("name", sorted(timm.list_models("vit_*siglip*")))
def test_the_gelu_is_timms(name: str) -> None:
    with torch.device("meta"):
        peer = timm.create_model(name, depth=1)
        shapes = {key: tuple(tensor.shape) for key, tensor in peer.state_dict().items()}
    try:
        architecture = plan(name, None, shapes).design.architecture
    except MiradaError:
        assert "gap" in name or "fc_norm.weight" in shapes  # another pooling
        return
    approximate = "tanh" in type(peer.blocks[0].mlp.act).__name__.lower()
    assert ("gelu_tanh" in architecture) == approximate


def test_quickgelu_is_kept_where_the_repository_does_not_say_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architecture": "vit_base_patch32_clip_224"}')
    with torch.device("meta"):
        peer = timm.create_model("vit_base_patch32_clip_quickgelu_224", num_classes=0)
        shapes = {key: tuple(tensor.shape) for key, tensor in peer.state_dict().items()}
    for asked, quick in (("vit_base_patch32_clip_quickgelu_224.openai", True), ("vit_base_patch32_clip_224.x", False)):
        assert ("quickgelu" in plan(asked, LocalFiles(tmp_path), shapes).design.architecture) == quick


@pytest.mark.parametrize(("name", "said"), [
    ("vit_base_patch16_rpn_224", "not among the networks"), ("swin_tiny_patch4_window7_224", "not among the networks"),
    ("vit_bass_patch16_224", "nearest of them is called vit_base_patch16_224"),
    ("vit_base_patch16_gap_224", "not among the networks"),
])  # fmt: skip
def test_other_networks_are_refused(name: str, said: str, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(MiradaError, match=said):
        mirada.load(f"timm:{name}", weights=tmp_path / "model.safetensors")


def test_a_name_without_a_tag_says_how_to_get_weights() -> None:
    with pytest.raises(MiradaError, match=re.escape("add the tag")):
        mirada.load("timm:vit_base_patch16_224")
