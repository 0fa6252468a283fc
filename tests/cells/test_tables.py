"""Tables that others open: no text of a recording in them is a formula, or breaks a line."""

from __future__ import annotations

import csv

import numpy as np
import pandas as pd
import pytest

from scopeflow.cells.results.fit import fit_traces
from scopeflow.cells.results.fits_picture import FittedTrace, save_fits_picture
from scopeflow.cells.results.merge import merge_traces
from scopeflow.cells.store.tables import read_traces, write_csv, write_parquet
from scopeflow.errors import InputError, OptionsError, UnreadableFileError
from scopeflow.sessions.template import session_template

NAME = 'a\n=HYPERLINK("http://x"),b\x1b[2J\r@c'


def test_text_is_text_and_numbers_stay(tmp_path):
    table = pd.DataFrame(
        {
            "=1+1": [1.5, -2.5],
            "label": ["=cmd|' /C calc'!A0", NAME],
            "other": ["+1+1", "-1.5e3"],
            "more": ["@x", None],
            "last": ["\t=1", " =1"],
            "count": [-3, 4],
        }
    )
    write_csv(table, tmp_path / "t.csv", [f"source: {NAME}"])
    header, *lines = (tmp_path / "t.csv").read_text().splitlines()
    assert header == r'# source: a\n=HYPERLINK("http://x"),b\x1b[2J\r@c'
    rows = list(csv.reader(lines))
    assert rows[0] == ["'=1+1", "label", "other", "more", "last", "count"]
    assert rows[1] == ["1.5", "'=cmd|' /C calc'!A0", "'+1+1", "'@x", r"'\t=1", "-3"]
    assert rows[2][1:] == [header[10:], "-1.5e3", "", "' =1", "4"]
    write_parquet(table, tmp_path / "t.parquet")
    again = pd.read_parquet(tmp_path / "t.parquet")
    assert list(again["label"]) == [rows[1][1], rows[2][1]]
    # What was defused once stays as it is.
    write_csv(again, tmp_path / "u.csv")
    assert (tmp_path / "u.csv").read_text().splitlines() == lines


def test_tables_of_numbers_have_the_bytes_of_pandas(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"cell": [1, 2, 3], "value": rng.normal(size=3), "good": [True, False, True]}
    )
    write_csv(table, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == table.to_csv(index=False, lineterminator="\n")


@pytest.fixture
def results(tmp_path):
    """Traces of one field of view, of a recording with a name that does something."""
    folder = tmp_path / "out" / "fov_000"
    folder.mkdir(parents=True)
    columns = {"fov": 0, "cell": 1, "frame": [0, 1], "good": True, "area_ch_0": [5.0, 6.0]}
    pd.DataFrame(columns).to_csv(folder / "x_traces.csv", index=False)
    config = 'metadata: {base_name: "a\\n=1+1,b"}\nchannels: {pc: 0}\n'
    (folder.parent / "processing_config.yaml").write_text(config)
    return folder.parent


def test_the_name_of_a_recording_is_one_line_of_a_merged_table(results):
    path = merge_traces(results, {"one": "0"})["one"]
    lines = path.read_text().splitlines()
    assert r"# source: a\n=1+1,b" in lines
    assert not any(line.startswith("=") for line in lines)
    assert list(read_traces(path)["time"]) == [0.0, 10.0]


@pytest.mark.parametrize("name", ["+1+1", "-x", "=1", "@a", " a", "a\nb", "x" * 9999 + "/"])
def test_samples_with_names_that_do_something_are_refused(results, name):
    with pytest.raises(OptionsError, match="begins with a letter") as caught:
        merge_traces(results, {name: "0"})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x00\xff\xfe" * 30, "damaged or not understood"),
        (b"", "damaged or not understood"),
        (b'a,b\n1,2,3\n"', "damaged or not understood"),
        (b"fov,cell,frame\n1,2,3\n", "no column 'time'"),
        (b"fov,cell,time,area\n1,2,3,many\n", "'area' holds text"),
    ],
)
def test_what_is_no_table_is_refused_by_name(tmp_path, content, reason):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises((InputError, UnreadableFileError), match=reason) as caught:
        fit_traces(path, "area")
    assert str(path) in str(caught.value)


def test_names_in_a_session_file_are_comments():
    text = session_template('da"ta\n\x7f', "*.tif", ["a\nroot = '/etc'.tif: 3 frames"])
    from scopeflow.strict.text import read_toml

    assert read_toml(text)["root"] == 'da"ta\n\x7f'


def test_names_in_pictures_are_no_formulas(tmp_path):
    trace = FittedTrace("cell 1", np.arange(3.0), np.arange(3.0), np.arange(3.0), True, 1.0)
    save_fits_picture(tmp_path / "fits.png", [trace], title=r"a$\frac$" + NAME)
    assert (tmp_path / "fits.png").stat().st_size > 1000
