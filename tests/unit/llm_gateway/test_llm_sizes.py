"""What vendors tell of prompts that are too long."""

import pytest

from letta_common.errors import ContextWindowExceeded
from letta_llm_gateway.providers.errors import refusal, sizes_of


@pytest.mark.parametrize(
    ("said", "window", "tokens"),
    [
        (
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 9003 tokens.",
            8192,
            9003,
        ),
        (
            "maximum context length is 4,096 tokens. However, you requested 5,000 tokens (4,000 in the messages, "
            "1,000 in the completion).",
            4096,
            5000,
        ),
        ("prompt is too long: 210000 tokens > 200000 maximum", 200_000, 210_000),
        (
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
            1_048_576,
            1_200_000,
        ),
        ("the request exceeds the available context size (4096 tokens), try increasing it", 4096, None),
        ("request_too_large", None, None),
        ("context length is 9000 tokens, however you requested 12 tokens", 9000, None),
        ("", None, None),
    ],
)
def test_the_numbers_of_a_vendor_are_read(said, window, tokens):
    expected = {"context_window": window, "tokens": tokens}
    assert sizes_of(said) == {name: str(number) for name, number in expected.items() if number}


def test_the_numbers_stand_in_the_metadata():
    error = refusal("anthropic", 400, "prompt is too long: 210000 tokens > 200000 maximum", model="m")
    assert isinstance(error, ContextWindowExceeded)
    assert (error.metadata["tokens"], error.metadata["context_window"]) == ("210000", "200000")
