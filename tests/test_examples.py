"""Every example runs, in a fresh process, without a warning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

NO_NETWORK = 3  # what an example that downloads something leaves with where it cannot, having said so
EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_example(path: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", str(path), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    if result.returncode == NO_NETWORK:
        pytest.skip(result.stdout.strip().splitlines()[-1])
    assert result.returncode == 0, result.stderr
    assert result.stdout
