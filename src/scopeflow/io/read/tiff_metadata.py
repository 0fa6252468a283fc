"""What TIFF dialects say about a recording, and whether a file holds all that it declares."""

from __future__ import annotations

import math
import re
import struct
import xml.etree.ElementTree as ElementTree
from typing import Any

from scopeflow.errors import InputError, UnreadableFileError
from scopeflow.io.metadata import VideoMetadata, micrometres, seconds, stated_number

__all__ = ["check_complete", "read_metadata", "scanimage_axes"]


def check_complete(file: Any, series: list[Any], size: int, name: str) -> None:
    """Check that a TIFF file of so many bytes holds every page that it declares.

    Raises UnreadableFileError: the chain of pages breaks off, pixels lie beyond the end of the
        file, or the metadata declare more frames than there are.
    """
    advice = "The file is truncated or damaged; copy or save it again."
    if not file.filehandle.is_file and file.is_ome:
        advice += " OME-TIFF of several files is not read from remote addresses; copy all of them."
    pages = len(file.pages)
    beyond = _next_page_offset(file, file.pages[pages - 1])
    if beyond:
        raise UnreadableFileError(
            f"{name}: the file breaks off after {pages} pages: the next one should stand at byte "
            f"{beyond}, but the file has {size} bytes. {advice}"
        )
    for item in series:
        # Only OME metadata name planes that may be missing; looking at each page takes a while.
        if file.is_ome and any(page is None for page in item.pages):
            missing = sum(page is None for page in item.pages)
            raise UnreadableFileError(
                f"{name}: {missing} of {len(item.pages)} planes that its metadata declare are "
                f"missing. {advice}"
            )
        end = 0
        if item.dataoffset is not None:
            end = item.dataoffset + item.nbytes
        elif not item.is_multifile:
            last = item.pages[len(item.pages) - 1]
            end = max(
                (o + n for o, n in zip(last.dataoffsets, last.databytecounts, strict=False)),
                default=0,
            )
        if end > size:
            raise UnreadableFileError(
                f"{name}: {len(item.pages)} pages of {item.shape} need {end} bytes, but the file "
                f"has {size}. {advice}"
            )
    declared = _declared_pixels(file)
    held = sum(item.size for item in file.series)
    if declared is not None and declared[0] > held:
        plane = math.prod(series[0].keyframe.shape)
        raise UnreadableFileError(
            f"{name}: its metadata declare {declared[1]}, that is {declared[0] // plane} planes, "
            f"but the file holds {held // plane}. {advice}"
        )


def _next_page_offset(file: Any, page: Any) -> int:
    """Return where the page after ``page`` should stand, 0 at the end of the chain."""
    tiff = file.tiff
    offset = getattr(page, "offset", None)
    # Pages that tifffile derives from the first one have no place of their own.
    if not offset:
        return 0
    handle = file.filehandle
    handle.seek(offset)
    count = struct.unpack(tiff.tagnoformat, handle.read(tiff.tagnosize))[0]
    handle.seek(offset + tiff.tagnosize + count * tiff.tagsize)
    raw = handle.read(tiff.offsetsize)
    if len(raw) < tiff.offsetsize:
        return offset + tiff.tagnosize + count * tiff.tagsize
    return int(struct.unpack(tiff.offsetformat, raw)[0])


def _declared_pixels(file: Any) -> tuple[int, str] | None:
    """Return the pixels that the metadata of the whole file declare, and in which words."""
    page = file.pages[0]
    plane = math.prod(page.shape)
    if file.is_ome:
        planes = 0
        for pixels in _ome_pixels(file):
            counts = [int(pixels.attrib.get(f"Size{axis}", 1)) for axis in "TCZYX"]
            planes += math.prod(counts)
        return (planes, "OME-XML sizes") if planes else None
    if file.is_imagej:
        images = int((file.imagej_metadata or {}).get("images", 1))
        return images * plane, f"images={images}"
    if file.is_shaped:
        shapes = [tuple(item["shape"]) for item in file.shaped_metadata or () if "shape" in item]
        return sum(math.prod(shape) for shape in shapes), f"shape {shapes[0]}"
    return None


def _ome_pixels(file: Any) -> list[ElementTree.Element]:
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
    found = _ome_pixels(file)
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
