"""What TIFF dialects say about a recording."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

from scopeflow.errors import InputError, UnreadableFileError
from scopeflow.io.metadata import VideoMetadata, micrometres, seconds, stated_number

__all__ = ["ome_pixels", "read_metadata", "scanimage_axes"]


def ome_pixels(file: Any) -> list[ElementTree.Element]:
    """Return the elements ``Pixels`` of OME-XML, one for each image; none where it is broken."""
    try:
        root = ElementTree.fromstring(file.ome_metadata or "<OME/>")
    except ElementTree.ParseError:
        return []
    return [element for element in root.iter() if element.tag.endswith("Pixels")]


def scanimage_axes(page: Any, pages: int, name: str) -> tuple[str, tuple[int, ...]]:
    """Return axes and shape of the pages of a ScanImage file.

    ScanImage writes, from fast to slow, channels, frames of a slice, slices, volumes
    (ScanImage documentation, "Data organization in TIFF files").

    Raises UnreadableFileError: pages that do not fill whole frames.
    Raises InputError: slices of several frames in several volumes.
    """
    facts = _scanimage_facts(page)
    channels = len(re.findall(r"\d+", facts.get("SI.hChannels.channelSave", "1"))) or 1
    slices = 1
    if facts.get("SI.hStackManager.enable", "true").lower() in ("true", "1"):
        key = "SI.hStackManager.actualNumSlices"
        slices = _whole(facts.get(key, facts.get("SI.hStackManager.numSlices", "1")))
    frames = _whole(facts.get("SI.hStackManager.framesPerSlice", "1")) if slices > 1 else 1
    if pages % (channels * slices * frames):
        raise UnreadableFileError(
            f"{name}: ScanImage declares {channels} channels, {slices} slices and {frames} frames "
            f"of each slice, but {pages} pages do not fill whole frames. Pages are missing; copy "
            "the file again, or pass axes= with dataset=."
        )
    volumes = pages // (channels * slices * frames)
    if slices == 1:
        return "TC", (volumes, channels)
    if frames == 1:
        return "TZC", (volumes, slices, channels)
    if volumes == 1:
        return "ZTC", (slices, frames, channels)
    raise InputError(
        f"{name}: {volumes} volumes of {slices} slices with {frames} frames each are not "
        "supported. Average the frames of each slice in ScanImage, or split the file by volume."
    )


def _whole(text: str) -> int:
    try:
        return max(1, int(float(text)))
    except (ValueError, OverflowError):
        return 1


def _scanimage_facts(page: Any) -> dict[str, str]:
    text = "\n".join(str(part) for part in (page.software, page.description) if part)
    return dict(re.findall(r"^(SI\.[\w.]+) = (.*?)\s*$", text, re.MULTILINE))


def read_metadata(
    file: Any, kind: str, series: int, shape: tuple[int, int, int, int], name: str
) -> VideoMetadata:
    """Read pixel size, frame interval and channel names of one series.

    Plain TIFF resolution is not trusted, printers use it too. What is no number is unknown, and the
    log has a warning.
    """
    if kind == "OME-TIFF":
        return _ome(file, series, shape, name)
    if kind == "ImageJ TIFF":
        return _imagej(file, name)
    if kind == "ScanImage TIFF":
        facts = _scanimage_facts(file.pages[0])
        # The rate of frames is another one where volumes are recorded: used without theirs only.
        volumes, frames = "SI.hRoiManager.scanVolumeRate", "SI.hRoiManager.scanFrameRate"
        key = frames if facts.get(volumes, "") in ("", "0", "0.0") else volumes
        rate = stated_number(facts.get(key), key, name)
        interval = seconds(1.0 / rate, "s") if rate else None
        if interval is not None:
            origins = (("frame_interval", "ScanImage rate"),)
            return VideoMetadata(frame_interval_s=interval, origins=origins)
    return VideoMetadata()


def _ome(file: Any, series: int, shape: tuple[int, int, int, int], name: str) -> VideoMetadata:
    found = ome_pixels(file)
    if series >= len(found):
        return VideoMetadata()
    pixels = found[series]
    origins = []
    pixel = interval = names = None
    sizes = [
        micrometres(
            stated_number(pixels.attrib.get(key), key, name),
            pixels.attrib.get(f"{key}Unit", "µm"),
        )
        for key in ("PhysicalSizeY", "PhysicalSizeX")
    ]
    if sizes[0] is not None and sizes[1] is not None:
        pixel = (sizes[0], sizes[1])
        origins.append(("pixel_size", "OME-XML"))
    unit = pixels.attrib.get("TimeIncrementUnit", "s")
    stated = stated_number(pixels.attrib.get("TimeIncrement"), "TimeIncrement", name)
    interval = seconds(stated, unit)
    if interval is not None:
        origins.append(("frame_interval", "OME-XML"))
    listed = [e.attrib.get("Name", "") for e in pixels if e.tag.endswith("Channel")]
    if len(listed) == shape[3] and all(listed):
        names = tuple(listed)
        origins.append(("channels", "OME-XML"))
    return VideoMetadata(pixel, None, interval, names, tuple(origins))


def _imagej(file: Any, name: str) -> VideoMetadata:
    facts = file.imagej_metadata or {}
    origins = []
    pixel = interval = None
    tags = file.pages[0].tags
    unit = str(facts.get("unit", ""))
    steps = []
    for tag in ("YResolution", "XResolution"):
        per_pixel = _inverse(tags[tag].value if tag in tags else None)
        steps.append(micrometres(per_pixel, unit))
    if steps[0] is not None and steps[1] is not None:
        pixel = (steps[0], steps[1])
        origins.append(("pixel_size", "ImageJ resolution"))
    interval = seconds(
        stated_number(facts.get("finterval"), "finterval", name),
        str(facts.get("tunit", "s") or "s"),
    )
    if interval is not None:
        origins.append(("frame_interval", "ImageJ finterval"))
    return VideoMetadata(pixel, None, interval, None, tuple(origins))


def _inverse(ratio: Any) -> float:
    """Return the inverse of a resolution tag, 0 where it is none."""
    match ratio:
        case (int() as pixels, int() as lengths) if pixels > 0 and lengths > 0:
            return lengths / pixels
    return 0.0
