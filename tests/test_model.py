"""A model as Python sees it: what goes in, what comes out, and that what is saved comes back whole or not at all."""

import json
import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from shapes import shape_picture
from torch import Tensor, nn

import mirada
from mirada.backbones import build
from mirada.data.decode import decode
from mirada.errors import MiradaError
from mirada.inspect.look import look
from mirada.model import AT_ONCE, Model
from mirada.preprocess import Preprocess
from mirada.text import TextDesign

TINY = "vit-pico/8(depth=1, image_size=16)"


def tiny(classes: list[str] | None = None, **options: Any) -> Model:
    """A model whose weights are all random, norms and biases too."""
    head = None if classes is None else nn.Linear(64, len(classes))
    model = Model(TINY, build(TINY), Preprocess(size=(16, 16)), head=head, classes=classes, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    return model.eval()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    shape_picture("red", 0).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return tiny(["ant", "bee"]).save(tmp_path / "model")


def changed(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The folder with its config changed."""
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def with_tensors(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> Path:
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    change(tensors)
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    return folder


# --- what goes in and comes out ----------------------------------------------------------------------------------


def test_every_kind_of_image_gives_the_same_feature(tmp_path: Path) -> None:
    model = tiny()
    pictures = [shape_picture("red", 0, 40), shape_picture("blue", 1, 30)]
    paths = [tmp_path / "red.png", tmp_path / "blue.png"]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    expected = model.encode_image(torch.stack([model.preprocess(picture) for picture in pictures]))
    assert (expected.shape, expected.dtype) == ((2, 64), torch.float32)
    for x in (pictures, paths, [str(path) for path in paths], [paths[0], pictures[1]], tuple(pictures)):
        assert torch.equal(model.encode_image(x), expected)
    for one in (pictures[0], paths[0], str(paths[0])):
        torch.testing.assert_close(model.encode_image(one), expected[:1])
    grey = model.encode_image(Image.fromarray(np.full((20, 20), 100, np.uint8)))
    assert grey.shape == (1, 64)


def test_an_opened_picture_is_seen_as_its_file_is(tmp_path: Path) -> None:
    model, lying, clear = tiny(), tmp_path / "lying.jpg", tmp_path / "clear.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.arange(40 * 20 * 3, dtype=np.uint32).astype(np.uint8).reshape(20, 40, 3)).save(lying, exif=exif)
    see_through = shape_picture("red", 0, 40).convert("RGBA")
    see_through.putalpha(Image.fromarray((np.arange(1600) % 256).astype(np.uint8).reshape(40, 40)))
    see_through.save(clear)
    for path in (lying, clear):
        expected = model.encode_image(path)
        with Image.open(path) as image:
            assert torch.equal(model.encode_image(image), expected)
    upright = decode(lying.read_bytes())
    assert upright.size == (20, 40)
    assert torch.equal(model.encode_image(upright), model.encode_image(lying))  # it is not turned again


def test_many_images_are_encoded_in_parts() -> None:
    model = tiny(["a", "b"])
    pictures = [shape_picture("red", number, 16) for number in range(AT_ONCE + 3)]
    sizes: list[int] = []
    model.backbone.stem.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    together = model.encode_image(pictures)
    assert sizes == [AT_ONCE, 3]
    torch.testing.assert_close(together[-1:], model.encode_image(pictures[-1]))
    assert model.logits(pictures).shape == (AT_ONCE + 3, 2)


def test_normalised_features_have_length_one() -> None:
    model, images = tiny(), torch.randn(3, 3, 16, 16)
    plain, unit = model.encode_image(images), model.encode_image(images, normalize=True)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(unit * plain.norm(dim=1, keepdim=True), plain)


def test_looking_changes_neither_mode_nor_gradients() -> None:
    model = tiny(["a", "b"]).train()
    feature = model.encode_image(torch.randn(2, 3, 16, 16))
    model.logits(torch.randn(2, 3, 16, 16))
    assert model.training
    assert not feature.requires_grad
    nn.Linear(64, 2)(feature).sum().backward()  # features may be what something else is trained on
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("whole", [True, False])
def test_looking_leaves_each_part_in_its_mode(whole: bool) -> None:
    model = tiny(["a", "b"]).train(whole)
    model.backbone.train(not whole)
    before = [module.training for module in model.modules()]
    model.encode_image(torch.randn(2, 3, 16, 16))
    model.logits(torch.randn(2, 3, 16, 16))
    assert [module.training for module in model.modules()] == before


def test_half_a_model_reads_files_too(picture: Path) -> None:
    model = tiny(["a", "b"])
    whole = model.encode_image(picture)
    model.bfloat16()
    torch.testing.assert_close(model.encode_image(picture), whole, rtol=0.1, atol=0.1)
    assert look(model, Image.open(picture)).patches.isfinite().all()


def test_any_iterable_of_pictures_comes_in_parts(picture: Path) -> None:
    model = tiny()
    sizes: list[int] = []
    model.backbone.stem.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    paths = np.array([str(picture)] * (AT_ONCE + 1))
    for images in (paths, iter(paths.tolist()), tuple(paths.tolist())):
        assert len(model.encode_image(images)) == AT_ONCE + 1
    assert sizes == [AT_ONCE, 1] * 3


@pytest.mark.parametrize("images", [np.zeros((16, 16, 3), np.uint8), [torch.zeros(3, 16, 16)]])
def test_pixels_that_are_no_picture(images: Any) -> None:
    with pytest.raises(MiradaError, match=r"Images are paths or PIL images.*use Image\.fromarray"):
        tiny().encode_image(images)


def test_a_model_that_could_not_be_loaded_is_not_saved(tmp_path: Path) -> None:
    model = tiny()
    model.head = nn.Linear(64, 2)
    with pytest.raises(MiradaError, match=r"no longer of the design that is saved with it, see .*head"):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_compiled_backbone_is_saved_as_a_plain_one(tmp_path: Path) -> None:
    model = tiny()
    model.backbone = torch.compile(model.backbone, backend="eager")
    images = torch.randn(2, 3, 16, 16)
    loaded = mirada.load(model.save(tmp_path / "model"))
    torch.testing.assert_close(loaded.encode_image(images), model.encode_image(images))


def test_logits_are_the_head_of_the_feature_and_may_be_mirrored() -> None:
    images = torch.randn(2, 3, 16, 16)
    model = tiny(["a", "b", "c"])
    assert model.head is not None
    plain = model.logits(images)
    torch.testing.assert_close(plain, model.head(model.encode_image(images)))
    model.mirror = True
    torch.testing.assert_close(model.logits(images), (plain + model.head(model.encode_image(images.flip(-1)))) / 2)


def test_what_a_model_does_not_have() -> None:
    model = tiny()
    with pytest.raises(MiradaError, match="no classification head: train one with `mirada train`"):
        model.logits(torch.randn(1, 3, 16, 16))
    with pytest.raises(MiradaError, match="no text tower, it sees images only: load one that has"):
        model.encode_text(["a dog"])
    with pytest.raises(MiradaError, match="one class name for each of its outputs"):
        Model(TINY, build(TINY), Preprocess(size=(16, 16)), head=nn.Linear(64, 2), classes=["one"])


@pytest.mark.parametrize("images", [
    torch.zeros(3, 16, 16), torch.zeros(1, 16, 16, 3), torch.zeros(1, 3, 16, 16, dtype=torch.uint8),
])  # fmt: skip
def test_tensors_that_are_not_ready(images: Tensor) -> None:
    with pytest.raises(MiradaError, match=r"is \(B, 3, height, width\), floating point and preprocessed.*give paths"):
        tiny().encode_image(images)


def test_images_that_are_not(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("words")
    for x, said in (
        (tmp_path / "notes.txt", "notes.txt'.*not an image"), (tmp_path / "gone.png", "gone.png'.*no such file"),
        ([], "no images"), (torch.zeros(1, 3, 20, 20), "use an image size of"),
    ):  # fmt: skip
        with pytest.raises(MiradaError, match=said):
            tiny().encode_image(x)


# --- saving and loading ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [None, ["ant", "b\n目", ""]])
def test_what_is_saved_comes_back_bit_for_bit(tmp_path: Path, classes: list[str] | None) -> None:
    model = tiny(classes, mirror=True, provenance={"data": "fotos"})
    assert model.save(tmp_path / "a" / "model") == tmp_path / "a" / "model"
    assert sorted(os.listdir(tmp_path / "a" / "model")) == ["config.json", "model.safetensors"]
    for ref in (tmp_path / "a" / "model", str(tmp_path / "a")):  # a run's folder holds its model
        again = mirada.load(ref)
        assert not again.training
        assert (again.architecture, again.preprocess) == (model.architecture, model.preprocess)
        assert (again.classes, again.mirror, again.provenance) == (classes, True, {"data": "fotos"})
        assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
        images = torch.randn(2, 3, 16, 16)
        torch.testing.assert_close(again.encode_image(images), model.encode_image(images))
    model.save(tmp_path / "a" / "model")  # over itself


def test_size_names_give_random_weights_or_those_of_a_file(tmp_path: Path) -> None:
    model = tiny()
    model.save(tmp_path)
    filled = mirada.load(TINY, weights=tmp_path / "model.safetensors")
    torch.testing.assert_close(
        filled.encode_image(torch.ones(1, 3, 16, 16)), model.encode_image(torch.ones(1, 3, 16, 16))
    )
    assert filled.preprocess.size == (16, 16)
    assert mirada.load("resnet-18").preprocess.size == (224, 224)
    with pytest.raises(MiradaError, match="has weights of its own: leave `weights` out"):
        mirada.load(tmp_path, weights=tmp_path / "model.safetensors")
    with pytest.raises(MiradaError, match="do not fit 'vit-pico/8"):
        mirada.load("vit-pico/8(depth=2, image_size=16)", weights=tmp_path / "model.safetensors")


def test_tensors_that_do_not_fit(saved: Path) -> None:
    def damage(tensors: dict[str, Tensor]) -> None:
        del tensors["head.bias"]
        tensors["tail.bias"] = torch.zeros(2)
        tensors["head.weight"] = torch.zeros(3, 64)

    with pytest.raises(MiradaError, match=r"missing head.bias; unknown tail.bias; of another shape head.weight "):
        mirada.load(with_tensors(saved, damage))


def test_files_cut_short_or_not_there(saved: Path) -> None:
    file = saved / "model.safetensors"
    whole = file.read_bytes()
    for length in (0, 7, 100, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(MiradaError, match=r"model\.safetensors (is|does|cannot|has)|Cannot read"):
            mirada.load(saved)
    file.unlink()
    with pytest.raises(MiradaError, match="Cannot read the weights"):
        mirada.load(saved)
    (saved / "config.json").unlink()
    with pytest.raises(MiradaError, match=r"has no config\.json"):
        mirada.load(saved)


def test_a_pickle_is_never_opened(saved: Path) -> None:
    torch.save({"head.bias": torch.zeros(2)}, saved / "model.safetensors")
    with pytest.raises(MiradaError, match="is no safetensors file, but one of PyTorch's"):
        mirada.load(saved)


@pytest.mark.parametrize(("text", "said"), [
    ("", "is not a Mirada model's"), ("[1]", "is not a Mirada model's"), ("{}", "is not a Mirada model's"),
    ('{"format": "one"}', "is not a Mirada model's"), ("\xff", "is not a Mirada model's"),
    ('{"format": 3}', "written by a newer Mirada .* upgrade Mirada"), (100_000 * "[", "is not a Mirada model's"),
])  # fmt: skip
def test_configs_that_are_no_model(saved: Path, text: str, said: str) -> None:
    (saved / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(MiradaError, match=said):
        mirada.load(saved)


@pytest.mark.parametrize(("key", "value", "said"), [
    ("architecture", "vit", "is not a Mirada model's"), ("architecture", {"name": "vit-x/8"}, "There is no model"),
    ("architecture", {"name": None}, "There is no model"), ("preprocess", {"size": [16, 16]}, "missing 'mean'"),
    ("preprocess", None, "is not a Mirada model's"), ("classes", 3, "is not a Mirada model's"),
    ("classes", [1, 2], "is not a Mirada model's"), ("classes", ["one"], "of another shape"),
    ("classes", None, "unknown head.bias"), ("architecture", {"name": "vit-pico/8(num_heads=0)"}, "fit together"),
    ("text", TextDesign().to_dict() | {"activation": "relu"}, "is not a Mirada model's"),
])  # fmt: skip
def test_configs_that_were_edited(saved: Path, key: str, value: object, said: str) -> None:
    changed(saved, lambda config: config.update({key: value}))
    with pytest.raises(MiradaError, match=said):
        mirada.load(saved)


def test_a_full_disk_leaves_the_model_that_was_there(saved: Path) -> None:
    before = mirada.load(saved).state_dict()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for most, said in ((20_000, "Cannot save .* what was saved before is intact"), (100, "Cannot save the model")):
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, limit[1]))
            with pytest.raises(MiradaError, match=said):
                tiny(["cat", "dog"]).save(saved)
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)
    assert sorted(os.listdir(saved)) == ["config.json", "model.safetensors"]
    again = mirada.load(saved)
    assert again.classes == ["ant", "bee"]
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in before.items())


def test_names_that_are_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: Path) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved, tmp_path / "runs" / "photos")
    for ref, said in [
        ("vit-tiny/8", "did you mean 'vit-ti/8'"), ("runs/photso", "did you mean 'runs/photos'"),
        ("modle", "did you mean 'model'"), ("model/config.json", "is a file: give the folder"),
        ("a/b/c", "check the path"), ("hub:google/vit", "check the path"), ("time:x", "did you mean timm:x"),
        ("vit-s", ""),
    ]:  # fmt: skip
        if said:
            with pytest.raises(MiradaError, match=said):
                mirada.load(ref)
    with pytest.raises(MiradaError, match="There is no device 'gpu'"):
        mirada.load(saved, device="gpu")
