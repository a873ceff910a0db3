"""Published names end to end: written by each library's own code, served, downloaded, loaded; and mistakes."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import safetensors.torch
import timm
import torch
import transformers
from hub_server import Hub
from open_clip.push_to_hf_hub import save_for_hf
from torch import Tensor, nn
from typer.testing import CliRunner
from vocabularies import clip_tokenizer

import mirada
from mirada.cli.main import app
from mirada.errors import MiradaError

pytestmark = pytest.mark.filterwarnings("ignore")
Randomise = Callable[..., nn.Module]
VIT = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128, "image_size": 32}


def hf_vit(randomise: Randomise, folder: Path, **config: Any) -> nn.Module:
    peer = randomise(transformers.ViTForImageClassification(transformers.ViTConfig(**VIT, **config)))
    peer.save_pretrained(folder, max_shard_size=config.pop("max_shard_size", "5GB"))  # type: ignore[operator]
    return peer


def timm_vit(randomise: Randomise, folder: Path, **options: Any) -> nn.Module:
    made = {"embed_dim": 64, "depth": 2, "num_heads": 2, "img_size": 32} | options
    peer = randomise(timm.create_model("vit_tiny_patch16_224", num_classes=3, **made))
    timm.models.save_for_hf(peer, folder, safe_serialization=True, model_args=made,
                            model_config={"label_names": ["ant", "bee", "cow"]})  # fmt: skip
    return peer


@torch.no_grad()
def same(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_name_says_whose_layout_of_two_is_meant(hub: Hub, randomise: Randomise) -> None:
    folder = hub.root / "timm" / "vit_tiny_patch16_224.mine"
    peer = timm_vit(randomise, folder)
    (folder / "open_clip_config.json").write_text('{"model_cfg": {}, "preprocess_cfg": {}}')
    (folder / "open_clip_model.safetensors").write_bytes(b"another one's")
    images = torch.randn(2, 3, 32, 32)
    same(mirada.load("timm:vit_tiny_patch16_224.mine").logits(images), peer(images))


def test_timm_from_the_hub(hub: Hub, randomise: Randomise) -> None:
    peer = timm_vit(randomise, hub.root / "timm" / "vit_tiny_patch16_224.mine")
    heard: list[tuple[str, int, int]] = []
    ours = mirada.load("timm:vit_tiny_patch16_224.mine", on_progress=lambda *said: heard.append(said))
    images = torch.randn(1, 3, 32, 32)
    same(ours.logits(images), peer(images).detach())
    assert ours.classes == ["ant", "bee", "cow"]
    before = len(hub.downloads("model.safetensors"))
    mirada.load("timm:vit_tiny_patch16_224.mine")
    assert len(hub.downloads("model.safetensors")) == before  # it is here already


def test_transformers_from_the_hub_in_shards(hub: Hub, randomise: Randomise) -> None:
    folder = hub.root / "somebody" / "vit"
    peer = randomise(transformers.ViTForImageClassification(transformers.ViTConfig(**VIT)))
    peer.save_pretrained(folder, max_shard_size="100KB")  # type: ignore[operator]
    assert (folder / "model.safetensors.index.json").is_file()
    images = torch.randn(1, 3, 32, 32)
    same(mirada.load("hf:somebody/vit").logits(images), peer(images).logits.detach())


def test_open_clip_from_the_hub(hub: Hub, randomise: Randomise) -> None:
    vision = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
    config: dict[str, Any] = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}
    peer: Any = randomise(open_clip.CLIP(**config))
    peer.visual.preprocess_cfg = {"size": 32}
    peer.visual.image_mean, peer.visual.image_std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    save_for_hf(peer, clip_tokenizer(), config, str(hub.root / "somebody" / "clip"), safe_serialization=True)
    ours = mirada.load("open_clip:hf-hub:somebody/clip")
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        same(ours.encode_image(images), peer.encode_image(images))
        same(ours.encode_text(["a dog", ""]), peer.encode_text(open_clip.tokenize(["a dog", ""])))
    assert ours.logit_scale == pytest.approx(peer.logit_scale.exp().item(), rel=1e-6)


def test_a_cut_download_goes_on_where_it_stopped(hub: Hub, randomise: Randomise) -> None:
    peer = timm_vit(randomise, hub.root / "timm" / "vit_tiny_patch16_224.mine")
    hub.cut["model.safetensors"] = 1
    images = torch.randn(1, 3, 32, 32)
    same(mirada.load("timm:vit_tiny_patch16_224.mine").logits(images), peer(images).detach())
    assert any(request.headers.get("Range") for request in hub.downloads("model.safetensors") if request.cdn)


def test_gated_and_missing_models_say_what_to_do(hub: Hub, randomise: Randomise) -> None:
    hf_vit(randomise, hub.root / "facebook" / "gated")
    hub.gated.add("facebook/gated")
    with pytest.raises(MiradaError, match=r"accept .*(hf auth login|HF_TOKEN)"):
        mirada.load("hf:facebook/gated")
    with pytest.raises(MiradaError, match="There is no model somebody/nothing"):
        mirada.load("hf:somebody/nothing")


def test_offline_says_what_is_missing(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MiradaError, match=r"facebook/dino-vits16.*"):
        mirada.load("dino:dino_vits16")
    assert hub.requests == []


# --- mistakes --------------------------------------------------------------------------------------------------------


def test_another_familys_file_is_told_by_its_names(randomise: Randomise, tmp_path: Path) -> None:
    hf_vit(randomise, tmp_path)
    with pytest.raises(MiradaError, match=r"do not fit timm:vit_tiny_patch16_224|has a tensor .*"):
        mirada.load("timm:vit_tiny_patch16_224", weights=tmp_path / "model.safetensors")


def test_extra_and_missing_tensors_are_named(randomise: Randomise, tmp_path: Path) -> None:
    hf_vit(randomise, tmp_path)
    tensors = safetensors.torch.load_file(tmp_path / "model.safetensors")
    del tensors["vit.layernorm.bias"]
    tensors["vit.extra.weight"] = torch.zeros(3)
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(MiradaError, match=r"missing vit\.layernorm\.bias; unknown vit\.extra\.weight"):
        mirada.load(tmp_path)


def test_half_precision_files_become_float32(randomise: Randomise, tmp_path: Path) -> None:
    peer = hf_vit(randomise, tmp_path)
    peer.half().save_pretrained(tmp_path)  # type: ignore[operator]
    ours = mirada.load(tmp_path)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    images = torch.randn(1, 3, 32, 32)
    same(ours.logits(images), peer.float()(images).logits.detach())


def test_a_fine_tuned_head_keeps_its_classes(randomise: Randomise, tmp_path: Path) -> None:
    names = {number: f"bird {number}" for number in range(7)}
    hf_vit(randomise, tmp_path, id2label=names)
    ours = mirada.load(tmp_path)
    assert ours.classes == list(names.values())
    again = mirada.load(ours.save(tmp_path / "ours"))
    assert again.classes == ours.classes
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(again.logits(images), ours.logits(images))


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "google/vit", "peft_type": "LORA"})
    )
    safetensors.torch.save_file({"base.lora_A.weight": torch.zeros(2, 2)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(MiradaError, match=r"adapter.*google/vit"):
        mirada.load(tmp_path)


def test_two_checkpoints_in_one_folder(randomise: Randomise, tmp_path: Path) -> None:
    peer = hf_vit(randomise, tmp_path)
    whole = tmp_path / "model.safetensors"
    torch.save(peer.state_dict(), tmp_path / "pytorch_model.bin")
    mirada.load(tmp_path)  # safetensors first
    (tmp_path / "pytorch_model.bin").unlink()
    (tmp_path / "epoch-1.safetensors").write_bytes(whole.read_bytes())
    whole.rename(tmp_path / "epoch-2.safetensors")
    with pytest.raises(MiradaError, match=r"epoch-1\.safetensors.*epoch-2\.safetensors"):
        mirada.load(tmp_path)
    assert mirada.load(tmp_path, weights=tmp_path / "epoch-2.safetensors").head is not None


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("executed",))


def test_pickled_code_is_refused_and_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {"x": torch.zeros(1)}, "evil": Evil()}, tmp_path / "model.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Evil()))
    for name in ("model.pth", "raw.pth"):
        with pytest.raises(MiradaError):
            mirada.load("timm:vit_tiny_patch16_224", weights=tmp_path / name)
    assert "executed" not in capsys.readouterr().out


def test_commands_take_published_models(randomise: Randomise, hub: Hub, folder_of_shapes: Path) -> None:
    timm_vit(randomise, hub.root / "timm" / "vit_tiny_patch16_224.mine")
    done = CliRunner().invoke(
        app, ["classify", "timm:vit_tiny_patch16_224.mine", str(folder_of_shapes / "red"), "--json"]
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert {label["label"] for label in found[0]["labels"]} == {"ant", "bee", "cow"}
    done = CliRunner().invoke(app, ["classify", "tim:vit_tiny", str(folder_of_shapes / "red")])
    assert done.exit_code == 1
    assert "did you mean timm:vit_tiny" in done.stderr
