"""What `indexing.py` runs in processes of their own, with the Python of sentence-transformers; it knows no Mirada.

    python benchmarks/indexing_peers.py model FOLDER ONNX    # random weights, and both towers as rclip has them
    python benchmarks/indexing_peers.py encode FOLDER PHOTOGRAPHS VECTORS.npy
    python benchmarks/indexing_peers.py versions
    python benchmarks/indexing_peers.py watch COMMAND...     # its time, and its memory at most

Each imports only what it needs: `encode` is measured with its imports, and a process is billed for what the one that
starts it holds.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

SIDE, DIM = 256, 512  # rclip's network: open_clip's ViT-B-32-256


def model(folder: Path, onnx: Path) -> None:
    """A folder of transformers' CLIP, whose tokenizer.json is there already, and its towers in the folder `onnx`."""
    import torch
    from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    class Tower(torch.nn.Module):
        def __init__(self, tower: Any, projection: torch.nn.Module) -> None:
            super().__init__()
            self.tower, self.projection = tower, projection

        def forward(self, given: torch.Tensor) -> torch.Tensor:
            projected: torch.Tensor = self.projection(self.tower(given).pooler_output)
            return projected

    torch.manual_seed(0)
    text = {"hidden_act": "gelu", "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
    config = CLIPConfig(text_config=text, vision_config={"hidden_act": "gelu", "image_size": SIDE}, projection_dim=DIM)
    clip = CLIPModel(config).eval()
    clip.save_pretrained(folder)
    pixels = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    CLIPProcessor(pixels, AutoTokenizer.from_pretrained(folder)).save_pretrained(folder)
    towers = {
        "visual": (Tower(clip.vision_model, clip.visual_projection), torch.zeros(1, 3, SIDE, SIDE)),
        "textual": (Tower(clip.text_model, clip.text_projection), torch.full((1, 77), 49407)),
    }
    for name, (tower, example) in towers.items():
        axes = {"input": {0: "batch"}, "output": {0: "batch"}}
        torch.onnx.export(tower, (example,), str(onnx / f"{name}.onnx"), input_names=["input"], output_names=["output"],
                          dynamic_axes=axes, opset_version=18, dynamo=False)  # fmt: skip


def encode(folder: str, photographs: Path, out: Path) -> None:
    import numpy as np
    from sentence_transformers import SentenceTransformer

    paths = sorted(str(path) for path in photographs.iterdir())
    np.save(out, SentenceTransformer(folder).encode(paths))


def versions() -> None:
    from importlib.metadata import version

    names = ("sentence-transformers", "transformers", "torch", "torchvision")
    print(", ".join(f"{name} {version(name)}" for name in names))


def watch(command: list[str]) -> None:
    """Run it, and print as JSON its status, its seconds and the processor's, and megabytes at its peak."""
    began = time.perf_counter()
    _, status, usage = os.wait4(os.posix_spawnp(command[0], command, os.environ), 0)
    seconds = time.perf_counter() - began
    megabytes = usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    print(json.dumps({
        "status": os.waitstatus_to_exitcode(status), "seconds": seconds,
        "processor": usage.ru_utime + usage.ru_stime, "megabytes": megabytes,
    }))  # fmt: skip


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["model", folder, onnx]:
            model(Path(folder), Path(onnx))
        case ["encode", folder, photographs, out]:
            encode(folder, Path(photographs), Path(out))
        case ["versions"]:
            versions()
        case ["watch", *command]:
            watch(command)
        case _:
            sys.exit(__doc__)
