"""Figures of a recording: each file builds a table of arrays first and draws it second.

Needs matplotlib only when something is drawn; knows nothing about torch.
"""

from __future__ import annotations

from .block_map import block_map_table, plot_block_map
from .catalogue import KINDS, PROBE_KINDS
from .curvature import curvature_table, plot_curvature
from .flow_terms import flow_terms_table, plot_flow_terms
from .gap_position import gap_position_table, plot_gap_position
from .health import health_table, plot_health
from .loss_decomposition import loss_decomposition_table, plot_loss_decomposition
from .metrics import metrics_table, plot_metrics
from .norms import norms_table, plot_norms
from .null import null_table
from .overlaps import overlaps_table, plot_overlaps
from .ratio_profile import plot_ratio_profile, ratio_profile_table
from .singular_values import plot_singular_values, singular_values_table
from .stability import plot_stability, stability_table
from .widths import plot_widths, widths_table

__all__ = [
    "KINDS",
    "PROBE_KINDS",
    "block_map_table",
    "curvature_table",
    "flow_terms_table",
    "gap_position_table",
    "health_table",
    "loss_decomposition_table",
    "metrics_table",
    "norms_table",
    "null_table",
    "overlaps_table",
    "plot_block_map",
    "plot_curvature",
    "plot_flow_terms",
    "plot_gap_position",
    "plot_health",
    "plot_loss_decomposition",
    "plot_metrics",
    "plot_norms",
    "plot_overlaps",
    "plot_ratio_profile",
    "plot_singular_values",
    "plot_stability",
    "plot_widths",
    "ratio_profile_table",
    "singular_values_table",
    "stability_table",
    "widths_table",
]
