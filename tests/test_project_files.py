"""Files about the project say the same as the package and as each other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import scopeflow

ROOT = Path(__file__).resolve().parents[1]
WORKFLOW = ROOT / ".github" / "workflows" / "test.yml"
YAML_FILES = (
    "CITATION.cff",
    ".pre-commit-config.yaml",
    ".github/dependabot.yml",
    ".github/ISSUE_TEMPLATE/bug.yml",
    ".github/ISSUE_TEMPLATE/feature.yml",
    ".github/workflows/test.yml",
)


def load(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("path", YAML_FILES)
def test_yaml_can_be_read(path):
    assert isinstance(load(path), dict)


def test_the_citation_is_of_this_version_and_names_the_method():
    cited = load("CITATION.cff")
    assert cited["version"] == scopeflow.__version__
    assert cited["authors"] == [{"name": "scopeflow developers"}]
    assert [work["doi"] for work in cited["references"]] == ["10.1002/jbio.202100330"]


def test_citation_and_package_agree(project):
    cited = load("CITATION.cff")
    assert cited["license"] == project["license"]
    assert cited["repository-code"] == project["urls"]["Source"]
    assert [author["name"] for author in project["authors"]] == [cited["authors"][0]["name"]]


def test_links_are_below_the_repository(project):
    source = project["urls"]["Source"]
    assert {"Homepage", "Documentation", "Issues", "Changelog"} < {*project["urls"]}
    for name, url in project["urls"].items():
        assert url.startswith(source), name
        if "/blob/main/" in url or "/tree/main/" in url:
            assert (ROOT / re.split("/(?:blob|tree)/main/", url)[1]).exists(), name


def test_every_python_that_is_promised_is_tested(project):
    prefix = "Programming Language :: Python :: 3."
    promised = [c.removeprefix(prefix) for c in project["classifiers"] if c.startswith(prefix)]
    promised = [f"3.{minor}" for minor in promised]
    jobs = load(WORKFLOW)["jobs"]
    matrix = jobs["newest"]["strategy"]["matrix"]
    assert matrix["python"] == promised
    assert {system.partition("-")[0] for system in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert project["requires-python"] == f">={promised[0]}"
    lowest = [step["with"] for step in jobs["lowest"]["steps"] if "with" in step]
    assert lowest == [{"python-version": promised[0]}]
    # The licence is an SPDX expression; a classifier beside it is refused by package indexes.
    assert not [c for c in project["classifiers"] if c.startswith("License")]


def test_the_workflow_runs_the_command_of_the_readme():
    text = WORKFLOW.read_text(encoding="utf-8")
    command = "bash dev.sh test"
    assert f"run: {command}\n" in text
    assert command in (ROOT / "README.md").read_text(encoding="utf-8")
    # What dev.sh gives pytest, also where there is no bash.
    given = re.search(r"-m pytest (--numprocesses [^\"]*?) \"", (ROOT / "dev.sh").read_text())
    assert text.count(f"{given[1]}\n") == 3
    # YAML 1.1 reads the key `on` as true.
    assert load(WORKFLOW)[True]["schedule"]


def test_prereleases_are_those_of_dependencies(project):
    steps = load(WORKFLOW)["jobs"]["prereleases"]["steps"]
    commands = "\n".join(step.get("run", "") for step in steps)
    named = re.search(r"--prerelease allow (.+)", commands)[1].split()
    extras = [name for extra in project["optional-dependencies"].values() for name in extra]
    known = {re.split(r"[^\w.-]", name)[0] for name in [*project["dependencies"], *extras]}
    assert {"numba", "zarr", "dask", "nd2", "fsspec"} <= {*named} <= known


def test_changelog_has_this_version_or_what_comes():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[([^\]]+)\]", text, re.MULTILINE)
    assert versions[0] in ("Unreleased", scopeflow.__version__)
    kinds = re.findall(r"^### (.+)", text, re.MULTILINE)
    assert {*kinds} <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    for version in versions:
        assert f"\n[{version}]: https://" in text


@pytest.mark.parametrize(
    ("message", "refused"),
    [
        ("Read zarr 3\n\nThe index moved.\n", False),
        ("x" * 72 + "\n\nWhy.\n# Please enter the commit message\n", False),
        ("Merge branch 'a'\n", False),
        ("x" * 73 + "\n\nWhy.\n", True),
        ("Read zarr 3\n", True),
        ("Read zarr 3\n\n# Please enter the commit message\n#\n", True),
    ],
)
def test_commit_messages(message, refused):
    hooks = load(".pre-commit-config.yaml")["repos"][0]["hooks"]
    (rule,) = (hook for hook in hooks if hook.get("stages") == ["commit-msg"])
    assert rule["args"] == ["--multiline"]
    # As pre-commit searches whole files.
    assert (
        bool(re.compile(rule["entry"].encode(), re.MULTILINE).search(message.encode())) == refused
    )


def test_hooks_need_no_other_repository():
    assert [repo["repo"] for repo in load(".pre-commit-config.yaml")["repos"]] == ["local"]
