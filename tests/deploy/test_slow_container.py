"""deploy/try-container.sh, with each of its checks."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "try-container.sh"


@pytest.mark.slow
@pytest.mark.timeout(1_200)  # the first time it makes a Debian
def test_the_image_builds_trades_and_drains():
    done = subprocess.run([SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    assert done.stdout.endswith("ALL HELD\n")
