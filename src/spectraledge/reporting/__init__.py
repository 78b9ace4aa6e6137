"""Reports for people: one page that opens anywhere, or the same panels as files."""

from __future__ import annotations

from .figures import figures
from .report import report

__all__ = ["figures", "report"]
