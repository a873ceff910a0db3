"""Many images, many labels, many templates: what the command takes the first time, and what the second time.

    python benchmarks/zero_shot.py PHOTOGRAPHS/all.parquet mirada:emoji
    python benchmarks/zero_shot.py PHOTOGRAPHS/all.parquet openai:ViT-B/32

The labels are everyday words, and numbered ones when these run out; the templates are the eighty of CLIP's authors. The
whole command is timed in a process of its own, with an empty cache at first, then with what that left. A third process
encodes the pictures alone, which the second command could not have done without. Adds a row to
docs/numbers/zero-shot.jsonl.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

import mirada
from mirada.train.folder import machine
from mirada.zero_shot import everyday_words

RECORDS = Path(__file__).parent.parent / "docs" / "numbers" / "zero-shot.jsonl"
ENCODE = """
import sys, time
import mirada
from mirada.data.sources import list_images
from mirada.evaluate.predict import evaluation_images, unit_features
import numpy as np
began = time.monotonic()
model = mirada.load(sys.argv[1])
source = list_images([sys.argv[2]])
unit_features(model, evaluation_images(model, source, keep=False), np.arange(len(source)))
print(time.monotonic() - began)
"""


def seconds(command: list[str], environment: dict[str, str]) -> tuple[float, str]:
    began = time.monotonic()
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return time.monotonic() - began, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("ref")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--labels", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pictures, labels = Path(folder) / "pictures", Path(folder) / "labels.txt"
        pictures.mkdir()
        for number, image in enumerate(pq.read_table(options.photographs, columns=["image"])["image"].to_pylist()):
            if number < options.images:
                (pictures / f"{number:05}.jpg").write_bytes(image)
        words = everyday_words()
        words = [words[number % len(words)] + f" {number // len(words)}" * (number >= len(words))
                 for number in range(options.labels)]  # fmt: skip
        labels.write_text("\n".join(words), encoding="utf-8")
        environment = os.environ | {"MIRADA_CACHE": str(Path(folder) / "cache")}
        command = [sys.executable, "-m", "mirada", "classify", options.ref, str(pictures), "--labels", str(labels),
                   "--templates", "clip", "--json"]  # fmt: skip
        first, said = seconds(command, environment)
        second, again = seconds(command, environment)
        _, encoding = seconds([sys.executable, "-c", ENCODE, options.ref, str(pictures)], environment)
        count = len(json.loads(said))
    assert said == again
    row = {
        "library": f"mirada {mirada.__version__}", "ref": options.ref, "images": count, "labels": options.labels,
        "first_seconds": round(first, 1), "second_seconds": round(second, 1),
        "encoding_seconds": round(float(encoding), 1), "machine": machine(),
    }  # fmt: skip
    with RECORDS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row))


if __name__ == "__main__":
    main()
