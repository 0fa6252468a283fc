from __future__ import annotations

import pickle
import threading

import cv2
import numpy as np
import pytest

from scopeflow import open_video
from scopeflow.cli.app import app
from scopeflow.errors import InputError, OutputExistsError, UnreadableFileError
from scopeflow.io.open import open_source
from scopeflow.report.preview import write_preview

av = pytest.importorskip("av")

FRAMES, HEIGHT, WIDTH = 40, 48, 64
LOSSLESS = {"ffv1 gray": ("avi", "ffv1", "gray"), "raw bgr": ("avi", "rawvideo", "bgr24")}
LOSSLESS |= {"ffv1 bgr0": ("mkv", "ffv1", "bgr0"), "ffv1 16": ("avi", "ffv1", "gray16le")}
LOSSY = {
    "mjpeg": ("avi", "mjpeg", "yuvj420p"),
    "h264, reordered": ("mp4", "libx264", "yuv420p"),
    "mpeg4, reordered": ("avi", "mpeg4", "yuv420p"),
}


@pytest.fixture(scope="module")
def movie() -> np.ndarray:
    """Grey frames that tell their number: each is brighter by 5 in one corner."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    frames = [100 + 60 * np.sin((x + 2 * t) / 7) + 20 * np.cos(y / 5) for t in range(FRAMES)]
    video = np.stack(frames).astype(np.uint8)
    video[:, :16, :16] = (20 + 5 * np.arange(FRAMES))[:, None, None]
    return video


def encode(path, codec, pixels, video, *, times=None):
    options = {"bf": "2"} if codec in ("libx264", "mpeg4") else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=20, options=options)
        stream.height, stream.width = video.shape[1:3]
        stream.pix_fmt = pixels
        stream.gop_size = 12
        stream.bit_rate = 4_000_000
        for number, image in enumerate(video):
            kind = "gray16le" if image.dtype == np.uint16 else "gray"
            frame = av.VideoFrame.from_ndarray(image, format=kind)
            if times is not None:
                frame.pts = times[number]
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def decode(path) -> np.ndarray:
    """All frames in order as grey, by OpenCV."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        more, frame = capture.read()
        if not more:
            return np.stack(frames)
        frames.append(frame.mean(axis=-1))


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_video_comes_back(tmp_path, movie, name):
    suffix, codec, pixels = LOSSLESS[name]
    video = movie.astype(np.uint16) * 257 if pixels == "gray16le" else movie
    source = open_source(encode(tmp_path / f"a.{suffix}", codec, pixels, video))
    assert source.shape == (FRAMES, HEIGHT, WIDTH, 1)
    assert source.dtype == video.dtype
    assert source.metadata.frame_interval_s == 0.05
    np.testing.assert_array_equal(source.read(0, FRAMES)[..., 0], video)


@pytest.mark.parametrize("name", LOSSY)
def test_every_frame_is_found_by_its_number(tmp_path, movie, name):
    suffix, codec, pixels = LOSSY[name]
    path = encode(tmp_path / f"a.{suffix}", codec, pixels, movie)
    source = open_source(path)
    in_order = decode(path)
    assert source.shape[0] == len(in_order) == FRAMES
    # OpenCV goes through RGB, which rounds once more in every channel.
    assert np.abs(source.read(0, FRAMES)[..., 0] - in_order).max() <= 3
    for start in np.random.default_rng(0).permutation(FRAMES).tolist():
        block = source.read(start, min(start + 3, FRAMES))[..., 0]
        assert np.abs(block - in_order[start : start + 3]).max() <= 3
        corner = block[:, 4:12, 4:12].mean(axis=(1, 2))
        np.testing.assert_allclose(corner, 20 + 5 * np.arange(start, start + len(block)), atol=2)


def test_reading_from_threads_and_other_processes(tmp_path, movie):
    source = open_source(encode(tmp_path / "a.avi", "ffv1", "gray", movie))
    assert hash(pickle.loads(pickle.dumps(source))) == hash(source)
    wrong = []

    def read(start):
        if not (source.read(start, start + 5)[..., 0] == movie[start : start + 5]).all():
            wrong.append(start)

    threads = [threading.Thread(target=read, args=(start,)) for start in range(0, 35, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_uneven_times_are_kept(tmp_path, movie):
    times = np.cumsum([0, *np.tile([1, 2, 5], 13)]).tolist()
    source = open_source(encode(tmp_path / "a.mkv", "ffv1", "gray", movie, times=times))
    found = source.metadata.frame_times_s
    np.testing.assert_allclose(found, np.array(times) / 20, atol=1e-3)
    np.testing.assert_array_equal(source.read(30, 33)[..., 0], movie[30:33])


def test_folder_of_a_miniscope(tmp_path, movie):
    for number in (2, 0, 10):
        encode(tmp_path / f"{number}.avi", "ffv1", "gray", movie[number : number + 5])
    expected = np.concatenate([movie[n : n + 5] for n in (0, 2, 10)])
    np.testing.assert_array_equal(open_video(tmp_path).to_numpy()[..., 0], expected)


def test_damaged_and_strange_video_is_refused(tmp_path, movie):
    path = encode(tmp_path / "a.mp4", "libx264", "yuv420p", movie)
    (tmp_path / "cut.mp4").write_bytes(path.read_bytes()[:1500])
    with pytest.raises(UnreadableFileError, match="cannot be decoded as video"):
        open_source(tmp_path / "cut.mp4")
    (tmp_path / "text.avi").write_text("no video at all" * 20)
    with pytest.raises(UnreadableFileError, match=r"named \.avi, but its content"):
        open_source(tmp_path / "text.avi")
    deep = encode(tmp_path / "deep.mkv", "ffv1", "yuv420p10le", movie)
    with pytest.raises(InputError, match=r"yuv420p10le are not read as grey\. Convert"):
        open_source(deep)
    with pytest.raises(InputError, match="axes='TYX' has no meaning"):
        open_source(path, axes="TYX")


# -- previews ------------------------------------------------------------------------------------


def test_preview_shows_both_with_one_contrast(tmp_path, movie):
    before = movie.astype(np.float32) * 10
    after = before[:, :, ::-1] + 200
    path = tmp_path / "look.mp4"
    write_preview(before, path, beside=after, contrast=(0, 2550), fps=12.5)
    found = decode(path)
    # Limited range and a lossy codec: some grey values.
    assert found.shape == (FRAMES, HEIGHT, 2 * WIDTH + 4)
    assert np.abs(found[:, :, :WIDTH] - movie).mean() < 3
    assert np.abs(found[:, :, -WIDTH:] - (movie[:, :, ::-1] + 20.0)).mean() < 3
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS) == 12.5
    with av.open(str(path)) as file:
        assert file.streams.video[0].codec_context.name == "h264"


def test_preview_of_odd_size_and_automatic_contrast(tmp_path, movie):
    video = movie[:, :47, :63].astype(np.uint16) * 3 + 1000
    low, high = write_preview(video, tmp_path / "a.mp4", frames=(3, 9))
    expected = np.percentile(video[3:9], (0.5, 99.5))
    np.testing.assert_allclose((low, high), expected)
    found = decode(tmp_path / "a.mp4")
    assert found.shape == (6, 48, 64)
    shown = np.clip((video[3:9] - expected[0]) * 255 / (expected[1] - expected[0]), 0, 255)
    assert np.abs(found[:, :47, :63] - shown).mean() < 4


def test_preview_refuses_what_it_cannot_show(tmp_path, movie):
    for arguments, message in [
        ({"path": tmp_path / "a.avi"}, r"ends in \.mp4"),
        ({"beside": movie[:5]}, "same frames and rows"),
        ({"channel": 1}, "no channel 1"),
        ({"frames": (0, 99)}, "not in the recording"),
        ({"contrast": (5, 5)}, "must grow"),
        ({"fps": 5000}, "0.1 to 1000"),
    ]:
        with pytest.raises(InputError, match=message):
            write_preview(movie, **{"path": tmp_path / "a.mp4", **arguments})
    (tmp_path / "a.mp4").write_text("mine")
    with pytest.raises(OutputExistsError):
        write_preview(movie, tmp_path / "a.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_preview_on_the_command_line(tmp_path, movie):
    from typer.testing import CliRunner

    encode(tmp_path / "in.avi", "ffv1", "gray", movie)
    words = ["preview", str(tmp_path / "in.avi"), str(tmp_path / "out.mp4"), "--frames", "0:4"]
    result = CliRunner().invoke(app, [*words, "--contrast", "0:255"])
    assert result.exit_code == 0, result.output
    assert "0 to 255" in result.output
    assert len(decode(tmp_path / "out.mp4")) == 4
    result = CliRunner().invoke(app, [*words, "--contrast", "much"])
    assert result.exit_code == 2
