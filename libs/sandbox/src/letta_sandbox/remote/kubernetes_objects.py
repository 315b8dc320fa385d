"""What is asked of Kubernetes for a call, and what a pod must be before a call runs in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from letta_sandbox.remote.machines import Shape

CONTAINER = "call"
_NOBODY = 65534
_CORES = "1"
_LITTLE_CPU = "100m"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object that ends in a pod. An empty group is that of pods themselves."""

    name: str
    group: str
    version: str
    plural: str


POD = Kind("Pod", "", "v1", "pods")
SANDBOX = Kind("Sandbox", "agents.x-k8s.io", "v1beta1", "sandboxes")
CLAIM = Kind("SandboxClaim", "extensions.agents.x-k8s.io", "v1beta1", "sandboxclaims")
POD_NAME = "agents.x-k8s.io/pod-name"

# Why a sandbox or a claim does not become ready, ever.
_HOPELESS = {
    "ClaimExpired",
    "EnvVarsInjectionRejected",
    "InvalidConfiguration",
    "InvalidMetadata",
    "PodFailed",
    "PodSucceeded",
    "SandboxExpired",
    "TemplateNotFound",
    "VolumeClaimTemplatesError",
    "WarmPoolNotFound",
}
_HOPELESS_WAITS = {
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
}


class NeverReady(Exception):
    """The object will not become a pod that runs; the message says why."""


def pod_spec(shape: Shape, image: str, runtime_class: str) -> dict[str, Any]:
    """Return the pod of one machine: nobody's user, nothing to write but `/tmp`, no token, no capability."""
    sizes = {"memory": str(shape.memory_bytes), "ephemeral-storage": "64Mi"}
    container = {
        "name": CONTAINER,
        "image": image,
        "command": shape.idle_command,
        "env": [{"name": "HOME", "value": "/tmp"}, {"name": "LANG", "value": "C.UTF-8"}],  # noqa: S108
        "resources": {"limits": {"cpu": _CORES, **sizes}, "requests": {"cpu": _LITTLE_CPU, **sizes}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }
    spec: dict[str, Any] = {
        "activeDeadlineSeconds": shape.seconds,
        "automountServiceAccountToken": False,
        "containers": [container],
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "securityContext": {
            "fsGroup": _NOBODY,
            "runAsGroup": _NOBODY,
            "runAsNonRoot": True,
            "runAsUser": _NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": 0,
        "volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": str(shape.scratch_bytes)}}],
    }
    return {**spec, "runtimeClassName": runtime_class} if runtime_class else spec


def manifest(kind: Kind, name: str, spec: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
    """Return an object as it is created; sandboxes and claims end by themselves as pods do."""
    labels = dict(shape.labels)
    until = (datetime.now(UTC) + timedelta(seconds=shape.seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    ending = {"shutdownTime": until, "shutdownPolicy": "Delete"}
    if kind is POD:
        body: dict[str, Any] = dict(spec)
    elif kind is SANDBOX:
        body = {"podTemplate": {"metadata": {"labels": labels}, "spec": dict(spec)}, "service": False, **ending}
    else:
        body = {**spec, "lifecycle": ending, "additionalPodMetadata": {"labels": labels}}
    version = f"{kind.group}/{kind.version}" if kind.group else kind.version
    return {"apiVersion": version, "kind": kind.name, "metadata": {"name": name, "labels": labels}, "spec": body}


def is_ready(found: Mapping[str, Any]) -> bool:
    """Tell whether a sandbox or a claim is ready. Raises NeverReady."""
    for condition in (found.get("status") or {}).get("conditions") or []:
        if condition.get("type") != "Ready":
            continue
        if condition.get("status") == "True":
            return True
        if condition.get("reason") in _HOPELESS:
            raise NeverReady(f"{condition['reason']}: {condition.get('message', '')}"[:500])
    return False


def is_running(pod: Mapping[str, Any]) -> bool:
    """Tell whether a pod runs. Raises NeverReady."""
    status = pod.get("status") or {}
    if status.get("phase") in {"Failed", "Succeeded"}:
        raise NeverReady(f"the pod has ended: {status.get('reason') or status['phase']}")
    for container in status.get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _HOPELESS_WAITS:
            raise NeverReady(f"{waiting['reason']}: {waiting.get('message', '')}"[:500])
    return bool(status.get("phase") == "Running")


def weakness(pod: Mapping[str, Any], runtime_class: str) -> str:
    """Return why a pod must not run a call, or nothing. Templates of a cluster may say anything."""
    spec = pod.get("spec", {})
    if spec.get("automountServiceAccountToken") is not False or _has_token(spec):
        return "it holds a token of a service account"
    if any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        return "it shares namespaces with its node"
    if any((container.get("securityContext") or {}).get("privileged") for container in spec.get("containers", [])):
        return "it is privileged"
    if any("hostPath" in volume for volume in spec.get("volumes") or []):
        return "it sees files of its node"
    if runtime_class and spec.get("runtimeClassName") != runtime_class:
        return f"its runtime class is `{spec.get('runtimeClassName', '')}`, not `{runtime_class}`"
    return ""


def ran_out_of_memory(pod: Mapping[str, Any]) -> bool:
    """Tell whether a container of the pod was ended because its memory ran out."""
    states = [
        (container.get(name) or {}).get("terminated") or {}
        for container in (pod.get("status") or {}).get("containerStatuses") or []
        for name in ("state", "lastState")
    ]
    return any(state.get("reason") == "OOMKilled" for state in states)


def _has_token(spec: Mapping[str, Any]) -> bool:
    sources = [
        source
        for volume in spec.get("volumes") or []
        for source in (volume.get("projected") or {}).get("sources") or []
    ]
    return any("serviceAccountToken" in source for source in sources)
