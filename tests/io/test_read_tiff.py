"""TIFF dialects: axes, metadata, ambiguous stacks, incomplete files."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tifffile

from scopeflow.errors import DatasetNotFoundError, InputError, UnreadableFileError
from scopeflow.io.open import open_source

# tifffile stores 3 or 4 frames as planar samples and says that it will not any more.
pytestmark = pytest.mark.filterwarnings("ignore:.*stored as RGB:DeprecationWarning")
RNG = np.random.default_rng(1)


def stack(*shape, dtype="uint16"):
    return RNG.integers(0, 60000, shape).astype(dtype)


@pytest.mark.parametrize("frames", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_short_stacks_are_frames(tmp_path, frames, dtype):
    data = stack(frames, 20, 30, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", data)
    source = open_source(tmp_path / "a.tif")
    assert source.shape == (frames, 20, 30, 1)
    np.testing.assert_array_equal(source.read(0, frames)[..., 0], data)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_rgb_samples_are_channels(tmp_path, planar, compression):
    data = stack(6, 20, 30, 3, dtype="uint8")
    stored = data if planar == "contig" else np.moveaxis(data, -1, 1)
    path = tmp_path / "rgb.tif"
    tifffile.imwrite(path, stored, photometric="rgb", planarconfig=planar, compression=compression)
    source = open_source(path)
    np.testing.assert_array_equal(source.read(0, 6), data)


def test_imagej_stack_without_axes_is_frames(tmp_path):
    data = stack(40, 20, 30)
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=True)
    np.testing.assert_array_equal(open_source(tmp_path / "a.tif").read(0, 40)[..., 0], data)


def test_axes_override(tmp_path):
    data = stack(3, 20, 30)
    tifffile.imwrite(tmp_path / "a.tif", data)
    source = open_source(tmp_path / "a.tif", axes="CYX")
    np.testing.assert_array_equal(source.read(0, 1)[0], np.moveaxis(data, 0, -1))


def test_deinterleave(tmp_path):
    data = stack(5, 3, 20, 30)
    tifffile.imwrite(tmp_path / "a.tif", data.reshape(15, 20, 30))
    source = open_source(tmp_path / "a.tif", deinterleave=3)
    np.testing.assert_array_equal(source.read(0, 5), np.moveaxis(data, 1, -1))
    with pytest.raises(InputError, match=r"15 pages cannot be split .* deinterleave=4"):
        open_source(tmp_path / "a.tif", deinterleave=4)


def test_planes_need_a_choice(tmp_path):
    data = stack(4, 5, 20, 30)
    tifffile.imwrite(tmp_path / "a.ome.tif", data, metadata={"axes": "TZYX"})
    with pytest.raises(InputError, match=r"a\.ome\.tif.*5 z planes.*z=0 … z=4"):
        open_source(tmp_path / "a.ome.tif")
    source = open_source(tmp_path / "a.ome.tif", z=3)
    np.testing.assert_array_equal(source.read(0, 4)[..., 0], data[:, 3])
    with pytest.raises(InputError, match="z=5 is not one of its planes 0 to 4"):
        open_source(tmp_path / "a.ome.tif", z=5)


def test_ome_positions_need_a_choice(tmp_path):
    first, second = stack(4, 20, 30), stack(6, 24, 30)
    with tifffile.TiffWriter(tmp_path / "p.ome.tif") as writer:
        writer.write(first, metadata={"axes": "TYX"})
        writer.write(second, metadata={"axes": "TYX"})
    with pytest.raises(InputError, match=r"2 images \(stage positions\).*position=0 … position=1"):
        open_source(tmp_path / "p.ome.tif")
    source = open_source(tmp_path / "p.ome.tif", position=1)
    np.testing.assert_array_equal(source.read(0, 6)[..., 0], second)
    with pytest.raises(DatasetNotFoundError, match="there is no series 2"):
        open_source(tmp_path / "p.ome.tif", position=2)


def test_unequal_series_need_a_choice(tmp_path):
    with tifffile.TiffWriter(tmp_path / "u.tif") as writer:
        writer.write(stack(4, 20, 30))
        writer.write(stack(4, 24, 30))
    with pytest.raises(InputError, match=r"2 series of different shape.*dataset=0"):
        open_source(tmp_path / "u.tif")
    assert open_source(tmp_path / "u.tif", dataset=1).shape == (4, 24, 30, 1)


def test_multi_file_ome(tmp_path):
    data = stack(4, 2, 20, 30)
    ome = tifffile.OmeXml()
    ome.addimage("uint16", (4, 2, 20, 30), (8, 1, 1, 20, 30, 1), axes="TCYX")
    text = ome.tostring()
    names = ["m_0.ome.tif", "m_1.ome.tif"]
    planes = "".join(
        f'<TiffData FirstT="{t}" FirstC="{c}" FirstZ="0" IFD="{t % 2 * 2 + c}" PlaneCount="1">'
        f'<UUID FileName="{names[t // 2]}">urn:uuid:0000000{t // 2}-0000-0000-0000-000000000000'
        "</UUID></TiffData>"
        for t in range(4)
        for c in range(2)
    )
    start = text.index("<TiffData")
    end = text.index("</Pixels>")
    text = text[:start] + planes + text[end:]
    for number, name in enumerate(names):
        uuid = f'UUID="urn:uuid:0000000{number}-0000-0000-0000-000000000000"'
        own = re.sub(r'UUID="[^"]*"', uuid, text, count=1)
        tifffile.imwrite(
            tmp_path / name,
            data[2 * number : 2 * number + 2].reshape(4, 20, 30),
            description=own,
            metadata=None,
            photometric="minisblack",
        )
    source = open_source(tmp_path / names[0])
    assert len(source.paths) == 2
    np.testing.assert_array_equal(source.read(0, 4), np.moveaxis(data, 1, -1))


SCANIMAGE = """SI.LINE_FORMAT_VERSION = 1
SI.hChannels.channelSave = {channels}
SI.hRoiManager.scanFrameRate = 30
SI.hStackManager.enable = {enable}
SI.hStackManager.framesPerSlice = {frames}
SI.hStackManager.numSlices = {slices}
"""


def scanimage(path, pages, **facts):
    software = SCANIMAGE.format(**facts)
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for page in pages:
            writer.write(page, software=software, metadata=None, contiguous=False)


def test_scanimage_channels(tmp_path):
    data = stack(6, 2, 20, 30, dtype="int16")
    path = tmp_path / "si.tif"
    scanimage(path, data.reshape(12, 20, 30), channels="[1;2]", enable="false", frames=6, slices=1)
    source = open_source(path)
    assert source.kind == "ScanImage TIFF"
    np.testing.assert_array_equal(source.read(0, 6), np.moveaxis(data, 1, -1))
    assert source.metadata.frame_interval_s == pytest.approx(1 / 30)


def test_scanimage_volumes(tmp_path):
    data = stack(3, 4, 2, 20, 30, dtype="int16")
    path = tmp_path / "si.tif"
    pages = data.reshape(24, 20, 30)
    scanimage(path, pages, channels="[1;3]", enable="true", frames=1, slices=4)
    with pytest.raises(InputError, match="4 z planes"):
        open_source(path)
    source = open_source(path, z=2)
    np.testing.assert_array_equal(source.read(0, 3), np.moveaxis(data[:, 2], 1, -1))
    scanimage(path, pages[:-1], channels="[1;3]", enable="true", frames=1, slices=4)
    with pytest.raises(UnreadableFileError, match=r"si\.tif.*23 pages do not fill whole frames"):
        open_source(path)


def test_truncated_scanimage(tmp_path):
    path = tmp_path / "si.tif"
    pages = stack(12, 64, 64, dtype="int16")
    scanimage(path, pages, channels="1", enable="false", frames=12, slices=1)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UnreadableFileError, match=r"si\.tif: the file breaks off after"):
        open_source(path)


def test_ome_metadata(tmp_path):
    facts = {
        "axes": "TCYX",
        "PhysicalSizeX": 650.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.7,
        "PhysicalSizeYUnit": "µm",
        "TimeIncrement": 250.0,
        "TimeIncrementUnit": "ms",
        "Channel": {"Name": ["GCaMP", "tdTomato"]},
    }
    tifffile.imwrite(tmp_path / "m.ome.tif", stack(4, 2, 20, 30), metadata=facts)
    metadata = open_source(tmp_path / "m.ome.tif").metadata
    assert metadata.pixel_size_um == pytest.approx((0.7, 0.65))
    assert metadata.frame_interval_s == pytest.approx(0.25)
    assert metadata.channel_names == ("GCaMP", "tdTomato")
    assert metadata.origin("pixel_size") == "OME-XML"


def test_imagej_metadata(tmp_path):
    tifffile.imwrite(
        tmp_path / "m.tif",
        stack(4, 20, 30),
        imagej=True,
        resolution=(2.0, 4.0),
        metadata={"axes": "TYX", "unit": "um", "finterval": 0.5},
    )
    metadata = open_source(tmp_path / "m.tif").metadata
    assert metadata.pixel_size_um == pytest.approx((0.25, 0.5))
    assert metadata.frame_interval_s == 0.5


def test_printer_resolution_is_no_pixel_size(tmp_path):
    tifffile.imwrite(
        tmp_path / "m.tif", stack(4, 20, 30), resolution=(72, 72), resolutionunit="INCH"
    )
    assert open_source(tmp_path / "m.tif").metadata.pixel_size_um is None


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"metadata": None},
        {"imagej": True, "metadata": {"axes": "TYX"}},
        {"ome": True, "metadata": {"axes": "TYX"}},
        {"compression": "zlib"},
        {"bigtiff": True},
    ],
    ids=["shaped", "plain", "imagej", "ome", "zlib", "bigtiff"],
)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
def test_truncated_files_are_refused(tmp_path, options, kept):
    path = tmp_path / "whole.tif"
    tifffile.imwrite(path, stack(30, 64, 64), **options)
    assert open_source(path).shape[0] == 30
    content = path.read_bytes()
    cut = tmp_path / "cut.tif"
    cut.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(UnreadableFileError, match=r"cut\.tif.*(truncated|damaged)"):
        open_source(cut)


def test_truncated_between_pages_is_refused(tmp_path):
    path = tmp_path / "pages.tif"
    with tifffile.TiffWriter(path) as writer:
        for frame in stack(20, 64, 64):
            writer.write(frame, metadata=None, contiguous=False)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 5])
    with pytest.raises(UnreadableFileError, match=r"pages\.tif: the file breaks off after \d+"):
        open_source(path)


def test_declared_frames_must_be_there(tmp_path):
    # complete pages, but the metadata promise more: an interrupted recording
    path = tmp_path / "ij.tif"
    data = stack(8, 20, 30)
    text = "ImageJ=1.11a\nimages=12\nframes=12\nhyperstack=true\n"
    with tifffile.TiffWriter(path) as writer:
        for number, frame in enumerate(data):
            writer.write(frame, description=text if number == 0 else None, metadata=None)
    with pytest.raises(UnreadableFileError, match=r"ij\.tif.*12 planes, but the file holds 8"):
        open_source(path)


def test_damaged_page_is_named(tmp_path):
    path = tmp_path / "z.tif"
    tifffile.imwrite(path, stack(6, 64, 64), compression="zlib")
    with tifffile.TiffFile(path) as file:
        offset = file.pages[3].dataoffsets[0]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\0" * 64)
    source = open_source(path)
    source.read(0, 3)
    with pytest.raises(UnreadableFileError, match=r"z\.tif: page 3 cannot be read"):
        source.read(2, 5)
