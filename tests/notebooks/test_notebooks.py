from __future__ import annotations

import ast
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def run(path: Path, folder: Path) -> dict[str, str]:
    """Run a notebook with the Python of the tests; return the value of each cell by its name."""
    notebook = nbformat.read(path, as_version=4)
    # The kernel that every environment with ipykernel has: it is this interpreter.
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=120, resources={"metadata": {"path": str(folder)}}
    )
    paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    client.execute(
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "MPLBACKEND": ""}
    )
    values = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.output_type == "execute_result":
                values[cell.id] = output.data["text/plain"]
            elif output.output_type == "display_data":
                values[cell.id] = ", ".join(output.data)
    return values


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_one_recording(tmp_path):
    values = run(ROOT / "notebooks" / "01_one_recording.ipynb", tmp_path)
    assert "(T: 80, Y: 64, X: 64, C: 1)" in values["open"]
    assert "/status" in values["cluster"]
    assert ast.literal_eval(values["correct"]) == (80, 80)
    assert ast.literal_eval(values["resume"]) == (80, 0)
    assert "image/png" in values["look"]
    measured = ast.literal_eval(values["measure"])
    assert measured["frames"] == 80
    assert measured["before_px"] > 1
    assert measured["after_px"] < measured["before_px"] / 3
