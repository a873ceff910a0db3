"""Checkpoints of every kind, whole, wrapped, damaged or hostile: what is read is what was saved, the rest refused."""

import argparse
import io
import json
import pathlib
import pickle
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from mirada.checkpoints.files import LocalFiles
from mirada.checkpoints.weights import Weights, find_weights, open_weights, weights_name
from mirada.errors import MiradaError

TENSORS = {
    "blocks.0.weight": torch.arange(12.0).reshape(3, 4), "blocks.0.bias": torch.tensor([1.5, -2.0, 3.25]),
    "norm.num_batches_tracked": torch.tensor(7), "index": torch.arange(6).reshape(2, 3), "empty": torch.empty(0, 3),
    "mask": torch.tensor([[True, False]]),
}  # fmt: skip


def same(weights: Weights, tensors: dict[str, Tensor]) -> None:
    """Exactly these tensors, floating point ones in float32."""
    assert weights.shapes == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        found = weights.get(name)
        assert found.dtype == (torch.float32 if tensor.is_floating_point() else tensor.dtype), name
        assert torch.equal(found, tensor.float() if tensor.is_floating_point() else tensor), name
        assert found.is_contiguous(), name
        assert not found.requires_grad


def save(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


# --- whole files -------------------------------------------------------------------------------------------------


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


# --- in parts ----------------------------------------------------------------------------------------------------


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


# --- wrapped -----------------------------------------------------------------------------------------------------


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


# --- never executed ----------------------------------------------------------------------------------------------


class Runs:
    """Pickles as the call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code(tmp_path: Path, zipped: bool) -> None:
    import os

    mark = tmp_path / "it ran"
    for function, arguments, name in (
        (os.system, (f"touch '{mark}'",), r"(posix|nt)\.system"), (eval, (f"open({str(mark)!r}, 'w')",), "eval"),
        (subprocess.run, (["touch", str(mark)],), r"(subprocess|commands)\.run"),
    ):  # fmt: skip
        document = {"model": {"a": torch.ones(2)}, "extra": Runs(function, *arguments)}
        path = save(tmp_path / "a.pth", document, _use_new_zipfile_serialization=zipped)
        with pytest.raises(
            MiradaError, match=rf"a\.pth is refused: reading it would run code \({name}\); ask .*safetens"
        ):
            open_weights(path)
        assert not mark.exists()
    (tmp_path / "b.bin").write_bytes(pickle.dumps(Runs(os.system, f"touch '{mark}'")))  # a bare one
    with pytest.raises(MiradaError, match=r"b\.bin is refused: .* reading that may run code"):
        open_weights(tmp_path / "b.bin")
    assert not mark.exists()


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    said = (
        r"is refused: it holds objects that are no tensors \(torch\.nn\.modules\.linear\.Linear\).*`model\.state_dict"
    )
    with pytest.raises(MiradaError, match=said):
        open_weights(save(tmp_path / "a.pth", nn.Linear(2, 2)))


def test_the_harmless_stays_inert(tmp_path: Path) -> None:
    """A Namespace cannot bring anything with it."""
    import os

    mark = tmp_path / "it ran"
    path = save(
        tmp_path / "a.pth", {"model": TENSORS, "args": argparse.Namespace(x=Runs(os.system, f"touch '{mark}'"))}
    )
    with pytest.raises(MiradaError, match="would run code"):
        open_weights(path)
    assert not mark.exists()


# --- TorchScript -------------------------------------------------------------------------------------------------


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 2, bias=False).half()
        self.register_buffer("counted", torch.arange(5))
        self.attribute = torch.randn(2)  # neither parameter nor buffer: no part of the state dict
        self.sizes, self.listed = [3, 4], [torch.zeros(1)]

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1(x) + self.attribute[0]


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        base = torch.randn(4, 6)
        self.visual = Inner()
        self.blocks = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
        self.twin = nn.Linear(2, 3)
        self.twin.weight = self.blocks[0].weight
        self.across = nn.Parameter(base.T)
        self.register_buffer("part", base[1:3, ::2])
        self.logit_scale = nn.Parameter(torch.tensor(2.5, dtype=torch.bfloat16))
        self.register_buffer("empty", torch.empty(0, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.visual(x)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """A saved TorchScript program, and its state dict; not to be changed."""
    import warnings

    path = tmp_path_factory.mktemp("script") / "ViT-X.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is old; files of it are not going away
        script = torch.jit.script(Outer())
        torch.jit.save(script, path)
    return path, dict(script.state_dict())


def rewritten(path: Path, out: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """The archive with each of its files changed, or left out."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            if (content := change(name, source.read(name))) is not None:
                target.writestr(name, content)
    return out


def test_torchscript_gives_its_state_dict(archive: tuple[Path, dict[str, Tensor]]) -> None:
    path, tensors = archive
    assert "visual.conv1.weight" in tensors
    same(open_weights(path), {name: tensor.detach() for name, tensor in tensors.items()})


def test_torchscript_of_an_old_torch_does_not_name_its_buffers(
    archive: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    def old(name: str, content: bytes) -> bytes:
        lines = content.splitlines(keepends=True)
        return b"".join(line for line in lines if b"__buffers__" not in line) if name.endswith(".py") else content

    path, tensors = archive
    shapes = open_weights(rewritten(path, tmp_path / "old.pt", old)).shapes
    assert shapes.keys() == tensors.keys() | {"visual.attribute"}


def test_torchscript_is_not_run(archive: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    import os

    attacks = {
        r"would run code \((posix|nt)\.system\)": pickle.dumps(Runs(os.system, f"touch '{mark}'"), 2),
        r"would run code \((__builtin__\.)?eval\)": pickle.dumps(Runs(eval, f"open({str(mark)!r}, 'w')"), 2),
        r"no tensors \(torch\.jit\._pickle\.other\)": b"\x80\x02ctorch.jit._pickle\nother\n.",
        r"no tensors \(torch\.nn\.modules\.linear\.Linear\)": b"\x80\x02ctorch.nn.modules.linear\nLinear\n.",
        r"more than tensors": b"\x80\x02X\x01\x00\x00\x00aQ.",  # a reference to no storage
    }
    for number, (said, attack) in enumerate(attacks.items()):
        swapped = rewritten(
            archive[0], tmp_path / f"{number}.pt",
            lambda name, content, attack=attack: attack if name.endswith("/data.pkl") else content,
        )  # fmt: skip
        with pytest.raises(MiradaError, match=rf"{number}\.pt is refused.*{said}"):
            open_weights(swapped)
        assert not mark.exists()


def test_torchscript_tensors_stay_within_their_storages(
    archive: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    path = rewritten(archive[0], tmp_path / "a.pt", lambda name, data: data[:-8] if "/data/" in name else data)
    weights = open_weights(path)
    for name in ("across", "twin.weight"):
        with pytest.raises(MiradaError, match=f"Cannot read {name} of .*reaches beyond its storage.*is the file whole"):
            weights.get(name)
    gone = rewritten(archive[0], tmp_path / "b.pt", lambda name, data: None if "/data/" in name else data)
    with pytest.raises(MiradaError, match=r"Cannot read across of .*b\.pt"):
        open_weights(gone).get("across")


def test_torchscript_of_another_byte_order(archive: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    path = rewritten(archive[0], tmp_path / "a.pt", lambda name, data: b"big" if name.endswith("byteorder") else data)
    with pytest.raises(MiradaError, match="big-endian"):
        open_weights(path)


# --- damaged, or something else ----------------------------------------------------------------------------------


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


# --- which file --------------------------------------------------------------------------------------------------


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


# --- time and memory ---------------------------------------------------------------------------------------------


MEASURE = """
import re, sys
from pathlib import Path
from mirada.checkpoints.weights import open_weights

for file in sys.argv[1:]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    peaks = []
    for step in range(2):
        peaks.append(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024)
        weights = step or open_weights(file)
        step or sum(weights.get(name).sum() for name in weights.shapes)
    print(peaks[1] - peaks[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_reading_takes_the_memory_of_the_file(tmp_path: Path) -> None:
    tensors = {f"blocks.{number}.weight": torch.ones(1000, 1000) for number in range(16)}  # 64 MB
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors")
    files = [tmp_path / "a.safetensors", save(tmp_path / "a.pth", tensors)]
    run = subprocess.run([sys.executable, "-c", MEASURE, *files], capture_output=True, text=True, check=True)
    for file, memory in zip(files, run.stdout.split(), strict=True):
        assert 0.8 < int(memory) / file.stat().st_size < 1.3, file


def test_opening_costs_little_beside_safetensors(tmp_path: Path) -> None:
    """The names and shapes of a ViT-B's many tensors, and each of them, in not much more time than its own loader's."""
    tensors = {f"blocks.{block}.part{part}.weight": torch.ones(64, 64) for block in range(12) for part in range(16)}
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors")

    def ours() -> None:
        weights = open_weights(tmp_path / "a.safetensors")
        for name in weights.shapes:
            weights.get(name)

    def best(function: Callable[[], Any]) -> float:
        times = []
        for _ in range(15):
            began = time.perf_counter()
            function()
            times.append(time.perf_counter() - began)
        return min(times)

    theirs = best(lambda: safetensors.torch.load_file(tmp_path / "a.safetensors"))
    assert best(ours) < 1.5 * theirs + 0.005  # neither reads: the bytes come when they are used
