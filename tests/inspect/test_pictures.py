"""Figures: each shows what it says, and leaves nothing open."""

import io

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from PIL import Image
from shapes import shape_picture

from mirada.backbones import build
from mirada.errors import MiradaError
from mirada.inspect.look import Look, look
from mirada.inspect.pictures import (
    Picture,
    attention_figure,
    attention_map,
    compare_figure,
    distance_figure,
    filters_figure,
    heads_figure,
    objects_figure,
    pca_figure,
    position_figure,
    rollout_figure,
    words_figure,
)  # fmt: skip
from mirada.model import Model, Projection
from mirada.preprocess import Preprocess
from mirada.text import TextDesign


@pytest.fixture(scope="module")
def seen() -> Look:
    torch.manual_seed(0)
    name = "vit-pico/8(image_size=40)"
    text = TextDesign(width=16, depth=1, num_heads=2, hidden=16, dim=12)
    model = Model(name, build(name), Preprocess(size=(40, 40)), projection=Projection(12), text=text)
    words = {"a $ign": torch.randn(12), "perro": torch.randn(12)}
    return look(model, shape_picture("red", 0, 40), words)


@pytest.fixture(scope="module")
def conv() -> Look:
    return look(Model("resnet-18", build("resnet-18"), Preprocess(size=(64, 64))), shape_picture("red", 0, 40))


def drawn(figure: Picture) -> Image.Image:
    assert isinstance(figure, Picture)
    picture = Image.open(io.BytesIO(figure._repr_png_()))
    assert len(set(picture.convert("L").tobytes())) > 10  # not an empty sheet
    assert pyplot.get_fignums() == []
    return picture


def test_all_draw(seen: Look, conv: Look) -> None:
    drawn(attention_figure(seen))
    drawn(attention_figure(seen, 0, 1, (4, -1)))
    drawn(rollout_figure(seen))
    drawn(pca_figure(seen))
    drawn(pca_figure(conv))
    drawn(objects_figure(seen))
    drawn(position_figure(torch.rand(3, 4, 3, 4)))
    drawn(filters_figure(torch.randn(5, 3, 4, 4)))
    figure = compare_figure([seen, conv], ["one", "two $$"])
    drawn(figure)
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 2, 0, 2, 0, 1, 1]


def test_heads_are_as_many_as_there_are(seen: Look) -> None:
    figure = heads_figure(seen, 1, (0, 0))
    drawn(figure)
    assert len(figure.axes) == 2
    shown = figure.axes[1].images[1].get_array()
    np.testing.assert_array_equal(shown, seen.layers[1].attention[1, 0, 0].float().numpy())
    assert [axes.get_title().split(":")[0] for axes in figure.axes] == ["head 0", "head 1"]


def test_distance_has_a_dot_for_each_head(seen: Look) -> None:
    figure = distance_figure([seen, seen], ["one", "two"])
    drawn(figure)
    axes = figure.axes[0]
    heights = [dots.get_offsets()[:, 1].tolist() for dots in axes.collections]
    expected = torch.cat([layer.distance for layer in seen.layers]).tolist()
    assert heights == [pytest.approx(expected)] * 2
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "two"]
    assert all(tick == round(tick) for tick in axes.get_xticks())
    assert axes.get_ylim()[1] > max(expected)


def test_words_as_they_are_written(seen: Look) -> None:
    figure = words_figure(seen)
    drawn(figure)
    assert [axes.get_title() for axes in figure.axes] == ["a $ign", "perro"]


def test_blocks_cover_the_patches_they_stand_for() -> None:
    torch.manual_seed(0)
    large = look(Model("m", build("vit-pico/4(image_size=68, depth=1)"), Preprocess(size=(68, 68))),
                 shape_picture("red", 0, 40)).layers[0]  # fmt: skip
    shown = attention_map(large, 1, (16, 16))
    assert shown.shape == (17, 17)
    assert shown[16, 3] == pytest.approx(float(large.attention[1, 8, 8, 8, 1]))


def test_what_there_is_not(seen: Look, conv: Look) -> None:
    for arguments, said in [
        ((4,), "no layer 4: there are 4, from 0 to 3"), ((0, 2), "no head 2: there are 2, from 0 to 1"),
        ((0, None, (5, 0)), "no row of patches 5: there are 5"),
        ((0, None, (0, -6)), "no column of patches -6: there are 5"),
    ]:  # fmt: skip
        with pytest.raises(MiradaError, match=said):
            attention_figure(seen, *arguments)  # type: ignore[arg-type]
    for figure in (attention_figure, heads_figure, rollout_figure, distance_figure):
        with pytest.raises(MiradaError, match="has no attention"):
            figure(conv)
    with pytest.raises(MiradaError, match="There are no words to show"):
        words_figure(conv)
