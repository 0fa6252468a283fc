"""Run PyFlowReg's own tests of public behaviour against `scopeflow.compat.pyflowreg`.

Usage: ``python benchmarks/peers/run_pyflowreg_tests.py CHECKOUT [tests] [pytest arguments]`` with
a clone of https://github.com/FlowRegSuite/pyflowreg. The tests are copied to a temporary folder,
where only the prefix of imports is changed; nothing of them is kept. docs/pyflowreg.md says which
of them fail, and why.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CHOSEN = (
    "core/test_warping.py",
    "motion_correction/test_OF_options.py",
    "motion_correction/test_callbacks.py",
    "motion_correction/test_compensate_arr.py",
    "motion_correction/test_flow_reg_live.py",
    "session/test_config.py",
    "util/io/test_null_writer.py",
    "util/io/test_tiff.py",
    "util/test_xcorr_prealignment.py",
)
SETTINGS = (
    "[pytest]\naddopts = -p no:cacheprovider\nmarkers =\n    slow\n    integration\n    gpu\n"
)


def copy_tests(checkout: Path, folder: Path) -> None:
    """Copy the tests and change the prefix of their imports."""
    shutil.copytree(checkout / "tests", folder / "tests")
    for path in (folder / "tests").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        text = re.sub(r"\b(from|import) pyflowreg\b", r"\1 scopeflow.compat.pyflowreg", text)
        text = re.sub(r"([\"'])pyflowreg\.", r"\1scopeflow.compat.pyflowreg.", text)
        path.write_text(text, encoding="utf-8")
    (folder / "pytest.ini").write_text(SETTINGS)


def main(arguments: list[str]) -> int:
    """Run the chosen tests; return the exit code of pytest."""
    checkout = Path(arguments[0]).resolve()
    with tempfile.TemporaryDirectory(prefix="pyflowreg-tests-") as name:
        folder = Path(name)
        copy_tests(checkout, folder)
        given = [argument for argument in arguments[1:] if not argument.startswith("-")]
        options = [argument for argument in arguments[1:] if argument.startswith("-")]
        tests = [f"tests/{test}" for test in given or CHOSEN]
        command = [sys.executable, "-m", "pytest", "-q", *options, *tests]
        return subprocess.run(command, cwd=folder, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
