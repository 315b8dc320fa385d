"""The version is written in the root's pyproject.toml; whatever else says one says the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
MEMBERS = sorted(path for kind in ("libs/*", "services/*", "cli") for path in ROOT.glob(f"{kind}/pyproject.toml"))
DOCKERFILES = sorted([*ROOT.glob("services/*/Dockerfile"), ROOT / "cli" / "Dockerfile"])


@pytest.mark.parametrize("path", MEMBERS, ids=lambda path: path.parent.name)
def test_members_read_the_version_of_the_root(path: Path):
    member = tomllib.loads(path.read_text())

    assert "version" not in member["project"]
    assert member["project"]["dynamic"] == ["version"]
    assert (path.parent / member["tool"]["hatch"]["version"]["path"]).resolve() == ROOT / "pyproject.toml"


def test_the_first_version_in_the_root_is_the_product_s():
    """The build reads the first line that looks like a version, not TOML."""
    found = re.search(r'^version = "([^"]+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)

    assert found is not None
    assert found[1] == VERSION


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_images_have_the_version_before_they_build_members(path: Path):
    text = path.read_text()

    assert -1 < text.find("COPY pyproject.toml") < text.find("./libs/protos")


def test_the_chart_has_the_same_version():
    chart = (ROOT / "deploy" / "helm" / "letta" / "Chart.yaml").read_text()

    assert re.findall(r'^(?:version|appVersion): "?([^"\n]+)"?$', chart, re.MULTILINE) == [VERSION, VERSION]
