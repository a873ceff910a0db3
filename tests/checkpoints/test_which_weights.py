"""Which file of a folder is the checkpoint."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from saved import TENSORS, same, save

from mirada.checkpoints.files import LocalFiles
from mirada.checkpoints.weights import find_weights, weights_name
from mirada.errors import MiradaError


@pytest.mark.parametrize(("names", "first", "found"), [
    (["model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "tf_model.h5"], (), "model.safetensors"),
    (["pytorch_model.bin", "open_clip_pytorch_model.bin"], (), "pytorch_model.bin"),
    (["pytorch_model.bin", "open_clip_pytorch_model.bin"], ["x", "open_clip_pytorch_model.bin"],
     "open_clip_pytorch_model.bin"),
    (["model.safetensors", "other.safetensors", "model.fp16.safetensors"], (), "model.safetensors"),
    (["pytorch_model.bin", "model.safetensors.index.json", "model-00001-of-00001.safetensors"], (),
     "model.safetensors.index.json"),
    (["vit.safetensors", "a.pth", "b.pth"], (), "vit.safetensors"), (["weights.pth", "README.md"], (), "weights.pth"),
    (["training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "w.ckpt"], (), "w.ckpt"),
    (["onnx/model.safetensors", "seer.torch"], (), "seer.torch"),
    (["vit-00001-of-00002.safetensors", "vit-00002-of-00002.safetensors", "vit.safetensors.index.json"], (),
     "vit.safetensors.index.json"),
])  # fmt: skip
def test_the_one_checkpoint_of_a_folder(names: list[str], first: list[str], found: str) -> None:
    assert weights_name(sorted(names), "here", first) == found


@pytest.mark.parametrize(("names", "said"), [
    (["b.safetensors", "a.safetensors"], r"here holds 2 checkpoints \('a.safetensors', 'b.safetensors'\): say which"),
    (["a.pth", "b.bin"], "2 checkpoints .*weights=FILE"), ([], r"no PyTorch or safetensors checkpoint \(.* none\)"),
    (["tf_model.h5", "config.json"], "only 'tf_model.h5', for other programs"), (["README.md"], "are 'README.md'"),
])  # fmt: skip
def test_folders_without_one(names: list[str], said: str) -> None:
    with pytest.raises(MiradaError, match=said):
        weights_name(sorted(names), "here")


def test_a_folder_with_the_same_weights_twice(tmp_path: Path) -> None:
    safetensors.torch.save_file(TENSORS, tmp_path / "model.safetensors")
    save(tmp_path / "pytorch_model.bin", {"old": torch.ones(1)})
    same(find_weights(LocalFiles(tmp_path)), TENSORS)
