"""The page of claims can be written from a handful of records, and says what they say."""

import json
from pathlib import Path
from typing import Any

import claims
import pytest
from claims_page import page
from claims_tasks import tasks_figure
from shapes import shape_picture

SIZES = {"ViT": 200_000, "CoAtNet": 210_000, "ResNet": 220_000, "narrow ViT": 60_000, "wide ViT": 800_000}


def run(kind: str, share: float, accuracy: float, seed: int = 0) -> dict[str, Any]:
    return {
        "claim": "bias", "data": "dots", "kind": kind, "model": kind.lower(), "parameters": SIZES[kind], "share": share,
        "images": round(1000 * share), "seed": seed, "steps": 10, "batch": 8, "train_seconds": 1, "accuracy": accuracy,
        "measured": 4000, "machine": "an abacus",
    }  # fmt: skip


def looked(kind: str, share: float, state: str, heads: list[list[float]] | None, steps: int = 10) -> dict[str, Any]:
    row = {"claim": "distance", "data": "dots", "kind": kind, "share": share, "seed": 0, "steps": steps, "state": state,
           "images": 4, "fields": [["one", 4.0], ["two", 10.0], ["end", 11.0]], "machine": "an abacus"}  # fmt: skip
    return row if heads is None else row | {"heads": heads, "even": [33.0, 33.0]}


def asked(state: str, jaccard: float, seed: int = 0) -> dict[str, Any]:
    metrics = {"jaccard": jaccard, "max_f": 40.0, "corloc": 20.0, "token-cut/jaccard": 21.0}
    metrics |= {f"random/{name}": 7.0 for name in metrics} | {f"centre/{name}": 30.0 for name in list(metrics)[:3]}
    return {"claim": "objects", "state": state, "objective": state.lower(), "model": "vit", "seed": seed, "steps": 10,
            "batch": 8, "train_images": 100, "measured": 20, "seconds": 1, "metrics": metrics,
            "machine": "an abacus"}  # fmt: skip


ROWS = [
    *(run(kind, share, accuracy) for kind, scores in {
        "ViT": (30, 50, 70), "CoAtNet": (40, 55, 60), "ResNet": (45, 55, 71), "narrow ViT": (31, 40, 45),
        "wide ViT": (29, 52, 80),
    }.items() for share, accuracy in zip((0.02, 0.1, 1.0), scores, strict=True)),
    run("ViT", 0.02, 32, seed=1),
    *(looked(kind, share, state, heads)
      for kind, heads in {"ViT": [[10.0, 40.0], [33.0, 34.0]], "CoAtNet": [[33.0]], "ResNet": None}.items()
      for share in (0.02, 1.0) for state in ("trained", "untrained")),
    asked("with labels", 20.0), asked("DINO", 30.0), asked("DINO", 40.0, seed=1),
]  # fmt: skip


def test_page_and_figures_are_written(tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    records.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    (tmp_path / "images").mkdir()
    claims.main(["page", "--records", str(records), "--docs", str(tmp_path)])
    lines = (tmp_path / "claims.md").read_text(encoding="utf-8").splitlines()
    assert max(len(line) for line in lines if not line.startswith("|")) <= 120
    text = " ".join(line.strip() for line in lines)
    assert {file.stem for file in (tmp_path / "images").iterdir()} == {"claims-bias", "claims-distance", "claims-scale"}
    assert "ViT beside CoAtNet: -9.0, -5.0, +10.0 points" in text
    assert "the curves cross between 100 and 1,000 images" in text
    assert "ViT is behind, level with 1,000 images; it gains on the other with more data" in text
    assert "| dots | ViT | 31.0 (30.0 to 32.0) | 50.0 |  | 70.0 |" in text
    assert "by -2.0 points with 20 images and by +35.0 with 1,000" in text
    assert "Both halves of the claim are seen here" in text
    assert "seen here: after 10 updates the attention of DINO scores 35.0, that of training with labels 20.0" in text
    assert "an abacus" in text


def test_verdicts_follow_the_records() -> None:
    turned = [row | {"heads": row["heads"][::-1]} if "heads" in row else row for row in ROWS]
    turned = [row | {"metrics": row["metrics"] | {"jaccard": 1.0}} if row.get("state") == "DINO" else row
              for row in turned]  # fmt: skip
    text = page(turned)
    assert "Both halves" not in text
    assert "The claim is not seen here: after 10 updates" in text


@pytest.mark.parametrize("claim", ["bias", "distance", "objects"])
def test_what_was_not_run_is_left_out(claim: str) -> None:
    text = page([row for row in ROWS if row["claim"] == claim])
    assert (text.count("\n## "), "{" in text) == ({"bias": 4, "distance": 3, "objects": 3}[claim], False)


def test_attention_is_read_off_the_longest_runs() -> None:
    longer = [looked("ViT", share, state, [[11.0, 50.0], [30.5 + near, 40.0]], steps=2500)
              for share, near in ((0.02, 0), (1.0, 2)) for state in ("trained", "untrained")]  # fmt: skip
    text = page([*ROWS, *longer, run("ViT", 1.0, 88) | {"steps": 2500}])
    assert "After 2,500 updates on all of dots the heads of the first layer look 11.0 to 50.0" in " ".join(text.split())
    assert "| dots | ViT, 2,500 updates |  |  |  | 88.0 |" in text
    assert "| ViT, 2,500 updates | trained | 4.0 | 10.0 | 2.5 |" in text


def test_the_last_record_of_a_run_counts() -> None:
    assert "| dots | ResNet | 99.0 |" in page([*ROWS, run("ResNet", 0.02, 99)])


def test_four_tasks_are_drawn_as_squares(tmp_path: Path) -> None:
    shape_picture("red", 1, side=160).save(tmp_path / "shape.png")
    figure = tasks_figure(tmp_path / "shape.png")
    assert len(figure.axes) == (1 + 4) + (9 + 9) + (2 + 9) + (1 + 1)
    width, height = figure.get_size_inches()
    for axes in figure.axes:
        place = axes.get_position()
        assert place.width * width == pytest.approx(place.height * height)
        assert (place.x0 >= 0, place.y0 >= 0, place.x1 <= 1, place.y1 <= 1) == (True,) * 4
