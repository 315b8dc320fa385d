"""The tools of the how-to are tools."""

import re
from pathlib import Path

from letta_tool_schemas.schemas import derive_schema
from letta_tool_schemas.typescript.reader import read_schema, read_script

PAGE = Path(__file__).parents[3] / "docs/howto/write-a-tool.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_one_in_python():
    source = blocks("python")[0]
    schema = derive_schema(source)
    scope: dict[str, object] = {}
    exec(source, scope)  # the documentation's own source

    assert (schema.name, schema.parameters["required"]) == ("convert", ["amount", "unit"])
    assert scope["convert"](10.0, "km", note="about") == "6.2 mi about"  # type: ignore[operator]


def test_the_one_in_typescript():
    (source,) = blocks("typescript")
    schema = read_schema(source)

    assert (schema.name, schema.parameters["required"]) == ("total", ["trip"])
    assert schema.parameters["properties"]["trip"]["properties"]["days"]["description"] == "Kilometres of each day."
    assert "trip.days.reduce((one, other)" in read_script(source).javascript
