"""Everything that is known of a quadratic run beforehand: Hessian, optima, noise, and the Gram to expect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import SettingError
from ...theory.linear_descent import rest_point
from ...theory.linear_maps import joint_map, linear_gram, momentum_map, preconditioned_modes
from ...theory.stationary import expected_gram, stationary_gram
from ..settings import QuadraticSettings

Array = NDArray[np.float64]

# Second words of the seeds of the world's generators; 1 is that of the modular placebo.
_BASIS_STREAM, _PLACES_STREAM, _PRECONDITIONER_STREAM = 2, 3, 4


@dataclass(frozen=True)
class QuadraticWorld:
    """A quadratic loss (theta - c)^T H (theta - c) / 2 with H = Q diag(h) Q^T.

    Attributes:
        curvatures: (n) h.
        modes: (n, n) Q, eigenvectors as columns.
        start: (n) first parameters.
        optimum: (n) c of the training loss.
        val_optimum: (n) c of the validation loss, which has the same H.
        noise_variance: (n) variance of the gradient noise per step along each mode.
        second_moments: (n) fixed v of frozen AdamW, of each parameter.
    """

    curvatures: Array
    modes: Array
    start: Array
    optimum: Array
    val_optimum: Array
    noise_variance: Array
    second_moments: Array

    @property
    def hessian(self) -> Array:
        """(n, n) H."""
        return (self.modes * self.curvatures) @ self.modes.T

    @property
    def noise_covariance(self) -> Array:
        """(n, n) of the gradient noise of one step, in parameters."""
        return (self.modes * self.noise_variance) @ self.modes.T


def quadratic_world(settings: QuadraticSettings) -> QuadraticWorld:
    """The world that a seed and its settings stand for; the caller's generators are not touched.

    Example:
        >>> world = quadratic_world(QuadraticSettings(eigenvalues="2,1", basis="identity", optimum=0))
        >>> world.hessian.tolist(), float(np.linalg.norm(world.start).round(12))
        ([[2.0, 0.0], [0.0, 1.0]], 1.0)
    """
    h = np.array(settings.curvatures)
    n = len(h)
    modes = np.eye(n)
    if settings.basis == "random":
        q, r = np.linalg.qr(np.random.default_rng([settings.seed, _BASIS_STREAM]).standard_normal((n, n)))
        # Signs of R's diagonal make Q uniform over rotations and reflections.
        modes = q * np.sign(np.diagonal(r))
    places = np.random.default_rng([settings.seed, _PLACES_STREAM]).standard_normal((3, n))
    away, optimum, val_away = places / np.linalg.norm(places, axis=1, keepdims=True)
    optimum = settings.optimum * optimum
    spread = np.log(settings.preconditioner_spread) * (np.linspace(-0.5, 0.5, n) if n > 1 else np.zeros(1))
    root = np.exp(np.random.default_rng([settings.seed, _PRECONDITIONER_STREAM]).permutation(spread))
    return QuadraticWorld(
        curvatures=h,
        modes=modes,
        start=optimum + settings.start * away,
        optimum=optimum,
        val_optimum=optimum + settings.val_distance * val_away,
        noise_variance=settings.noise * (h if settings.noise_shape == "proportional" else np.ones(n)),
        second_moments=root**2,
    )


def closed_form_gram(settings: QuadraticSettings, *, stride: int, window: int, start: int | None = 0) -> Array:
    """Expected Gram of W updates of a quadratic run [parameter^2]; without noise the Gram itself.

    Args:
        settings: Of the run: gd, sgd with any momentum, or frozen_adamw.
        stride: s, optimizer steps per update (the run's ``every``).
        window: W.
        start: Optimizer steps before the first update, or None at rest.

    Returns:
        (W, W), oldest update first; NaN at rest where there is no stationary state. Source: derived.

    Raises:
        SettingError: For adamw, clipping, a schedule or a warm-up, under which steps are not one linear map.

    Example:
        >>> settings = QuadraticSettings(eigenvalues="0.5", lr=1)
        >>> closed_form_gram(settings, stride=1, window=2)
        array([[0.25  , 0.125 ],
               [0.125 , 0.0625]])
    """
    if settings.optimizer == "adamw" or settings.clip or settings.schedule != "constant" or settings.warmup:
        raise SettingError(
            "a run with a closed form must use gd, sgd or frozen_adamw at a constant learning rate without clipping; "
            f"got optimizer={settings.optimizer} clip={settings.clip} schedule={settings.schedule} "
            f"warmup={settings.warmup}. Use optimizer=frozen_adamw for Adam's kind."
        )
    world, lr, decay = quadratic_world(settings), settings.lr, settings.weight_decay
    h, noise = world.curvatures, world.noise_variance
    if settings.optimizer == "frozen_adamw":
        root = np.sqrt(world.second_moments)
        h, directions = preconditioned_modes(world.hessian, root)
        inverse = directions.T * root  # B^-1 = Z^T P^1/2 = B^T P
        linear = momentum_map(
            "frozen_adamw",
            inverse @ world.start,
            h,
            lr,
            settings.betas[0],
            noise_variance=1.0,
            optimum=inverse @ world.optimum,
            weight_decay=decay,
        )
        joint = joint_map(linear, directions.T @ world.noise_covariance @ directions)
        return linear_gram(joint, stride, window, start=start, metric=directions.T @ directions)
    away, optimum = world.modes.T @ world.start, world.modes.T @ world.optimum
    if settings.momentum:
        linear = momentum_map(
            "sgd", away, h, lr, settings.momentum, noise_variance=noise, optimum=optimum, weight_decay=decay
        )
        return linear_gram(linear, stride, window, start=start).sum(axis=0)
    if start is None:
        return stationary_gram(h, lr, noise, stride, window, weight_decay=decay)
    away = away - rest_point(h, optimum, decay)
    return expected_gram(away, h, lr, noise, stride, window, start=start, weight_decay=decay)
