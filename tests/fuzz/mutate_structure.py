"""Files that are well-formed as bytes and absurd in what they say: TIFF, OME-XML, HDF5, MAT."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from tests.fuzz.cases import MARKER, Case, damaged, written
from tests.fuzz.seeds import FRAMES, HEIGHT, WIDTH, Seeds, video

GROUP = "structure of TIFF, HDF5, MAT"
_NUMBERS = (0, 1, 2, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1)
_WORDS = (
    *("", "0", "-1", "abc", "0,5", "1e999", "nan", "inf", "9" * 25, "9" * 5000, "[", "0x10"),
    *("\x1b[31m", "½", "1 2", " "),
)


def _tags(seed: Path) -> list[tuple[str, int, int, int]]:
    """Return name, place of the entry, page and bytes of a count, for tags of two pages."""
    found = []
    with tifffile.TiffFile(seed) as file:
        width = 8 if file.is_bigtiff else 4
        for number in sorted({0, len(file.pages) - 1}):
            page = file.pages[number]
            tags = page.tags if hasattr(page, "tags") else file.pages.get(number, cache=False).tags
            found += [(f"{tag.name} of page {number}", tag.offset, number, width) for tag in tags]
    return found


def _patch(place: int, value: bytes, path: Path, rng: np.random.Generator) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(value)


def _number(width: int, value: int) -> bytes:
    return (value % 2 ** (8 * width)).to_bytes(width, "little")


def tiff_tags(seeds: Seeds) -> Iterator[Case]:
    """Yield every field of every tag as other numbers."""
    for seed in ("classic.tif", "big.tif", "imagej.tif", "movie.ome.tif"):
        for number, (name, place, _, width) in enumerate(_tags(seeds.paths[seed])):
            # Not all numbers for all tags: each tag gets each number in one file at least.
            for turn, value in enumerate(_NUMBERS):
                if (turn + number) % 4 == 0:
                    data = _number(width, value)
                    damage = partial(_patch, place + 4 + width, data)
                    yield damaged(GROUP, f"{name}: value {value}", seed, damage)
                if (turn + number) % 8 == 1:
                    damage = partial(_patch, place + 4, _number(width, value))
                    yield damaged(GROUP, f"{name}: count {value}", seed, damage)
            for kind in (0, 2, 16):
                damage = partial(_patch, place + 2, _number(2, kind))
                yield damaged(GROUP, f"{name}: type {kind}", seed, damage)
            damage = partial(_patch, place, _number(2, 65000))
            yield damaged(GROUP, f"{name}: another tag", seed, damage)


def tiff_pages(seeds: Seeds) -> Iterator[Case]:
    """Yield chains of pages that have circles, or lead out of the file."""
    for seed in ("classic.tif", "big.tif", "imagej.tif", "movie.ome.tif", "scanimage.tif"):
        path = seeds.paths[seed]
        with tifffile.TiffFile(path) as file:
            width = 8 if file.is_bigtiff else 4
            first, second = file.pages.get(0), file.pages.get(1)
            starts = [page.offset for page in (first, second)]
            count = len(first.tags)
            entry, head = (20, 8) if file.is_bigtiff else (12, 2)
        link = starts[0] + head + entry * count
        for target in (0, 1, *starts, path.stat().st_size - 1, 2**31, 2 ** (8 * width) - 1):
            damage = partial(_patch, link, _number(width, target))
            yield damaged(GROUP, f"next page at {target}", seed, damage)
        for value in (0, 1, 4096, 65535):
            damage = partial(_patch, starts[0], _number(head, value))
            yield damaged(GROUP, f"{value} tags", seed, damage)


_XML = re.compile(r'([A-Za-z]+)="([^"]*)"')


def _described(text: str, path: Path) -> None:
    tifffile.imwrite(
        path, video(), description=text.encode(), metadata=None, photometric="minisblack"
    )


def ome(seeds: Seeds) -> Iterator[Case]:
    """Yield every attribute of OME-XML with other words, and XML of other kinds."""
    with tifffile.TiffFile(seeds.paths["movie.ome.tif"]) as file:
        text = file.ome_metadata
    assert text is not None
    for number, match in enumerate(_XML.finditer(text)):
        for word in _WORDS:
            shown = f"{match[1]} {number} = {word[:12]!r}" + (" long" if len(word) > 100 else "")
            changed = text[: match.start(2)] + _escaped(word) + text[match.end(2) :]
            yield written(GROUP, shown, "a.ome.tif", partial(_described, changed))
    pixels = re.search(r"<Pixels .*</Pixels>", text, re.DOTALL)
    assert pixels is not None
    for name, changed in {
        "no Pixels": text.replace(pixels[0], ""),
        "Pixels twice": text.replace(pixels[0], pixels[0] * 2),
        "no TiffData": re.sub(r"<TiffData.*?(/>|</TiffData>)", "", text, flags=re.DOTALL),
        "cut": text[: len(text) // 2],
        "not XML": "<OME",
        "a deep tree": '<?xml version="1.0"?>' + "<OME>" * 20_000,
        "laughs": _laughs(text),
        "a file of this machine": text.replace(
            "<OME ", '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><OME ', 1
        ).replace('Name="', 'Name="&e;', 1),
        "half of the frames": text.replace(f'SizeT="{FRAMES}"', f'SizeT="{FRAMES // 2}"'),
        "more frames": text.replace(f'SizeT="{FRAMES}"', 'SizeT="1000000000"'),
        "another file": text.replace(
            "<TiffData",
            '<TiffData FirstT="3"><UUID FileName="../../etc/passwd"/></TiffData><TiffData',
        ),
    }.items():
        yield written(GROUP, name, "a.ome.tif", partial(_described, changed))


def _escaped(word: str) -> str:
    return word.replace("&", "&amp;").replace("\x1b", "&#155;")


def _laughs(text: str) -> str:
    entities = '<!ENTITY a0 "ha">' + "".join(
        f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10)
    )
    return text.replace("<OME ", f"<!DOCTYPE x [{entities}]><OME ", 1).replace(
        'Name="', 'Name="&a9;', 1
    )


def descriptions(seeds: Seeds) -> Iterator[Case]:
    """Yield words of ImageJ and ScanImage that are no numbers, or absurd ones."""
    fields = ("images", "frames", "channels", "slices", "finterval", "unit", "spacing", "mode")
    base = {"images": str(FRAMES), "frames": str(FRAMES), "finterval": "0.1", "unit": "um"}
    for name in fields:
        for word in _WORDS:
            lines = [f"{key}={value}" for key, value in {**base, name: word}.items()]
            text = "\n".join(["ImageJ=1.11a", *lines])
            shown = f"ImageJ {name}={word[:12]!r}" + (" long" if len(word) > 100 else "")
            yield written(GROUP, shown, "a.tif", partial(_described, text))
    with tifffile.TiffFile(seeds.paths["scanimage.tif"]) as file:
        software = file.pages.get(0).tags["Software"].value
    for match in re.finditer(r"(\S+) = (.*)", software):
        for word in _WORDS:
            changed = software[: match.start(2)] + word + software[match.end(2) :]
            name = match[1].rsplit(".", 1)[-1]
            shown = f"ScanImage {name} = {word[:12]!r}" + (" long" if len(word) > 100 else "")
            yield written(GROUP, shown, "si.tif", partial(_scanimage, changed))


def _scanimage(software: str, path: Path) -> None:
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for page in video():
            text = software.encode("ascii", "replace").decode()
            writer.write(page, contiguous=False, metadata=None, software=text)


Hdf5 = Callable[[Any, Path], None]


def _hdf5_makers() -> Iterator[tuple[str, Hdf5]]:
    import h5py

    frames = video()
    values: dict[str, Any] = {
        "text": "abc",
        "bytes": b"abc",
        "empty": h5py.Empty("f8"),
        "one number": 3,
        "floats": np.array([1.0, 2.0, 0.5]),
        "NaN": np.array([np.nan] * 3),
        "too few": np.array([0]),
        "too many": np.arange(20),
        "equal": np.array([1, 1, 1]),
        "negative": np.array([-1, -2, -3]),
        "huge": np.array([2**62, 0, 1]),
        "an axis more": np.zeros((3, 3), int),
        "texts": np.array(["a", "b", "c"], "S1"),
        "complex": np.array([1j, 2, 0]),
        "true": np.array([True, False, True]),
    }
    for attribute in ("dimension_ordering", "MATLAB_class", "MATLAB_empty", "DIMENSION_LABELS"):
        for name, value in values.items():

            def attributed(file: Any, path: Path, a: str = attribute, v: Any = value) -> None:
                file.create_dataset("mov", data=frames).attrs[a] = v

            yield f"{attribute} is {name}", attributed
    shapes: tuple[tuple[int, ...], ...] = (
        *((), (0,), (5,), (20, 20), (0, 32, 40), (6, 0, 40), (6, 32, 0), (1, 1, 1), (6, 1, 40)),
        *((6, 32, 40, 0), (6, 32, 40, 100), (2, 2, 2, 32, 40), (1,) * 8, (2**40, 32, 40)),
        *((6, 2**20, 2**20), (10**6, 60_000, 60_000), (2, 2**31, 2**31), (2**20, 2**20, 2**20)),
    )
    for shape in shapes:
        for kind in ("u2", "f8"):

            def shaped(file: Any, path: Path, s: Any = shape, k: str = kind) -> None:
                chunks = tuple(min(n, 16) for n in s) if s and min(s) > 0 else None
                file.create_dataset("mov", shape=s, dtype=k, chunks=chunks)

            yield f"shape {shape} of {kind}", shaped
    kinds: dict[str, Any] = {
        "text": np.full(frames.shape, "abc", "S3"),
        "objects": None,
        "fields": np.zeros(frames.shape, [("a", "u2"), ("b", "f4")]),
        "complex": frames.astype("c8"),
        "half": frames.astype("f2"),
        "big end first": frames.astype(">u2"),
        "opaque": frames.view("V2"),
        "truth": frames > 9,
        "long double": frames.astype("g"),
        "NaN": np.full(frames.shape, np.nan),
    }
    for name, data in kinds.items():

        def typed(file: Any, path: Path, d: Any = data) -> None:
            if d is None:
                kind = h5py.vlen_dtype(np.dtype("u2"))
                file.create_dataset("mov", frames.shape, kind)
            else:
                file.create_dataset("mov", data=d)

        yield f"values of {name}", typed
    yield (
        "enumeration",
        lambda file, path: file.create_dataset(
            "mov", frames.shape, h5py.enum_dtype({"a": 1, "b": 2}, "u2")
        ),
    )
    yield "references", lambda file, path: file.create_dataset("mov", frames.shape, h5py.ref_dtype)
    for name, source in (
        ("itself", "."),
        ("nowhere", "/nonexistent.h5"),
        ("above", "../x.h5"),
        ("a FIFO", "fifo"),
        ("a device", "/dev/zero"),
        ("another dataset", ".2"),
    ):

        def virtual(file: Any, path: Path, s: str = source) -> None:
            if s == "fifo":
                os.mkfifo(path.parent / "fifo")
            layout = h5py.VirtualLayout(frames.shape, "u2")
            key = "mov" if s != ".2" else "other"
            if s == ".2":
                second = h5py.VirtualLayout(frames.shape, "u2")
                second[...] = h5py.VirtualSource(".", "mov", shape=frames.shape)
                file.create_virtual_dataset("other", second)
            layout[...] = h5py.VirtualSource(s[:1] if s == ".2" else s, key, shape=frames.shape)
            file.create_virtual_dataset("mov", layout)

        yield f"virtual from {name}", virtual
    for name, target in (("passwd", "/etc/passwd"), ("a device", "/dev/zero"), ("a FIFO", "fifo"),
                         ("nothing", "nowhere.bin")):  # fmt: skip

        def external(file: Any, path: Path, t: str = target) -> None:
            if t == "fifo":
                os.mkfifo(path.parent / "fifo")
            file.create_dataset("mov", shape=(2, 20, 20), dtype="u1", external=[(t, 0, 800)])

        yield f"bytes of {name}", external
    links: dict[str, Callable[[Any], Any]] = {
        "a circle": lambda file: h5py.SoftLink("/mov"),
        "nowhere": lambda file: h5py.SoftLink("/other"),
        "itself as a file": lambda file: h5py.ExternalLink("a.h5", "/mov"),
        "a missing file": lambda file: h5py.ExternalLink("b.h5", "/mov"),
        "a device": lambda file: h5py.ExternalLink("/dev/zero", "/mov"),
        "the root": lambda file: file["/"],
    }
    for name, link in links.items():

        def linked(file: Any, path: Path, make: Callable[[Any], Any] = link) -> None:
            file["mov"] = make(file)

        yield f"link to {name}", linked
    yield "groups in a circle", _circle
    yield "deep groups", lambda file, path: file.create_group("/".join("g" * 3000))
    yield "many groups", lambda file, path: [file.create_group(f"g{n}") for n in range(3000)]
    for name in ("a\nb", "é½", "x" * 2000, "\x1b[31mred", "=1+1", "..", "a" * 250 + "/mov"):

        def named(file: Any, path: Path, n: str = name) -> None:
            file.create_dataset(n, data=frames)

        yield f"named {name[:12]!r} {len(name)}", named
    yield "MATLAB references", _references
    yield "nothing inside", lambda file, path: None
    yield "a type alone", lambda file, path: file.__setitem__("mov", np.dtype("u2"))


def _circle(file: Any, path: Path) -> None:
    group = file.create_group("a")
    group["b"] = group
    group["c"] = file["/"]
    group.create_dataset("mov", data=video())


def _references(file: Any, path: Path) -> None:
    import h5py

    made = file.create_group("#refs#").create_dataset("a", data=video())
    cell = file.create_dataset("mov", (1, 1), h5py.ref_dtype)
    cell[0, 0] = made.ref
    cell.attrs["MATLAB_class"] = np.bytes_("cell")


def _write_hdf5(make: Hdf5, path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        make(file, path)


def hdf5(seeds: Seeds) -> Iterator[Case]:
    """Yield attributes, shapes, types and links that no recording has."""
    for name, make in _hdf5_makers():
        yield written(GROUP, name, "a.h5", partial(_write_hdf5, make))


def mat(seeds: Seeds) -> Iterator[Case]:
    """Yield headers of MATLAB files with other numbers, and variables that are no recording."""
    from scipy.io import savemat
    from scipy.sparse import csc_array

    for seed in ("plain5.mat", "zlib5.mat", "v73.mat"):
        for place in (*range(116, 128, 2), *range(128, 200, 4)):
            for value in (0, 2**31 - 1, 2**32 - 1, 14 << 16):
                width = 2 if place < 128 else 4
                damage = partial(_patch, place, _number(width, value))
                yield damaged(GROUP, f"{value} at byte {place}", seed, damage)
    frames = np.moveaxis(video(), 0, -1)
    variables: dict[str, Any] = {
        "a structure": {"a": frames},
        "a cell": np.array([frames, 1], object),
        "a sparse matrix": csc_array(np.eye(20)),
        "complex": frames.astype(complex),
        "text": "abc",
        "texts": np.array([["abc"] * 20] * 20),
        "nothing": np.zeros((0, 0)),
        "no frames": np.zeros((HEIGHT, WIDTH, 0), "u2"),
        "five axes": np.zeros((2, 2, 2, 20, 20), "u2"),
        "truth": frames > 9,
        "NaN": np.full(frames.shape, np.nan),
        "one pixel": np.zeros((1, 1, 9), "u2"),
        "an image": frames[..., 0],
        "long": np.zeros((1, 1, 10**6), "u1"),
    }
    for name, value in variables.items():
        for compressed in (False, True):

            def write(path: Path, v: Any = value, c: bool = compressed) -> None:
                savemat(path, {"mov": v}, do_compression=c)

            yield written(GROUP, f"{name}, compressed {compressed}", "a.mat", write)
    yield written(GROUP, "expands to 4 GB", "a.mat", _mat_bomb)


def _mat_bomb(path: Path) -> None:
    import zlib

    packer = zlib.compressobj(9)
    shape = struct.pack("<IIiii", 5, 12, 2**12, 2**10, 2**10) + bytes(4)
    content = (
        struct.pack("<IIII", 6, 8, 9, 0) + shape + struct.pack("<II", 1, 3) + b"mov" + bytes(5)
    )
    content += struct.pack("<II", 2, 2**32 - 1)
    data = packer.compress(struct.pack("<II", 14, 2**32 - 1) + content)
    for _ in range(64):
        data += packer.compress(bytes(2**20))
    data += packer.flush()
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    path.write_bytes(header + struct.pack("<II", 15, len(data)) + data)


def zarr_codecs(seeds: Seeds) -> Iterator[Case]:
    """Yield archives whose codec is a pickle that runs code; `correct` reads their chunks."""
    import json
    import pickle

    from tests.fuzz.mutate_pickles import Call

    def write(codec: str, path: Path) -> None:
        touch = f"touch '{path.parent / MARKER}'"
        payload = pickle.dumps(Call(os.system, touch))
        facts: dict[str, Any] = {
            "zarr_format": 2,
            "shape": [6, 32, 40],
            "chunks": [2, 32, 40],
            "dtype": "<u2",
            "fill_value": 0,
            "order": "C",
            "filters": None,
            "compressor": None,
        }
        if codec == "filter":
            facts["filters"] = [{"id": "pickle", "protocol": 5}]
        elif codec == "compressor":
            facts["compressor"] = {"id": "pickle", "protocol": 5}
        else:
            facts |= {"dtype": "|O", "filters": [{"id": "pickle", "protocol": 5}]}
        path.mkdir()
        (path / ".zarray").write_text(json.dumps(facts))
        for number in range(3):
            (path / f"{number}.0.0").write_bytes(payload)

    for codec in ("filter", "compressor", "objects"):
        yield written(GROUP, f"pickle as {codec}", "a.zarr", partial(write, codec))


def cases(seeds: Seeds) -> Iterator[Case]:
    """Yield all of them."""
    for make in (tiff_tags, tiff_pages, ome, descriptions, hdf5, mat, zarr_codecs):
        yield from make(seeds)
