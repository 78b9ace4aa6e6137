"""What a probe costs, in evaluations of the gradient of its own training loss; ratios within one run.

    python benchmarks/bench_probe.py [--repeats 5]

The model is the 290,401-parameter transformer of modular addition, the losses are those of its whole training and
test sets. One probe with four modes: two gradients, four Hessian products, the products with the stored updates, and,
at the next snapshot, the validation loss and the products with the next update.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

import spectraledge as se
from spectraledge.experiments.optimizers import build_optimizers
from spectraledge.experiments.settings import ModularSettings
from spectraledge.experiments.tasks.modular import modular_experiment


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(method: str, repeats: int) -> str:
    """One line on probes by one method."""
    torch.manual_seed(0)
    settings = ModularSettings()
    experiment = modular_experiment(settings)
    model, task = experiment.model, experiment.task
    (optimizer,) = build_optimizers(model, settings)
    train, val = task.probe_losses()
    probe = se.Probe(train=train, val=val, modes=4, curvature=method)  # type: ignore[arg-type]
    monitor = se.attach(model, optimizer, every=1, probe=probe, probe_every=10**6, on_error="raise")
    prober, tensors = monitor._prober, dict(model.named_parameters())
    assert prober is not None

    def step() -> None:
        optimizer.zero_grad()
        task.loss(model, task.draw()).backward()
        optimizer.step()

    for _ in range(12):
        step()
    gradient, at, later = [], [], []
    for t in range(repeats):  # interleaved: the machine's state is the same for all three
        gradient.append(seconds(lambda: torch.autograd.grad(train(model), list(model.parameters()))))
        at.append(seconds(lambda t=t: prober.measure(monitor.ring, tensors, t=t, step=monitor.step, n_steps=1)))
        pending = prober.pending
        step()
        prober.pending = pending
        later.append(seconds(lambda: prober.follow_up(monitor.ring, tensors, step=monitor.step)))
    monitor.detach()
    unit, now, after = (statistics.median(times) for times in (gradient, at, later))
    return (
        f"{method}: gradient {unit * 1e3:.0f} ms; probe {now / unit:.2f}, next snapshot {after / unit:.2f}, together "
        f"{(now + after) / unit:.2f} gradient evaluations (announced {probe.evaluations:.1f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    for method in ("difference", "exact"):
        print(measure(method, repeats))


if __name__ == "__main__":
    main()
