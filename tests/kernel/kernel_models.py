"""Small networks whose tangent kernel is known in closed form, and data for them."""

from __future__ import annotations

import torch


class Quadratic(torch.nn.Module):
    """f(x) = sum_k a_k (w_k . x)^2."""

    def __init__(self, width, inputs, generator):
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(width, inputs, dtype=torch.float64, generator=generator))
        self.a = torch.nn.Parameter(torch.randn(width, dtype=torch.float64, generator=generator))

    def forward(self, x):
        return (x @ self.w.T).square() @ self.a

    @torch.no_grad()
    def kernel(self, x):
        """sum_k (w_k x)^2 (w_k y)^2 + 4 (x . y) sum_k a_k^2 (w_k x)(w_k y)."""
        h = x @ self.w.T
        return h.square() @ h.square().T + 4 * (x @ x.T) * ((h * self.a.square()) @ h.T)


class Linear2(torch.nn.Module):
    """f(x) = V W x, C outputs."""

    def __init__(self, inputs, width, outputs, generator):
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(width, inputs, dtype=torch.float64, generator=generator))
        self.v = torch.nn.Parameter(torch.randn(outputs, width, dtype=torch.float64, generator=generator))

    def forward(self, x):
        return x @ self.w.T @ self.v.T

    @torch.no_grad()
    def kernel(self, x):
        """(x . y) V V^T + (W x . W y) I, for outputs in the order (input, class)."""
        h = x @ self.w.T
        eye = torch.eye(len(self.v), dtype=x.dtype)
        return torch.kron(x @ x.T, self.v @ self.v.T) + torch.kron(h @ h.T, eye)


def mlp(inputs=3, width=6, outputs=2, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(inputs, width), torch.nn.Tanh(), torch.nn.Linear(width, outputs)).to(
        dtype
    )
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return model


def normal(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def displace(model, velocity, size):
    """A copy of the model moved by ``size`` times ``velocity``."""
    import copy

    moved = copy.deepcopy(model)
    with torch.no_grad():
        for name, p in moved.named_parameters():
            p.add_(velocity[name], alpha=size)
    return moved
