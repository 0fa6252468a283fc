"""Write small uncompressed ND2 files (container version 3), for tests only.

The container is a chain of chunks aligned to 4096 bytes (magic, name length, payload length), one
for each image, three of metadata in Nikon's binary "lite variant" encoding, and a map of all
chunks to which the last bytes of the file point.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

MAGIC = 0x0ABECEDA
ALIGNMENT = 4096
IMAGE_NAME_BYTES = 4072
SIGNATURE = b"ND2 FILE SIGNATURE CHUNK NAME01!"
MAP_NAME = b"ND2 FILEMAP SIGNATURE NAME 0001!"
MAP_SIGNATURE = b"ND2 CHUNK MAP SIGNATURE 0000001!"


def _text(text: str) -> bytes:
    return (text + "\0").encode("utf-16-le")


def encode(key: str, value: Any) -> bytes:
    """Encode one item of the lite variant: type, name length, name, value."""

    def head(kind: int) -> bytes:
        return struct.pack("BB", kind, len(key) + 1) + _text(key)

    if isinstance(value, dict):
        body = b"".join(encode(name, item) for name, item in value.items())
        start = head(11)
        length = len(start) + 12 + len(body)
        return start + struct.pack("<IQ", len(value), length) + body + bytes(8 * len(value))
    if isinstance(value, bool):
        return head(1) + struct.pack("B", value)
    if isinstance(value, int):
        return head(3) + struct.pack("<I", value)
    if isinstance(value, float):
        return head(6) + struct.pack("<d", value)
    if isinstance(value, str):
        return head(8) + _text(value)
    raise TypeError(f"{key}: {type(value).__name__}")


class _Chunks:
    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.map: list[tuple[bytes, int, int]] = []
        file.write(struct.pack("<IIQ", MAGIC, 32, 64) + SIGNATURE + b"Ver3.0".ljust(64, b"\0"))

    def align(self) -> int:
        self.file.write(bytes(-self.file.tell() % ALIGNMENT))
        return self.file.tell()

    def add(self, name: bytes, payload: bytes) -> None:
        offset = self.align()
        length = IMAGE_NAME_BYTES if name.startswith(b"ImageDataSeq") else ALIGNMENT - 16
        self.file.write(struct.pack("<IIQ", MAGIC, length, len(payload)))
        self.file.write(name.ljust(length, b"\0") + payload)
        self.map.append((name, offset, len(payload)))

    def finish(self) -> None:
        entries = b"".join(name + struct.pack("<QQ", *place) for name, *place in self.map)
        offset = self.align()
        payload = entries + MAP_SIGNATURE + struct.pack("<Q", offset)
        self.file.write(struct.pack("<IIQ", MAGIC, 32, len(payload)) + MAP_NAME + payload)


def write_nd2(
    path: Path,
    data: np.ndarray,
    channels: Sequence[str],
    *,
    period_s: float = 600.0,
    pixel_um: float = 0.65,
    omit: Sequence[int] = (),
) -> None:
    """Write uint16 data of ``(T, P, C, Y, X)`` or ``(T, P, Z, C, Y, X)``; `omit` is left out."""
    depth = data.shape[2] if data.ndim == 6 else 0
    frames, positions, count, height, width = (*data.shape[:2], *data.shape[-3:])
    period_ms = period_s * 1000.0
    points = {
        f"i{n:010d}": {"dPosX": 1000.0 * n, "dPosY": 0.0, "dPosZ": 0.0, "dPosName": f"Pos{n}"}
        for n in range(positions)
    }
    stage = {
        "eType": 2,
        "uLoopPars": {
            "uiCount": positions,
            "bUseZ": False,
            "bRelativeXY": False,
            "dReferenceX": 0.0,
            "dReferenceY": 0.0,
            "Points": points,
        },
    }
    if depth:
        loop = {"uiCount": depth, "dZLow": 0.0, "dZHigh": depth - 1.0, "dZStep": 1.0, "iType": 0}
        stage["ppNextLevelEx"] = {"i0000000000": {"eType": 4, "uLoopPars": loop}}
    experiment = {
        "eType": 1,
        "uLoopPars": {
            "uiCount": frames,
            "dStart": 0.0,
            "dPeriod": period_ms,
            "dDuration": period_ms * (frames - 1),
            "dMinPeriodDiff": 0.0,
            "dMaxPeriodDiff": 0.0,
            "dAvgPeriodDiff": period_ms,
        },
        "ppNextLevelEx": {"i0000000000": stage},
    }
    planes = {
        f"a{n}": {
            "uiCompCount": 1,
            "uiSampleIndex": n,
            "sDescription": name,
            "uiColor": 0xFFFFFF,
            "pFluorescentProbe": {"m_sName": name},
        }
        for n, name in enumerate(channels)
    }
    picture = {
        "bCalibrated": True,
        "dCalibration": pixel_um,
        "dTimeMSec": 0.0,
        "dTimeAbsolute": 2460000.5,
        "sPicturePlanes": {"uiCount": count, "uiSampleCount": count, "sPlaneNew": planes},
    }
    attributes = {
        "uiWidth": width,
        "uiWidthBytes": width * count * 2,
        "uiHeight": height,
        "uiComp": count,
        "uiBpcInMemory": 16,
        "uiBpcSignificant": 16,
        "uiSequenceCount": frames * positions * max(1, depth),
        "uiTileWidth": width,
        "uiTileHeight": height,
        "eCompression": 2,
        "dCompressionParam": 0.0,
        "ePixelType": 1,
        "uiVirtualComponents": count,
    }
    with path.open("wb") as file:
        chunks = _Chunks(file)
        images = data.reshape(-1, count, height, width)
        for number, image in enumerate(images):
            if number in omit:
                continue
            t = number // (len(images) // frames)
            pixels = np.ascontiguousarray(np.moveaxis(image, 0, -1)).astype("<u2")
            payload = struct.pack("<d", t * period_ms) + pixels.tobytes()
            chunks.add(b"ImageDataSeq|%d!" % number, payload)
        chunks.add(b"ImageAttributesLV!", encode("SLxImageAttributes", attributes))
        chunks.add(b"ImageMetadataLV!", encode("SLxExperiment", experiment))
        chunks.add(b"ImageMetadataSeqLV|0!", encode("SLxPictureMetadata", picture))
        times = np.repeat(np.arange(frames) * period_ms, len(images) // frames).astype("<f8")
        chunks.add(b"CustomData|AcqTimesCache!", times.tobytes())
        chunks.finish()
