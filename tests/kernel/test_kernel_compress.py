from __future__ import annotations

import numpy as np
import pytest
import torch
from kernel_models import mlp, normal

from spectraledge.errors import SettingError
from spectraledge.kernel import Compression, compress, compressibility
from spectraledge.kernel.compress import STANDARD


def test_what_each_kind_does():
    w = normal(4, 6)
    tensors = {"w": w, "b": normal(4), "c": normal(3, 2, 2)}
    kept = compress(tensors, Compression("truncate", 0.5))
    values = np.linalg.svd(w.numpy(), compute_uv=False)
    np.testing.assert_allclose(np.linalg.svd(kept["w"].numpy(), compute_uv=False)[:2], values[:2], rtol=1e-12)
    assert torch.linalg.matrix_rank(kept["w"]) == 2
    assert torch.equal(kept["b"], tensors["b"])
    assert torch.linalg.matrix_rank(kept["c"].flatten(1)) == 2
    pruned = compress(tensors, Compression("prune", 0.25))["w"]
    assert int((pruned != 0).sum()) == 6
    assert float(pruned[pruned != 0].abs().min()) >= float(w[pruned == 0].abs().max())
    assert torch.equal(compress(tensors, Compression("scale", 1.05))["w"], 1.05 * w)
    for kind in ("truncate", "prune"):
        whole = compress(tensors, Compression(kind, 1.0))
        np.testing.assert_allclose(whole["w"], w, atol=1e-14)
    for how in (Compression("prune", 0.0), Compression("truncate", 1.1), Compression("drop", 0.5)):
        with pytest.raises(SettingError):
            compress(tensors, how)


def test_metric_distance_and_control():
    model, x = mlp(), normal(10, 3)
    found = compressibility(model, lambda m: float(m(x).square().mean()), n_controls=2, seed=4)
    assert [entry.how for entry in found] == list(STANDARD)
    scaled = next(entry for entry in found if entry.how == Compression("scale", 0.95))
    assert scaled.distance == pytest.approx(0.05, rel=1e-12)
    moved = mlp()
    with torch.no_grad():
        for p in moved.parameters():
            p.mul_(0.95)
        assert scaled.metric == pytest.approx(float(moved(x).square().mean()), rel=1e-12)
        assert scaled.before == pytest.approx(float(model(x).square().mean()), rel=1e-12)
    again = compressibility(model, lambda m: float(m(x).square().mean()), n_controls=2, seed=4)
    assert again == found
    assert len(set(scaled.control)) == 2


def test_a_rank_one_matrix_survives_truncation_and_not_pruning_or_the_control():
    torch.manual_seed(0)
    model = torch.nn.Linear(20, 20, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.outer(normal(20), normal(20, seed=2)))
    x = normal(50, 20)
    y = model(x).detach()

    def error(m):
        return float((m(x) - y).square().mean() / y.square().mean())

    truncated, pruned = compressibility(
        model, error, ways=[Compression("truncate", 0.05), Compression("prune", 0.05)]
    )
    assert truncated.metric < 1e-25
    assert pruned.metric > 0.1
