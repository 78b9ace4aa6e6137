"""Probes: at some snapshots, gradients and curvature of a loss along the recorded updates.

A few vectors of the size of the parameters are formed, multiplied with the stored updates, and forgotten, but
for the gradients, which wait for the next update. The training run goes on as if nothing had been.
"""

from __future__ import annotations

import copy
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from ..curvature import Eigenvalues, Objective, inverse_preconditioner, lanczos, step_direction, undisturbed
from ..curvature.objective import Loss, Method
from ..errors import SettingError
from ..kernel import OutputLoss, OutputProbe, measure_adiabatic
from ..recording.probe import GRADIENTS
from .checks import choice, whole
from .parameters import real
from .span import Vector, block_dots, directions

if TYPE_CHECKING:
    from .ring import UpdateRing

Replicate = Callable[[torch.nn.Module, list[torch.optim.Optimizer], int, int], None]

_KERNEL_EIGENVALUES = 50  # recorded of each kernel
_GRADIENT_COST, _VALUE_COST, _PRODUCT_COST = 1.0, 1 / 3, 2.0


@dataclass(frozen=True)
class Probe:
    """What to measure along the recorded updates, and on which losses.

    Both losses take the model and return a scalar tensor. They must be functions of the parameters alone, the
    same large batch at every call; they are evaluated in evaluation mode with gradients enabled, and may draw
    random numbers, which are the same ones each time and not the run's.

    Attributes:
        train: Training loss on a fixed batch (no weight decay in it).
        val: Validation loss on a fixed set.
        modes: Leading modes of the window along which curvature is measured; two gradient evaluations each.
        span: Random directions in the span of these modes; they cost nothing more with ``modes``, being
            combinations of products that are there.
        random: Random directions in parameter space; two gradient evaluations each.
        eigenvalues: Largest eigenvalues of the Hessian, by Lanczos: 30 to 60 gradient evaluations and as many
            P-vectors of memory for the top one to five.
        curvature: "difference" (central differences of gradients; works wherever gradients do), "exact"
            (differentiates twice; for half-precision parameters), or "auto": differences unless parameters are
            in half precision.
        difference_step: Length of the difference [parameter]; see ``curvature.Objective.hessian_product``.
        next_gradients: Also take both gradients at the next snapshot, which gives the second-order term of the
            change of loss; one or two gradient evaluations more.
        outputs: Function of the model that returns its outputs on a few fixed inputs, (n, C): their tangent
            kernel is measured too, with its gap, its rate of change and the adiabatic parameter A_ker. Costs a
            gradient for each of the n C outputs, and n C P numbers of memory: keep n small.
        output_loss: The training loss as a function of these outputs (``kernel.cross_entropy(labels)``), which
            makes A_ker free of units; needed with ``outputs``.
        replicate: ``replicate(model, optimizers, n_steps, copy)`` trains the copies that it is given for n
            steps on data of its own for each ``copy`` (0, 1): the difference between two such continuations is
            the noise of the updates. Costs two snapshots' worth of training, and two copies of model and
            optimizer.
    """

    train: Loss
    val: Loss | None = None
    modes: int = 4
    span: int = 4
    random: int = 0
    eigenvalues: int = 0
    curvature: Literal["auto", "difference", "exact"] = "auto"
    difference_step: float | None = None
    next_gradients: bool = False
    outputs: Callable[[torch.nn.Module], torch.Tensor] | None = None
    output_loss: OutputLoss | None = None
    replicate: Replicate | None = None

    def __post_init__(self) -> None:
        if not callable(self.train) or not (self.val is None or callable(self.val)):
            raise SettingError(
                "train and val of a probe must be functions from the model to a scalar loss; got "
                f"{type(self.train).__name__} and {type(self.val).__name__}. "
                "Write for example train=lambda model: loss(model(x), y)."
            )
        if (self.outputs is None) != (self.output_loss is None):
            raise SettingError(
                "outputs and output_loss of a probe go together; got one of them. "
                "Pass for example output_loss=spectraledge.kernel.cross_entropy(labels)."
            )
        for name in ("modes", "span", "random", "eigenvalues"):
            whole(name, getattr(self, name), 0, "Use 0 to leave it out.")
        choice("curvature", self.curvature, ("auto", "difference", "exact"))

    @property
    def evaluations(self) -> float:
        """Expected cost of one probe in gradient evaluations, Lanczos and replicates left out."""
        products = self.modes + self.random
        losses = _GRADIENT_COST * (2 if self.val is not None else 1)
        after = _VALUE_COST if self.val is not None else 0.0
        if self.next_gradients:
            after = losses
        exact = _GRADIENT_COST if self.curvature == "exact" and products else 0.0
        return losses + exact + _PRODUCT_COST * products + after

    @property
    def total_evaluations(self) -> float:
        """``evaluations`` with Lanczos at its limit of products, in both metrics."""
        return self.evaluations + _PRODUCT_COST * 2 * _lanczos_limit(self.eigenvalues)

    @property
    def vectors(self) -> int:
        """P-vectors held at once at the peak, those of one gradient evaluation left out."""
        held = 10 + _lanczos_limit(self.eigenvalues)  # gradients, metric, direction, product, displaced parameters
        return held + (8 if self.replicate is not None else 0)  # a copy of model, gradient and Adam's moments, twice


def _lanczos_limit(k: int) -> int:
    return 4 * k + 20 if k else 0


@dataclass
class Pending:
    """A probe that waits for the next update: its vectors, and where it was made."""

    t: int
    vectors: Mapping[str, Vector]


class Prober:
    """Carries out the probes of one monitor.

    Args:
        probe: What to measure.
        model: The module.
        optimizers: Those that train it.
        window: W of the window whose modes are probed.
    """

    def __init__(
        self, probe: Probe, model: torch.nn.Module, optimizers: Sequence[torch.optim.Optimizer], window: int
    ) -> None:
        self.probe, self.window = probe, window
        self._model, self._optimizers = model, list(optimizers)
        self.pending: Pending | None = None

    def measure(
        self, ring: UpdateRing, tensors: Mapping[str, torch.Tensor], *, t: int, step: int, n_steps: int
    ) -> dict[str, Any]:
        """Fields of a "probe" record at the newest snapshot; see ``recording.ProbeRecord``."""
        began = time.perf_counter()
        probe = self.probe
        with undisturbed(self._model):
            train = Objective(self._model, tensors, probe.train, seed=step)
            method = self._method(tensors)
            train_loss, gradient = train.gradient()
            val_loss, vectors = float("nan"), {"train": _reals(gradient)}
            evaluations = 0.0
            if probe.val is not None:
                val = Objective(self._model, tensors, probe.val, seed=step)
                val_loss, val_gradient = val.gradient()
                vectors["val"] = _reals(val_gradient)
                evaluations += val.evaluations
            inverse = inverse_preconditioner(self._optimizers, tensors)
            if inverse is not None:
                vectors["preconditioned"] = _reals({n: g * inverse[n] for n, g in gradient.items()})
            direction = step_direction(self._optimizers, tensors, inverse)
            if direction is not None:
                vectors["direction"] = _reals(direction)
            fields = self._curvature(train, ring, tensors, inverse, method, step)
            fields |= self._spectrum(train, tensors, inverse, method, step)
            evaluations += train.evaluations
            train.release()
        fields["kernel"] = self._kernel(ring, inverse, n_steps)
        fields |= self._replicates(ring, tensors, n_steps)
        gram_of = [*vectors.values(), _reals({name: p.detach() for name, p in tensors.items()})]
        fields |= {
            "t": t,
            "step": step,
            "window": self.window,
            "train_loss": train_loss,
            "val_loss": val_loss,
            "vectors": list(vectors),
            "gradient_products": np.stack([ring.products_with(x) for x in vectors.values()]),
            "gradient_gram": _block_gram(ring, gram_of),
            "method": method,
            "evaluations": evaluations,
            "seconds": time.perf_counter() - began,
        }
        self.pending = Pending(t, vectors)
        return fields

    def follow_up(self, ring: UpdateRing, tensors: Mapping[str, torch.Tensor], *, step: int) -> dict[str, Any]:
        """Fields of the "outcome" record at the snapshot after a probe."""
        assert self.pending is not None
        pending, self.pending = self.pending, None
        probe, n_blocks = self.probe, len(ring.blocks.names)
        losses = {"train": float("nan"), "val": float("nan")}
        gradients = np.full((2, n_blocks), np.nan)
        with undisturbed(self._model):
            for i, (name, loss) in enumerate((("train", probe.train), ("val", probe.val))):
                if loss is None or not (probe.next_gradients or name == "val"):
                    continue
                objective = Objective(self._model, tensors, loss, seed=step)
                if probe.next_gradients:
                    losses[name], gradient = objective.gradient()
                    gradients[i] = ring.products_with(_reals(gradient), lags=1)[:, 0]
                else:
                    losses[name] = objective.value()
        return {
            "t": pending.t,
            "step": step,
            "next_train_loss": losses["train"],
            "next_val_loss": losses["val"],
            "next_products": np.stack([ring.products_with(x, lags=1)[:, 0] for x in pending.vectors.values()]),
            "next_gradient_products": gradients,
        }

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """The vectors of a probe that waits for the next update, by a stable name."""
        vectors = self.pending.vectors if self.pending is not None else {}
        return {f"probe.{kind}.{name}": x for kind, vector in vectors.items() for name, x in vector.items()}

    def load_state_tensors(self, state: Mapping[str, torch.Tensor], t: int | None) -> None:
        """Take up a waiting probe; ``t`` is the update it was made after, None for no probe."""
        self.pending = None
        if t is None:
            return
        vectors: dict[str, dict[str, torch.Tensor]] = {}
        for key, x in state.items():
            _, kind, name = key.split(".", 2)
            vectors.setdefault(kind, {})[name] = x
        self.pending = Pending(t, {kind: vectors[kind] for kind in GRADIENTS if kind in vectors})

    def _method(self, tensors: Mapping[str, torch.Tensor]) -> Method:
        if self.probe.curvature == "auto":
            return "exact" if any(p.element_size() < 4 for p in tensors.values()) else "difference"
        return self.probe.curvature

    def _curvature(
        self,
        train: Objective,
        ring: UpdateRing,
        tensors: Mapping[str, torch.Tensor],
        inverse: Mapping[str, torch.Tensor] | None,
        method: Method,
        step: int,
    ) -> dict[str, Any]:
        """Products of H with the modes, and with random directions in their span and in parameter space."""
        probe = self.probe
        rng = np.random.default_rng([step, 0x5EED])
        _, modes = directions(ring, self.window)
        measured: list[tuple[str, np.ndarray, np.ndarray, np.ndarray, float, float, float]] = []
        bands = (len(ring.blocks.names), ring.lags + 1)

        def measure(name: str, coefficients: np.ndarray, vector: Vector) -> None:
            product = train.hessian_product(_like(tensors, vector), method=method, step=probe.difference_step)
            h = _reals(product)
            products, tilted = ring.products_with(h), np.full(bands, np.nan)
            on_itself = np.nan
            if inverse is not None:
                preconditioned = _reals({n: p * inverse[n] for n, p in product.items()})
                tilted = ring.products_with(preconditioned)
                on_itself = block_dots(ring, vector, preconditioned).sum()
            own = block_dots(ring, vector, h).sum()
            norm2 = block_dots(ring, h, h).sum()
            measured.append((name, coefficients, products, tilted, float(own), float(on_itself), float(norm2)))

        for j in range(min(probe.modes, self.window)):
            coefficients = modes[:, j]
            if np.isfinite(coefficients).all():
                measure(f"mode/{j + 1}", coefficients, ring.combine(coefficients))
        found = len(measured)
        for i in range(probe.span if found else 0):
            weights = rng.standard_normal(found)
            weights /= np.linalg.norm(weights)
            measured.append(_combination(f"span/{i + 1}", weights, measured[:found]))
        for i in range(probe.random):
            seed = int(rng.integers(2**63))
            measure(f"random/{i + 1}", np.full(self.window, np.nan), _random_unit(ring, tensors, seed))
        columns = list(zip(*measured)) if measured else [()] * 7
        d = len(measured)
        return {
            "directions": list(columns[0]),
            "coefficients": np.array(columns[1]).reshape(d, self.window),
            "hessian_products": np.array(columns[2]).reshape(d, *bands),
            "preconditioned_products": np.array(columns[3]).reshape(d, *bands),
            "curvature": np.array(columns[4], dtype=np.float64),
            "preconditioned_curvature": np.array(columns[5], dtype=np.float64),
            "hessian_norm2": np.array(columns[6], dtype=np.float64),
        }

    def _spectrum(
        self,
        train: Objective,
        tensors: Mapping[str, torch.Tensor],
        inverse: Mapping[str, torch.Tensor] | None,
        method: Method,
        step: int,
    ) -> dict[str, Any]:
        """Largest eigenvalues of H, and of P^-1/2 H P^-1/2."""
        fields: dict[str, Any] = {}
        for prefix, metric in (("", None), ("preconditioned_", inverse)):
            wanted = 0 if prefix and metric is None else self.probe.eigenvalues
            values, errors = np.full(wanted, np.nan), np.full(wanted, np.nan)
            if wanted:
                root = None if metric is None else {name: m.sqrt() for name, m in metric.items()}
                found = top_eigenvalues(train, wanted, root=root, method=method, seed=step)
                values, errors = found.values, found.errors
            fields |= {f"{prefix}eigenvalues": values, f"{prefix}eigenvalue_errors": errors}
        return fields

    def _kernel(
        self, ring: UpdateRing, inverse: Mapping[str, torch.Tensor] | None, n_steps: int
    ) -> dict[str, Any] | None:
        """Tangent kernel in the optimizer's metric, and its rate of change along the newest update."""
        if self.probe.outputs is None or self.probe.output_loss is None:
            return None
        outputs = OutputProbe(self._model, self.probe.outputs)
        update = ring.combine(np.array([1.0]))
        missing = set(outputs.parameters) - set(update)
        if missing:
            raise SettingError(
                f"a kernel needs all trainable parameters monitored; {min(missing)} is not. "
                "Leave out params=, or outputs= of the probe."
            )
        lr = _mean_lr(self._optimizers)
        state = measure_adiabatic(
            outputs,
            {name: update[name].to(p) / n_steps for name, p in outputs.parameters.items()},
            lr,
            loss=self.probe.output_loss,
            preconditioner=None if inverse is None else {n: 1 / inverse[n] for n in outputs.parameters},
        )
        return {
            "adiabatic": state.value,
            "position": int(state.gap.position),
            "width": float(state.gap.width),
            "rate": float(np.linalg.norm(state.rate.rate)),
            "lr": lr,
            "eigenvalues": state.spectrum.eigenvalues[:_KERNEL_EIGENVALUES],
        }

    def _replicates(self, ring: UpdateRing, tensors: Mapping[str, torch.Tensor], n_steps: int) -> dict[str, Any]:
        if self.probe.replicate is None:
            return {"replicate_products": None, "replicate_gram": None}
        deltas = [
            replicate_update(self._model, self._optimizers, tensors, self.probe.replicate, n_steps, copy_number)
            for copy_number in (0, 1)
        ]
        return {
            "replicate_products": np.stack([ring.products_with(x) for x in deltas]),
            "replicate_gram": np.moveaxis(_block_gram(ring, deltas), -1, 0),
        }


def top_eigenvalues(
    objective: Objective,
    k: int,
    *,
    root: Mapping[str, torch.Tensor] | None = None,
    method: Method = "difference",
    max_products: int | None = None,
    tolerance: float = 1e-2,
    seed: int = 0,
) -> Eigenvalues:
    """The k largest eigenvalues of a loss's Hessian, by Lanczos.

    Args:
        objective: The loss.
        k: Number of eigenvalues.
        root: Diagonal of P^-1/2: those of P^-1/2 H P^-1/2, in the metric of an optimizer.
        method: As for ``Objective.hessian_product``.
        max_products: Products at most; ``4 k + 20`` where None.
        tolerance: Relative error at which to stop.
        seed: Of the start.

    Returns:
        Values and error bounds [loss per parameter^2].
    """
    parameters = objective.parameters
    sizes = [p.numel() for p in parameters.values()]
    first = next(iter(parameters.values()))
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(sum(sizes), generator=generator, dtype=torch.float64).to(first.device, first.dtype)

    def unflat(x: torch.Tensor) -> dict[str, torch.Tensor]:
        pieces = x.split(sizes)
        return {name: piece.view_as(p) for (name, p), piece in zip(parameters.items(), pieces, strict=True)}

    def product(x: torch.Tensor) -> torch.Tensor:
        v = unflat(x)
        if root is not None:
            v = {name: piece * root[name] for name, piece in v.items()}
        h = objective.hessian_product(v, method=method)
        if root is not None:
            h = {name: piece * root[name] for name, piece in h.items()}
        return torch.cat([h.get(name, torch.zeros_like(p)).reshape(-1) for name, p in parameters.items()])

    return lanczos(product, start, min(k, sum(sizes)), max_products=max_products, tolerance=tolerance)


def replicate_update(
    model: torch.nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    tensors: Mapping[str, torch.Tensor],
    replicate: Replicate,
    n_steps: int,
    copy_number: int,
) -> dict[str, torch.Tensor]:
    """The update that ``n_steps`` steps on other data would have made from here; everything is left as it is."""
    memo: dict[int, Any] = {}
    for optimizer in optimizers:  # copies must not call this monitor, nor anybody else
        for name, value in vars(optimizer).items():
            if name.startswith("_optimizer_") and isinstance(value, OrderedDict):
                memo[id(value)] = OrderedDict()
    with undisturbed(model):
        twin, twins = copy.deepcopy((model, list(optimizers)), memo)
        for module, original in zip(twin.modules(), model.modules(), strict=True):
            module.training = original.training
        before = {name: p.detach().clone() for name, p in tensors.items()}
        named = dict(twin.named_parameters(remove_duplicate=False))
        twin.train()
        replicate(twin, twins, n_steps, copy_number)
        return _reals({name: named[name].detach() - before[name] for name in tensors})


def _block_gram(ring: UpdateRing, vectors: Sequence[Vector]) -> np.ndarray:
    """(V, V, B) products among P-vectors, each pair multiplied once."""
    gram = np.empty((len(vectors), len(vectors), len(ring.blocks.names)))
    for i, x in enumerate(vectors):
        for j in range(i + 1):
            gram[i, j] = gram[j, i] = block_dots(ring, x, vectors[j])
    return gram


def _mean_lr(optimizers: Sequence[torch.optim.Optimizer]) -> float:
    """Learning rate, averaged over parameters."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    sizes = [sum(p.numel() for p in group["params"]) for group in groups]
    return float(np.average([float(group["lr"]) for group in groups], weights=sizes))


def _combination(name: str, weights: np.ndarray, parts: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """A direction in the span of measured ones, by linearity."""
    coefficients = np.einsum("i,il->l", weights, [p[1] for p in parts])
    products = np.einsum("i,ibl->bl", weights, [p[2] for p in parts])
    tilted = np.einsum("i,ibl->bl", weights, [p[3] for p in parts])
    used = slice(0, len(coefficients))
    own = float(products.sum(axis=0)[used] @ coefficients)
    on_itself = float(tilted.sum(axis=0)[used] @ coefficients)
    return name, coefficients, products, tilted, own, on_itself, float("nan")


def _random_unit(ring: UpdateRing, tensors: Mapping[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """A direction uniform on the sphere of the monitored parameters."""
    generator = torch.Generator().manual_seed(seed)
    raw = {
        name: torch.randn(real(p).shape, generator=generator).to(real(p).device, real(p).dtype)
        for name, p in tensors.items()
    }
    norm = float(np.sqrt(block_dots(ring, raw, raw).sum()))
    return {name: x / norm for name, x in raw.items()}


def _reals(values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: real(value) for name, value in values.items()}


def _like(tensors: Mapping[str, torch.Tensor], vector: Vector) -> dict[str, torch.Tensor]:
    """A vector of reals as tensors of the parameters' own dtype and device."""
    out = {}
    for name, parameter in tensors.items():
        if name in vector:
            x = vector[name].to(parameter.device)
            out[name] = torch.view_as_complex(x.contiguous()) if parameter.is_complex() else x.to(parameter.dtype)
    return out
