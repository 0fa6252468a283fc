"""Small recordings in every format that is read, and finished outputs: what mutators start from."""

from __future__ import annotations

import importlib.util
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from scopeflow.testing.synthetic import synthetic_recording
from tests.oracles.nd2_writer import write_nd2

FRAMES, HEIGHT, WIDTH = 6, 32, 40

_SCANIMAGE = """SI.LINE_FORMAT_VERSION = 1
SI.hChannels.channelSave = [1]
SI.hRoiManager.scanFrameRate = 30
SI.hStackManager.enable = false
SI.hStackManager.framesPerSlice = 6
SI.hStackManager.numSlices = 1"""


@dataclass
class Seeds:
    """Recordings and outputs by name; `missing` says why one cannot be made here."""

    folder: Path
    paths: dict[str, Path] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)

    def copy(self, name: str, to: Path) -> Path:
        """Copy a seed into the folder of a case and return it."""
        source = self.paths[name]
        target = to / source.name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
        return target


def video() -> np.ndarray:
    """Six frames of 32 x 40 pixels that move, uint16."""
    made = synthetic_recording(
        FRAMES, HEIGHT, WIDTH, 1, seed=3, translation_px=1.0, nonrigid_px=0.3
    )
    return np.ascontiguousarray(made.video[..., 0].astype(np.uint16))


def make_seeds(folder: Path) -> Seeds:
    """Write all recordings."""
    folder.mkdir(parents=True, exist_ok=True)
    seeds, frames = Seeds(folder), video()
    for name, writer in _WRITERS.items():
        path = folder / name.replace("/", "_")
        needed = _NEEDED.get(name.rsplit(".", 1)[-1])
        if needed is not None and importlib.util.find_spec(needed) is None:
            seeds.missing[name] = f"{needed} is not installed"
            continue
        writer(path, frames)
        seeds.paths[name] = path
    return seeds


_NEEDED = {"avi": "av", "mp4": "av", "mkv": "av", "mov": "av", "czi": "pylibCZIrw"}


def _tiff(**settings: object) -> Callable[[Path, np.ndarray], None]:
    def write(path: Path, frames: np.ndarray) -> None:
        tifffile.imwrite(path, frames, photometric="minisblack", **settings)

    return write


def _scanimage(path: Path, frames: np.ndarray) -> None:
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for page in frames:
            writer.write(
                page, contiguous=False, metadata=None, software=_SCANIMAGE, photometric="minisblack"
            )


def _hdf5(**settings: object) -> Callable[[Path, np.ndarray], None]:
    def write(path: Path, frames: np.ndarray) -> None:
        import h5py

        with h5py.File(path, "w") as file:
            made = file.create_dataset("mov", data=frames, **settings)
            made.attrs["dimension_ordering"] = np.array([1, 2, 0])

    return write


def _mat5(compressed: bool) -> Callable[[Path, np.ndarray], None]:
    def write(path: Path, frames: np.ndarray) -> None:
        from scipy.io import savemat

        savemat(path, {"mov": np.moveaxis(frames, 0, -1)}, do_compression=compressed)

    return write


def _mat73(path: Path, frames: np.ndarray) -> None:
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        made = file.create_dataset("mov", data=frames)
        made.attrs["MATLAB_class"] = np.bytes_("uint16")
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116, b" ") + bytes(8) + b"\x00\x02IM"
    with path.open("r+b") as file:
        file.write(header)


def write_ops(path: Path, payload: bytes) -> None:
    """Write ``ops.npy`` with a pickle as its content."""
    header = "{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    header = header.ljust(128 - 11) + "\n"
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
    path.write_bytes(start + header.encode() + payload)


def suite2p_settings() -> dict[str, object]:
    """Return settings of a plane as suite2p writes them: numbers, arrays, text, nesting."""
    return {
        "Ly": HEIGHT,
        "Lx": WIDTH,
        "fs": 10.0,
        "nframes": FRAMES,
        "yrange": np.array([0, HEIGHT]),
        "meanImg": np.zeros((4, 4), np.float32),
        "badframes": np.zeros(FRAMES, bool),
        "save_path": "/data/suite2p/plane0",
        "nonrigid": True,
    }


def _suite2p(path: Path, frames: np.ndarray) -> None:
    path.mkdir()
    (frames // 2).astype("<i2").tofile(path / "data.bin")
    write_ops(path / "ops.npy", pickle.dumps(np.array(suite2p_settings(), object), protocol=3))


def _movie(codec: str, pixels: str, **options: str) -> Callable[[Path, np.ndarray], None]:
    def write(path: Path, frames: np.ndarray) -> None:
        import av

        bytes_ = (frames >> 4).astype(np.uint8)
        with av.open(str(path), "w", options=options) as container:
            stream = container.add_stream(codec, rate=10)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
            for frame in np.concatenate([bytes_, bytes_]):  # twice: there is more to cut off
                image = av.VideoFrame.from_ndarray(frame, format="gray").reformat(format=pixels)
                container.mux(stream.encode(image))
            container.mux(stream.encode())

    return write


def _zarr(zarr_format: int, **settings: object) -> Callable[[Path, np.ndarray], None]:
    def write(path: Path, frames: np.ndarray) -> None:
        import zarr

        zarr.create_array(
            path, data=frames, chunks=(2, HEIGHT, WIDTH), zarr_format=zarr_format, **settings
        )

    return write


def _ome_zarr(version: str) -> Callable[[Path, np.ndarray], None]:
    def write(path: Path, frames: np.ndarray) -> None:
        import zarr

        zarr_format = 2 if version == "0.4" else 3
        group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
        shape = (FRAMES, 1, HEIGHT, WIDTH)
        names = {} if zarr_format == 2 else {"dimension_names": ("t", "c", "y", "x")}
        level = group.create_array(
            "0", shape=shape, chunks=(2, 1, HEIGHT, WIDTH), dtype="u2", **names
        )
        level[:] = frames[:, None]
        axes = [
            {"name": "t", "type": "time", "unit": "second"},
            {"name": "c", "type": "channel"},
            {"name": "y", "type": "space", "unit": "micrometer"},
            {"name": "x", "type": "space", "unit": "micrometer"},
        ]
        scale = [{"type": "scale", "scale": [0.1, 1.0, 0.5, 0.5]}]
        facts = {
            "multiscales": [
                {
                    "version": version,
                    "name": "movie",
                    "axes": axes,
                    "datasets": [{"path": "0", "coordinateTransformations": scale}],
                    "coordinateTransformations": scale,
                }
            ],
            "omero": {"channels": [{"label": "GFP", "color": "00FF00", "active": True}]},
        }
        if version == "0.4":
            group.attrs.update(facts)
        else:
            group.attrs["ome"] = {"version": version, **facts}

    return write


def _nd2(path: Path, frames: np.ndarray) -> None:
    write_nd2(path, frames[:, None, None], ["GFP"], period_s=0.1, pixel_um=0.5)


def _czi(path: Path, frames: np.ndarray) -> None:
    from tests.io.test_read_czi import write_czi

    write_czi(path, [frames[:, None, None]], names=("GFP",))


_WRITERS: dict[str, Callable[[Path, np.ndarray], None]] = {
    "classic.tif": _tiff(metadata=None),
    "shaped.tif": _tiff(),
    "big.tif": _tiff(bigtiff=True, metadata=None),
    "zlib.tif": _tiff(compression="zlib", metadata=None),
    "imagej.tif": _tiff(imagej=True, metadata={"axes": "TYX", "finterval": 0.1, "unit": "um"}),
    "movie.ome.tif": _tiff(
        ome=True, metadata={"axes": "TYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    ),
    "bigmovie.ome.tif": _tiff(ome=True, bigtiff=True, metadata={"axes": "TYX"}),
    "scanimage.tif": _scanimage,
    "plain.h5": _hdf5(),
    "chunked.h5": _hdf5(chunks=(2, HEIGHT, WIDTH), compression="gzip", shuffle=True),
    "checked.h5": _hdf5(chunks=(2, HEIGHT, WIDTH), fletcher32=True),
    "plain5.mat": _mat5(compressed=False),
    "zlib5.mat": _mat5(compressed=True),
    "v73.mat": _mat73,
    "plane0": _suite2p,
    "mjpeg.avi": _movie("mjpeg", "yuvj420p"),
    "raw.avi": _movie("rawvideo", "gray"),
    "fast.mp4": _movie("mpeg4", "yuv420p", movflags="faststart"),
    "plain.mp4": _movie("mpeg4", "yuv420p"),
    "ffv1.mkv": _movie("ffv1", "gray"),
    "plain.mov": _movie("mpeg4", "yuv420p"),
    "format2.zarr": _zarr(2),
    "format3.zarr": _zarr(3),
    "sharded.zarr": _zarr(3, shards=(4, HEIGHT, WIDTH)),
    "movie04.ome.zarr": _ome_zarr("0.4"),
    "movie05.ome.zarr": _ome_zarr("0.5"),
    "made.nd2": _nd2,
    "made.czi": _czi,
}
