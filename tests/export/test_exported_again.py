"""What other libraries made, and what was trained here, survives an export."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported import fill, grey_levels, in_timm, in_transformers, photograph, same
from peers import import_torchvision

import_torchvision()
import timm  # noqa: E402
from timm.data import create_transform, resolve_data_config  # noqa: E402

import mirada  # noqa: E402
from mirada.export.layouts import export  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:timm", "ignore::FutureWarning", "ignore:.*jit.script")


FROM_TIMM: dict[str, dict[str, Any]] = {
    "vit_base_patch16_224": {"embed_dim": 96, "num_heads": 3},
    "vit_small_patch14_reg4_dinov2": {"img_size": 56},
    "vit_giant_patch14_dinov2": {"img_size": 56, "embed_dim": 96, "num_heads": 3},
    "vit_small_patch16_dinov3": {"img_size": 64},
    "deit3_small_patch16_224": {"img_size": 64},
    "vit_base_patch16_siglip_224": {"img_size": 64, "embed_dim": 96, "num_heads": 3},
}


@pytest.mark.parametrize("name", FROM_TIMM)
def test_from_timm_and_back_tensor_by_tensor(name: str, tmp_path: Path) -> None:
    arguments = {"depth": 1, **FROM_TIMM[name]}
    theirs = fill(timm.create_model(name, **arguments))
    timm.models.save_for_hf(theirs, tmp_path / "theirs", safe_serialization=True, model_args=arguments)
    model = mirada.load(tmp_path / "theirs")
    done = export(model, "timm", tmp_path / "out")
    assert not done.notes
    peer = in_timm(tmp_path / "out")
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(peer.state_dict()[key], tensor), key
    for key in ("interpolation", "crop_pct", "mean", "std"):
        assert peer.pretrained_cfg[key] in (theirs.pretrained_cfg[key], [*np.atleast_1d(theirs.pretrained_cfg[key])])
    again = mirada.load(tmp_path / "out")
    assert (again.architecture, again.preprocess) == (model.architecture, model.preprocess)


@torch.no_grad()
def test_a_run_of_ours(trained_run: Path, tmp_path: Path) -> None:
    model = mirada.load(trained_run)
    export(model, "timm", tmp_path / "timm")
    export(model, "hf", tmp_path / "hf")
    picture = photograph(131, 90)
    images = model.prepare(picture)
    peer = in_timm(tmp_path / "timm")
    ready = create_transform(**resolve_data_config(model=peer))(picture)[None]
    same(model.logits(images), peer(images))
    grey_levels(images, ready, model.preprocess, 1.001)
    assert peer.pretrained_cfg["label_names"] == model.classes
    theirs = in_transformers(tmp_path / "hf", "AutoModelForImageClassification")
    same(model.logits(images), theirs(images).logits)
    assert list(theirs.config.id2label.values()) == model.classes
    for folder in ("timm", "hf"):
        again = mirada.load(tmp_path / folder)
        assert again.classes == model.classes
        same(model.logits(images), again.logits(images))
