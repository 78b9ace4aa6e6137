"""The demo: a network that groks, a placebo that cannot, and what the spectrum says about both."""

from __future__ import annotations

from .run import Demo, Progress, demo

__all__ = ["Demo", "Progress", "demo"]
