"""TorchScript archives give their tensors, and are not run."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from saved import Runs, same
from torch import Tensor

from mirada.checkpoints.weights import open_weights
from mirada.errors import MiradaError


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


def test_torchscript_that_would_fill_the_memory(archive: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    bomb = rewritten(archive[0], tmp_path / "bomb.pt", lambda name, content: None if "/data/" in name else content)
    with zipfile.ZipFile(archive[0]) as source:
        storages = [name for name in source.namelist() if "/data/" in name]
    with zipfile.ZipFile(bomb, "a", zipfile.ZIP_DEFLATED) as target:
        for name in storages:
            target.writestr(name, bytes(1 << 25))
    weights = open_weights(bomb)
    with pytest.raises(MiradaError, match="bytes, and the whole file"):
        weights.get("visual.conv1.weight")


def test_torchscript_whose_modules_hold_each_other_again_and_again(
    archive: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    module = b"c__torch__\nA\n)\x81}"  # an object, and its attributes
    nested = module + b"b"
    for _ in range(30):
        nested = module + b"(X\x01\x00\x00\x00a" + nested + b"q\x01X\x01\x00\x00\x00bh\x01ub"
    tree = b"\x80\x02" + nested + b"."
    bomb = rewritten(archive[0], tmp_path / "bomb.pt",
                     lambda name, content: tree if name.endswith("/data.pkl") else content)  # fmt: skip
    with pytest.raises(MiradaError, match="hold each other too often"):
        open_weights(bomb)


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
