"""TIFF files whose metadata name other pages than there are."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from scopeflow.errors import UnreadableFileError
from scopeflow.io.open import open_source

PAGES = np.random.default_rng(0).integers(0, 200, (9, 16, 20)).astype("uint8")
OME = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="20" '
    'SizeY="16" SizeZ="1" SizeC="1" SizeT="{frames}"><Channel ID="Channel:0:0"/>{data}</Pixels>'
    "</Image></OME>"
)


def write(path, description, pages=PAGES, others=()):
    with tifffile.TiffWriter(path) as writer:
        for number, page in enumerate([*pages, *others]):
            text = description.encode() if number == 0 else None
            options = {"metadata": None, "photometric": "minisblack", "contiguous": False}
            writer.write(page, description=text, **options)
    return path


def ome(path, frames, data="<TiffData/>", **options):
    return write(path, OME.format(frames=frames, data=data), **options)


def every(places):
    return "".join(
        f'<TiffData FirstT="{t}" IFD="{place}" PlaneCount="1"/>' for t, place in enumerate(places)
    )


@pytest.mark.parametrize(
    ("frames", "data", "message"),
    [
        (4, "<TiffData/>", "names 4 planes, but it has 9 pages"),
        (3, every([0, 2, 5]), "names 3 planes, but it has 9 pages"),
        (9, every([0, 1, 2, 3, 3, 5, 6, 7, 8]), "names 8 planes, but it has 9 pages"),
        (0, "<TiffData/>", "names 0 planes, but it has 9 pages"),
        (-9, "<TiffData/>", "names -9 planes, but it has 9 pages"),
        (12, "<TiffData/>", "3 of 12 planes"),
        (9, every(range(4, 13)), "4 of 9 planes"),
        (10**12, "<TiffData/>", "its pages cannot be understood"),
        ("many", "<TiffData/>", "its pages cannot be understood"),
    ],
)
def test_ome_that_names_other_pages_is_refused_with_both_numbers(tmp_path, frames, data, message):
    path = ome(tmp_path / "a.ome.tif", frames, data)
    with pytest.raises(UnreadableFileError, match=message):
        open_source(path)


def test_pages_of_another_size_are_no_frames(tmp_path):
    label = np.zeros((8, 10), "uint8")
    source = open_source(ome(tmp_path / "a.ome.tif", 9, others=[label]))
    np.testing.assert_array_equal(source.read(0, 9)[..., 0], PAGES)


@pytest.mark.parametrize("images", [-9, 0, 4, 8, 10, 10**11, "many"])
@pytest.mark.parametrize("contiguous", [False, True])
def test_imagej_that_names_other_pages_is_refused(tmp_path, images, contiguous):
    path, text = tmp_path / "a.tif", f"ImageJ=1.54f\nimages={images}\nframes={images}\n"
    if contiguous:
        options = {"metadata": None, "photometric": "minisblack"}
        tifffile.imwrite(path, PAGES, description=text.encode(), **options)
    else:
        write(path, text)
    with pytest.raises(UnreadableFileError, match=r"9|cannot be understood"):
        open_source(path)


def test_imagej_that_names_its_pages_is_read(tmp_path):
    source = open_source(write(tmp_path / "a.tif", "ImageJ=1.54f\nimages=9\nframes=9\n"))
    np.testing.assert_array_equal(source.read(0, 9)[..., 0], PAGES)


@pytest.mark.parametrize("cut", [5, 60, 400, 1500])
def test_truncated_file_is_refused(tmp_path, cut):
    path = ome(tmp_path / "a.ome.tif", 9)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(UnreadableFileError, match=r"truncated|damaged|missing"):
        open_source(path)
