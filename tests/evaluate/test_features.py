"""Features are the model's own, computed once for what they depend on, and never at the price of a wrong one."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import mirada.evaluate.features as module
from mirada.data.dataset import Files
from mirada.data.decode import UndecodableImage
from mirada.data.sources import Source, open_data
from mirada.errors import MiradaError
from mirada.evaluate.features import Encoded, extract
from mirada.loading import untrained
from mirada.model import Model

NAME = "vit-pico/8(depth=1, image_size=24)"


@pytest.fixture
def model() -> Model:
    return untrained(NAME).eval()


@pytest.fixture
def folder(new_shapes: Callable[[int], Path]) -> Path:
    return new_shapes(4)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images went through a model, call by call."""
    calls: list[int] = []
    encode = Model.encode_image

    def spy(self, x, normalize=False):
        calls.append(len(x))
        return encode(self, x, normalize)

    monkeypatch.setattr(Model, "encode_image", spy)
    return calls


def source(folder: Path) -> Source:
    return open_data(folder).splits["all"]


def test_they_are_the_models(model: Model, folder: Path) -> None:
    data = source(folder)
    found = extract(model, data, batch=5, exact_pixels=True)
    assert found.places.tolist() == list(range(12))
    expected = model.encode_image([data.path(index) for index in range(12)])
    torch.testing.assert_close(found.features, expected)


def test_they_are_computed_once(model: Model, folder: Path, computed: list[int], tmp_path: Path) -> None:
    first = extract(model, source(folder), batch=5)
    assert computed == [5, 5, 2]
    shutil.move(folder, tmp_path / "elsewhere")
    again = extract(model, source(tmp_path / "elsewhere"), batch=7)
    assert computed == [5, 5, 2]
    assert again.features.equal(first.features)
    assert again.places.tolist() == first.places.tolist()


def change_a_weight(model: Model, _: Path) -> None:
    with torch.no_grad():
        next(model.backbone.parameters()).view(-1)[0] += 1e-3


def change_the_pixels(model: Model, _: Path) -> None:
    model.preprocess = type(model.preprocess)((24, 24), resize="squash")


def change_an_image(_: Model, folder: Path) -> None:
    shutil.copy(folder / "red" / "000.png", folder / "red" / "001.png")


def add_an_image(_: Model, folder: Path) -> None:
    shutil.copy(folder / "red" / "000.png", folder / "red" / "004.png")


@pytest.mark.parametrize("change", [change_a_weight, change_the_pixels, change_an_image, add_an_image])
def test_they_are_computed_anew(
    model: Model, folder: Path, computed: list[int], change: Callable[[Model, Path], None]
) -> None:
    extract(model, source(folder))
    change(model, folder)
    extract(model, source(folder))
    assert len(computed) == 2


def test_they_are_computed_anew_when_more_formats_can_be_read(
    model: Model, folder: Path, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "readable_formats", lambda: ["PNG"])
    extract(model, source(folder))
    monkeypatch.setattr(module, "readable_formats", lambda: ["PNG", "HEIF"])
    extract(model, source(folder))
    assert len(computed) == 2


def test_exact_pixels_are_others(model: Model, folder: Path, computed: list[int]) -> None:
    for exact in (False, True):
        extract(model, source(folder), exact_pixels=exact)
    assert len(computed) == 2


def test_what_cannot_be_read_is_named_again(model: Model, folder: Path, computed: list[int]) -> None:
    (folder / "green" / "002.png").write_text("no image")
    first, again = (extract(model, source(folder)) for _ in range(2))
    assert computed == [11]
    assert first.skipped == again.skipped
    ((index, reason),) = again.skipped
    assert index == 6
    assert reason
    assert again.places.tolist() == [*range(6), *range(7, 12)]
    with pytest.raises(MiradaError, match=r"Cannot read .*002\.png"):
        extract(model, source(folder), strict=True)


def test_what_may_be_read_again_is_not_remembered(
    model: Model, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    read, asked = Files.read, []

    def at_times(self: Files, index: int) -> bytes:
        asked.append(index)
        if index == 3 and asked.count(3) == 2:  # once for the name of what is known, then for the features
            raise UndecodableImage("cannot be read: stale file handle")
        return read(self, index)

    monkeypatch.setattr(Files, "read", at_times)
    assert [index for index, _ in extract(model, source(folder)).skipped] == [3]
    assert extract(model, source(folder)).skipped == []


def test_what_could_never_be_read_is_remembered(
    model: Model, folder: Path, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Files.read

    def never(self: Files, index: int) -> bytes:
        if index == 3:
            raise UndecodableImage("cannot be read: permission denied")
        return read(self, index)

    monkeypatch.setattr(Files, "read", never)
    for _ in range(2):
        assert [index for index, _ in extract(model, source(folder)).skipped] == [3]
    assert computed == [11]


def test_a_damaged_file_is_written_anew(model: Model, folder: Path, computed: list[int], cache: Path) -> None:
    first = extract(model, source(folder))
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    assert extract(model, source(folder)).features.equal(first.features)
    assert extract(model, source(folder)).features.equal(first.features)
    assert len(computed) == 2


@pytest.mark.parametrize("setting", ["", "blocked/inside"])
def test_without_a_cache(
    model: Model, folder: Path, computed: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    (tmp_path / "blocked").write_text("a file")
    monkeypatch.setenv("MIRADA_CACHE", setting and str(tmp_path / setting))
    before = sorted(tmp_path.rglob("*"))
    for _ in range(2):
        extract(model, source(folder))
    assert len(computed) == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_the_longest_unused_goes(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = Encoded(torch.zeros(100, 10), np.arange(100), [])  # 4,800 bytes
    monkeypatch.setattr(module, "MOST", 22_000)
    for number in range(4):
        module._write(cache / f"{number}.safetensors", encoded)
        os.utime(cache / f"{number}.safetensors", (number, number))
    assert module._read(cache / "0.safetensors") is not None  # used last
    module._write(cache / "4.safetensors", encoded)
    assert sorted(file.stem for file in cache.iterdir()) == ["0", "2", "3", "4"]
    module._write(cache / "5.safetensors", Encoded(torch.zeros(1000, 10), np.arange(1000), []))  # more than its share
    assert sorted(file.stem for file in cache.iterdir()) == ["0", "2", "3", "4"]


def test_features_that_are_no_numbers(model: Model, folder: Path, cache: Path) -> None:
    with torch.no_grad():
        next(model.backbone.parameters()).fill_(float("nan"))
    with pytest.raises(MiradaError, match=r"features of '.*000\.png' are not finite numbers"):
        extract(model, source(folder))
    assert not cache.exists()
