"""Checkpoints that are whole, in parts, or wrapped in what training scripts add: what is read is what was saved."""

import argparse
import json
import pathlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from saved import TENSORS, same, save
from torch import Tensor, nn

from mirada.checkpoints.files import LocalFiles
from mirada.checkpoints.weights import find_weights, open_weights
from mirada.errors import MiradaError


def test_safetensors(tmp_path: Path) -> None:
    safetensors.torch.save_file(TENSORS, tmp_path / "model.safetensors")
    weights = open_weights(tmp_path / "model.safetensors")
    assert weights.where == str(tmp_path / "model.safetensors")
    same(weights, TENSORS)
    assert weights.nested == ()
    with pytest.raises(MiradaError, match=r"has no 'model', it has nothing nested"):
        weights.inner("model")


@pytest.mark.parametrize("ending", [".pth", ".pt", ".bin", ".anything"])  # what it is, its content says
@pytest.mark.parametrize("zipped", [True, False])
def test_state_dicts(tmp_path: Path, ending: str, zipped: bool) -> None:
    path = save(tmp_path / f"weights{ending}", OrderedDict(TENSORS), _use_new_zipfile_serialization=zipped)
    same(open_weights(path), TENSORS)
    with pytest.raises(MiradaError, match=r"no safetensors file, but one of PyTorch's: rename it to \.pth"):
        open_weights(path.rename(tmp_path / "weights.safetensors"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {name: one.to(dtype) if one.is_floating_point() else one for name, one in TENSORS.items()}
    tensors["fine"] = torch.tensor([1 / 3, 1e-4, 60000.0]).to(dtype)
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors")
    same(open_weights(tmp_path / "a.safetensors"), tensors)
    same(open_weights(save(tmp_path / "a.pth", tensors)), tensors)


def test_parameters_views_and_shared_tensors(tmp_path: Path) -> None:
    base = torch.randn(4, 6)
    tensors = {
        "parameter": nn.Parameter(torch.randn(3)), "across": base.T, "part": base[1:3, ::2], "tied": base,
        "wide": torch.randn(1, 3).expand(5, 3),
    }  # fmt: skip
    same(open_weights(save(tmp_path / "a.pth", tensors)), {name: one.detach() for name, one in tensors.items()})


def test_tensors_are_the_file_itself(tmp_path: Path) -> None:
    """No copy is made of float32; writing to what was got does not write to the file."""
    safetensors.torch.save_file({"a": torch.ones(1000)}, tmp_path / "a.safetensors")
    before = (tmp_path / "a.safetensors").read_bytes()
    open_weights(tmp_path / "a.safetensors").get("a").fill_(3)
    save(tmp_path / "a.pth", {"a": torch.ones(1000)})
    tensor = open_weights(tmp_path / "a.pth").get("a")
    tensor.fill_(3)
    assert (tmp_path / "a.safetensors").read_bytes() == before
    assert torch.equal(open_weights(tmp_path / "a.pth").get("a"), torch.ones(1000))


def sharded(folder: Path, ending: str = "safetensors") -> Path:
    """TENSORS in two files and the index of them."""
    names, stem = list(TENSORS), "model" if ending == "safetensors" else "pytorch_model"
    files = {f"{stem}-{part + 1:05}-of-00002.{ending}": names[part::2] for part in range(2)}
    for file, inside in files.items():
        tensors = {name: TENSORS[name] for name in inside}
        if ending == "safetensors":
            safetensors.torch.save_file(tensors, folder / file)
        else:
            torch.save(tensors, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, inside in files.items() for name in inside}}
    path = folder / f"{stem}.{ending}.index.json"
    path.write_text(json.dumps(index))
    return path


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_checkpoints_in_parts(tmp_path: Path, ending: str) -> None:
    index = sharded(tmp_path, ending)
    same(open_weights(index), TENSORS)
    same(find_weights(LocalFiles(tmp_path)), TENSORS)
    lost = next(tmp_path.glob(f"*-00002-of-00002.{ending}"))
    lost.unlink()
    for opener in (lambda: open_weights(index), lambda: find_weights(LocalFiles(tmp_path))):
        with pytest.raises(MiradaError, match=rf"{index.name} in {tmp_path} needs {lost.name}, which is not there"):
            opener()


@pytest.mark.parametrize(("index", "said"), [
    ({"weight_map": {"a": "model-00001-of-00002.safetensors"}}, r"names tensors that none of its files holds \('a'\)"),
    ({"weight_map": {"a": "../secret.safetensors"}}, "names files outside of its folder"),
    ({"weight_map": {"a": "/etc/passwd"}}, "names files outside of its folder"),
    ({"weight_map": {}}, "no weight_map"), ({"weight_map": [1]}, "no weight_map"), ({"weight_map": {"a": 1}}, "no w"),
    ({}, "no weight_map"),
])  # fmt: skip
def test_an_index_that_is_wrong(tmp_path: Path, index: dict[str, Any], said: str) -> None:
    path = sharded(tmp_path)
    path.write_text(json.dumps(index))
    with pytest.raises(MiradaError, match=said):
        open_weights(path)


@pytest.mark.parametrize("wrap", [
    lambda t: {"state_dict": t, "epoch": 3, "arch": "vit"}, lambda t: {"model": t, "optimizer": {"state": {0: t}}},
    lambda t: {"teacher": t, "student": {"other": torch.ones(1)}, "step": torch.tensor(3)},
    lambda t: {"model": {"state_dict": t}},
    lambda t: {"state_dict": {f"module.{name}": one for name, one in t.items()}},
    lambda t: {f"module._orig_mod.{name}": one for name, one in t.items()}, lambda t: {**t, "epoch": 3, "note": "x"},
    lambda t: {"classy_state_dict": {"base_model": {"model": t, "meters": {"top_1": 3}}}, "iteration": 1},
    lambda t: {"model": t, "args": argparse.Namespace(lr=1e-3, out=pathlib.PurePosixPath("/x"), nested=["a"])},
    lambda t: {"model": t, "best": np.float64(0.81), "seen": np.int64(5), "kind": np.dtype("float32")},
])  # fmt: skip
@pytest.mark.parametrize("zipped", [True, False])
def test_what_training_scripts_put_around_a_model(
    tmp_path: Path, wrap: Callable[[dict[str, Tensor]], Any], zipped: bool
) -> None:
    same(open_weights(save(tmp_path / "a.pth", wrap(TENSORS), _use_new_zipfile_serialization=zipped)), TENSORS)


def test_dictionaries_deeper_down(tmp_path: Path) -> None:
    trunk, head = {"conv.weight": torch.ones(2)}, {"0.bias": torch.zeros(3)}
    document = {
        "classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": head}}},
        "model_ema": {"a": torch.ones(1)}, "loss": torch.tensor(0.5),
    }  # fmt: skip
    weights = open_weights(save(tmp_path / "a.torch", document))
    assert weights.where == f"{tmp_path / 'a.torch'} [classy_state_dict.base_model.model]"
    same(weights, {"trunk.conv.weight": torch.ones(2), "heads.0.bias": torch.zeros(3)})
    assert weights.nested == ("classy_state_dict", "model_ema")
    inner = weights.inner("classy_state_dict", "base_model", "model", "trunk")
    same(inner, trunk)
    assert inner.where.endswith("a.torch [classy_state_dict.base_model.model.trunk]")
    same(weights.inner("model_ema"), {"a": torch.ones(1)})
    for keys, said in (
        (("ema",), r"a\.torch has no 'ema', it has 'classy_state_dict', 'model_ema', 'loss'"),
        (("model_ema", "b"), r"a\.torch \[model_ema\] has no 'b', it has 'a'"),
        (("loss", "b"), r"a\.torch \[loss\] has no 'b', it has nothing nested"),
    ):  # fmt: skip
        with pytest.raises(MiradaError, match=said):
            weights.inner(*keys)
    with pytest.raises(MiradaError, match="holds no dictionary of a model's tensors"):
        weights.inner("loss")


@pytest.mark.parametrize(("document", "said"), [
    ({}, "its keys are"), ({"epoch": 3, "args": {}}, "its keys are 'epoch', 'args'"), (torch.ones(3), "it is a Tensor"),
    ([torch.ones(3)], "it is a list"), (None, "it is a NoneType"),
])  # fmt: skip
def test_files_without_a_model(tmp_path: Path, document: Any, said: str) -> None:
    with pytest.raises(MiradaError, match=f"holds no dictionary of a model's tensors .*{said}"):
        open_weights(save(tmp_path / "a.pth", document))


def test_tensors_without_values(tmp_path: Path) -> None:
    for tensor in (torch.empty(3, device="meta"), torch.eye(3).to_sparse()):
        with pytest.raises(MiradaError, match="holds a without its plain values"):
            open_weights(save(tmp_path / "a.pth", {"a": tensor, "b": torch.ones(2)}))
