"""All kinds of figures, in the order of a report."""

from __future__ import annotations

from .block_map import BLOCK_MAP
from .curvature import CURVATURE
from .flow_terms import FLOW_TERMS
from .gap_position import GAP_POSITION
from .health import HEALTH
from .kind import Kind
from .loss_decomposition import LOSS_DECOMPOSITION
from .metrics import METRICS
from .norms import NORMS
from .overlaps import OVERLAPS
from .ratio_profile import RATIO_PROFILE
from .singular_values import SINGULAR_VALUES
from .stability import STABILITY
from .widths import WIDTHS

KINDS: tuple[Kind, ...] = (
    METRICS,
    SINGULAR_VALUES,
    RATIO_PROFILE,
    GAP_POSITION,
    WIDTHS,
    OVERLAPS,
    STABILITY,
    NORMS,
    BLOCK_MAP,
    HEALTH,
)

PROBE_KINDS: tuple[Kind, ...] = (CURVATURE, LOSS_DECOMPOSITION, FLOW_TERMS)
"""Those of runs with probes."""
