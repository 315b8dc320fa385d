"""What vendors' words mean beyond their status: sizes of windows, which tool is refused, what a model lacks."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

TOO_LONG = re.compile(
    r"context[_ ](length|window|size)|maximum (context|prompt) length|(prompt|input) is too long"
    r"|too many (input )?tokens|input tokens exceed"
    r"|exceed\w* (the )?(model'?s? )?(max\w* |available )?(context|input|number of tokens|length)"
    r"|input (length|token count).{0,60}exceed|request_too_large",
    re.IGNORECASE,
)
LACKING = re.compile(
    r"(does not|doesn't|do not|don't) support (the )?(image|vision|video|multimodal|tool|function)"
    r"|(not|isn't) a (multimodal|vision) model|only supported by certain models|at most 0 image"
    r"|missing data required for image|no endpoints found that support|vision is not (supported|enabled)"
    r"|image input is not supported|tool (use|calling) is not supported",
    re.IGNORECASE,
)
_NUMBER = r"(?P<{}>\d[\d,]*)"
_TOKENS, _WINDOW = _NUMBER.format("tokens"), _NUMBER.format("context_window")
_MOST = r"(?:context|prompt) length (?:of|is)"
_SIZES = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        rf"{_TOKENS} tokens > {_WINDOW}",
        rf"limit: {_TOKENS} \+ \d+ > {_WINDOW}",
        rf"{_MOST} {_WINDOW}.{{0,120}}?(?:resulted in|requested|contains?|has) {_TOKENS}",
        rf"token count \(?{_TOKENS}\)? exceeds the maximum number of tokens allowed \(?{_WINDOW}",
        rf"request \({_TOKENS} tokens\) exceeds the available context size \({_WINDOW}",
        rf"contains {_TOKENS} tokens.{{0,80}}with {_WINDOW} maximum context length",
        rf"{_MOST} {_WINDOW}",
        rf"available context size \({_WINDOW}",
    )
)
_TOOL = re.compile(r"function_?declarations?[.\[](\d+)|tools[.\[](\d+)", re.IGNORECASE)
_NAMED = re.compile(r"(?:function|tool) ['\"`]([\w.:-]+)['\"`]", re.IGNORECASE)


def sizes_of(text: str) -> dict[str, str]:
    """Return the `tokens` of a prompt and the `context_window` that it does not fit, as far as the vendor says them."""
    for pattern in _SIZES:
        if match := pattern.search(text):
            found = {key: int(value.replace(",", "")) for key, value in match.groupdict().items()}
            if found.get("tokens", math.inf) <= found["context_window"]:  # then this is not the prompt's size
                del found["tokens"]
            return {key: str(value) for key, value in found.items()}
    return {}


def refused_tool(text: str, tools: Sequence[str]) -> str:
    """Return the name of the tool that a vendor complains about, or nothing."""
    found = list(_TOOL.finditer(text))
    match = next((match for match in found if match[1]), found[0] if found else None)
    if match is not None and (at := int(match[1] or match[2])) < len(tools):
        return tools[at]
    return next((name for name in _NAMED.findall(text) if name in tools), "")
