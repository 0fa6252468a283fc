"""The before/after picture: written in each format, read back by an independent reader."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread
from scipy.ndimage import gaussian_filter

from scopeflow.errors import InputError
from scopeflow.report.pictures import save_before_after


@pytest.fixture
def images() -> tuple[np.ndarray, np.ndarray]:
    sharp = np.random.default_rng(0).random((48, 64)) * 900
    return gaussian_filter(sharp, 1.5), sharp


def test_png_shows_both_images_and_makes_its_folder(images, tmp_path):
    path = save_before_after(tmp_path / "new" / "picture.png", *images, pixel_size_um=0.8)
    picture = imread(path)[..., :3]
    height, width = picture.shape[:2]
    left, right = (
        picture[int(0.2 * height) : int(0.35 * height), int(a * width) : int(b * width)]
        for a, b in ((0.12, 0.35), (0.55, 0.78))
    )
    # The same range for both: the blurred image varies less, and neither is empty.
    assert 0.01 < left.std() < 0.7 * right.std()


@pytest.mark.parametrize(
    ("suffix", "magic"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")]
)
def test_formats(images, tmp_path, suffix, magic):
    path = save_before_after(tmp_path / f"picture{suffix}", *images, zoom=False, dpi=50)
    assert path.read_bytes().startswith(magic)


def test_words_are_in_the_picture(images, tmp_path, monkeypatch):
    import matplotlib as mpl

    monkeypatch.setitem(mpl.rcParams, "svg.fonttype", "none")
    path = save_before_after(
        tmp_path / "a.svg", *images, title="Mouse 7", caption="r = 0.96", pixel_size_um=1.0
    )
    text = path.read_text()
    for words in ("Mouse 7", "r = 0.96", "Before: crispness", "After: crispness", "10 µm"):
        assert words in text


@pytest.mark.parametrize("shape", [(3, 3), (2, 2), (200, 21), (21, 200, 1)])
def test_constant_and_narrow_images(shape, tmp_path):
    assert save_before_after(tmp_path / "a.png", np.ones(shape), np.ones(shape), dpi=40).exists()


@pytest.mark.parametrize(
    ("before", "after", "options", "message"),
    [
        (np.ones((4, 4)), np.ones((4, 5)), {}, "same shape"),
        (np.ones((4, 4, 2)), np.ones((4, 4)), {}, "one channel"),
        (np.full((4, 4), np.nan), np.ones((4, 4)), {}, "NaN"),
        (np.ones((4, 4)), np.ones((4, 4)), {"pixel_size_um": 0.0}, "positive"),
    ],
)
def test_unusable_input_writes_nothing(before, after, options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        save_before_after(tmp_path / "folder" / "a.png", before, after, **options)
    assert not list(tmp_path.iterdir())
