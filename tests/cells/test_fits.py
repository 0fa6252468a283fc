"""Fits of noisy curves whose formula and parameters are known, from table to table."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from scopeflow.cells import fit_trace, fit_traces
from scopeflow.errors import InputError, InputNotFoundError, OptionsError, OutputExistsError

HOURS = np.arange(0, 30, 0.25)
NOISE = 20.0


def maturation(t, t0, ktl, delta, offset, km=1.28, beta=5.22e-3):
    dt = np.maximum(t - t0, 0)
    rise = (
        np.exp(-(beta + km) * dt) / (beta - delta + km)
        - np.exp(-beta * dt) / (beta - delta)
        + km * np.exp(-delta * dt) / ((beta - delta) * (beta - delta + km))
    )
    return np.where(t > t0, ktl * rise, 0.0) + offset


def trivial(t, t0, ktl, delta, beta, offset):
    dt = np.maximum(t - t0, 0)
    rise = ktl / (delta - beta) * (1 - np.exp(-(delta - beta) * dt)) * np.exp(-beta * dt)
    return offset + np.where(t > t0, rise, 0.0)


def maturation_blocked(t, t0, G0, Gu0, km, beta, offset):
    dt = np.maximum(t - t0, 0)
    left = G0 * np.exp(-beta * dt) + Gu0 * (np.exp(-beta * dt) - np.exp(-(beta + km) * dt))
    return offset + np.where(t > t0, left, 0.0)


CURVES = {
    "maturation": (maturation, {"t0": 0.6, "ktl": 900.0, "delta": 0.12, "offset": 50.0}),
    "trivial": (
        trivial,
        {"t0": 3.0, "ktl": 600.0, "delta": 0.25, "beta": 0.05, "offset": 50.0},
    ),
    "maturation_blocked": (
        maturation_blocked,
        {"t0": 0.1, "G0": 800.0, "Gu0": 2500.0, "km": 0.9, "beta": 0.04, "offset": 50.0},
    ),
}


@pytest.mark.parametrize("model", CURVES)
def test_noisy_curves_are_found_to_the_noise(model):
    curve, truth = CURVES[model]
    rng = np.random.default_rng(7)
    clean = curve(HOURS, **truth)
    noisy = clean + rng.normal(0, NOISE, len(HOURS))
    fit = fit_trace(HOURS, noisy, model)
    assert fit.success
    assert set(fit.parameters) == set(truth)
    # What is left is the noise, no more and not much less; R² follows from its share.
    found = curve(HOURS, **fit.parameters)
    left, noise = (np.sqrt(np.mean((noisy - one) ** 2)) for one in (found, clean))
    assert 0.9 * noise < left <= noise
    assert np.abs(found - clean).max() < 2 * NOISE
    explained = 1 - np.sum((noisy - clean) ** 2) / np.sum((noisy - noisy.mean()) ** 2)
    assert fit.r_squared == pytest.approx(explained, abs=0.002)
    if model == "trivial":
        # Both rates may change places: the curve is the same.
        assert sorted(fit.parameters[n] for n in ("beta", "delta")) == pytest.approx(
            [0.05, 0.25], rel=0.15
        )
        truth = {key: value for key, value in truth.items() if key in ("t0", "ktl")}
    for name in ("t0", "ktl", "delta", "G0", "Gu0", "km"):
        if name in truth:
            assert fit.parameters[name] == pytest.approx(truth[name], rel=0.15, abs=0.15), name


def test_r_squared_of_another_model_is_lower():
    curve, truth = CURVES["maturation_blocked"]
    noisy = curve(HOURS, **truth) + np.random.default_rng(1).normal(0, NOISE, len(HOURS))
    right, wrong = (
        fit_trace(HOURS, noisy, name).r_squared for name in ("maturation_blocked", "trivial")
    )
    assert right > 0.99
    assert wrong < right


@pytest.fixture
def merged(tmp_path):
    """Twelve cells of two fields of view; two have too few points for five parameters."""
    curve, truth = CURVES["trivial"]
    rng = np.random.default_rng(3)
    parts = []
    for n in range(12):
        parameters = {**truth, "ktl": 300.0 + 50 * n}
        values = curve(HOURS, **parameters) + rng.normal(0, NOISE, len(HOURS))
        if n in (4, 9):
            values[4:] = np.nan
        parts.append(
            pd.DataFrame(
                {
                    "fov": n // 6,
                    "cell": n % 6 + 1,
                    "frame": np.arange(len(HOURS)),
                    "time": HOURS * 60.0,
                    "good": True,
                    "intensity_total_ch_1": values,
                }
            )
        )
    path = tmp_path / "drug_merged.csv"
    text = pd.concat(parts).to_csv(index=False)
    path.write_text("# sample: drug\n# time: minutes\n" + text)
    return path


def test_tables_of_fits(merged, caplog):
    with caplog.at_level(logging.WARNING):
        path = fit_traces(merged, "intensity_total_ch_1", "trivial")
    assert path.name == "drug_merged_fitted_trivial.csv"
    table = pd.read_csv(path)
    pd.testing.assert_frame_equal(table, pd.read_parquet(path.with_suffix(".parquet")))
    assert list(table.columns) == [
        "fov", "cell", "model_type", "success", "r_squared", "t0", "ktl", "delta", "beta", "offset",
    ]  # fmt: skip
    assert list(zip(table["fov"], table["cell"], strict=True)) == [
        (fov, cell) for fov in (0, 1) for cell in range(1, 7)
    ]
    failed = ~table["success"]
    assert table[failed][["fov", "cell"]].to_numpy().tolist() == [[0, 5], [1, 4]]
    assert (table.loc[failed, "r_squared"] == 0).all()
    assert (table.loc[failed, "t0"] == 2.0).all()  # the start value
    assert "2 of 12 cells could not be fitted" in caplog.text
    assert "FOV 0, cell 5: 4 points for 5 parameters" in caplog.text
    assert "FOV 1, cell 4: " in caplog.text
    # Times are minutes in the table and hours in the models.
    expected = 300.0 + 50 * np.arange(12)
    np.testing.assert_allclose(table.loc[~failed, "ktl"], expected[~failed], rtol=0.12)
    np.testing.assert_allclose(table.loc[~failed, "t0"], 3.0, atol=0.3)


def test_picture_of_fits(merged, caplog):
    with caplog.at_level(logging.WARNING):
        path = fit_traces(merged, "intensity_total_ch_1", "maturation", picture=True)
    assert "parameters ended at a bound: " in caplog.text
    table = pd.read_csv(path)
    at_bound = int((table["t0"].abs() > 1 - 2e-6).sum())  # the traces start at 3 h, past it
    assert at_bound > 0
    assert f"t0 (-1 to 1) in {at_bound}" in caplog.text
    with Image.open(path.with_suffix(".png")) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape[1] > 1000
    green, red = pixels[..., 1] - pixels[..., 0] > 60, pixels[..., 0] - pixels[..., 1] > 60
    assert green.any() or red.any()  # curves by their class
    with pytest.raises(OutputExistsError, match=r"drug_merged_fitted_maturation\.csv"):
        fit_traces(merged, "intensity_total_ch_1", "maturation")
    path.unlink()
    with pytest.raises(OutputExistsError, match=r"drug_merged_fitted_maturation\.parquet"):
        fit_traces(merged, "intensity_total_ch_1", "maturation")


def test_what_cannot_be_fitted_is_refused_before_anything_is_written(merged):
    before = sorted(merged.parent.iterdir())
    for arguments, error, words in [
        ((merged, "intensity_total_ch_2"), InputError, "Did you mean 'intensity_total_ch_1'"),
        ((merged, "intensity_total_ch_1", "matration"), OptionsError, "Did you mean 'maturation'"),
        ((merged.with_name("absent.csv"), "area_ch_0"), InputNotFoundError, "absent.csv"),
    ]:
        with pytest.raises(error, match=words):
            fit_traces(*arguments)
    assert sorted(merged.parent.iterdir()) == before
    path = fit_traces(merged, "intensity_total_ch_1", "trivial")
    with pytest.raises(OutputExistsError, match="drug_merged_fitted_trivial"):
        fit_traces(merged, "intensity_total_ch_1", "trivial")
    assert fit_traces(merged, "intensity_total_ch_1", "trivial", overwrite=True) == path
