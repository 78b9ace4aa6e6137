"""The theory on a recording: stability, curvature, loss, flows, the adiabatic parameter, phases, maximality.

Works on recordings; knows nothing about torch. Each function takes a recording and returns a frozen result with
arrays, a ``table``, plain ``rows`` and a ``summary``.
"""

from __future__ import annotations

from .adiabatic import Adiabaticity, adiabatic
from .curvature import Curvature, curvature
from .edge import Edge, edge
from .feedback import AlphaLoopTests, alpha_loop_tests
from .flow_inputs import FlowInputs, flow_inputs
from .flow_scores import FlowComparison, FlowScore, flow_rows
from .flows import compare_flows
from .gap_dynamics import GapFlowTerms, gap_flow_terms
from .hierarchy import Hierarchy, NullOrder
from .horizon import Krylov, krylov
from .loss_decomposition import LossReport, loss_decomposition
from .loss_tests import AlphaTest
from .maximality import Maximality, maximality
from .phases import PhaseReport, phases
from .repulsion import DysonTests, dyson_tests
from .stability import Stability, stability
from .survival import Survival, survival

__all__ = [
    "Adiabaticity",
    "AlphaLoopTests",
    "AlphaTest",
    "Curvature",
    "DysonTests",
    "Edge",
    "FlowComparison",
    "FlowInputs",
    "FlowScore",
    "GapFlowTerms",
    "Hierarchy",
    "Krylov",
    "LossReport",
    "Maximality",
    "NullOrder",
    "PhaseReport",
    "Stability",
    "Survival",
    "adiabatic",
    "alpha_loop_tests",
    "compare_flows",
    "curvature",
    "dyson_tests",
    "edge",
    "flow_inputs",
    "flow_rows",
    "gap_flow_terms",
    "krylov",
    "loss_decomposition",
    "maximality",
    "phases",
    "stability",
    "survival",
]
