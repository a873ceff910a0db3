"""Batches of thousands of pairs on a small machine: `--batch 4096 --chunk 64` beside open_clip's `--accum-freq 64`.

    python benchmarks/large_batch.py EMOJI/all.parquet

The same towers, pictures, captions and precision; each measurement is a process of its own, of two updates, of which
the second counts for time; memory is the process's peak, its workers aside. open_clip runs its own `train_one_epoch`.
Writes docs/numbers/large-batch.md. Use a machine that does nothing else.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from peers import import_torchvision

from mirada.data.sources import open_data
from mirada.precision import choose_precision
from mirada.train.folder import machine

REPORT = Path(__file__).parent.parent / "docs" / "numbers" / "large-batch.md"
BATCHES = (64, 256, 1024, 4096)
CHUNK, SIDE = 64, 64
OBJECTIVE = "clip(dim=256, width=128, depth=4, num_heads=4, context=32, augment='zoom')"


def write_pairs(table: Path, out: Path, count: int) -> None:
    rows = pq.read_table(table, columns=["image", "name"]).slice(0, count).to_pylist()
    pq.write_table(pa.Table.from_pylist([{"image": row["image"], "caption": row["name"]} for row in rows]), out)


def ours(data: Path, batch: int) -> dict[str, float]:
    """Seconds of the second update and megabytes at the peak, of the real command."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        subprocess.run(
            [sys.executable, "-m", "mirada", "train", str(data), "--model", "vit-nano/8", "--objective", OBJECTIVE,
             "--image-size", str(SIDE), "--batch", str(batch), "--chunk", str(CHUNK), "--steps", "2", "--optimiser",
             "adamw", "--out", str(out), "--json"],
            stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {"seconds": rows[1]["seconds"] - rows[0]["seconds"], "megabytes": peak(resource.RUSAGE_CHILDREN)}


def peak(who: int) -> float:
    """Megabytes."""
    size = resource.getrusage(who).ru_maxrss
    return size / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def theirs(data: Path, batch: int) -> dict[str, float]:
    import_torchvision()
    from emoji import Drawings
    from open_clip import SimpleTokenizer
    from open_clip.loss import ClipLoss
    from open_clip.model import CLIP
    from open_clip.transform import AugmentationCfg, image_transform
    from open_clip_train.train import train_one_epoch

    source = open_data(data).splits["train"]
    transform = image_transform(SIDE, is_train=True, aug_cfg=AugmentationCfg(scale=(0.35, 1.0)))
    drawings = Drawings(source, transform, SimpleTokenizer(context_length=32))
    drawings = torch.utils.data.Subset(drawings, range(batch))
    loader: Any = torch.utils.data.DataLoader(drawings, CHUNK, shuffle=True, num_workers=2, drop_last=True)
    loader.num_batches, loader.num_samples = len(loader), batch
    model = CLIP(
        256, {"image_size": SIDE, "layers": 6, "width": 128, "head_width": 32, "patch_size": 8},
        {"context_length": 32, "width": 128, "heads": 4, "layers": 4}, output_dict=True,
    )  # fmt: skip
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.2, fused=True)
    half = choose_precision("auto", torch.device("cpu")) == "bfloat16"
    options = SimpleNamespace(
        device="cpu", precision="amp_bf16" if half else "fp32", distill=False, accum_freq=batch // CHUNK,
        skip_scheduler=True, horovod=False, grad_clip_norm=None, rank=0, local_rank=0, log_local=False,
        log_every_n_steps=100, batch_size=CHUNK, world_size=1, wandb=False,
    )  # fmt: skip
    given = {"train": SimpleNamespace(dataloader=loader, set_epoch=lambda _: None)}
    seconds = 0.0
    for epoch in range(2):
        began = time.monotonic()
        train_one_epoch(model, given, ClipLoss(), epoch, optimiser, None, None, None, options)
        seconds = time.monotonic() - began
    return {"seconds": seconds, "megabytes": peak(resource.RUSAGE_SELF)}


def in_process(who: str, data: Path, batch: int) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", __file__, str(data), "--measure", who, str(batch)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        who, batch = options.measure
        print(json.dumps({"mirada": ours, "open_clip": theirs}[who](options.table, int(batch))))
        return
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        write_pairs(options.table, data / "train.parquet", max(BATCHES))
        write_pairs(options.table, data / "test.parquet", 8)
        for batch in BATCHES:
            found = {who: in_process(who, data, batch) for who in ("mirada", "open_clip")}
            mine, rival = found["mirada"], found["open_clip"]
            lines.append(
                f"| {batch:,} | {mine['seconds']:.1f} | {rival['seconds']:.1f} | "
                f"{mine['seconds'] / rival['seconds']:.2f} | {mine['megabytes']:,.0f} | {rival['megabytes']:,.0f} |"
            )
            print(lines[-1], file=sys.stderr, flush=True)
    import_torchvision()
    import open_clip

    rows = "\n".join(lines)
    command = f"python benchmarks/large_batch.py EMOJI/{options.table.name}"
    REPORT.write_text(
        f"""# Large batches of pairs in little memory

One update, in chunks of {CHUNK} pairs at {SIDE} pixels; both sides encode everything twice, once without a gradient.

| batch | Mirada, s | open_clip {open_clip.__version__}, s | ratio | Mirada, MB at the peak | open_clip, MB |
|---|---|---|---|---|---|
{rows}

Both towers are the same size (128 wide, six layers for pictures, four for words). open_clip compares the whole batch
anew for each chunk, with gradients, reads all 32 tokens of each caption, and holds all pictures of the batch as floats;
Mirada compares once, reads no padding, and makes each chunk's pictures again from bytes. Mirada's process holds all of
the data set, decoded, and its augmentation runs in it; open_clip's workers decode and augment in processes of their
own, whose memory does not count here.

Machine: {machine()}.

Repeat: `{command}`
""",
        encoding="utf-8",
    )
    print(REPORT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
