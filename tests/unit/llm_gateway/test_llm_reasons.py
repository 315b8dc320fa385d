"""Why vendors refuse, whatever form their error bodies have."""

import json

import pytest

from letta_llm_gateway.providers.fitting.reasons import reason_of

SAID = "litellm says no"
BODIES = [
    {"detail": SAID},
    {"error": SAID},
    {"message": SAID},
    {"Message": SAID},
    {"error": {"message": SAID}},
    {"error": {"message": {"detail": SAID}}},
    {"errors": [SAID]},
    {"errors": [{"message": SAID}]},
    {"detail": [{"loc": ["body", "tools"], "msg": SAID}]},
    {"detail": {"error": {"message": SAID}}},
    [{"error": {"code": 400, "message": SAID, "status": "INVALID_ARGUMENT"}}],
    {"error": {"type": "invalid_request_error", "message": SAID}},
    {"object": "error", "message": SAID, "code": 40303},
    {"error_description": SAID, "error": "invalid_request"},
    SAID,
]


@pytest.mark.parametrize("body", BODIES, ids=json.dumps)
def test_the_vendors_sentence_is_found(body):
    assert SAID in reason_of(json.dumps(body).encode())


def test_text_and_markup_are_read_as_text():
    page = "<html><head><title>502</title></head><body><script>x()</script><h1>Bad&nbsp;gateway</h1> by &lt;us&gt;"
    assert reason_of(b"upstream is away\n") == "upstream is away"
    assert reason_of(page.encode()) == "Bad gateway by <us>"
    assert reason_of(b"") == ""
    assert reason_of(b"\xff\xfe") == "\ufffd\ufffd"


def test_what_is_meant_to_harm_is_read_in_no_time():
    deep = b'{"error":' * 5000 + b"1" + b"}" * 5000
    for hostile in (deep, b"<" * 1_000_000, b"<script" * 100_000, b'["a"]' * 1000, b"null", b"[]", b"{}"):
        assert len(reason_of(hostile)) <= 4_000
