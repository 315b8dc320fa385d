"""Pods of calls: what is asked of the cluster, which pods no call runs in, and what happens when none is to be had."""

import copy
import json
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from letta_common.errors import IsolationUnavailable
from letta_sandbox.calls import CallEnding, Env, Isolation, Limits, SandboxCall
from letta_sandbox.remote.machines import ROLE, TOOL_CALL, MachineFailed
from letta_sandbox.remote.provider import RemoteOptions, RemoteProvider
from tests.fakes.vendors import KubernetesVendor

pytest.importorskip("kubernetes", reason="the extra kubernetes is not installed")
CHART = Path(__file__).resolve().parents[4] / "deploy" / "helm" / "letta"
HELM = shutil.which("helm")
ONE = SandboxCall("def f(): return 1", "f")
CONNECT = """
import socket
def f(port):
    try:
        socket.create_connection(('127.0.0.1', port), 2).close()
    except OSError as error:
        return type(error).__name__
    return 'reached'
"""


@pytest.fixture
def vendor(tmp_path):
    vendor = KubernetesVendor(tmp_path)
    yield vendor
    vendor.close()


@pytest.fixture
async def make(vendor):
    made = []

    def make(**options):
        made.append(RemoteProvider(vendor.machines(**options), RemoteOptions()))
        return made[-1]

    yield make
    for provider in made:
        await provider.close()


def template(**changes):
    """Return the pod of a warm pool's template."""
    container = {"name": "call", "image": "python:3.11-slim", "command": ["sleep", "infinity"]}
    return {"containers": [container], "automountServiceAccountToken": False, **changes}


async def test_a_sandbox_has_no_privilege_and_ends_by_itself(vendor, make):
    result = await make(runtime_class="gvisor").run(ONE, Env())
    asked = vendor.fake.created[-1]
    pod = asked["spec"]["podTemplate"]["spec"]
    (container,) = pod["containers"]

    assert (result.status, result.provider, result.isolation) == (CallEnding.SUCCESS, "kubernetes", Isolation.NAMESPACE)
    assert (asked["kind"], asked["apiVersion"]) == ("Sandbox", "agents.x-k8s.io/v1beta1")
    assert asked["spec"]["shutdownPolicy"] == "Delete"
    until = datetime.fromisoformat(asked["spec"]["shutdownTime"])
    assert 0 < (until - datetime.now(UTC)).total_seconds() <= pod["activeDeadlineSeconds"] <= 300
    assert pod["runtimeClassName"] == "gvisor"
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    assert (pod["restartPolicy"], pod["terminationGracePeriodSeconds"]) == ("Never", 0)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
    }
    assert int(container["resources"]["limits"]["memory"]) > Limits().memory_bytes
    assert pod["volumes"] == [
        {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": str(Limits().scratch_bytes)}}
    ]


async def test_pods_carry_the_label_that_the_network_policy_selects(vendor, make):
    await make().run(ONE, Env())
    asked = vendor.fake.created[-1]

    assert asked["spec"]["podTemplate"]["metadata"]["labels"][ROLE] == TOOL_CALL
    assert asked["metadata"]["labels"][ROLE] == TOOL_CALL


async def test_commands_go_over_the_websocket_channels_of_the_sdk(vendor, make):
    await make().run(ONE, Env())
    assert set(vendor.fake.subprotocols) == {"v4.channel.k8s.io"}


async def test_pods_that_reach_the_api_server_run_nothing(vendor, make):
    vendor.fake.network_policy = False
    provider = make()
    report = await provider.probe()

    assert report.isolation is None
    assert f"reaches 127.0.0.1:{vendor.fake.port}" in report.missing[0]
    with pytest.raises(IsolationUnavailable, match="deny machines the network"):
        await provider.run(ONE, Env())


async def test_a_tool_reaches_nothing_behind_the_network_policy(vendor, make):
    call = SandboxCall(CONNECT, "f", json.dumps({"port": vendor.fake.port}))
    behind = await make().run(call, Env())
    assert json.loads(behind.result) != "reached"

    provider = make()
    await provider.probe()
    vendor.fake.network_policy = False
    assert json.loads((await provider.run(call, Env())).result) == "reached"  # the control: without it the tool does


async def test_bare_pods_need_no_agent_sandbox(vendor, make):
    result = await make(resource="pod").run(ONE, Env())
    asked = vendor.fake.created[-1]

    assert (result.result, asked["kind"], asked["apiVersion"]) == ("1", "Pod", "v1")
    assert asked["spec"]["activeDeadlineSeconds"] > 0


async def test_a_pod_of_a_warm_pool_is_claimed(vendor, make):
    vendor.fake.warm_pools["warm"] = template()
    provider = make(warm_pool="warm")
    result = await provider.run(ONE, Env())
    await provider.close()
    asked = vendor.fake.created[-1]

    assert (result.result, asked["kind"]) == ("1", "SandboxClaim")
    assert asked["spec"]["warmPoolRef"] == {"name": "warm"}
    assert asked["spec"]["lifecycle"]["shutdownPolicy"] == "Delete"
    assert asked["spec"]["additionalPodMetadata"]["labels"][ROLE] == TOOL_CALL
    assert vendor.left() == {}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"automountServiceAccountToken": True}, "token"),
        ({"automountServiceAccountToken": None}, "token"),
        ({"volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}, "token"),
        ({"volumes": [{"name": "h", "hostPath": {"path": "/"}}]}, "files of its node"),
        ({"hostNetwork": True}, "shares namespaces"),
        ({"hostPID": True}, "shares namespaces"),
        ({"runtimeClassName": "runc"}, "runtime class is `runc`, not `gvisor`"),
        ({}, "runtime class is ``, not `gvisor`"),
    ],
)
async def test_a_template_that_opens_pods_is_refused(vendor, make, changes, why):
    vendor.fake.warm_pools["warm"] = template(**{"runtimeClassName": "gvisor"} | changes if changes else {})
    provider = make(warm_pool="warm", runtime_class="gvisor")

    with pytest.raises(IsolationUnavailable, match=why):
        await provider.run(ONE, Env())
    assert vendor.left() == {}


async def test_a_privileged_template_is_refused(vendor, make):
    opened = template()
    opened["containers"][0]["securityContext"] = {"privileged": True}
    vendor.fake.warm_pools["warm"] = opened
    with pytest.raises(IsolationUnavailable, match="privileged"):
        await make(warm_pool="warm").run(ONE, Env())


async def test_a_template_that_is_closed_is_accepted(vendor, make):
    """The control of the tests above."""
    vendor.fake.warm_pools["warm"] = template(runtimeClassName="gvisor")
    assert (await make(warm_pool="warm", runtime_class="gvisor").run(ONE, Env())).result == "1"


async def test_a_warm_pool_that_does_not_exist_is_said_at_once(vendor, make):
    with pytest.raises(IsolationUnavailable, match="WarmPoolNotFound"):
        await make(warm_pool="none").run(ONE, Env())
    assert vendor.left() == {}


@pytest.mark.parametrize("resource", ["sandbox", "pod"])
async def test_a_missing_image_is_said_at_once(vendor, make, resource):
    vendor.fake.missing_images.add("python:3.11-slim")
    with pytest.raises(IsolationUnavailable, match=r"ErrImagePull: image python:3\.11-slim"):
        await make(resource=resource).run(ONE, Env())
    assert vendor.left() == {}


async def test_a_pod_that_does_not_start_is_given_up(vendor, make):
    vendor.fake.stuck = True
    with pytest.raises(IsolationUnavailable, match="in time"):
        await make(start_seconds=0.3).run(ONE, Env())
    assert vendor.left() == {}


async def test_memory_that_ran_out_is_said(vendor, make):
    provider = make()
    await provider.probe()
    vendor.fake.oom = True
    assert (await provider.run(ONE, Env())).status is CallEnding.MEMORY


async def test_a_runtime_with_its_own_kernel_counts_as_a_machine(make):
    provider = make(runtime_class="kata-qemu")
    assert (await provider.run(SandboxCall("def f(): return 1", "f", min_isolation=Isolation.VM), Env())).result == "1"


async def test_a_cluster_that_is_not_there_is_said(make, tmp_path):
    (tmp_path / "broken").write_text("{}")
    provider = make(config_file=str(tmp_path / "broken"))
    assert (await provider.probe()).isolation is None
    with pytest.raises(IsolationUnavailable, match="kubernetes"):
        await provider.run(ONE, Env())


MODES = {"sandbox": {}, "pod": {"resource": "pod"}, "claim": {"warm_pool": "warm"}}


async def use_everything(vendor, options):
    """Run a call, look for orphans, end everything; return what failed."""
    vendor.fake.warm_pools["warm"] = template()
    provider = RemoteProvider(vendor.machines(**options), RemoteOptions())
    try:
        result = await provider.run(ONE, Env())
        await provider._machines.standing()
    except (IsolationUnavailable, MachineFailed) as error:
        return str(error)
    finally:
        await provider.close()
    return "" if vendor.left() == {} and result.result == "1" else "something is left"


@pytest.mark.parametrize("mode", MODES)
async def test_the_rights_in_the_chart_are_enough(vendor, mode):
    vendor.fake.rules = yaml.safe_load((CHART / "files" / "tool-pods" / f"{mode}.yaml").read_text())
    assert await use_everything(vendor, MODES[mode]) == ""


@pytest.mark.parametrize("mode", MODES)
async def test_none_of_the_rights_in_the_chart_is_too_much(vendor, mode):
    """The control of the test above: without any one of them something fails."""
    rules = yaml.safe_load((CHART / "files" / "tool-pods" / f"{mode}.yaml").read_text())
    for number, rule in enumerate(rules):
        for verb in rule["verbs"]:
            vendor.fake.rules = copy.deepcopy(rules)
            vendor.fake.rules[number]["verbs"].remove(verb)
            assert await use_everything(vendor, MODES[mode]) != "", (rule, verb)
            vendor.fake.rules = None
            vendor.fake.lose()


def rendered(*values):
    """Render the chart with pods for calls; return its objects by kind."""
    if HELM is None:
        pytest.skip("there is no helm here")
    sets = [word for value in ("enabled=true", "namespace=calls", *values) for word in ("--set", f"toolPods.{value}")]
    made = subprocess.run(
        [HELM, "template", "x", str(CHART), "--kube-version", "1.33.0", *sets],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise ValueError(made.stderr)
    found = {}
    for document in filter(None, yaml.safe_load_all(made.stdout)):
        found.setdefault(document["kind"], []).append(document)
    return found


@pytest.mark.parametrize(("mode", "values"), [("sandbox", ()), ("pod", ("resource=pod",)), ("claim", ("warm=2",))])
def test_the_chart_gives_the_tools_service_these_rights_alone(mode, values):
    found = rendered(*values)
    (role,), (binding,), (account,) = found["Role"], found["RoleBinding"], found["ServiceAccount"]
    tools = [item for item in found["Deployment"] if "LETTA_TOOLS_SANDBOX_PROVIDER" in json.dumps(item)]
    holders = [item for item in found["Deployment"] if item["spec"]["template"]["spec"]["automountServiceAccountToken"]]

    assert role["rules"] == yaml.safe_load((CHART / "files" / "tool-pods" / f"{mode}.yaml").read_text())
    assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == "calls"
    assert binding["subjects"][0]["name"] == account["metadata"]["name"] == "x-tools"
    assert tools == holders
    assert [item["spec"]["template"]["spec"]["serviceAccountName"] for item in tools] == ["x-tools"]
    assert "ClusterRole" not in found


async def test_a_call_runs_in_a_pod_of_the_chart_s_template(vendor, make):
    found = rendered("warm=2", "runtimeClassName=gvisor")
    (made,), (pool,) = found["SandboxTemplate"], found["SandboxWarmPool"]
    vendor.fake.warm_pools[pool["metadata"]["name"]] = made["spec"]["podTemplate"]["spec"]
    environment = next(
        {item["name"]: item.get("value") for item in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
        for deployment in found["Deployment"]
        if deployment["metadata"]["name"] == "x-tools"
    )
    provider = make(
        warm_pool=environment["LETTA_TOOLS_KUBERNETES_WARM_POOL"],
        runtime_class=environment["LETTA_TOOLS_KUBERNETES_RUNTIME_CLASS"],
    )

    assert (await provider.run(ONE, Env())).result == "1"
    assert pool["spec"] == {"replicas": 2, "sandboxTemplateRef": {"name": made["metadata"]["name"]}}
    assert made["spec"]["networkPolicy"] == {"ingress": [], "egress": []}


def test_the_network_policy_of_the_chart_selects_pods_of_calls_and_allows_nothing():
    (policy,) = rendered()["NetworkPolicy"]
    assert policy["metadata"]["namespace"] == "calls"
    assert policy["spec"] == {"podSelector": {"matchLabels": {ROLE: TOOL_CALL}}, "policyTypes": ["Ingress", "Egress"]}


@pytest.mark.parametrize("namespace", ["", "default"])
def test_pods_of_calls_are_not_among_the_secrets_of_the_release(namespace):
    with pytest.raises(ValueError, match="namespace"):
        rendered(f"namespace={namespace}")
