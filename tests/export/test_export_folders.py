"""An export replaces its folder whole, or leaves it as it was."""

import re
from pathlib import Path
from typing import Any

import pytest
from exported import VIT, made
from peers import import_torchvision

import_torchvision()

from mirada.errors import MiradaError  # noqa: E402
from mirada.export.layouts import export  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:timm", "ignore::FutureWarning", "ignore:.*jit.script")


def test_a_folder_is_replaced_whole_if_an_export_wrote_it(tmp_path: Path) -> None:
    model, out = made(f"vit-pico/8({VIT})"), tmp_path / "inside" / "out"
    export(model, "hf", out)
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    done = export(model, "timm", out)
    assert done.files == sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["config.json", "thesis.tex"])
def test_a_folder_with_other_things_is_left_alone(name: str, tmp_path: Path) -> None:
    model, out = made(f"vit-pico/8({VIT})"), tmp_path / "out"
    if name == "thesis.tex":
        export(model, "timm", out)
    out.mkdir(exist_ok=True)
    (out / name).write_text("{}")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(MiradaError, match=re.escape(f"{out} holds {name}") + ".*choose another --out"):
        export(model, "timm", out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    with pytest.raises(MiradaError, match="is not a folder"):
        export(model, "timm", out / name)


def test_the_working_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    for here in (".", tmp_path / "out"):
        with pytest.raises(MiradaError, match="is the folder you are in, which an export would replace"):
            export(made(f"vit-pico/8({VIT})"), "timm", here)
    done = export(made(f"vit-pico/8({VIT})"), "timm", "inside")
    assert done.out == tmp_path / "out" / "inside"


def test_what_was_there_stays_if_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, out = made(f"vit-pico/8({VIT})"), tmp_path / "out"
    export(model, "timm", out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(MiradaError, match="No space left"):
        export(model, "hf", out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
