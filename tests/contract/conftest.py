"""Who calls, and whom remote sandboxes are rented from."""

import pytest

from letta_common.actor import Actor
from letta_common.values.ids import new_id
from tests.fakes.vendors import VENDORS
from tests.support.rpc import Identities


@pytest.fixture(scope="module")
def identities():
    return Identities()


@pytest.fixture
def ann():
    """Give a user of an organization of her own."""
    return Actor(new_id("org"), "user-ann")


@pytest.fixture(params=list(VENDORS))
def vendor(request, tmp_path):
    """Run each vendor of machines in turn."""
    vendor = VENDORS[request.param](tmp_path)
    yield vendor
    vendor.close()
