"""Two processes that share a batch compute what one does with all of it."""

import os
import socket
from pathlib import Path

import torch
from torch import Tensor, distributed, multiprocessing
from torch.nn import functional as F

from mirada.objectives.simclr import contrast
from mirada.objectives.sinkhorn import sinkhorn
from mirada.processes import gathered, processes, rank, summed


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 5, generator=generator), torch.randn(2, 6, 5, generator=generator)


def work(number: int, port: int, out: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=number, world_size=2)
    scores, views = data()
    weight = torch.eye(5, requires_grad=True)
    mine = [F.normalize(view.chunk(2)[number] @ weight, dim=1) for view in views]
    logits, partner = contrast(gathered(mine[0]), gathered(mine[1]), 0.2)
    loss = F.cross_entropy(logits, partner)
    (processes() * loss).backward()
    gradient = weight.grad
    assert gradient is not None
    distributed.all_reduce(gradient)
    found = {
        "assigned": sinkhorn(scores.chunk(2)[number]), "sum": summed(torch.tensor(float(number + 1))),
        "gradient": gradient / 2, "loss": loss.detach(), "rank": torch.tensor(rank()),
    }  # fmt: skip
    torch.save(found, f"{out}/{number}.pt")
    distributed.destroy_process_group()


def test_two_are_as_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(work, (port, str(tmp_path)), nprocs=2)
    parts = [torch.load(tmp_path / f"{number}.pt", weights_only=True) for number in (0, 1)]
    scores, views = data()
    torch.testing.assert_close(torch.cat([part["assigned"] for part in parts]), sinkhorn(scores))
    assert [part["sum"].item() for part in parts] == [3.0, 3.0]
    assert [int(part["rank"]) for part in parts] == [0, 1]
    weight = torch.eye(5, requires_grad=True)
    loss = F.cross_entropy(*contrast(*(F.normalize(view @ weight, dim=1) for view in views), 0.2))
    loss.backward()
    for part in parts:
        torch.testing.assert_close(part["loss"], loss.detach())
        torch.testing.assert_close(part["gradient"], weight.grad)


def test_one_process_gets_back_what_it_gave() -> None:
    tensor = torch.randn(3, requires_grad=True)
    assert gathered(tensor) is tensor
    assert torch.equal(summed(tensor), tensor)
    assert (processes(), rank()) == (1, 0)
