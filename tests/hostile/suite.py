"""All attacks."""

from __future__ import annotations

from hostile import files, kernels, networks, processes, resources, results

ATTACKS = [
    *resources.ATTACKS,
    *files.ATTACKS,
    *networks.ATTACKS,
    *processes.ATTACKS,
    *kernels.ATTACKS,
    *results.ATTACKS,
]
BY_NAME = {attack.name: attack for attack in ATTACKS}
