"""The probe `objects`: its metrics beside slow versions, and the real command on drawn pictures."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from commands import document, refused, run
from PIL import Image, ImageDraw

from mirada.evaluate.objects import CentrePrior, Tally, f_scores, jaccard, judge, mean_interval
from mirada.evaluate.run import PROBES
from mirada.inspect.objects.boxes import box
from mirada.inspect.objects.patches import Seen

MODEL = "vit-pico/8(depth=1, image_size=32)"
METRICS = ("jaccard", "max_f", "corloc")


def scene(number: int, side: int = 32) -> tuple[Image.Image, Image.Image]:
    """A bright rectangle on a dark ground, and its mask."""
    random = np.random.default_rng(number)
    left, top = (8 * random.integers(0, 2, 2)).tolist()
    corners = (left, top, left + 15, top + 15)
    picture, mask = Image.new("RGB", (side, side), (20, 25, 30)), Image.new("L", (side, side))
    ImageDraw.Draw(picture).rectangle(corners, fill=(250, 220, 40))
    ImageDraw.Draw(mask).rectangle(corners, fill=1)
    return picture, mask


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    rows = [tuple(map(png, scene(number))) for number in range(6)]
    table = pa.table({"image": [row[0] for row in rows], "mask": [row[1] for row in rows]})
    pq.write_table(table, tmp_path / "scenes.parquet")
    return tmp_path / "scenes.parquet"


def test_f_is_the_slow_loop() -> None:
    random = torch.Generator().manual_seed(0)
    score, truth = torch.rand(9, 7, generator=random), torch.rand(9, 7, generator=random) > 0.6
    score[0, :3] = torch.tensor([0.0, 1.0, 0.5])
    for step, value in enumerate(f_scores(score, truth).tolist(), 1):
        found = (score * 255).floor() >= step
        right = float((found & truth).sum())
        precision = right / float(found.sum()) if found.any() else 0.0
        recall = right / float(truth.sum())
        expected = 1.3 * precision * recall / (0.3 * precision + recall) if right else 0.0
        assert value == pytest.approx(expected)


def test_a_perfect_answer_and_none() -> None:
    truth = torch.zeros(8, 8, dtype=torch.bool)
    truth[2:5, 1:7] = True
    perfect, nothing = Tally(), Tally()
    perfect.add(truth, truth.float(), box(truth), truth, [box(truth)])  # type: ignore[list-item]
    nothing.add(~truth & truth, torch.zeros(8, 8), None, truth, [box(truth)])  # type: ignore[list-item]
    assert dict(perfect.metrics()) == {"jaccard": 1.0, "max_f": pytest.approx(1.0), "corloc": 1.0}
    assert dict(nothing.metrics()) == {"jaccard": 0.0, "max_f": 0.0, "corloc": 0.0}


def test_the_threshold_is_one_for_all_images() -> None:
    """Each image has one that is perfect for it, but not the same."""
    truth = torch.zeros(4, 4, dtype=torch.bool)
    truth[:2] = True
    tally = Tally()
    for high in (0.4, 1.0):
        tally.add(truth, torch.where(truth, high, high - 0.3), box(truth), truth, [])
    alone = [float(f_scores(torch.where(truth, high, high - 0.3), truth).max()) for high in (0.4, 1.0)]
    assert alone == pytest.approx([1.0, 1.0])
    assert dict(tally.metrics())["max_f"] < 1
    assert dict(tally.metrics())["corloc"] == 0


def test_the_best_centred_box() -> None:
    truth = torch.zeros(40, 60, dtype=torch.bool)
    truth[10:30, 15:45] = True  # half of the height and width, in the middle
    centre = CentrePrior((40, 60))
    centre.add(truth)
    assert dict(centre.best().metrics()) == {"jaccard": 1.0, "max_f": pytest.approx(1.0), "corloc": 1.0}


@pytest.mark.parametrize("refined", [False, True])
def test_features_that_know_the_object_find_it(refined: bool) -> None:
    pixels = torch.stack([torch.from_numpy(np.array(scene(number)[0])).permute(2, 0, 1) for number in range(4)])
    truths = [torch.from_numpy(np.array(scene(number)[1])) > 0 for number in range(4)]
    cells = torch.stack(truths).float().unflatten(1, (4, 8)).unflatten(3, (4, 8)).mean((2, 4))  # (4, 4, 4)
    features = torch.stack([cells - 0.2, 0.8 - cells], -1)
    attention = torch.stack([1 - cells, cells / cells.sum((1, 2), keepdim=True)], 1)  # the second head knows
    methods = ("token-cut", "lost", "attention", "mask-cut")
    tallies = {method: Tally() for method in methods}
    judge(tallies, Seen(features, attention), pixels, truths, methods, refined)
    for method in ("token-cut", "lost", "mask-cut"):
        metrics = dict(tallies[method].metrics())
        assert metrics["corloc"] == 1
        assert metrics["jaccard"] == 1 or (method == "mask-cut" and metrics["jaccard"] > 0.2)  # it finds the ground too
    assert tallies["attention"].jaccard == pytest.approx([0.75] * 4, abs=0.2)  # 60% of the mass, of equal patches


def test_interval_of_a_mean() -> None:
    assert mean_interval([0.3]) == (0.0, 1.0)
    assert mean_interval([0.5, 0.5, 0.5]) == (0.5, 0.5)
    low, high = mean_interval([0.2, 0.4, 0.6, 0.8] * 25)
    assert (low, high) == pytest.approx((0.5 - 0.0440, 0.5 + 0.0440), abs=1e-3)
    assert jaccard(torch.tensor([True, True, False]), torch.tensor([False, True, True])) == pytest.approx(1 / 3)


def test_the_command(scenes: Path) -> None:
    found = document("evaluate", MODEL, scenes, "--probe", "objects", "--method", "token-cut, attention")
    assert (found["probe"], found["split"], found["n"], found["skipped"]) == ("objects", "all", 6, [])
    names = {
        f"{who}{metric}" for who in ("", "attention/", "random/", "random/attention/", "centre/") for metric in METRICS
    }
    assert set(found["metrics"]) == names
    assert all(0 <= value <= 1 for value in found["metrics"].values())
    assert found["interval"][0] <= found["metrics"]["jaccard"] <= found["interval"][1]
    again = document("evaluate", MODEL, scenes, "--probe", "objects", "--batch", "4")
    assert {again["metrics"][metric] for metric in METRICS} == {found["metrics"][metric] for metric in METRICS}


def test_what_a_person_sees(scenes: Path) -> None:
    result = run("evaluate", MODEL, scenes, "--probe", "objects", "--method", "lost,mask-cut", "--refine")
    assert result.exit_code == 0, result.stderr
    starts = [line.partition(":")[0] for line in result.stdout.splitlines()]
    ways = ["lost", "lost, random weights", "mask-cut", "mask-cut, random weights", "centre prior"]
    assert starts[:-1] == ways
    assert starts[-1].startswith("6 images; 95% interval of the first jaccard ")


def test_masks_that_cannot_be_used_are_skipped_with_the_reason(tmp_path: Path) -> None:
    picture, mask = scene(0)
    empty, wide, corner = Image.new("L", (32, 32)), Image.new("L", (64, 32), 1), Image.new("L", (64, 32))
    corner.putpixel((0, 0), 1)
    rows = [
        (picture, png(mask)), (picture, None), (picture, png(empty)), (picture, png(wide)), (picture, b"no image"),
        (picture.resize((64, 32)), png(corner)),
    ]  # fmt: skip
    table = pa.table({"image": [png(row[0]) for row in rows], "mask": [row[1] for row in rows]})
    pq.write_table(table, tmp_path / "a.parquet")
    found = document("evaluate", MODEL, tmp_path / "a.parquet", "--probe", "objects")
    assert found["n"] == 1
    reasons = [entry["reason"] for entry in found["skipped"]]
    parts = ["no mask", "nothing is marked", "64x32, shaped unlike", "not an image", "outside"]
    assert all(part in reason for part, reason in zip(parts, reasons, strict=True))
    assert "mask" in refused(1, "evaluate", MODEL, tmp_path / "a.parquet", "--probe", "objects", "--strict")


def test_transparent_pictures_are_masks_of_themselves(tmp_path: Path) -> None:
    for number in range(2):
        picture, mask = scene(number)
        picture.putalpha(mask.point(lambda value: 255 * value))
        picture.save(tmp_path / f"{number}.png")
    assert document("evaluate", MODEL, tmp_path, "--probe", "objects")["n"] == 2


def test_mistakes(folder_of_shapes: Path, scenes: Path) -> None:
    assert "objects" in PROBES
    assert "no masks" in refused(1, "evaluate", MODEL, folder_of_shapes, "--probe", "objects")
    assert "no method 'cut'" in refused(2, "evaluate", MODEL, scenes, "--probe", "objects", "--method", "cut")
    assert "for the probe objects" in refused(2, "evaluate", MODEL, folder_of_shapes, "--probe", "knn", "--refine")
    said = refused(1, "evaluate", "resnet-18", scenes, "--probe", "objects", "--method", "attention")
    assert "no attention" in said
