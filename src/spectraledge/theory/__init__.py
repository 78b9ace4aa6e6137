# ruff: noqa: F401
"""The mathematics: pure NumPy/SciPy functions in float64, vectorised over leading axes.

Names are loaded on first use, so that reading a recording does not load what fits and integrates. Functions called
like their module (``adiabatic``, ``equilibrium``, ``kernel_spectrum``, ...) are imported from it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

_HOME = {
    "adiabatic": "Adiabatic adiabatic_null adiabatic_parameter gram_blocks kernel_adiabatic",
    "alpha": "alpha_groups stability_coefficients subspace_coefficients",
    "alpha_loop": "FixedPoint fixed_points loop_gap loop_map loop_spectrum saddle_node",
    "alpha_null": "AlphaNull ordering_margin",
    "autocorrelation": "AR1 ar1_fit bartlett_long_run effective_n gap_damping_correlation lagged_design",
    "avoided_crossing": (
        "CrossingTest Crossings crossing_test find_crossings gram_crossings predicted_mixing two_levels"
    ),
    "bootstrap": "BootstrapInterval block_bootstrap cluster_bootstrap moving_block_indices stationary_indices",
    "calibration": "Calibration calibrate",
    "coincidence": "Coincidence event_coincidence",
    "deep_linear": "deep_linear_descent deep_linear_flow learning_time",
    "dimension": "effective_dimension",
    "dyson": "Coupling check_model kappa_squared simulate_gap wishart_drift",
    "edge_of_stability": "predicted_alternation sharpness_ratio sign_alternation",
    "eigengaps": "cut_gaps two_sided_gaps where_resolved",
    "encoding": "DirectionProfile coordinate_density direction_profile rank_one_share stable_rank top_share",
    "equilibrium": "BrierScore Equilibrium Reliability brier_score opening_probability reliability",
    "event_rank": "EventRank event_rank_test",
    "event_study": "EventStudy",
    "forecast": "PredictorScore compare_predictors forward_chain",
    "gap": "eigen_width g23 gap_position gap_ratio ratios uniqueness_margin width",
    "gap_flow": "GapTerms collapse_time gap_closed_form gap_terms integrate_pair term_shares",
    "gap_flow_fit": "GapFlowFit fit_gap_flow",
    "gap_law": "StationaryGap stationary_density stationary_gap",
    "gap_null": "gap_null_statistics gap_p_value",
    "gap_rules": "gap_scores largest_score",
    "granger": "Granger",
    "granger_null": "TestSize granger_size null_series",
    "hac": "HacMean hac_mean ols_overlap overlap_lag",
    "hankel": (
        "effective_rank_bound hankel_gram hankel_rows hankel_singular_values lazy_profiles one_minus_power slow_modes"
    ),
    "hierarchy": "Slope hierarchy_exponent inverted_hierarchy_slope",
    "horizon": "active_modes check_kind effective_lr stability_limit",
    "hysteresis": "Hysteresis HysteresisTest hysteresis_sweep hysteresis_test",
    "intervals": "clopper_pearson",
    "isotonic": "MonotoneTest isotonic_fit monotone_test one_reversal_chance",
    "kernel_spectrum": "KernelGap KernelRotation KernelSpectrum kernel_gap kernel_rotation",
    "lagged_correlation": "LaggedScan lagged_scan polynomial_residual",
    "lazy": "GramComparison PredictedGram compare_grams loss_curve loss_curve_error predicted_gram",
    "linear_descent": "decay_time descent_gram descent_path descent_profiles free_strengths rest_point",
    "linear_maps": "LinearMap joint_map linear_gram linear_path momentum_map preconditioned_modes rest_covariance",
    "local_projection": "LocalProjection",
    "loss": "in_sample_contributions out_of_sample_contributions predicted_contributions published_contributions",
    "loss_decomposition": "LossDecomposition coverage second_order_term",
    "maximality": "collapse_events cut_learning_rates cut_stability progress_change",
    "nested": "NestedTest nested_test",
    "noise": "author_bbp_ratio author_noise common_part_noise momentum_row_correlation von_neumann_noise",
    "overlap": "mode_overlaps subspace_overlap",
    "permutation": "MaxStatisticTest benjamini_hochberg circular_shift_p holm lagged_correlations max_statistic_p",
    "perturbation": (
        "OperatorChange cyclic_change gram_change operator_change second_order_eigenvalues shifted_spectrum"
    ),
    "phase_null": "ScheduleNull schedule_null window_ratios",
    "phase_rules": "AuthorPhases sed_phases thesis_phases",
    "phase_surrogates": "circular_shifts phase_randomised phase_randomised_gram surrogate_test",
    "phases": "Phases is_three_phase three_phases",
    "piecewise": "PiecewiseFit PiecewiseModel",
    "power_law": "PowerLaw",
    "predictors": "Ar1 Drift GapFlow Persistence Predictor SignalFlow",
    "projections": (
        "chance_coverage coverage_p_value mode_coefficients mode_projections span_coverage time_projections"
    ),
    "proportions": "DetectorTable detector_table wilson",
    "rank_two": "ExactRankTwo RankTwo",
    "regimes": "Regimes",
    "regression": "Regression ols_hac",
    "roc": "Auc RocCurve roc_curve auc",
    "rotation": (
        "independent_survival match_modes paired_overlaps principal_angles sine_floor span_sines "
        "survival_bound tightness vacuous_share vector_sines"
    ),
    "rotation_flow": "conservative_coupling measured_injection rotation_rates",
    "sign_flip": "sign_flip_p",
    "signal_flow": "SignalTerms flow_coefficients integrate_flow linear_flow signal_terms",
    "smoothness": "legendre_overlaps legendre_polynomials smooth_path turning_rate",
    "spacing": "spacing_ratio",
    "spacing_null": "SpacingTest spacing_test",
    "spectrum": "GramSpectrum effective_rank gram_spectrum mp_edge participation_ratio resolution_floor trace",
    "stability": "profile_bound span_bound vector_bound",
    "stationary": "expected_gram stationary_gram stationary_strengths",
    "strengths": (
        "critical_strength debiased_strength detected_strengths detection_threshold noise_edge signal_fraction"
    ),
    "surrogates": "NullModel fit_null sample_gram",
    "survival_times": "KaplanMeier LeadTimes kaplan_meier lead_times",
    "synthetic": "History coherence_loss constant_drift curvature_change mode_switch_on norm_decay white_noise",
    "thresholds": "OperatingPoint operating_point sensitivity_at tune_threshold",
    "unit_rows": "UnitRowDraws chi_square_quantile correlation_factor row_correlation_matrix",
    "width_slope": "WidthSlope",
    "window_series": "WindowSeries check_horizon full_gram_windows future moving_grams quantity",
    "worst_cases": "WorstCase sharp_pair sharp_profile sharp_rotation unchanged_spectrum",
}
_MODULE = {name: module for module, names in _HOME.items() for name in names.split()}

__all__ = sorted(_MODULE)

if TYPE_CHECKING:
    from .adiabatic import Adiabatic, adiabatic_null, adiabatic_parameter, gram_blocks, kernel_adiabatic
    from .alpha import alpha_groups, stability_coefficients, subspace_coefficients
    from .alpha_loop import FixedPoint, fixed_points, loop_gap, loop_map, loop_spectrum, saddle_node
    from .alpha_null import AlphaNull, ordering_margin
    from .autocorrelation import AR1, ar1_fit, bartlett_long_run, effective_n, gap_damping_correlation, lagged_design
    from .avoided_crossing import (
        Crossings,
        CrossingTest,
        crossing_test,
        find_crossings,
        gram_crossings,
        predicted_mixing,
        two_levels,
    )
    from .bootstrap import (
        BootstrapInterval,
        block_bootstrap,
        cluster_bootstrap,
        moving_block_indices,
        stationary_indices,
    )
    from .calibration import Calibration, calibrate
    from .coincidence import Coincidence, event_coincidence
    from .deep_linear import deep_linear_descent, deep_linear_flow, learning_time
    from .dimension import effective_dimension
    from .dyson import Coupling, check_model, kappa_squared, simulate_gap, wishart_drift
    from .edge_of_stability import predicted_alternation, sharpness_ratio, sign_alternation
    from .eigengaps import cut_gaps, two_sided_gaps, where_resolved
    from .encoding import (
        DirectionProfile,
        coordinate_density,
        direction_profile,
        rank_one_share,
        stable_rank,
        top_share,
    )
    from .equilibrium import BrierScore, Equilibrium, Reliability, brier_score, opening_probability, reliability
    from .event_rank import EventRank, event_rank_test
    from .event_study import EventStudy
    from .forecast import PredictorScore, compare_predictors, forward_chain
    from .gap import eigen_width, g23, gap_position, gap_ratio, ratios, uniqueness_margin, width
    from .gap_flow import GapTerms, collapse_time, gap_closed_form, gap_terms, integrate_pair, term_shares
    from .gap_flow_fit import GapFlowFit, fit_gap_flow
    from .gap_law import StationaryGap, stationary_density, stationary_gap
    from .gap_null import gap_null_statistics, gap_p_value
    from .gap_rules import gap_scores, largest_score
    from .granger import Granger
    from .granger_null import TestSize, granger_size, null_series
    from .hac import HacMean, hac_mean, ols_overlap, overlap_lag
    from .hankel import (
        effective_rank_bound,
        hankel_gram,
        hankel_rows,
        hankel_singular_values,
        lazy_profiles,
        one_minus_power,
        slow_modes,
    )
    from .hierarchy import Slope, hierarchy_exponent, inverted_hierarchy_slope
    from .horizon import active_modes, check_kind, effective_lr, stability_limit
    from .hysteresis import Hysteresis, HysteresisTest, hysteresis_sweep, hysteresis_test
    from .intervals import clopper_pearson
    from .isotonic import MonotoneTest, isotonic_fit, monotone_test, one_reversal_chance
    from .kernel_spectrum import KernelGap, KernelRotation, KernelSpectrum, kernel_gap, kernel_rotation
    from .lagged_correlation import LaggedScan, lagged_scan, polynomial_residual
    from .lazy import GramComparison, PredictedGram, compare_grams, loss_curve, loss_curve_error, predicted_gram
    from .linear_descent import decay_time, descent_gram, descent_path, descent_profiles, free_strengths, rest_point
    from .linear_maps import (
        LinearMap,
        joint_map,
        linear_gram,
        linear_path,
        momentum_map,
        preconditioned_modes,
        rest_covariance,
    )
    from .local_projection import LocalProjection
    from .loss import (
        in_sample_contributions,
        out_of_sample_contributions,
        predicted_contributions,
        published_contributions,
    )
    from .loss_decomposition import LossDecomposition, coverage, second_order_term
    from .maximality import collapse_events, cut_learning_rates, cut_stability, progress_change
    from .nested import NestedTest, nested_test
    from .noise import author_bbp_ratio, author_noise, common_part_noise, momentum_row_correlation, von_neumann_noise
    from .overlap import mode_overlaps, subspace_overlap
    from .permutation import (
        MaxStatisticTest,
        benjamini_hochberg,
        circular_shift_p,
        holm,
        lagged_correlations,
        max_statistic_p,
    )
    from .perturbation import (
        OperatorChange,
        cyclic_change,
        gram_change,
        operator_change,
        second_order_eigenvalues,
        shifted_spectrum,
    )
    from .phase_null import ScheduleNull, schedule_null, window_ratios
    from .phase_rules import AuthorPhases, sed_phases, thesis_phases
    from .phase_surrogates import circular_shifts, phase_randomised, phase_randomised_gram, surrogate_test
    from .phases import Phases, is_three_phase, three_phases
    from .piecewise import PiecewiseFit, PiecewiseModel
    from .power_law import PowerLaw
    from .predictors import Ar1, Drift, GapFlow, Persistence, Predictor, SignalFlow
    from .projections import (
        chance_coverage,
        coverage_p_value,
        mode_coefficients,
        mode_projections,
        span_coverage,
        time_projections,
    )
    from .proportions import DetectorTable, detector_table, wilson
    from .rank_two import ExactRankTwo, RankTwo
    from .regimes import Regimes
    from .regression import Regression, ols_hac
    from .roc import Auc, RocCurve, auc, roc_curve
    from .rotation import (
        independent_survival,
        match_modes,
        paired_overlaps,
        principal_angles,
        sine_floor,
        span_sines,
        survival_bound,
        tightness,
        vacuous_share,
        vector_sines,
    )
    from .rotation_flow import conservative_coupling, measured_injection, rotation_rates
    from .sign_flip import sign_flip_p
    from .signal_flow import SignalTerms, flow_coefficients, integrate_flow, linear_flow, signal_terms
    from .smoothness import legendre_overlaps, legendre_polynomials, smooth_path, turning_rate
    from .spacing import spacing_ratio
    from .spacing_null import SpacingTest, spacing_test
    from .spectrum import (
        GramSpectrum,
        effective_rank,
        gram_spectrum,
        mp_edge,
        participation_ratio,
        resolution_floor,
        trace,
    )
    from .stability import profile_bound, span_bound, vector_bound
    from .stationary import expected_gram, stationary_gram, stationary_strengths
    from .strengths import (
        critical_strength,
        debiased_strength,
        detected_strengths,
        detection_threshold,
        noise_edge,
        signal_fraction,
    )
    from .surrogates import NullModel, fit_null, sample_gram
    from .survival_times import KaplanMeier, LeadTimes, kaplan_meier, lead_times
    from .synthetic import (
        History,
        coherence_loss,
        constant_drift,
        curvature_change,
        mode_switch_on,
        norm_decay,
        white_noise,
    )
    from .thresholds import OperatingPoint, operating_point, sensitivity_at, tune_threshold
    from .unit_rows import UnitRowDraws, chi_square_quantile, correlation_factor, row_correlation_matrix
    from .width_slope import WidthSlope
    from .window_series import WindowSeries, check_horizon, full_gram_windows, future, moving_grams, quantity
    from .worst_cases import WorstCase, sharp_pair, sharp_profile, sharp_rotation, unchanged_spectrum


def __getattr__(name: str) -> object:
    if name in _MODULE:
        value = getattr(import_module(f"{__name__}.{_MODULE[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
