"""What is damaged, quantised, an adapter or no checkpoint at all is refused in a sentence that says what it is."""

import io
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from saved import TENSORS, save
from torch import Tensor

from mirada.checkpoints.files import LocalFiles
from mirada.checkpoints.weights import find_weights, open_weights
from mirada.errors import MiradaError


@pytest.mark.parametrize("kind", ["safetensors", "zip", "pickle", "script"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_files_cut_short(tmp_path: Path, kind: str, share: float, archive: tuple[Path, dict[str, Tensor]]) -> None:
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth")
    if kind == "safetensors":
        safetensors.torch.save_file(TENSORS, path)
    elif kind == "script":
        path.write_bytes(archive[0].read_bytes())
    else:
        save(path, TENSORS, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(MiradaError, match=r"a\.(safetensors|pth) is (cut short or damaged|empty).*fetch it again"):
        open_weights(path)


NPZ = io.BytesIO()
np.savez(NPZ, kernel=np.ones(3))
TAR = b"pickle\0".ljust(257, b"\0") + b"ustar\0" + b"\0" * 300


@pytest.mark.parametrize(("content", "said"), [
    (b"", "is empty: fetch it again"), (b"hello, this is none at all", "is no checkpoint: give a .safetensors"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "is a git-lfs pointer.*run `git lfs pull`"),
    (b"\n<!DOCTYPE html><html>Sign in", "is a web page, not the weights"), (b"<html>", "is a web page"),
    (b"\x89HDF\r\n\x1a\n" + bytes(600), "is a Keras file"), (b"GGUF" + bytes(99), "is a GGUF file"),
    (b"\x1f\x8b" + bytes(99), "is a compressed archive"), (NPZ.getvalue(), "is an archive of NumPy arrays"),
    (TAR, "is a tar archive, as PyTorch"), (bytes(50), "is no checkpoint"), (b'{"a": 1}', "is no checkpoint"),
    (b"\x80", "cut short or damaged"), (b"\x80\x02\xff\xff", "damaged|refused"),
    (safetensors.torch.save({}), "holds no tensors"),
])  # fmt: skip
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(MiradaError, match=said):
        open_weights(tmp_path / "a.pth")


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MiradaError, match=r"Cannot read the weights .*gone\.pth \(no such file or directory\)"):
        open_weights(tmp_path / "gone.pth")
    with pytest.raises(MiradaError, match="is a folder: give a file of weights in it"):
        open_weights(tmp_path)


@pytest.mark.parametrize("names", [
    ["base_model.model.q.lora_A.weight", "base_model.model.q.lora_B.weight"], ["lora_A", "lora_B"],
    ["q.weight", "q.lora_A.default.weight"], ["lora_unet_q.lora_down.weight", "lora_unet_q.lora_up.weight"],
])  # fmt: skip
def test_adapters(tmp_path: Path, names: list[str]) -> None:
    safetensors.torch.save_file({name: torch.ones(2, 2) for name in names}, tmp_path / "adapter_model.safetensors")
    said = r"is an adapter \(LoRA\) for {}, not a model: merge the two first .*merge_and_unload"
    with pytest.raises(MiradaError, match=said.format("its base model")):
        open_weights(tmp_path / "adapter_model.safetensors")
    with pytest.raises(MiradaError, match=said.format("its base model")):
        find_weights(LocalFiles(tmp_path))
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "google/vit-base-patch16-224"}')
    safetensors.torch.save_file(TENSORS, tmp_path / "model.safetensors")  # transformers would put the two together
    with pytest.raises(MiradaError, match=said.format("google/vit-base-patch16-224")):
        find_weights(LocalFiles(tmp_path))


@pytest.mark.parametrize("tensors", [
    {"q.qweight": torch.ones(2, 2, dtype=torch.int32), "q.scales": torch.ones(2)},
    {"q.weight": torch.ones(2, 2, dtype=torch.uint8)}, {"q.weight": torch.ones(2, 2, dtype=torch.int8)},
    {"q.weight": torch.ones(4), "q.weight.absmax": torch.ones(1)},
    {"q.weight": torch.ones(2, 2, dtype=torch.float8_e4m3fn)},
])  # fmt: skip
def test_quantised_checkpoints(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors")
    for path in (tmp_path / "a.safetensors", save(tmp_path / "a.pth", tensors)):
        with pytest.raises(MiradaError, match=r"is quantised \('q\..*give the model in float16, bfloat16 or float32"):
            open_weights(path)


def test_torch_quantised_tensors(tmp_path: Path) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about itself
        document = {"a": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}
        torch.save(document, tmp_path / "a.pth")
        with pytest.raises(MiradaError, match=r"is quantised \('a'\)"):
            open_weights(tmp_path / "a.pth")
