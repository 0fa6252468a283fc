"""The whole flow of one frame: plain twin, analytic motion, symmetries, threads, refused input."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from scopeflow.errors import InputError, OptionsError
from scopeflow.flow.arguments import channel_weights
from scopeflow.flow.flow import (
    get_displacement,
    solve_flow,
)
from scopeflow.flow.parameters import FlowParameters, data_term_name
from scopeflow.flow.reference import prepare_reference
from scopeflow.images.filters import intensity_range, preprocess_frame
from scopeflow.images.resize import upsample_flow
from tests.oracles import naive_flow


def texture(shape, channels=1, seed=0, sigma=1.5):
    rng = np.random.default_rng(seed)
    image = gaussian_filter(rng.random((*shape, channels)), (sigma, sigma, 0))
    return (image - image.min()) / (image.max() - image.min())


def moved(big, margin, u, v):
    """Frames cut from a larger texture: the content of the second is displaced by (u, v)."""
    shape = big.shape[0] - 2 * margin, big.shape[1] - 2 * margin
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] + margin
    fixed = big[margin:-margin, margin:-margin]
    moving = [map_coordinates(big[..., c], [y - v, x - u], order=5) for c in range(big.shape[2])]
    return fixed, np.stack(moving, axis=-1)


# Sensitive cases amplify float32 rounding; brightness and census constancy do not.
TWIN_CASES = {
    "gradient": ({"alpha": (1.0, 1.5)}, 2e-3),
    "brightness": ({"alpha": (0.05, 0.05), "const_assumption": "gray"}, 3e-4),
    "census": ({"const_assumption": "cs", "min_level": 1}, 3e-4),
    "robust smoothness": ({"alpha": (0.3, 0.3), "a_smooth": 0.5, "min_level": 1}, 1e-2),
    "stages": (
        {
            "alpha": (0.05, 0.05),
            "const_assumption": "gray",
            "gnc_schedule": (0, 0.5, 1),
            "warping_steps": 2,
            "min_level": 1,
        },
        2e-3,
    ),
    "exponents": ({"a_data": (0.45, 0.8), "update_lag": 3}, 2e-3),
}


@pytest.mark.parametrize("name", TWIN_CASES)
def test_flow_matches_the_plain_twin(name):
    options, bound = TWIN_CASES[name]
    options = {"alpha": (1.5, 1.5), "eta": 0.6, "iterations": 12, **options}
    fixed, moving = moved(texture((22 + 16, 27 + 16), 2, sigma=2.0), 8, 1.3, -0.7)
    weight = np.random.default_rng(1).random(fixed.shape) + 0.2
    start = np.full((*fixed.shape[:2], 2), [1.0, -0.5])
    ours = get_displacement(fixed, moving, uv=start, weight=weight, **options)
    assert ours.dtype == np.float64
    twin = naive_flow.displacement(
        fixed,
        moving,
        options["alpha"],
        options.get("update_lag", 5),
        options["iterations"],
        options.get("min_level", 0),
        50,
        options["eta"],
        options.get("a_smooth", 1.0),
        np.atleast_1d(options.get("a_data", 0.45)),
        options.get("const_assumption", "gc"),
        start,
        weight,
        options.get("gnc_schedule"),
        options.get("warping_steps", 10),
    )
    assert np.abs(twin).mean() > 0.3  # there is something to compare
    error = np.sqrt(((ours - twin) ** 2).sum(axis=-1))
    assert error.mean() < bound
    assert np.median(error) < bound / 2


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("min_level", [0, 3])
def test_translation_is_recovered(channels, min_level):
    fixed, moving = moved(texture((90, 110), channels, sigma=2.5), 15, 3.25, -2.5)
    flow = get_displacement(fixed, moving, min_level=min_level)
    inner = flow[8:-8, 8:-8]
    assert np.abs(inner - [3.25, -2.5]).mean() < 0.06


def test_smooth_motion_is_recovered_on_every_data_term():
    big = texture((100, 120), sigma=2.0)
    y, x = np.mgrid[0:70, 0:90]
    u = 1.5 * np.sin(2 * np.pi * y / 70)
    v = -1.2 * np.cos(2 * np.pi * x / 90)
    fixed, moving = moved(big, 15, 0, 0)[0], moved(big, 15, u, v)[1]
    for term, alpha in (("gc", 1.5), ("gray", 0.01), ("cs", 0.05)):
        flow = get_displacement(fixed, moving, (alpha, alpha), const_assumption=term)
        # Displaced content: the field belongs to the moved position, found by iteration.
        tu, tv = u, v
        for _ in range(20):
            tu = map_coordinates(u, [y + tv, x + tu], order=3, mode="nearest")
            tv = map_coordinates(v, [y + tv, x + tu], order=3, mode="nearest")
        error = np.hypot(flow[..., 0] - tu, flow[..., 1] - tv)[8:-8, 8:-8]
        assert error.mean() < 0.3, term
        assert error.mean() < 0.25 * np.hypot(u, v).mean(), term


def test_a_frame_against_itself_does_not_move():
    frame = texture((40, 53), 2)
    assert np.abs(get_displacement(frame, frame)).max() < 1e-4


def test_transposed_frames_have_the_transposed_flow():
    fixed, moving = moved(texture((80, 96), sigma=2.0), 10, 2.0, 1.0)
    flow = get_displacement(fixed, moving, alpha=(1.0, 2.0), const_assumption="gray", a_data=0.6)
    turned = get_displacement(
        fixed.swapaxes(0, 1),
        moving.swapaxes(0, 1),
        alpha=(2.0, 1.0),
        const_assumption="gray",
        a_data=0.6,
    )
    # Within a pixel u is updated before v, so the flows agree only as far as the sweeps converge.
    assert np.abs(turned.swapaxes(0, 1)[..., ::-1] - flow).mean() < 0.02


def test_intensity_scale_does_not_matter_after_normalisation():
    fixed, moving = moved(texture((60, 70), sigma=2.0), 8, 1.0, -1.0)
    flows = []
    for gain, offset in ((1.0, 0.0), (4000.0, 100.0), (1e-3, -5.0)):
        lo, hi = intensity_range(fixed * gain + offset, joint=True)
        frames = [
            preprocess_frame((image * gain + offset), lo, hi, (1, 1, 0.1))
            for image in (fixed, moving)
        ]
        flows.append(get_displacement(*frames))
    assert np.abs(flows[1] - flows[0]).mean() < 2e-3
    assert np.abs(flows[2] - flows[0]).mean() < 2e-3


@pytest.mark.parametrize("shape", [(10, 10), (11, 13), (31, 10), (17, 97), (61, 43)])
@pytest.mark.parametrize(
    "options", [{}, {"a_smooth": 0.5}, {"min_level": 2}, {"const_assumption": "cs"}], ids=str
)
def test_small_odd_and_prime_sizes(shape, options):
    frame = texture(shape)
    flow = get_displacement(frame, np.roll(frame, 1, axis=1), **options)
    assert flow.shape == (*shape, 2)
    assert np.isfinite(flow).all()


@pytest.mark.parametrize(
    "options", [{}, {"a_smooth": 0.5, "min_level": 2}, {"data_term": "cs"}], ids=str
)
def test_threads_share_one_reference_and_agree_bit_for_bit(options):
    fixed, _ = moved(texture((96, 80), sigma=2.0), 8, 0, 0)
    frames = [np.roll(fixed, shift, axis=(0, 1)) for shift in ((1, 0), (0, 2), (2, 1), (0, 0))]
    prepared = pickle.loads(pickle.dumps(prepare_reference(fixed, None, FlowParameters(**options))))
    alone = [solve_flow(prepared, frame) for frame in frames]
    results = {}

    def work(offset):
        for step in range(8):
            number = (offset + step) % len(frames)
            results[offset, step] = number, solve_flow(prepared, frames[number])

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 16
    for number, flow in results.values():
        np.testing.assert_array_equal(flow, alone[number])


def test_results_do_not_depend_on_the_frame_before():
    fixed, moving = moved(texture((60, 64), 2, sigma=2.0), 8, 1.0, 0.5)
    prepared = prepare_reference(fixed, [0.3, 0.7], FlowParameters())
    first = solve_flow(prepared, moving)
    get_displacement(texture((71, 90), 3), texture((71, 90), 3, seed=4), a_smooth=0.5)
    np.testing.assert_array_equal(solve_flow(prepared, moving), first)


def test_motion_on_the_finest_grid_is_what_get_displacement_upsamples():
    fixed, moving = moved(texture((70, 76), sigma=2.0), 8, 1.0, 0.5)
    params = FlowParameters(alpha=(2.0, 2.0), levels=50, min_level=2)
    prepared = prepare_reference(fixed, None, params)
    motion = solve_flow(prepared, moving)
    assert motion.dtype == np.float32
    assert motion.shape == (*prepared.motion_shape, 2)
    np.testing.assert_array_equal(
        upsample_flow(motion, fixed.shape[:2]), get_displacement(fixed, moving, min_level=2)
    )


def test_good_start_helps_where_the_motion_is_too_large():
    fixed, moving = moved(texture((110, 120), sigma=1.2), 25, 17.0, 0.0)
    start = np.full((60, 70, 2), [17.0, 0.0])
    cold = np.abs(get_displacement(fixed, moving, levels=2) - [17, 0])[8:-8, 8:-25].mean()
    warm = np.abs(get_displacement(fixed, moving, levels=2, uv=start) - [17, 0])[8:-8, 8:-25].mean()
    assert warm < 0.5 * cold


def test_weights():
    shape = (12, 13, 3)
    np.testing.assert_allclose(channel_weights(None, shape)[0], 1 / 3)
    np.testing.assert_allclose(
        channel_weights([2], shape)[0], np.array([2, 1 / 3, 1 / 3]) / (8 / 3)
    )
    np.testing.assert_allclose(channel_weights([1, 1, 2, 9], shape)[0], [0.25, 0.25, 0.5])
    weights, maps = channel_weights(np.full((12, 13), 0.5), shape)
    assert weights.tolist() == [1, 1, 1]
    assert maps.shape == (3, 12, 13)
    for wrong in (np.ones((13, 12)), [-1, 1, 1], [np.nan], [0, 0, 0]):
        with pytest.raises(OptionsError, match="weight"):
            channel_weights(wrong, shape)


def test_a_channel_without_weight_does_not_count():
    fixed, moving = moved(texture((60, 64), 2, sigma=2.0), 8, 1.0, 0.5)
    other = moving.copy()
    other[..., 1] = texture((44, 48), seed=9)[..., 0]
    one = get_displacement(fixed, moving, weight=[1.0, 0.0])
    np.testing.assert_array_equal(get_displacement(fixed, other, weight=[1.0, 0.0]), one)
    alone = get_displacement(fixed[..., 0], moving[..., 0])
    np.testing.assert_allclose(one, alone, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "term"),
    [
        ("gc", "gc"),
        ("Gradient ", "gc"),
        ("BRIGHTNESS", "gray"),
        ("gray", "gray"),
        ("census", "cs"),
        ("cs", "cs"),
    ],
)
def test_aliases_of_data_terms(name, term):
    assert data_term_name(name) == term


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"const_assumption": "censuss"},
            "brightness, census, cs, gc, gradient, gray.*Did you mean",
        ),
        ({"gnc_schedule": [[0, 1]]}, "1D sequence"),
        ({"gnc_schedule": [0]}, "at least two"),
        ({"gnc_schedule": [0, 2]}, r"lie in \[0, 1\]"),
        ({"gnc_schedule": [0, 0.7, 0.5, 1]}, "monotone"),
        ({"gnc_schedule": [0.2, 1]}, "start at 0.0"),
        ({"gnc_schedule": [0, 0.8]}, "end at 1.0"),
        ({"warping_steps": 0}, "warping_steps must be a positive integer"),
        ({"warping_steps": 2.5}, "warping_steps must be a positive integer"),
        ({"alpha": (1, 1, 1)}, "Alpha must be scalar or 2-element tuple"),
        ({"alpha": (1, 0)}, "All alpha values must be positive"),
        ({"eta": 1.5}, "eta"),
        ({"iterations": 0}, "iterations"),
        ({"min_level": -1}, "min_level"),
        ({"a_smooth": -0.1}, "a_smooth"),
        ({"a_data": -1}, "a_data"),
        ({"a_data": 1.5}, "at most 1"),
        ({"levels": 0}, "levels must be a positive integer"),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(options, message):
    frame = texture((12, 12))
    with pytest.raises(OptionsError, match=message):
        get_displacement(frame, frame, **options)


def test_input_that_cannot_be_used_is_refused():
    frame = texture((12, 14))
    with pytest.raises(InputError, match="same shape"):
        get_displacement(frame, frame[:-1])
    with pytest.raises(InputError, match="10 × 10"):
        get_displacement(frame[:9], frame[:9])
    for bad in (np.nan, np.inf):
        broken = frame.copy()
        broken[3, 4] = bad
        with pytest.raises(InputError, match="reference holds 1 values"):
            get_displacement(broken, frame)
        with pytest.raises(InputError, match="frame holds 1 values"):
            get_displacement(frame, broken)
    with pytest.raises(InputError, match="initial displacement"):
        get_displacement(frame, frame, uv=np.zeros((3, 3, 2)))
    with pytest.raises(OptionsError, match="2 exponents"):
        get_displacement(frame, frame, a_data=[0.45, 0.5])
