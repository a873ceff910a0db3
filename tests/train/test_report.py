import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mirada.train.report import MAX_POINTS, Mistake, chart, class_table, confused_pairs, series, smooth, thin, ticks
from mirada.train.report import write_report as write

VOID = {"meta", "link", "br", "img", "input", "col"}
SECTIONS = ("learning", "confusion", "classes", "mistakes", "skipped", "repeat")
HOSTILE = [
    "<script>alert(1)</script>", "</script><img src=x onerror=alert(1)>", '" onmouseover="alert(1)', "' x='", "a\nb\tc",
    "\u202eright to left\u202d", "שלום", "{{ 7 * 7 }}{% raw %}", "&lt;&amp;", "x" * 300, "]]><!--", "",
]  # fmt: skip


class Page(HTMLParser):
    """The page as a browser sees it; complains about tags that do not pair."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in <{tag}>"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.texts))

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0], parse_constant=refuse)

    def ids(self) -> set[str]:
        return {attributes["id"] or "" for _, attributes in self.tags if "id" in attributes}

    def count(self, tag: str, css: str = "") -> int:
        return sum(name == tag and css in (values.get("class") or "").split(" ") for name, values in self.tags)


def refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is not JSON")


def curves(rows: int = 100, seed: int = 0) -> list[dict[str, Any]]:
    generator = np.random.default_rng(seed)
    metrics: list[dict[str, Any]] = []
    for step in range(rows):
        loss = float(math.exp(-step / rows) + 0.1 * generator.standard_normal())
        row = {"step": 10 * step, "progress": step / rows, "seconds": 0.5 * step, "loss": loss, "supervised/loss": loss}
        row |= {
            "supervised/accuracy": step / rows,
            "learning_rate": 1e-3 * (1 - step / rows),
            "images_per_second": 99.0,
        }
        metrics.append(row | ({"val/accuracy": 0.9 * step / rows, "val/loss": loss} if step % 20 == 19 else {}))
    return metrics


def mistake(**changes: Any) -> Mistake:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    attention = np.linspace(0, 1, 16).reshape(4, 4)
    return Mistake(Image.fromarray(pixels), attention, "cat", "dog", 0.98, "test/cat/1.png")._replace(**changes)


def report(folder: Path, **changes: Any) -> tuple[str, Page]:
    arguments: dict[str, Any] = {
        "title": "Cats and dogs", "command": "mirada train pets --model vit-ti/4",
        "summary": {"accuracy": 0.9, "low": 0.83, "high": 0.94, "split": "val", "count": 1500, "model": "vit-ti/4",
                    "images": 120000, "seconds": 754.0, "machine": "2 cores"},
        "metrics": curves(), "classes": ["cat", "dog"], "confusion": np.array([[45, 5], [4, 46]]),
        "mistakes": [mistake()], "skipped": [{"path": "pets/cat/9.png", "reason": "truncated"}],
        "config_text": "seed: 0\n",
    } | changes  # fmt: skip
    path = write(folder / "report.html", **arguments)
    assert path == folder / "report.html"
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_the_page_says_how_it_went(tmp_path: Path) -> None:
    _, page = report(tmp_path)
    assert set(SECTIONS) <= page.ids()
    for expected in (
        "90.0% of the 1,500 validation images", "95% interval 83.0% to 94.0%",
        "Naming the most frequent class would reach 50.0%", "120,000",
        "13 min", "2 cores", "cat called dog", "5 of 50", "said dog 98%", "is cat", "pets/cat/9.png", "truncated",
        "mirada train pets --model vit-ti/4", "seed: 0",
    ):  # fmt: skip
        assert expected in page.text, expected
    assert ("html", {"lang": "en"}) in page.tags


def test_it_asks_the_network_for_nothing(tmp_path: Path) -> None:
    text, page = report(tmp_path)
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "poster", "action", "data"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttpRequest|import\(", text)
    assert "default-src 'none'" in text


def test_it_can_be_read_without_seeing_it(tmp_path: Path) -> None:
    _, page = report(tmp_path)
    for tag, attributes in page.tags:
        if tag == "img":
            assert attributes["alt"] is not None
        if attributes.get("role") == "img":
            assert attributes["aria-label"]
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in page.ids()
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)


def test_a_run_without_labels_shows_its_loss(tmp_path: Path) -> None:
    metrics = [{"step": step, "loss": 8.0 - step, "dino/entropy": 1.0} for step in range(6)]
    summary = {"model": "vit-ti/4"}
    nothing: dict[str, Any] = {"classes": [], "confusion": None, "mistakes": [], "skipped": []}
    _, page = report(tmp_path, metrics=metrics, summary=summary, **nothing)
    assert page.ids() & set(SECTIONS) == {"learning", "repeat"}
    assert "3 is the loss at the end; it began at 8." in page.text
    assert "Guessing" not in page.text
    assert "dino/entropy" in page.text


def test_a_run_without_anything_is_still_a_page(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {"classes": [], "confusion": None, "mistakes": [], "skipped": []}
    _, page = report(tmp_path, metrics=[], summary={}, **nothing)
    assert page.ids() & set(SECTIONS) == {"repeat"}


def test_without_attention_there_is_no_overlay(tmp_path: Path) -> None:
    _, page = report(tmp_path, mistakes=[mistake(attention=None)])
    assert "overlay" not in page.ids()
    assert page.count("img", "attention") == 0
    _, page = report(tmp_path, mistakes=[mistake(), mistake(attention=np.full((3, 5), np.nan))])
    assert "overlay" in page.ids()
    assert page.count("img", "attention") == 2


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_pictures_of_any_mode_and_shape(tmp_path: Path, mode: str) -> None:
    report(tmp_path, mistakes=[mistake(image=Image.new(mode, size)) for size in [(1, 1), (1, 500), (500, 2)]])


@pytest.mark.parametrize("number", [2, 30, 31, 100])
def test_any_number_of_classes(tmp_path: Path, number: int) -> None:
    confusion = np.random.default_rng(0).integers(0, 9, (number, number))
    confusion[1] = confusion[:, 1] = 0  # a class without images, which is never predicted
    _, page = report(tmp_path, classes=[f"class {index}" for index in range(number)], confusion=confusion, mistakes=[])
    cells = sum(page.count("td", kind) for kind in ("wrong", "hit", "empty"))
    assert cells == (number**2 + 1 if number <= 30 else 0)  # one for the corner
    assert page.count("img", "area") == (number > 30)
    assert sorted(map(tuple, page.data["confusion"])) == [
        (row, column, confusion[row, column]) for row, column in np.argwhere(confusion > 0)
    ]
    assert "nan" not in page.text


def test_no_better_than_guessing_is_said(tmp_path: Path) -> None:
    summary = {"accuracy": 0.52, "low": 0.42, "high": 0.61}
    assert "no better than guessing" in report(tmp_path, summary=summary)[1].text
    assert "no better than guessing" not in report(tmp_path, summary=summary | {"chance": 0.1})[1].text


def test_hostile_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    size = len(HOSTILE)
    wrong = [mistake(truth=name, prediction=name, path=f"{name}\udcff") for name in HOSTILE]
    text, page = report(
        tmp_path, title="".join(HOSTILE), command="\n".join(HOSTILE), config_text="\n".join(HOSTILE), classes=HOSTILE,
        summary=dict(zip(HOSTILE, reversed(HOSTILE), strict=True)), mistakes=wrong, confusion=np.ones((size, size)),
        skipped=[{"path": f"{name}\udcff", "reason": name} for name in HOSTILE],
        metrics=[{"step": 1, "loss": 1.0} | dict.fromkeys(HOSTILE, 2.0)],
    )  # fmt: skip
    _, plain = report(tmp_path)
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags}
    assert page.count("script") == 2
    assert not [attributes for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.data["classes"] == HOSTILE
    for name in HOSTILE:
        assert re.sub(r"\s+", " ", name) in page.text
    assert "49" not in re.findall(r"\d+", page.text)
    assert "<script>alert" not in text


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=20), min_size=2, max_size=4))
def test_any_class_names_survive(tmp_path: Path, names: list[str]) -> None:
    confusion = np.ones((len(names), len(names)))
    _, page = report(tmp_path, classes=names, confusion=confusion, mistakes=[mistake(truth=names[0])], metrics=[])
    assert page.data["classes"] == names
    assert page.count("script") == 2


def test_numbers_that_are_none_are_harmless_and_mentioned(tmp_path: Path) -> None:
    metrics = curves(50)
    for index, value in enumerate([None, math.nan, math.inf, -math.inf, "nan", 10**400, True]):
        metrics[10 + index]["loss"] = value
    metrics[-1] |= {"learning_rate": None, "seconds": math.nan, "val/accuracy": None, "gone": None}
    text, page = report(tmp_path, metrics=metrics)
    assert "loss was not a finite number in 7 rows, first at step 100." in page.text
    assert "val/accuracy was not a finite number in 1 row, first at step 490." in page.text
    assert len(page.data["charts"][0]["lines"][0]["steps"]) == 43
    assert not re.search(r'd="[^"]*(nan|inf)', text)
    report(tmp_path, metrics=[{"loss": math.nan}] * 3, summary={"accuracy": math.nan, "images": math.nan})


def test_a_big_run_stays_small(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    photos = [Image.fromarray(generator.integers(0, 256, (480, 640, 3), dtype=np.uint8)) for _ in range(3)]
    confusion = generator.integers(0, 9, (100, 100))
    wrong = [mistake(image=photos[i % 3], attention=generator.random((14, 14)), confidence=i / 98) for i in range(99)]
    text, page = report(
        tmp_path, metrics=curves(20_000), classes=[f"class {index}" for index in range(100)], mistakes=wrong,
        confusion=confusion, skipped=[{"path": "a" * 200, "reason": "b" * 50}] * 5000,
    )  # fmt: skip
    assert len(text) < 2_000_000
    assert all(len(line["steps"]) <= MAX_POINTS for chart in page.data["charts"] for line in chart["lines"])
    assert f"The 24 most confident of {confusion.sum() - confusion.trace():,} mistakes" in page.text
    assert "said dog 100%" in page.text
    assert "5,000 files were not used" in page.text
    assert "and 4,800 more" in page.text


def test_the_class_table_is_right() -> None:
    (cat, dog, bird) = class_table(np.array([[8.0, 2, 0], [4, 6, 0], [0, 0, 0]]))
    assert cat == pytest.approx((10, 8 / 12, 0.8, 2 * 8 / 22))
    assert dog == pytest.approx((10, 6 / 8, 0.6, 2 * 6 / 18))
    assert bird == pytest.approx((0, math.nan, math.nan, math.nan), nan_ok=True)


def test_confused_pairs_come_most_frequent_first() -> None:
    assert confused_pairs(np.array([[9.0, 1, 0], [3, 9, 0], [0, 2, 9]])) == [
        (1, 0, 3, 12),
        (2, 1, 2, 11),
        (0, 1, 1, 10),
    ]
    assert confused_pairs(np.eye(3)) == []


def test_steps_are_sorted_and_numbered_where_they_are_missing() -> None:
    steps, values, lost = series([{"step": 7, "a": 1.0}, {"step": 3, "a": 2}, {"b": 1}, {"a": None}, {"a": 4.0}], "a")
    assert (steps.tolist(), values.tolist(), lost.tolist()) == ([3, 4, 7], [2, 4, 1], [3])


def test_several_objectives_share_a_chart_and_one_spike_does_not_flatten_it() -> None:
    metrics = [{"step": i, "a/accuracy": 0.5, "b/accuracy": 0.6, "val/accuracy": 0.4, "loss": 1.0} for i in range(500)]
    drawn = chart("Accuracy", metrics, ["a/accuracy", "b/accuracy", "val/accuracy"], percent=True)
    assert drawn is not None
    assert [line.name for line in drawn.lines] == ["a", "b", "validation"]
    assert drawn.values[0] == 0
    metrics[250]["loss"] = 1e9
    loss = chart("Loss", metrics, ["loss"])
    assert loss is not None
    assert [line.name for line in loss.lines] == ["unsmoothed", "smoothed"]
    assert max(loss.lines[0].values) == 1e9
    assert loss.values[1] <= 2


finite_floats = st.floats(-1e9, 1e9, allow_nan=False).map(lambda value: float(f"{value:.6g}"))


@given(finite_floats, finite_floats, st.integers(2, 8))
def test_ticks_are_few_even_and_enclose(first: float, second: float, count: int) -> None:
    low, high = sorted((first, second))
    rungs = ticks(low, high, count)
    assert 2 <= len(rungs) <= count + 2
    step = rungs[1] - rungs[0]
    assert rungs[0] <= low + 1e-5 * step
    assert rungs[-1] >= high - 1e-5 * step
    assert np.allclose(np.diff(rungs), step)


@settings(deadline=None)
@given(st.integers(0, 3000), st.integers(0, 10**6))
def test_thinning_keeps_ends_and_spikes(length: int, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal(length)
    smoothed = smooth(values) if length else values
    assert smoothed.shape == values.shape
    kept = thin(values, smoothed)
    assert len(kept) == min(length, len(kept)) <= MAX_POINTS
    assert (np.diff(kept) > 0).all()
    if length:
        assert {0, length - 1} <= set(kept.tolist())
        assert np.abs(values - smoothed).argmax() in kept
        assert values.min() - 1e-9 <= smoothed.min()
        assert smoothed.max() <= values.max() + 1e-9
