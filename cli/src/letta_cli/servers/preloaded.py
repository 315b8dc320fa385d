"""What every service loads, for the process that services fork from; see processes.py.

Importing this is the whole of it: the modules stay shared between the forks, and the collector leaves them alone.
"""

from __future__ import annotations

import gc
import importlib

from letta_cli.servers.processes import SERVICES, WORKER, end_with_parent, program

end_with_parent()
for module in (*map(program, SERVICES), WORKER, "letta_cli.servers.schemas"):
    importlib.import_module(module)
gc.freeze()  # a collection would write to every object and so copy the pages that the forks share
