"""Numbers of files that are no numbers: the fact is unknown, with a warning; never a guess."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import tifffile

from scopeflow.io.metadata import micrometres, seconds, stated_number
from scopeflow.io.open import open_source

VIDEO = np.random.default_rng(0).integers(0, 200, (4, 16, 20)).astype("uint8")
WORDS = ["0,5", "fast", "", "nan", "inf", "-inf", "-0.5", "1e999", "0.5 um", "½", "0x10", "9" * 400]

OME = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="20" '
    'SizeY="16" SizeZ="1" SizeC="1" SizeT="4" PhysicalSizeX="{x}" PhysicalSizeY="{y}" '
    'TimeIncrement="{t}"><Channel ID="Channel:0:0"/><TiffData/></Pixels></Image></OME>'
)


def ome(path, x="0.5", y="0.5", t="0.1"):
    text = OME.format(x=x, y=y, t=t)
    options = {"description": text.encode(), "metadata": None, "photometric": "minisblack"}
    tifffile.imwrite(path, VIDEO, **options)
    return open_source(path)


def test_numbers_of_ome_are_read(tmp_path):
    metadata = ome(tmp_path / "a.ome.tif", x="5e-1").metadata
    assert metadata.pixel_size_um == (0.5, 0.5)
    assert metadata.frame_interval_s == 0.1


@pytest.mark.parametrize("word", WORDS)
def test_words_in_ome_are_unknown(tmp_path, caplog, word):
    with caplog.at_level(logging.WARNING):
        source = ome(tmp_path / "a.ome.tif", x=word, t=word)
    np.testing.assert_array_equal(source.read(0, 4)[..., 0], VIDEO)
    assert source.metadata.pixel_size_um is None
    assert source.metadata.frame_interval_s is None
    assert source.metadata.origin("pixel_size") == ""
    if word:
        assert "a.ome.tif: PhysicalSizeX is" in caplog.text
        assert "a.ome.tif: TimeIncrement is" in caplog.text
        assert max(map(len, caplog.messages)) < 400


@pytest.mark.parametrize("word", WORDS)
def test_words_in_imagej_are_unknown(tmp_path, word):
    lines = ("ImageJ=1.54f", "images=4", "frames=4", "unit=um", f"finterval={word}")
    path = tmp_path / "a.tif"
    text = "\n".join(lines) + "\n"
    options = {"description": text.encode("latin-1"), "metadata": None, "resolution": (0, 2)}
    tifffile.imwrite(path, VIDEO, photometric="minisblack", **options)
    source = open_source(path)
    assert source.kind == "ImageJ TIFF"
    assert source.metadata.frame_interval_s is None
    assert source.metadata.pixel_size_um is None


@pytest.mark.parametrize("word", WORDS)
def test_words_in_scanimage_are_unknown(tmp_path, word):
    path = tmp_path / "a.tif"
    facts = f"SI.hChannels.channelSave = 1\nSI.hRoiManager.scanFrameRate = {word}\n"
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for page in VIDEO.astype("int16"):
            writer.write(page, software=facts.encode(), metadata=None, contiguous=False)
    source = open_source(path)
    assert source.kind == "ScanImage TIFF"
    assert source.metadata.frame_interval_s is None


def test_rate_of_volumes_that_is_a_word_is_not_that_of_frames(tmp_path):
    path = tmp_path / "a.tif"
    for word, interval in (("fast", None), ("0", 0.5), ("4", 0.25)):
        facts = (
            "SI.hChannels.channelSave = 1\nSI.hRoiManager.scanFrameRate = 2\n"
            f"SI.hRoiManager.scanVolumeRate = {word}\n"
        )
        with tifffile.TiffWriter(path, bigtiff=True) as writer:
            for page in VIDEO.astype("int16"):
                writer.write(page, software=facts, metadata=None, contiguous=False)
        assert open_source(path).metadata.frame_interval_s == interval


@pytest.mark.parametrize("damage", ["<", "word", "nothing"])
def test_czi_with_damaged_metadata_keeps_its_pixels(tmp_path, damage):
    czi = pytest.importorskip("pylibCZIrw.czi")
    path = tmp_path / "a.czi"
    with czi.create_czi(str(path)) as file:
        for t, frame in enumerate(VIDEO):
            file.write(np.ascontiguousarray(frame), plane={"T": t, "C": 0, "Z": 0}, scene=0)
        file.write_metadata("test", {0: "GFP"}, scale_x=5e-7, scale_y=5e-7)
    assert open_source(path).metadata.pixel_size_um == (0.5, 0.5)
    data = path.read_bytes()
    if damage == "<":
        data = data.replace(b"</Scaling>", b"<<Scaling>")
    elif damage == "word":
        data = data.replace(b"5e-07", b"fast!")
    else:
        data = data.replace(b"<ImageDocument", b"\xff\xfe\xff\xfeDocuments!")
    path.write_bytes(data)
    source = open_source(path)
    np.testing.assert_array_equal(source.read(0, 4)[..., 0], VIDEO)
    assert source.metadata.pixel_size_um is None


def test_one_number(caplog):
    assert stated_number("2.5", "rate", "a.tif") == 2.5
    assert stated_number(None, "rate", "a.tif") == stated_number("0", "rate", "a.tif") == 0
    assert caplog.text == ""
    assert stated_number([1], "rate", "a.tif") == 0
    assert caplog.messages == [
        "a.tif: rate is [1], which is no number above zero; it is taken as unknown."
    ]


def test_units_do_not_make_numbers_infinite():
    assert micrometres(1e307, "m") is None
    assert micrometres(math.nan, "um") is None
    assert seconds(1e-323, "us") is None
