"""TIFF files that hold another number of pages than they declare, in every dialect."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
import tifffile

from scopeflow.errors import InputError, UnreadableFileError
from scopeflow.io.open import open_source

RNG = np.random.default_rng(8)
HEIGHT, WIDTH = 18, 26
XML = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" {uuid}>'
    '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="26" '
    'SizeY="18" SizeC="{c}" SizeZ="1" SizeT="{t}"><Channel ID="Channel:0:0"/>{data}</Pixels>'
    "</Image></OME>"
)


def stack(*shape):
    return RNG.integers(1, 60000, (*shape, HEIGHT, WIDTH)).astype("uint16")


def pages(path, data, description, **options):
    """One directory for each page, with a description of the first."""
    with tifffile.TiffWriter(path) as writer:
        for number, page in enumerate(data):
            text = description if number == 0 else None
            writer.write(page, description=text, metadata=None, contiguous=False, **options)
    return path


def ome(t, *, c=1, data="<TiffData/>", uuid=""):
    return XML.format(t=t, c=c, data=data, uuid=uuid)


def listed(pairs):
    return "".join(f'<TiffData FirstT="{t}" IFD="{n}" PlaneCount="1"/>' for t, n in pairs)


def check_masked(path, data, absent, **choices):
    """The frames that are there are read, those that are absent are zeros."""
    source = open_source(path, missing="mask", **choices)
    assert source.absent == absent
    assert source.identity()["absent"] == list(absent)
    found = source.read(0, source.shape[0])
    assert not found[list(absent)].any()
    there = [t for t in range(source.shape[0]) if t not in absent]
    np.testing.assert_array_equal(found[there], data[there])
    for start in range(source.shape[0]):
        np.testing.assert_array_equal(source.read(start, start + 1), found[start : start + 1])


@pytest.mark.parametrize("data", ["<TiffData/>", listed((t, t) for t in range(5))])
def test_ome_xml_that_names_fewer_frames_than_pages(tmp_path, data):
    path = pages(tmp_path / "a.ome.tif", stack(8), ome(5, data=data))
    for missing in ("error", "mask"):
        with pytest.raises(UnreadableFileError, match=r"names 5 planes, but it has 8 pages"):
            open_source(path, missing=missing)


@pytest.mark.parametrize("data", ["<TiffData/>", listed((t, t) for t in range(11))])
def test_ome_xml_that_names_more_frames_than_pages(tmp_path, data):
    video = stack(8)
    path = pages(tmp_path / "a.ome.tif", video, ome(11, data=data))
    with pytest.raises(UnreadableFileError, match=r"3 of 11 planes.*plane 8.*holds 8.*\"mask\""):
        open_source(path)
    more = np.concatenate([video, np.zeros((3, HEIGHT, WIDTH), "uint16")])
    check_masked(path, more[..., None], (8, 9, 10))


def test_ome_channels_of_which_one_is_missing(tmp_path):
    video = stack(11)
    path = pages(tmp_path / "a.ome.tif", video, ome(6, c=2))
    full = np.concatenate([video, np.zeros((1, HEIGHT, WIDTH), "uint16")])
    check_masked(path, np.moveaxis(full.reshape(6, 2, HEIGHT, WIDTH), 1, -1), (5,))


@pytest.mark.parametrize("entry", [(4, 99), None])
def test_tiff_data_that_points_nowhere(tmp_path, entry):
    video = stack(8)
    pairs = [(t, t) for t in range(8) if t != 4] + ([entry] if entry else [])
    path = pages(tmp_path / "a.ome.tif", video, ome(8, data=listed(pairs)))
    with pytest.raises(UnreadableFileError, match=r"1 of 8 planes.*plane 4.*holds 7"):
        open_source(path)
    check_masked(path, video[..., None], (4,))


def test_multi_file_ome_of_which_a_file_is_gone(tmp_path):
    video = stack(6)
    names = ["m_0.ome.tif", "m_1.ome.tif"]
    planes = "".join(
        f'<TiffData FirstT="{t}" IFD="{t % 3}" PlaneCount="1"><UUID FileName="{names[t // 3]}">'
        f"urn:uuid:0000000{t // 3}-0000-0000-0000-000000000000</UUID></TiffData>"
        for t in range(6)
    )
    for number, name in enumerate(names):
        uuid = f'UUID="urn:uuid:0000000{number}-0000-0000-0000-000000000000"'
        part = video[3 * number : 3 * number + 3]  # one file for each half
        pages(tmp_path / name, part, ome(6, data=planes, uuid=uuid))
    np.testing.assert_array_equal(open_source(tmp_path / names[0]).read(0, 6)[..., 0], video)
    (tmp_path / "alone").mkdir()
    alone = shutil.copy(tmp_path / names[0], tmp_path / "alone")
    with pytest.raises(UnreadableFileError, match=r"3 of 6 planes.*m_1\.ome\.tif are not beside"):
        open_source(alone)
    check_masked(alone, video[..., None], (3, 4, 5))


def test_a_description_that_was_cut_off_is_no_plain_file(tmp_path):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, stack(6), compression="zlib")
    content = path.read_bytes()
    path.write_bytes(content[:-50])  # the library writes OME-XML last
    with pytest.raises(UnreadableFileError, match=r"tag 270.*but the file has \d+ bytes"):
        open_source(path)


def imagej(path, data, text):
    return pages(path, data, f"ImageJ=1.53t\n{text}", software=None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("images=5\nframes=5\n", r"images=5, but it has 8 pages"),
        ("images=8\nframes=5\nhyperstack=true\n", r"images=8, but frames=5"),
        ("images=8\nframes=12\nhyperstack=true\n", r"images=8, but frames=12"),
        ("images=8\nchannels=2\nframes=3\nhyperstack=true\n", r"channels=2, frames=3"),
    ],
)
def test_imagej_numbers_that_contradict_the_pages(tmp_path, text, message):
    path = imagej(tmp_path / "a.tif", stack(8), text)
    for missing in ("error", "mask"):
        with pytest.raises(UnreadableFileError, match=message):
            open_source(path, missing=missing)


def test_imagej_that_names_more_images_than_pages(tmp_path):
    video = stack(8)
    path = imagej(tmp_path / "a.tif", video, "images=12\nframes=12\n")
    with pytest.raises(UnreadableFileError, match=r"images=12, that is 12 planes.*holds 8"):
        open_source(path)
    more = np.concatenate([video, np.zeros((4, HEIGHT, WIDTH), "uint16")])
    check_masked(path, more[..., None], (8, 9, 10, 11))


def test_imagej_without_numbers_is_as_long_as_its_pages(tmp_path):
    video = stack(8)
    for text in ("", "images=8\n", "images=8\nslices=8\n"):
        path = imagej(tmp_path / "a.tif", video, text)
        np.testing.assert_array_equal(open_source(path).read(0, 8)[..., 0], video)
        path.unlink()


def one_directory(path, data, text):
    """As ImageJ writes long stacks: one directory, and the pixels of all images behind it."""
    tifffile.imwrite(path, data[0], description=f"ImageJ=1.53t\n{text}", metadata=None)
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].dataoffsets[0] + data[0].nbytes == path.stat().st_size
    with path.open("ab") as file:
        file.write(data[1:].tobytes())
    return path


def test_imagej_stack_in_one_piece_that_was_cut(tmp_path):
    video = stack(10)
    path = one_directory(tmp_path / "a.tif", video, "images=10\nframes=10\nhyperstack=true\n")
    np.testing.assert_array_equal(open_source(path).read(0, 10)[..., 0], video)
    content = path.read_bytes()
    for lost in (1, video[0].nbytes, video[:4].nbytes - 7):
        path.write_bytes(content[: len(content) - lost])
        with pytest.raises(UnreadableFileError, match=r"declare images=10.*the file holds \d+"):
            open_source(path)
        first = 10 - -(-lost // video[0].nbytes)
        check_masked(path, video[..., None], tuple(range(first, 10)))


def test_the_last_page_was_cut(tmp_path):
    video = stack(6)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, video, compression="zlib", metadata=None)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UnreadableFileError, match="need"):
        open_source(path)
    check_masked(path, video[..., None], (5,))


def test_a_plain_file_that_breaks_off_tells_nothing(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack(6), compression="zlib", metadata=None)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadableFileError, match=r"breaks off after \d pages") as caught:
        open_source(path)
    assert "mask" not in str(caught.value)
    with pytest.raises(UnreadableFileError, match="Nothing tells which frames are missing"):
        open_source(path, missing="mask")


def test_other_choices_have_no_meaning_for_tiff(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", stack(5))
    for missing in ("fill", "black"):
        with pytest.raises(InputError, match=re.escape('missing="mask"')):
            open_source(tmp_path / "a.tif", missing=missing)
    whole, masked = (open_source(tmp_path / "a.tif", missing=m) for m in ("error", "mask"))
    assert whole == masked
    assert whole.identity() == masked.identity()
