"""What is deployed fits what is built: the chart, the compose file, the dashboard and the seccomp profile."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import REGISTRY

import letta_gateway.app
import letta_rpc.boundary
import letta_rpc.client
from scripts.dashboard import DASHBOARD, dashboard
from scripts.reference import SERVICES, own_settings, settings_class
from scripts.seccomp_profile import HEADER, PROFILE, profile

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "letta"
NEEDED = {
    "clone",
    "clone3",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "pivot_root",
    "setns",
    "umount2",
    "unshare",
}
REFUSED = {"bpf", "init_module", "io_uring_setup", "kexec_load", "keyctl", "open_by_handle_at", "ptrace", "userfaultfd"}
METERED = (letta_rpc.boundary, letta_rpc.client, letta_gateway.app)


def variables() -> set[str]:
    """Return the name of every variable that some service reads."""
    kinds = [kind for service in SERVICES if (kind := settings_class(service))]
    keys = {setting.key.upper() for kind in kinds for setting in own_settings(kind)}
    names = {f"LETTA_{prefix}{key}" for key in keys for prefix in ("", *(f"{name.upper()}_" for name in SERVICES))}
    return names | {name for kind in kinds for setting in own_settings(kind) for name in setting.variables}


def test_the_chart_has_every_service():
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    assert values["services"].keys() == set(SERVICES)


@pytest.mark.parametrize(
    "file",
    [ROOT / "docker-compose.yml", *sorted(CHART.glob("templates/*")), CHART / "values.yaml"],
    ids=lambda path: path.name,
)
def test_its_variables_are_settings(file: Path):
    named = set(re.findall(r"^\s*(?:- \{?name: )?(LETTA_[A-Z_]+)(?:: |,|$)", file.read_text(), re.MULTILINE))

    assert named <= variables()


def test_every_service_has_a_container():
    composed = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]

    assert set(SERVICES) <= composed.keys()
    assert all((ROOT / "services" / name / "Dockerfile").exists() for name in SERVICES)


def test_the_first_key_is_left_to_the_documented_step():
    """A key that an earlier step makes goes to a log that nobody reads, and the documented step finds one already."""
    composed = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    step = "docker compose run --rm auth python -m letta_auth bootstrap"

    assert step in (ROOT / "docs" / "howto" / "deploy.md").read_text()
    assert not [name for name, service in composed.items() if "bootstrap" in str(service.get("command", ""))]


def test_the_override_names_services_and_files_that_exist():
    override = yaml.safe_load((ROOT / "deploy" / "compose" / "namespaces.yml").read_text())["services"]
    options = dict(option.split("=", 1) for option in override["tools"]["security_opt"])

    assert override.keys() == {"tools"}
    assert (ROOT / options["seccomp"]) == PROFILE


def test_the_profile_allows_namespaces_and_refuses_the_rest():
    document = json.loads(PROFILE.read_text())
    (allowed,) = [set(rule["names"]) for rule in document["syscalls"]]

    assert document["defaultAction"] == "SCMP_ACT_ERRNO"
    assert allowed >= NEEDED
    assert not allowed & REFUSED


def test_the_profile_names_nothing_that_is_refused(tmp_path: Path):
    header = tmp_path / HEADER.name
    header.write_text("#define __NR_read 0\n#define __NR_bpf 321\n")

    (rule,) = json.loads(profile(header))["syscalls"]

    assert "read" in rule["names"]
    assert "bpf" not in rule["names"]


def test_the_dashboard_is_up_to_date():
    assert DASHBOARD.read_text() == dashboard(), "run 'python -m scripts.dashboard' and commit the result"


def test_the_dashboard_shows_metrics_that_exist():
    assert all(METERED)
    served = {metric.name for metric in REGISTRY.collect()}
    shown = set(re.findall(r"letta_[a-z_]+", dashboard()))

    assert {re.sub(r"_(total|bucket)$", "", name) for name in shown} <= served


def test_helm_renders_the_chart():
    helm = shutil.which("helm")
    if helm is None:
        pytest.skip("there is no helm here")
    flags = [
        "--kube-version",
        "1.33.0",
        "--set",
        "services.tools.isolation=namespaces",
        "--set",
        "defaults.autoscaling.enabled=true",
    ]
    flags += ["--set", "tlsSecretName=tls", "--set", "ingress.enabled=true"]

    made = subprocess.run([helm, "template", "x", str(CHART), *flags], capture_output=True, text=True, check=False)

    assert made.returncode == 0, made.stderr
    kinds = [document["kind"] for document in yaml.safe_load_all(made.stdout) if document]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "Deployment": 6,
        "HorizontalPodAutoscaler": 6,
        "Ingress": 1,
        "Job": 1,
        "PodDisruptionBudget": 6,
        "Service": 6,
    }
