"""Emoji as drawn by two vendors teach words for those of a third: what two towers learn in minutes, beside open_clip.

    python benchmarks/emoji.py prepare EMOJI/all.parquet DATA
    python benchmarks/emoji.py run DATA --budget 5m --seeds 0 1 2
    python benchmarks/emoji.py rival DATA --budget 5m
    python benchmarks/emoji.py words DATA
    python benchmarks/emoji.py ship RUN FOLDER
    python benchmarks/emoji.py transfer REF TUXPAINT/all.parquet

Trained on the drawings of google and twitter with their names and keywords in English and Spanish, and on copies of
them as a pen would draw them, in flat colours with dark outlines; tested on those of openmoji, a style never seen: is
the picture of a name the first one, or among the first five, of all? `words` needs no training: the nearest
drawings among those trained on, and their words. Each run appends a line to docs/numbers/emoji.jsonl. `ship`
writes a model as it comes with the package, in half precision and without its head; `transfer` measures one on pictures
of another kind, Tux Paint's stamps on white.
"""

import argparse
import io
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from peers import import_torchvision
from PIL import Image, ImageChops, ImageFilter
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

import mirada
from mirada.data.decode import decode
from mirada.data.sources import Source, open_data
from mirada.evaluate.pairs import pair_retrieval, queries_of, recalls
from mirada.evaluate.predict import evaluation_images
from mirada.loading import load
from mirada.precision import choose_precision
from mirada.preprocess import Preprocess
from mirada.train.folder import machine
from mirada.train.settings import parse_duration

RECORDS = Path(__file__).parent.parent / "docs" / "numbers" / "emoji.jsonl"
LANGUAGES = {"en": "name", "es": "name_es"}
KEYWORDS = {"en": "keywords", "es": "keywords_es"}
COLOURS = 6  # of a copy drawn by pen
TESTS = ("en", "es", "words-en", "words-es")
HELD_OUT = 10  # one keyword in so many is never trained on by itself
SIDE, CONTEXT = 32, 24  # of the recipe's towers, for open_clip's


def is_held_out(word: str) -> bool:
    """Whether a keyword is for the test only: by its letters alone, so that no drawing has it as a caption. It may be
    part of one: `car` of `police car`."""
    return sum(word.encode()) % HELD_OUT == 0


def prepare(table: Path, out: Path) -> None:
    """Write train.parquet, and test tables for names in each language and for words held out."""
    rows = pq.read_table(table).to_pylist()
    out.mkdir(parents=True, exist_ok=True)
    names = {row[column].lower() for row in rows for column in LANGUAGES.values()}
    training = [row for row in rows if row["vendor"] in ("google", "twitter")]
    pq.write_table(pa.Table.from_pylist([
        {"image": image, "label_name": row["name"], "captions": captions(row)}
        for row in training for image in (row["image"], drawn_by_pen(row["image"]))
    ]), out / "train.parquet")  # fmt: skip
    testing = [row for row in rows if row["vendor"] == "openmoji"]
    for language, column in LANGUAGES.items():
        (out / language).mkdir(exist_ok=True)
        table_of_names = pa.Table.from_pylist([{"image": row["image"], "caption": row[column]} for row in testing])
        pq.write_table(table_of_names, out / language / "test.parquet")
        if language == "en":
            pq.write_table(table_of_names, out / "test.parquet")
        held = [{"image": row["image"], "captions": [word for word in row[KEYWORDS[language]] if is_held_out(word) and
                                                     word.lower() not in names]} for row in testing]  # fmt: skip
        (out / f"words-{language}").mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(held), out / f"words-{language}" / "test.parquet")


def captions(row: dict[str, Any]) -> list[str]:
    """Names in both languages, so often that they are drawn as often as keywords."""
    keywords = [word for column in KEYWORDS.values() for word in row[column] if not is_held_out(word)]
    return max(1, len(keywords) // 2) * [row[column] for column in LANGUAGES.values()] + keywords


def drawn_by_pen(data: bytes) -> bytes:
    """A copy in few flat colours with dark outlines, a little smaller, on white."""
    drawing = decode(data)
    margin = max(drawing.size) // 12
    paper = Image.new("RGB", (drawing.width + 2 * margin, drawing.height + 2 * margin), "white")
    paper.paste(drawing, (margin, margin))
    flat = paper.filter(ImageFilter.MedianFilter(5)).quantize(COLOURS, Image.Quantize.MEDIANCUT).convert("RGB")
    step = ImageChops.difference(flat.filter(ImageFilter.MaxFilter(3)), flat.filter(ImageFilter.MinFilter(3)))
    line = (6 * (np.asarray(step).max(2) / 255 - 0.06)).clip(0, 1)
    soft = Image.fromarray((255 * line).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.5))
    buffer = io.BytesIO()
    ImageChops.multiply(flat, ImageChops.invert(soft).convert("RGB")).save(buffer, "PNG")
    return buffer.getvalue()


def scores(ref: str | Path, data: Path) -> dict[str, float]:
    """R@1 and R@5 in percent, for each test table."""
    model = load(ref)
    found = {}
    for test in TESTS:
        images = evaluation_images(model, open_data(data / test).splits["test"])
        metrics = pair_retrieval(model, images).metrics
        found |= shown(test, metrics)
    return found


def shown(test: str, metrics: dict[str, float]) -> dict[str, float]:
    """What is recorded of one test table, in percent: from texts to images, and back."""
    ways = {"": "text_to_image", " back": "image_to_text"}
    return {f"{test}{name} R@{most}": round(100 * metrics[f"{way}/R@{most}"], 2)
            for name, way in ways.items() for most in (1, 5)}  # fmt: skip


def record(row: dict[str, Any]) -> None:
    RECORDS.parent.mkdir(exist_ok=True)
    with RECORDS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def run(options: argparse.Namespace) -> None:
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            done = subprocess.run(
                [sys.executable, "-m", "mirada", "train", str(options.data), "--recipe", options.recipe,
                 "--seed", str(seed), "--out", str(out), "--json",
                 *(["--budget", options.budget] if options.budget else []), *options.flags],
                stdout=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip
            result = json.loads(done.stdout)
            record({
                "library": f"mirada {mirada.__version__}", "recipe": options.recipe, "flags": " ".join(options.flags),
                "budget": options.budget, "seed": seed, "steps": result["steps"], "images": result["images"],
                **scores(out, options.data), "machine": machine(),
            })  # fmt: skip


def words(options: argparse.Namespace) -> None:
    """Bag of words and nearest neighbours: a drawing is found by the words of the training drawings most like it."""
    train = open_data(options.data / "train.parquet").splits["train"]
    known = F.normalize(pixels(train), dim=1)
    assert train.captions is not None
    vocabulary: dict[str, int] = {}
    bag = torch.zeros(len(train), 1 << 16)
    for row, captions in enumerate(train.captions):
        for word in (word for caption in captions for word in caption.lower().split()):
            bag[row, vocabulary.setdefault(word, len(vocabulary))] = 1
    bag = bag[:, : len(vocabulary)]
    bag *= (len(bag) / bag.sum(0)).log()
    found = {}
    for test in TESTS:
        source = open_data(options.data / test).splits["test"]
        similarity, nearest = (F.normalize(pixels(source), dim=1) @ known.T).topk(10, 1)
        described = (bag[nearest] * (20 * similarity).softmax(1)[:, :, None]).sum(1)
        assert source.captions is not None
        texts, pairs = queries_of(source.captions)
        queries = torch.zeros(len(texts), len(vocabulary))
        for row, text in enumerate(texts):
            for word in filter(vocabulary.__contains__, text.lower().split()):
                queries[row, vocabulary[word]] = 1
        metrics = dict(recalls(F.normalize(described, dim=1), F.normalize(queries, dim=1), pairs))
        found |= shown(test, metrics)
    record({"library": "bag of words, nearest pixels", "seed": 0, **found, "machine": machine()})


def pixels(source: Source) -> Tensor:
    """The drawings at 32 pixels a side, (n, 3072), centred."""
    preprocess = Preprocess(size=(32, 32), resize="squash")
    rows = torch.stack([preprocess(decode(source.read(index))).flatten() for index in range(len(source))])
    return rows - rows.mean(0)


def ship(options: argparse.Namespace) -> None:
    """Both towers in half precision, which halves what they weigh; the head, whose classes are the names, stays out."""
    model = load(options.ref)
    model.head = model.classes = None
    told = {key: value for key, value in model.provenance.items() if key in ("steps", "seed", "objective", "mirada")}
    model.provenance = {
        "recipe": options.recipe, **told, "licence": "Apache-2.0",
        "drawings": "Noto Emoji by Google (Apache-2.0), Twemoji by Twitter (CC-BY-4.0)",
    }  # fmt: skip
    folder = model.half().save(options.folder)
    print(folder, sum(file.stat().st_size for file in folder.iterdir()))


def transfer(options: argparse.Namespace) -> None:
    """R@1 and R@5 of captions in two languages, among the stamps that have one."""
    rows = pq.read_table(options.table).to_pylist()
    for language, column in (("en", "caption_en"), ("es", "caption_es")):
        with tempfile.TemporaryDirectory() as folder:
            table = [{"image": on_white(row["image"]), "caption": row[column]} for row in rows if row[column]]
            pq.write_table(pa.Table.from_pylist(table), Path(folder) / "test.parquet")
            model = load(options.ref)
            source = open_data(folder).splits["test"]
            metrics = pair_retrieval(model, evaluation_images(model, source)).metrics
        print(json.dumps({"ref": options.ref, "images": len(table)} | shown(language, metrics)))


def on_white(data: bytes) -> bytes:
    """A picture with transparency as PNG on white."""
    buffer = io.BytesIO()
    decode(data).save(buffer, "PNG")
    return buffer.getvalue()


class Drawings(torch.utils.data.Dataset[Any]):
    """A drawing and one of its captions, as open_clip's data sets give them."""

    def __init__(self, source: Source, transform: Any, tokenizer: Any) -> None:
        self.source, self.transform, self.tokenizer = source, transform, tokenizer

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        assert self.source.captions is not None
        caption = random.choice(self.source.captions[index])
        return self.transform(decode(self.source.read(index))), self.tokenizer([caption])[0]


def rival(options: argparse.Namespace) -> None:
    """open_clip's towers of the same sizes, its loss, transforms and tokenizer, in a plain loop of AdamW, warm-up and
    cosine."""
    import_torchvision()
    import open_clip
    from open_clip.loss import ClipLoss
    from open_clip.model import CLIP
    from open_clip.transform import AugmentationCfg, image_transform

    torch.manual_seed(options.seeds[0])
    random.seed(options.seeds[0])
    began, budget = time.monotonic(), parse_duration(options.budget)
    model = CLIP(
        256, {"image_size": SIDE, "layers": 6, "width": 128, "head_width": 32, "patch_size": 8},
        {"context_length": CONTEXT, "width": 128, "heads": 4, "layers": 2},
    ).train()  # fmt: skip
    tokenizer = open_clip.SimpleTokenizer(context_length=CONTEXT)
    transform = image_transform(SIDE, is_train=True, aug_cfg=AugmentationCfg(scale=(0.5, 1.0)))
    source = open_data(options.data / "train.parquet").splits["train"]
    loader = DataLoader(Drawings(source, transform, tokenizer), options.batch, shuffle=True, num_workers=2,
                        drop_last=True, persistent_workers=True)  # fmt: skip
    optimiser = torch.optim.AdamW(model.parameters(), options.lr, betas=(0.9, 0.98), weight_decay=0.2, fused=True)
    half = choose_precision("auto", torch.device("cpu")) == "bfloat16"
    criterion, steps, progress = ClipLoss(), 0, 0.0
    while progress < 1:
        for image, text in loader:
            progress = (time.monotonic() - began) / budget
            if progress >= 1:
                break
            share = progress / 0.05 if progress < 0.05 else 0.5 * (1 + math.cos(math.pi * (progress - 0.05) / 0.95))
            for group in optimiser.param_groups:
                group["lr"] = options.lr * share
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = criterion(*model(image, text))
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            with torch.no_grad():
                model.logit_scale.clamp_(0, math.log(100))
            steps += 1
    model.eval()
    preprocess = image_transform(SIDE, is_train=False)
    found = {}
    for test in TESTS:
        source = open_data(options.data / test).splits["test"]
        assert source.captions is not None
        texts, pairs = queries_of(source.captions)
        pictures = torch.stack([preprocess(decode(source.read(index))) for index in range(len(source))])
        with torch.no_grad():
            image = torch.cat([model.encode_image(part, normalize=True) for part in pictures.split(256)])
            text = torch.cat([model.encode_text(part, normalize=True) for part in tokenizer(texts).split(256)])
        metrics = dict(recalls(image, text, pairs))
        found |= shown(test, metrics)
    record({
        "library": f"open_clip {open_clip.__version__}", "flags": f"batch {options.batch}, lr {options.lr:g}",
        "budget": options.budget, "seed": options.seeds[0], "steps": steps, "images": steps * options.batch, **found,
        "machine": machine(),
    })  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    made = verbs.add_parser("prepare")
    made.add_argument("table", type=Path)
    made.add_argument("data", type=Path)
    shipped = verbs.add_parser("ship")
    shipped.add_argument("ref")
    shipped.add_argument("folder", type=Path)
    shipped.add_argument("--recipe", default="emoji-20m")
    moved = verbs.add_parser("transfer")
    moved.add_argument("ref")
    moved.add_argument("table", type=Path)
    for name in ("run", "rival", "words"):
        verb = verbs.add_parser(name)
        verb.add_argument("data", type=Path)
        verb.add_argument("--budget", default="5m")
        verb.add_argument("--seeds", type=int, nargs="+", default=[0])
        verb.add_argument("--recipe", default="emoji")
        verb.add_argument("--batch", type=int, default=256)
        verb.add_argument("--lr", type=float, default=1e-3)
        verb.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="more flags for mirada train; the last")
    options = parser.parse_args()
    if options.verb == "prepare":
        prepare(options.table, options.data)
    else:
        {"run": run, "rival": rival, "words": words, "ship": ship, "transfer": transfer}[options.verb](options)


if __name__ == "__main__":
    main()
