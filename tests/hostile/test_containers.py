"""What the provider finds and refuses in a container with Docker's defaults, and with the profile that we ship."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hostile import containers
from hostile.launches import ORDINARY_USER, public_interpreter, start

pytestmark = pytest.mark.skipif(not containers.is_possible(), reason="the kernel's headers are not installed")


@pytest.fixture(params=[0, ORDINARY_USER] if os.getuid() == 0 else [os.getuid()])
def probe(request):
    """Return what a provider finds in a kind of container, and how a call there ends."""

    def probe(kind: str, least: str = "LANDLOCK") -> dict:
        (found,) = start("hostile.probes", [least, public_interpreter()], request.param, kind)
        return found

    return probe


def test_dockers_defaults_leave_landlock(probe):
    assert probe("docker") == {
        "isolation": "LANDLOCK",
        "missing": ["NAMESPACE"],
        "call": ["SUCCESS", "42", "LANDLOCK"],
    }


def test_several_tenants_are_refused_with_dockers_defaults(probe):
    found = probe("docker", "NAMESPACE")

    assert (found["isolation"], found["missing"]) == ("", ["NAMESPACE"])
    assert found["call"][0] == "ISOLATION_UNAVAILABLE"
    assert "unshare" in found["call"][1]


def test_without_landlock_every_call_is_refused(probe):
    found = probe("old docker")

    assert (found["isolation"], found["missing"]) == ("", ["NAMESPACE", "LANDLOCK"])
    assert found["call"][0] == "ISOLATION_UNAVAILABLE"


def test_our_profile_leaves_namespaces(probe):
    assert probe("profile", "NAMESPACE") == {
        "isolation": "NAMESPACE",
        "missing": [],
        "call": ["SUCCESS", "42", "NAMESPACE"],
    }
