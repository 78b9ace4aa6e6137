"""Small series of checkpoints for tests of the analysis engine: a random walk of a few tensors."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

SHAPES = {
    "embed.weight": (40, 16),
    "layers.0.attn.weight": (16, 16),
    "layers.0.mlp.weight": (48, 16),
    "layers.0.norm.bias": (16,),
    "layers.1.attn.weight": (16, 16),
    "layers.1.mlp.weight": (48, 16),
    "layers.1.norm.bias": (16,),
}


def walk(n: int, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    """State dicts of ``n`` checkpoints."""
    generator = torch.Generator().manual_seed(seed)
    state = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    states = []
    for _ in range(n):
        states.append({name: tensor.to(dtype) for name, tensor in state.items()})
        state = {name: t + 0.1 * torch.randn(t.shape, generator=generator) for name, t in state.items()}
    return states


def save_walk(folder: Path, n: int = 8, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> Path:
    """``step-0.safetensors``, ``step-10.safetensors``, ... in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, state in enumerate(walk(n, dtype=dtype, seed=seed)):
        save_file(state, folder / f"step-{10 * i}.safetensors")
    return folder
