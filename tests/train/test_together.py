"""Several processes train one model: their gradients are those of one process with the whole batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn

import mirada
from mirada.backbones import build
from mirada.data.samples import Samples
from mirada.objectives import Learner, Pairs
from mirada.processes import agreed, alone, any_of, average_in_place, largest, processes, rank, start_alike
from mirada.train.batch_norm import SynchronisedBatchNorm, synchronise


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


SMALL = "prototypes=16, small=0"
SUMS = (
    "simclr(temperature=0.5) + 0.5*rotation", "clip(each=2, depth=1) + 0.5*siglip(depth=1)",
    f"dino(centring='mean', hidden=16, bottleneck=8, {SMALL}) + supervised + colorization",
    f"swav(queue=8, queue_start=0, hidden=16, out=8, {SMALL})",
)  # fmt: skip
LABELS = torch.tensor([0, -1, -1, -1, 2, 1, 1, 0])  # the first process has one, the other has four
CAPTIONS = [
    ("a cat", "un gato"),
    ("a dog",),
    ("a bird",),
    ("a fish",),
    ("a cat", "un gato"),
    (),
    ("a car",),
    ("a bus",),
]


def learner(text: str) -> Learner:
    torch.manual_seed(0)
    module = Learner(build("resnet-18(small_images=True)"), text, pairs=Pairs(CAPTIONS), classes=3).train()
    if "swav" in module.objectives:
        swav = module.objectives["swav"]
        swav.get_buffer("queue").normal_()
        swav.get_buffer("queued").fill_(8)
    return module if "dino" in module.objectives else module.double()  # its targets are float32


def batch(module: Learner) -> dict[str, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    canvases = torch.randint(0, 256, (8, 3, 20, 20), dtype=torch.uint8, generator=generator)
    half = torch.full((3,), 0.5)
    samples = Samples(canvases, torch.ones(8), LABELS, size=(16, 16), seed=1, mean=half, std=half,
                      captions=CAPTIONS)  # fmt: skip
    kind = next(module.backbone.parameters()).dtype
    return {name: {key: value.to(kind) if value.is_floating_point() else value for key, value in views.items()}
            for name, views in module.views(samples).items()}  # fmt: skip


def work(number: int, port: int, out: str, text: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=number, world_size=2)
    cpu = torch.device("cpu")
    module = learner(text)
    if number == 1:
        with torch.no_grad():
            next(module.backbone.parameters()).zero_()
    synchronise(module)
    start_alike(module)
    mine = {name: {key: view.chunk(2)[number] for key, view in views.items()} for name, views in batch(module).items()}
    result = module(mine, 0.5)
    result["loss"].backward()
    average_in_place(parameter.grad for parameter in module.parameters() if parameter.grad is not None)
    found = {f"gradient.{name}": parameter.grad for name, parameter in module.named_parameters()}
    found |= {f"buffer.{name}": buffer for name, buffer in module.named_buffers()}
    first = next(iter(module.weights))
    found["loss"] = result[f"{first}/loss"].detach()
    average_in_place([found["loss"]])
    found |= {name: value.detach() for name, value in result.items() if name.startswith("supervised/")}
    average_in_place([found["supervised/loss"]] if "supervised/loss" in found else [])
    found["agreed"] = torch.tensor(agreed(3.5 + number, cpu))
    found["any"] = torch.tensor([any_of(number == 1, cpu), any_of(False, cpu)])
    found["largest"] = largest(torch.tensor([float(number), -float(number)]))
    with alone():
        found["alone"] = torch.tensor([processes(), rank()])
    torch.save(found, f"{out}/{number}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize("text", SUMS)
def test_two_processes_have_the_gradients_and_statistics_of_one(text: str, tmp_path: Path) -> None:
    multiprocessing.spawn(work, (free_port(), str(tmp_path), text), nprocs=2)
    parts = [torch.load(tmp_path / f"{number}.pt", weights_only=True) for number in (0, 1)]
    module = learner(text)
    result = module(batch(module), 0.5)
    result["loss"].backward()
    expected = {f"gradient.{name}": parameter.grad for name, parameter in module.named_parameters()}
    expected |= {f"buffer.{name}": buffer for name, buffer in module.named_buffers()}
    expected["loss"] = result[f"{next(iter(module.weights))}/loss"].detach()
    expected |= {name: value.detach() for name, value in result.items() if name.startswith("supervised/")}
    precise = next(module.backbone.parameters()).dtype == torch.float64
    far, close = (1e-4, 1e-6) if precise else (1e-3, 1e-5)  # float32 differs by the instructions of the machine
    for number, part in enumerate(parts):
        for name, value in expected.items():
            torch.testing.assert_close(part[name], value, rtol=far, atol=close, msg=lambda why, n=name: f"{n}: {why}")
        assert part["agreed"] == 3.5
        assert part["any"].tolist() == [True, False]
        assert part["largest"].tolist() == [1.0, 0.0]
        assert part["alone"].tolist() == [1, number]


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 5, 5)])
def test_alone_it_is_the_plain_batch_norm(shape: tuple[int, ...]) -> None:
    ours = SynchronisedBatchNorm(4)
    plain = nn.BatchNorm1d(4) if len(shape) == 2 else nn.BatchNorm2d(4)
    x = torch.randn(shape)
    torch.testing.assert_close(ours(x), plain(x))
    torch.testing.assert_close(ours.eval()(x), plain.eval()(x))
    assert ours.state_dict().keys() == plain.state_dict().keys()


def test_the_command_runs_under_torchrun(folder_of_shapes: Path, tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port",
              str(free_port()), "-m", "mirada"]  # fmt: skip
    train = ["train", str(folder_of_shapes), "--model", "vit-pico/8(depth=1)", "--image-size", "24", "--batch", "16",
             "--steps", "6", "--objective", "supervised + simclr + dino(prototypes=32, hidden=32, bottleneck=16)",
             "--balance", "gradnorm", "--out", str(tmp_path / "run"), "--json"]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, *train], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 6
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 7))
    assert rows[0]["simclr/others"] == 30  # of both processes
    assert "health/rank" in rows[0]
    assert "cosine/supervised+simclr" in rows[0]
    assert mirada.load(tmp_path / "run").classes == ["blue", "green", "red"]
