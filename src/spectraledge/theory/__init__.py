"""The mathematics: pure NumPy/SciPy functions in float64, vectorised over leading axes."""

from __future__ import annotations

from spectraledge.theory.dimension import effective_dimension
from spectraledge.theory.gap import (
    eigen_width,
    g23,
    gap_null_statistics,
    gap_p_value,
    gap_position,
    gap_ratio,
    gap_scores,
    ratios,
    uniqueness_margin,
    width,
)
from spectraledge.theory.intervals import clopper_pearson
from spectraledge.theory.noise import (
    author_bbp_ratio,
    author_noise,
    common_part_noise,
    momentum_row_correlation,
    von_neumann_noise,
)
from spectraledge.theory.overlap import mode_overlaps, subspace_overlap
from spectraledge.theory.perturbation import cyclic_change, gram_change, operator_change, shifted_spectrum
from spectraledge.theory.smoothness import legendre_overlaps, smooth_path, turning_rate
from spectraledge.theory.spacing import spacing_ratio
from spectraledge.theory.spectrum import (
    GramSpectrum,
    effective_rank,
    gram_spectrum,
    mp_edge,
    participation_ratio,
    resolution_floor,
    trace,
)
from spectraledge.theory.strengths import (
    critical_strength,
    debiased_strength,
    detected_strengths,
    detection_threshold,
    noise_edge,
    signal_fraction,
)
from spectraledge.theory.surrogates import NullModel, fit_null, sample_gram

__all__ = [
    "GramSpectrum",
    "NullModel",
    "author_bbp_ratio",
    "author_noise",
    "clopper_pearson",
    "common_part_noise",
    "critical_strength",
    "cyclic_change",
    "debiased_strength",
    "detected_strengths",
    "detection_threshold",
    "effective_dimension",
    "effective_rank",
    "eigen_width",
    "fit_null",
    "g23",
    "gap_null_statistics",
    "gap_p_value",
    "gap_position",
    "gap_ratio",
    "gap_scores",
    "gram_change",
    "gram_spectrum",
    "legendre_overlaps",
    "mode_overlaps",
    "momentum_row_correlation",
    "mp_edge",
    "noise_edge",
    "operator_change",
    "participation_ratio",
    "ratios",
    "resolution_floor",
    "sample_gram",
    "shifted_spectrum",
    "signal_fraction",
    "smooth_path",
    "spacing_ratio",
    "subspace_overlap",
    "trace",
    "turning_rate",
    "uniqueness_margin",
    "von_neumann_noise",
    "width",
]
