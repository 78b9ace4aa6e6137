"""Models, ways to shard them and a training loop for the tests on several ranks; run in every process.

Everything is float64 and every rank sees the whole batch, so that all ways compute the same gradient up to rounding.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP1
from torch.distributed.fsdp import ShardingStrategy, fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel as DDP

WIDTH, HIDDEN, OUT = 6, 12, 3


class Layer(torch.nn.Module):
    """Norm, two matrices that tensor parallelism cuts, a residual."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(width)
        self.up = torch.nn.Linear(width, hidden)
        self.down = torch.nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.tanh(self.up(self.norm(x))))


class Model(torch.nn.Module):
    """Two layers and a head of 3 rows: uneven on 2 ranks, smaller than 4 ranks; a frozen tensor."""

    def __init__(self, width: int = WIDTH, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(Layer(width, hidden) for _ in range(2))
        self.head = torch.nn.Linear(width, OUT)
        self.scale = torch.nn.Linear(width, width, bias=False)
        self.scale.weight.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(self.scale(x))


def model(seed: int = 0, **sizes: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return Model(**sizes).double()


def _parallel(m: torch.nn.Module, mesh: Any) -> torch.nn.Module:
    for layer in m.layers:
        parallelize_module(layer, mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})
    return m


def _fully(m: torch.nn.Module, mesh: Any = None) -> torch.nn.Module:
    for layer in m.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(m, mesh=mesh)


def _fsdp1(m: torch.nn.Module, **options: Any) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i, layer in enumerate(m.layers):
            inner = {k: v for k, v in options.items() if k != "ignored_modules"}
            m.layers[i] = FSDP1(layer, device_id=torch.device("cpu"), **inner)
        return FSDP1(m, device_id=torch.device("cpu"), **options)


def _hsdp(m: torch.nn.Module) -> torch.nn.Module:
    mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2), mesh_dim_names=("replicate", "shard"))
    return _fully(m, mesh)


def _tp(m: torch.nn.Module) -> torch.nn.Module:
    return _parallel(m, init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("tp",)))


def _two_d(m: torch.nn.Module) -> torch.nn.Module:
    mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2), mesh_dim_names=("dp", "tp"))
    return _fully(_parallel(m, mesh["tp"]), mesh["dp"])


WAYS: dict[str, Callable[[torch.nn.Module], torch.nn.Module]] = {
    "ddp": DDP,
    "fsdp2": _fully,
    "hsdp": _hsdp,
    "tp": _tp,
    "2d": _two_d,
    "fsdp1": lambda m: _fsdp1(m, use_orig_params=True),
    # a flat parameter is trained as one, so the frozen matrix has to stay outside
    "fsdp1-flat": lambda m: _fsdp1(m, use_orig_params=False, ignored_modules=[m.scale]),
    "fsdp1-whole": lambda m: _fsdp1(m, use_orig_params=True, sharding_strategy=ShardingStrategy.NO_SHARD),
}


def adamw(m: torch.nn.Module) -> list[torch.optim.Optimizer]:
    return [
        torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1, foreach=False)
    ]


def two(m: torch.nn.Module) -> list[torch.optim.Optimizer]:
    """Matrices by momentum, the rest by AdamW."""
    named = [(n, p) for n, p in m.named_parameters() if p.requires_grad]
    return [
        torch.optim.SGD([p for n, p in named if n.endswith("weight")], lr=0.05, momentum=0.9, foreach=False),
        torch.optim.AdamW([p for n, p in named if not n.endswith("weight")], lr=1e-2, foreach=False),
    ]


def batch(step: int, width: int = WIDTH) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1000 + step)
    x = torch.randn(8, width, generator=generator, dtype=torch.float64)
    return x, torch.sin(x[:, :OUT] * 2.0)


def step_of(m: torch.nn.Module, optimizers: list[Any], step: int, width: int = WIDTH) -> float:
    x, y = batch(step, width)
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss = (m(x) - y).square().mean()
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    return float(loss.detach())


def train(
    m: torch.nn.Module, optimizers: list[Any], steps: range, after: Callable[[int], None] = lambda step: None
) -> list[float]:
    losses = []
    for step in steps:
        losses.append(step_of(m, optimizers, step))
        after(step)
    return losses
