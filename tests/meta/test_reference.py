"""The reference names everything and is what the contracts and the code say."""

from __future__ import annotations

import pytest

from scripts.contracts import read_contracts
from scripts.reference import REFERENCE, SERVICES, pages, settings_class

CONTRACTS = read_contracts()


@pytest.mark.parametrize("page", ["rpc.md", "rest.md", "errors.md", "settings.md"])
def test_page_is_up_to_date(page):
    made = pages(CONTRACTS)[page]

    assert (REFERENCE / page).read_text() == made, "run 'make docs' and commit the result"


def test_every_rpc_is_named():
    page = (REFERENCE / "rpc.md").read_text()

    missing = [method.full_name for method in CONTRACTS.methods if f"`{method.proto.name}`" not in page]

    assert not missing


def test_every_reason_is_named():
    page = (REFERENCE / "errors.md").read_text()

    missing = [value.name for value, _ in CONTRACTS.reasons if value.name.removeprefix("ERROR_REASON_") not in page]

    assert not missing


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_is_described(service):
    kind = settings_class(service)
    if kind is None:
        pytest.skip("the service has no settings")
    page = (REFERENCE / "settings.md").read_text()

    missing = [name for name in kind.model_fields if f"`{name}`" not in page]
    silent = [name for name, field in kind.model_fields.items() if not (field.description or "").endswith(".")]

    assert (missing, silent) == ([], [])
