"""Kernels are compiled again where a file changed whose code they hold."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from pliant.accelerator.model import kernels

CALLED = "from kernels import kernel\n\n@kernel\ndef called():\n    return {}\n"
CALLS = (
    "from called import called\nfrom kernels import kernel\n\n"
    "@kernel\ndef calls():\n    return called() + 1\n"
)


def test_a_kernel_is_compiled_again_where_one_that_it_calls_changed(tmp_path: Path) -> None:
    """Numba alone would keep the old code: the file of the caller is the same."""
    package = tmp_path / "package" / "model"
    package.mkdir(parents=True)
    shutil.copy(kernels.__file__, package / "kernels.py")
    (package / "calls.py").write_text(CALLS)
    found = []
    for value in (1, 1, 7):
        (package / "called.py").write_text(CALLED.format(value))
        code = "from calls import calls; print(calls(), sum(calls.stats.cache_hits.values()))"
        environment = os.environ | {"PYTHONPATH": str(package), "NUMBA_CACHE_DIR": str(tmp_path)}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found.append(done.stdout.split())
    assert found == [["2", "0"], ["2", "1"], ["8", "0"]]
