"""Writes deploy/grafana/letta.json, a dashboard of the metrics of all services: `python -m scripts.dashboard`."""

from __future__ import annotations

import json
from typing import Any

from scripts.contracts import ROOT

DASHBOARD = ROOT / "deploy" / "grafana" / "letta.json"
SOURCE = {"type": "prometheus", "uid": "${source}"}
_MINE = 'service=~"$service"'

# Title, unit, legend and query of each panel, two in a row.
PANELS = (
    (
        "Calls a second",
        "reqps",
        "{{service}}",
        f"sum by (service) (rate(letta_rpc_total{{{_MINE}}}[$__rate_interval]))",
    ),
    (
        "Failed calls a second, by code",
        "reqps",
        "{{service}} {{code}}",
        f'sum by (service, code) (rate(letta_rpc_total{{{_MINE}, code!="OK"}}[$__rate_interval]))',
    ),
    (
        "Median time of a call",
        "s",
        "{{service}}",
        f"histogram_quantile(0.5, sum by (service, le) (rate(letta_rpc_seconds_bucket{{{_MINE}}}[$__rate_interval])))",
    ),
    (
        "99th percentile of a call",
        "s",
        "{{service}}",
        f"histogram_quantile(0.99, sum by (service, le) (rate(letta_rpc_seconds_bucket{{{_MINE}}}[$__rate_interval])))",
    ),
    (
        "Slowest methods",
        "s",
        "{{method}}",
        "topk(10, histogram_quantile(0.95, sum by (method, le) "
        f"(rate(letta_rpc_seconds_bucket{{{_MINE}}}[$__rate_interval]))))",
    ),
    (
        "Calls between services a second",
        "reqps",
        "{{method}}",
        "topk(10, sum by (method) (rate(letta_client_rpc_total[$__rate_interval])))",
    ),
    (
        "HTTP answers a second",
        "reqps",
        "{{status}}",
        "sum by (status) (rate(letta_http_responses_total[$__rate_interval]))",
    ),
    ("Memory of the processes", "bytes", "{{job}} {{instance}}", "process_resident_memory_bytes"),
)


def panel(index: int, title: str, unit: str, legend: str, query: str) -> dict[str, Any]:
    """Return one graph."""
    return {
        "id": index + 1,
        "type": "timeseries",
        "title": title,
        "datasource": SOURCE,
        "gridPos": {"h": 8, "w": 12, "x": 12 * (index % 2), "y": 8 * (index // 2)},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [{"refId": "A", "datasource": SOURCE, "expr": query, "legendFormat": legend}],
    }


def dashboard() -> str:
    """Return the dashboard as JSON."""
    variables = [
        {"name": "source", "type": "datasource", "query": "prometheus", "label": "Source"},
        {
            "name": "service",
            "type": "query",
            "label": "Service",
            "datasource": SOURCE,
            "query": "label_values(letta_rpc_total, service)",
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
    ]
    document = {
        "uid": "letta-grpc",
        "title": "Letta on gRPC",
        "tags": ["letta"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": variables},
        "panels": [panel(index, *given) for index, given in enumerate(PANELS)],
    }
    return json.dumps(document, indent=2) + "\n"


if __name__ == "__main__":
    DASHBOARD.write_text(dashboard())
