"""The examples in the documents of PyFlowReg run as they stand, with another import prefix."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import os
import re
import sys
import types
import typing
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

import scopeflow
from scopeflow.compat.pyflowreg.core import register_backend
from scopeflow.compat.pyflowreg.core.optical_flow import get_displacement
from scopeflow.compat.pyflowreg.motion_correction import OFOptions, OutputFormat
from scopeflow.compat.pyflowreg.motion_correction.compensate_recording import RegistrationConfig
from scopeflow.compat.pyflowreg.motion_correction.parallelization.multiprocessing import (
    MultiprocessingExecutor,
)
from scopeflow.compat.pyflowreg.session import SessionConfig, run_stage2, run_stage3
from scopeflow.flow.backends import registry as backends
from scopeflow.flow.backends.registry import is_backend_available
from tests.compat.documents import DOCUMENTS, SESSION_TOML, Example, read_lines

DEMO = Path(scopeflow.__file__).parent / "data" / "mouse_two_photon.tif"
MOVIES = ("raw_video.h5", "video.h5", "large_video.h5", "large_dataset.h5")


@pytest.fixture(scope="session")
def documents() -> Path:
    """Folder of the documents beside the repository."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "spec" / "seeds"
    if not folder.is_dir():
        pytest.skip("the documents of PyFlowReg (../shared/spec/seeds) are not present")
    return folder


@pytest.fixture(scope="module", autouse=True)
def _registry_as_before():
    """Backends that the examples add are not left to the tests of other files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "_backends", dict(backends._backends))
        yield


@pytest.fixture(scope="module")
def movie() -> np.ndarray:
    """200 frames of a real two-photon recording, a part of each."""
    return tifffile.imread(DEMO)[:, 8:40, 8:48]


def cases():
    for document, examples in DOCUMENTS.items():
        for example in examples:
            marks = [pytest.mark.slow] if example.needs in ("processes", "torch") else []
            name = f"{document.removeprefix('pyflowreg_')}-{example.first}"
            yield pytest.param(document, example, id=name, marks=marks)


class Screen:
    """Stands for a viewer: takes what an example shows."""

    def __init__(self, *_) -> None:
        self.shown, self.data, self.step = [], None, None
        self.dims = self

    def add_image(self, data, **_):
        self.data = data
        return self

    def set_current_step(self, axis, step) -> None:
        self.step = (axis, step)


class Camera:
    """Gives the frames of a recording, and says for how long it goes on."""

    def __init__(self, frames) -> None:
        self.frames, self.position = frames, 0

    def grab(self):
        self.position += 1
        return self.frames[self.position - 1]

    def __bool__(self) -> bool:
        return self.position < 16


def names_of(document: str, movie: np.ndarray, folder: Path) -> dict:
    """Return what the examples of a document take for granted."""
    names = {
        "np": np,
        "Path": Path,
        "OFOptions": OFOptions,
        "OutputFormat": OutputFormat,
        "RegistrationConfig": RegistrationConfig,
        "dataclass": dataclasses.dataclass,
        "Optional": typing.Optional,
    }
    if document == "pyflowreg_parallelization":
        names["options"] = OFOptions(input_file=str(folder / "video.h5"), quality_setting="fast")
    if document == "pyflowreg_workflows":
        camera = Camera(movie)
        napari = types.ModuleType("napari")
        napari.Viewer, napari.run = Screen, lambda: None
        sys.modules["napari"] = napari
        names |= {
            "camera": camera,
            "imaging": camera,
            "display": lambda frame: None,
            "corrected_frames": movie[:10],
            "load_video": lambda: movie[:20, :, :, None].astype(np.float32),
            "compute_reference": lambda video: video.mean(axis=0),
        }
    if document == "pyflowreg_session_api":
        names |= {"array": movie[0], "arr1": movie[1], "arr2": movie[2]}
    return names


@pytest.fixture(scope="module")
def state(movie, tmp_path_factory):
    """What the examples of each document leave to those that follow."""
    folder = tmp_path_factory.mktemp("data")
    for name in MOVIES:
        with h5py.File(folder / name, "w") as file:
            file["ch1"] = movie
    np.save(folder / "my_video.npy", movie.astype(np.float32)[..., None])
    root = folder / "2p_experiment"
    root.mkdir()
    for number in range(3, 6):
        part = movie[30 * number : 30 * number + 24]
        tifffile.imwrite(root / f"recording_{number:03d}.tif", part, photometric="minisblack")
    yield {"folder": folder, "names": {}, "done": set()}
    sys.modules.pop("napari", None)


def prepare(folder: Path, where: Path, documents: Path) -> None:
    """Put the files that examples name into the working folder."""
    for path in folder.iterdir():
        if path.is_file():
            os.link(path, where / path.name)
    root = folder / "2p_experiment"
    first, last = SESSION_TOML
    text = "\n".join(read_lines(documents, "pyflowreg_session_api")[first - 1 : last])
    text = text.replace("/data/experiment/", str(root)).replace("recording_03", "recording_004")
    (where / "session.toml").write_text(text)
    (where / "session.yml").write_text(f"root: {root}\npattern: '*.tif'\n")


@pytest.mark.parametrize(("document", "example"), list(cases()))
def test_example(document, example: Example, state, documents, movie, tmp_path, monkeypatch):
    if example.needs == "torch" and not is_backend_available("flowreg_torch"):
        pytest.skip("torch is not there")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    # What examples leave to those that follow is there also when only some are chosen.
    for earlier in DOCUMENTS[document]:
        if earlier.first >= example.first or earlier.needs in ("processes", "torch"):
            continue
        if (document, earlier.first) not in state["done"]:
            place = tmp_path / f"{earlier.first}"
            place.mkdir()
            monkeypatch.chdir(place)
            run_example(document, earlier, state, documents, movie, place)
    monkeypatch.chdir(tmp_path)
    run_example(document, example, state, documents, movie, tmp_path)


def run_example(
    document: str, example: Example, state: dict, documents: Path, movie: np.ndarray, tmp_path: Path
) -> None:
    """Run an example in the working folder `tmp_path` and look at what it has made."""
    folder = state["folder"]
    state["done"].add((document, example.first))
    prepare(folder, tmp_path, documents)
    if (document, example.first) == ("pyflowreg_session_api", 91):
        # Another way to run what has been run already, with other options.
        (tmp_path / "again").mkdir()
        for path in (folder / "2p_experiment").glob("*.tif"):
            os.link(path, tmp_path / "again" / path.name)
        text = (tmp_path / "session.toml").read_text()
        text = text.replace(str(folder / "2p_experiment"), str(tmp_path / "again"))
        (tmp_path / "session.toml").write_text(text)
    if document not in state["names"]:
        state["names"][document] = names_of(document, movie, folder)
    names = state["names"][document]
    code = example.code(read_lines(documents, document))
    code = code.replace("/data/2p_experiment/", str(folder / "2p_experiment"))
    code = code.replace('"/data/"', repr(str(folder / "2p_experiment"))).replace("cuda:0", "cpu")
    # Full size costs minutes and shows nothing more.
    code = code.replace("rand(100, 256, 256, 2)", "rand(20, 32, 32, 2)")
    expected = contextlib.nullcontext()
    if (document, example.first) == ("pyflowreg_parallelization", 81):
        if not is_backend_available("flowreg_cuda"):
            register_backend("flowreg_cuda", lambda **_: get_displacement, {"sequential"})
        names["OFOptions"] = lambda **given: OFOptions(
            input_file="video.h5", quality_setting="fast", **given
        )
        expected = pytest.warns(
            UserWarning,
            match=re.escape(
                "Backend 'flowreg_cuda' does not support 'multiprocessing' executor. "
                "Supported executors: ['sequential']. Falling back to 'sequential'."
            ),
        )
    if (document, example.first) == ("pyflowreg_session_api", 132):
        config = SessionConfig.from_toml("session.toml")
        run_stage3(config, *run_stage2(config)[::2])
        names["__promised__"] = read_lines(documents, document)[example.last : example.last + 4]
        (tmp_path / "final_results").symlink_to(folder / "2p_experiment" / "final_results")
    is_listing = (document, example.first) == ("pyflowreg_parallelization", 89)
    with expected:
        scope = dict(names) if is_listing else names
        exec(compile(code, f"{document}:{example.first}", "exec"), scope)
    if is_listing:
        for part in dataclasses.fields(scope["RegistrationConfig"]):
            assert getattr(RegistrationConfig(), part.name) == part.default
    check(document, example.first, names, tmp_path, movie)
    if document == "pyflowreg_parallelization" and example.first == 81:
        names["OFOptions"] = OFOptions


def check(document: str, first: int, names: dict, where: Path, movie: np.ndarray) -> None:
    """Look at what an example has made."""
    if (document, first) == ("pyflowreg_workflows", 28):
        assert names["registered"].shape == names["video"].shape
        assert names["flow"].shape == (*movie.shape, 2)
    if (document, first) == ("pyflowreg_workflows", 83):
        assert [part["start"] for part in names["processor"].statistics] == [0]
    if (document, first) == ("pyflowreg_workflows", 109):
        with h5py.File(where / "results" / "w.h5") as file:
            assert file["u"].shape == movie.shape
        assert list((where / "results").glob("compensated.[hH][dD][fF]5"))
    if (document, first) == ("pyflowreg_workflows", 147):
        assert names["corrected"].shape[:2] == movie.shape[1:]
    if (document, first) == ("pyflowreg_workflows", 175):
        assert names["viewer"].step == (0, 19)
        np.testing.assert_allclose(names["viewer"].data, names["corrected"])
    if (document, first) == ("pyflowreg_parallelization", 182):
        assert names["config"].parallelization == "sequential"
        results = list((where / "results").glob("compensated.*"))
        assert [path.suffix.lower() for path in results] == [".mat"]
    if (document, first) == ("pyflowreg_parallelization", 216):
        assert {"sequential", "threading", "multiprocessing"} <= names["available"]
    if (document, first) == ("pyflowreg_session_api", 68):
        assert len(names["output_folders"]) == 3
        # Keys behind [backend_params] are those of the session.
        assert names["config"].cc_upsample == 4
        assert all((path / "w.h5").exists() for path in names["output_folders"])
    if (document, first) == ("pyflowreg_session_api", 132):
        promised = re.findall(r"'(\w+)'", "".join(names["__promised__"]))
        assert set(promised) <= set(names["data"].keys())
        names["data"].close()
    if (document, first) == ("pyflowreg_session_api", 177):
        np.testing.assert_array_equal(np.load(where / "data.npy"), movie[0])
    if (document, first) == ("pyflowreg_session_api", 181):
        assert names["final_mask"].shape == movie.shape[1:]
        assert names["middle_idx"] == 2


def test_every_line_of_code_is_in_an_example(documents):
    statement = re.compile(
        r"^(from pyflowreg|import |\w+ = \w+[.(]|compensate_recording\(|def |class )"
    )
    for document, examples in DOCUMENTS.items():
        inside = {n for example in examples for n in range(example.first, example.last + 1)}
        for number, line in enumerate(read_lines(documents, document), 1):
            is_toml = "session" in document and SESSION_TOML[0] <= number <= SESSION_TOML[1]
            if statement.match(line) and not is_toml:
                assert number in inside, f"{document}, line {number}"


def test_executor_has_the_documented_calls(documents):
    text = (documents / "pyflowreg_multiprocessing_executor.txt").read_text()
    for name in ("process_batch", "get_info", "setup", "cleanup", "register"):
        assert callable(getattr(MultiprocessingExecutor, name))
    documented = re.search(r"def process_batch\( self, (.*?) \*\*kwargs", text).group(1)
    names = re.findall(r"(\w+): ", documented)
    given = inspect.signature(MultiprocessingExecutor.process_batch).parameters
    assert [*given][1 : len(names) + 1] == names
    features = re.search(r'"features": \[(.*?)\]', text).group(1)
    executor = MultiprocessingExecutor(2)
    assert executor.get_info()["features"] == re.findall(r'"([\w-]+)"', features)
    described = re.search(r'f"(Multiprocessing[^"{]*)', text).group(1)
    assert executor.get_info()["description"].startswith(described)
