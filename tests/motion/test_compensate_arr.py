from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from scopeflow.errors import InputError, OptionsError
from scopeflow.motion.arrays import compensate_arr, compensate_pair
from tests.conftest import same_bits
from tests.oracles.naive_chain import naive_correction


@pytest.fixture
def run(quiet):
    def call(video, reference, options, config=None, **arguments):
        return compensate_arr(
            video, reference, options, registration_config=config or quiet(), **arguments
        )

    return call


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"update_reference": True},
        {"update_initialization_w": False},
        {"sigma": [[1, 1, 0.6], [0.5, 1, 0.2]]},
        {"buffer_size": 7, "interpolation_method": "linear"},
        {"channel_normalization": "separate", "constancy_assumption": "cs"},
        {"weight": np.linspace(0.1, 1, 40 * 52).reshape(40, 52)},
    ],
    ids=lambda changes: "+".join(changes) or "default",
)
def test_blocks_give_what_a_plain_loop_over_batches_gives(
    small_recording, quick_options, run, changes
):
    options = quick_options(output_typename="single", **changes)
    registered, flow = run(small_recording.video, small_recording.reference, options)
    expected_registered, expected_flow = naive_correction(
        small_recording.video, small_recording.reference, options
    )
    # The starts are means of the same numbers, summed in another way.
    np.testing.assert_allclose(flow, expected_flow, atol=2e-3)
    assert np.mean(np.abs(flow - expected_flow)) < 1e-5
    scale = np.ptp(expected_registered)
    assert np.mean(np.abs(registered - expected_registered)) < 1e-5 * scale


def test_motion_is_found(small_recording, quick_options, run):
    options = quick_options(iterations=50, quality_setting="balanced")
    _, flow = run(small_recording.video, small_recording.reference, options)
    inside = (slice(None), slice(8, -8), slice(8, -8))
    before = np.linalg.norm(small_recording.flow[inside], axis=-1).mean()
    after = np.linalg.norm((flow - small_recording.flow)[inside], axis=-1).mean()
    assert after < 0.5 * before


@pytest.mark.parametrize("block_length", [1, 4, 10, 20])
def test_bits_do_not_depend_on_the_block_length(
    small_recording, quick_options, run, quiet, block_length
):
    options = quick_options(sigma=[1, 1, 0.5], update_reference=True)
    video, reference = small_recording.video, small_recording.reference
    expected = run(video, reference, options)
    found = run(video, reference, options, quiet(block_length=block_length))
    assert same_bits(found[0], expected[0])
    assert same_bits(found[1], expected[1])


@pytest.mark.parametrize("chunks", [(1, 40, 52, 2), (44, 13, 52, 1), (7, 40, 17, 2)])
def test_bits_do_not_depend_on_the_chunks_of_a_dask_input(
    small_recording, quick_options, run, chunks
):
    options = quick_options()
    video, reference = small_recording.video, small_recording.reference
    expected = run(video, reference, options)
    lazy = da.from_array(video, chunks=chunks)
    labelled = xr.DataArray(lazy.transpose(3, 0, 2, 1), dims=("channel", "time", "x", "y"))
    for given in (lazy, labelled.transpose("time", "y", "x", "channel")):
        found = run(given, reference, options)
        assert same_bits(found[0], expected[0])
        assert same_bits(found[1], expected[1])


def test_the_graph_of_a_lazy_video_is_built_without_computing(small_recording, quick_options):
    from scopeflow.motion.plan import plan_correction

    def refuse(*_args, **_kwargs):
        raise AssertionError("computed while the plan was made")

    lazy = da.from_array(small_recording.video, chunks=(5, 40, 52, 2))
    with dask.config.set(scheduler=refuse):
        plan = plan_correction(quick_options(input_file=lazy, output_format="NULL"))
    assert plan.grid.n_frames == 44


def test_rigid_start_recovers_shifts_that_a_batch_start_cannot(quiet):
    rng = np.random.default_rng(0)
    from scipy.ndimage import gaussian_filter

    scene = gaussian_filter(rng.random((176, 200, 2)), (2, 2, 0)) * 4000
    shifts = [(0, 0), (-8, 10), (20, -15), (18, 22), (-20, -20), (3, 3)]
    crop = slice(24, -24)
    reference = scene[crop, crop]
    video = np.stack([np.roll(scene, shift, axis=(0, 1))[crop, crop] for shift in shifts])
    from scopeflow.motion.options.of_options import OFOptions

    options = OFOptions(quality_setting="balanced", cc_initialization=True, cc_up=4)
    _, flow = compensate_arr(video, reference, options, registration_config=quiet())
    for found, (dy, dx) in zip(flow, shifts, strict=True):
        inside = found[32:-32, 32:-32]
        assert np.linalg.norm(inside - [dx, dy], axis=-1).mean() < 0.3


def test_shapes_of_every_documented_kind(small_recording, quick_options, run):
    video, reference = small_recording.video[:3], small_recording.reference
    options = quick_options(iterations=2)
    green, green_reference = video[..., 0], reference[..., 0]

    def shapes(*arguments):
        return tuple(result.shape for result in run(*arguments, options))

    assert shapes(video, reference) == ((3, 40, 52, 2), (3, 40, 52, 2))
    assert shapes(green, green_reference) == ((3, 40, 52), (3, 40, 52, 2))
    assert shapes(green, green_reference[..., None]) == ((3, 40, 52, 1), (3, 40, 52, 2))
    assert shapes(green[0], green_reference) == ((40, 52), (40, 52, 2))
    assert shapes(video[0], reference) == ((1, 40, 52, 2), (1, 40, 52, 2))
    assert shapes(video[..., :1], green_reference) == ((3, 40, 52, 1), (3, 40, 52, 2))
    assert compensate_pair(reference, video[0], options).shape == (40, 52, 2)


@pytest.mark.parametrize(
    ("typename", "dtype"),
    [("double", "f8"), ("single", "f4"), ("uint16", "u2"), ("int16", "i2"), (None, "u2")],
)
def test_output_typename_decides_the_dtype(small_recording, quick_options, run, typename, dtype):
    options = quick_options(output_typename=typename, iterations=1)
    registered, _ = run(small_recording.video[:2], small_recording.reference, options)
    assert registered.dtype == np.dtype(dtype)


def test_bright_edges_are_clipped_and_counted_never_wrapped(quick_options, quiet, caplog):
    video = np.zeros((1, 32, 32), np.uint16)
    video[:, 10:20, 10:20] = 65535

    def half_a_pixel(reference, moving, **_):
        return np.full((32, 32, 2), 0.5, np.float32)

    options = quick_options(output_typename="uint16")
    registered, _ = compensate_arr(
        video, video[0], options, get_displacement=half_a_pixel, registration_config=quiet()
    )
    # Cubic interpolation swings below 0 and above 65535 beside the edges of the square.
    outside = np.ones((32, 32), bool)
    outside[8:21, 8:21] = False
    assert registered[0][outside].max() == 0
    assert registered[0, 12:17, 12:17].min() == 65535
    assert "clipped" in caplog.text


@pytest.mark.parametrize("parallelization", ["sequential", "threading", "multiprocessing"])
def test_a_given_displacement_function_is_honoured_everywhere(
    small_recording, quick_options, quiet, parallelization
):
    def constant_seven(reference, moving, **_):
        return np.full((*moving.shape[:2], 2), 7, np.float32)

    _, flow = compensate_arr(
        small_recording.video[:6],
        small_recording.reference,
        quick_options(),
        get_displacement=constant_seven,
        registration_config=quiet(parallelization=parallelization, n_jobs=2),
    )
    assert (flow == 7).all()


def test_options_are_not_changed_and_can_be_used_again(small_recording, quick_options, run):
    options = quick_options()
    before = options.model_dump(mode="json")
    first = run(small_recording.video[:4], small_recording.reference, options)
    second = run(small_recording.video[:4], small_recording.reference, options)
    assert options.model_dump(mode="json") == before
    assert same_bits(first[0], second[0])


def test_callbacks_come_in_order_of_time_with_true_indices(small_recording, quick_options, quiet):
    progress, batches, flows = [], [], []
    registered, flow = compensate_arr(
        small_recording.video,
        small_recording.reference,
        quick_options(),
        lambda done, total: progress.append((done, total)),
        w_callback=lambda w, start, end: flows.append((w.copy(), start, end)),
        registered_callback=lambda frames, start, end: batches.append((frames.copy(), start, end)),
        registration_config=quiet(parallelization="threading", n_jobs=3, block_length=5),
    )
    assert progress == [(done, 44) for done in range(1, 45)]
    assert [entry[1:] for entry in batches] == [(0, 20), (20, 40), (40, 44)]
    assert same_bits(np.concatenate([entry[0] for entry in batches]), registered)
    assert same_bits(np.concatenate([entry[0] for entry in flows]), flow)


def test_a_failing_callback_is_a_warning(small_recording, quick_options, quiet):
    def fail(*_):
        raise KeyError("display closed")

    with pytest.warns(RuntimeWarning, match="Registered frames callback error.*display closed"):
        compensate_arr(
            small_recording.video[:3],
            small_recording.reference,
            quick_options(iterations=1),
            registered_callback=fail,
            registration_config=quiet(),
        )


def test_a_changed_frame_decides_the_flow_but_the_raw_frame_is_registered(
    small_recording, quick_options, run
):
    video, reference = small_recording.video[:3], small_recording.reference

    def blank(frame):
        return np.zeros_like(frame)

    registered, flow = run(video, reference, quick_options(preproc_funct=blank))
    _, plain_flow = run(video, reference, quick_options())
    assert not same_bits(flow, plain_flow)
    assert registered.max() > 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_not_finite_stop_the_run_or_are_masked(
    small_recording, quick_options, quiet, value
):
    video = small_recording.video[:6].astype(np.float32)
    video[4, 20, 26] = value
    reference = small_recording.reference
    with pytest.raises(InputError, match=r"frame 4 has 1 pixels.*non_finite='mask'"):
        compensate_arr(video, reference, quick_options(), registration_config=quiet())
    masked, flow = compensate_arr(
        video, reference, quick_options(non_finite="mask"), registration_config=quiet()
    )
    assert np.isfinite(masked).all()
    assert np.isfinite(flow).all()


def test_bad_arrays_get_one_clear_error(small_recording, quick_options, quiet):
    video, reference = small_recording.video, small_recording.reference
    options, config = quick_options(), quiet()

    def refuse(match, *arguments, error=InputError):
        with pytest.raises(error, match=match):
            compensate_arr(*arguments, registration_config=config)

    refuse("cannot be empty", video[:0], reference, options)
    refuse(r"shape \(40, 50, 2\).*\(40, 52, 2\)", video, reference[:, :50], options)
    refuse(r"shape \(40, 52, 1\)", video, reference[..., :1], options)
    refuse("at least 10 × 10", video[:, :8], reference[:8], options)
    refuse("complex", video.astype(complex), reference, options)
    not_finite = reference.astype(float).copy()
    not_finite[3, 3] = np.nan
    refuse("NaN or infinite", video, not_finite, options)
    refuse("'flowreg'", video, reference, quick_options(flow_backend="flowrag"), error=ValueError)
    other_map = quick_options(weight=np.ones((5, 5)))
    refuse("weight is a map", video, reference, other_map, error=OptionsError)


@pytest.mark.parametrize(
    ("returned", "match"),
    [
        (np.zeros((3, 3)), r"returned shape \(3, 3\)"),
        (np.full((40, 52, 2), np.nan), "returned NaN"),
    ],
    ids=["shape", "NaN"],
)
def test_a_displacement_that_cannot_be_used_is_named(
    small_recording, quick_options, run, returned, match
):
    with pytest.raises(InputError, match=match):
        run(
            small_recording.video[:2],
            small_recording.reference,
            quick_options(),
            get_displacement=lambda reference, moving, **_: returned,
        )


def test_temporal_filters_see_the_neighbours_or_stop_at_batches(
    small_recording, quick_options, run
):
    video, reference = small_recording.video[:30], small_recording.reference

    def flows(boundary):
        options = quick_options(sigma=[1, 1, 1.0], temporal_boundary=boundary, buffer_size=10)
        alone = run(video[:10], reference, options)[1]
        return alone, run(video, reference, options)[1][:10]

    alone, within = flows("batch")
    assert same_bits(alone, within)
    alone, within = flows("halo")
    assert not same_bits(alone[9], within[9])
