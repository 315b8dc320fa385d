"""Path templates and the trie."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from letta_transcode.routing.templates import PathMatch, Refused, Router, TemplateError, parse


def router(*routes: str) -> Router[str]:
    made: Router[str] = Router()
    for route in routes:
        method, _, path = route.partition(" ")
        assert made.add(method, parse(path), route)
    return made


def fields(found: PathMatch[str] | Refused) -> dict[str, str]:
    assert isinstance(found, PathMatch)
    return {".".join(path): text for path, text in found.template.read(found.segments)}


def test_a_variable_takes_one_segment():
    found = router("GET /v1/items/{item_id}").find("GET", "/v1/items/a%20b")

    assert fields(found) == {"item_id": "a b"}


def test_an_encoded_slash_stays_within_its_segment():
    found = router("GET /v1/items/{item_id}/parts").find("GET", "/v1/items/a%2Fb/parts")

    assert fields(found) == {"item_id": "a/b"}


@pytest.mark.parametrize("template", ["/v1/items", "/v1/items/"])
@pytest.mark.parametrize("path", ["/v1/items", "/v1/items/"])
def test_a_slash_at_the_end_does_not_matter(template: str, path: str):
    assert isinstance(router(f"GET {template}").find("GET", path), PathMatch)


def test_literals_win_over_variables_whatever_the_order():
    routes = ("GET /v1/items/{id}", "GET /v1/items/count", "GET /v1/{kind}/count")

    for order in (routes, routes[::-1]):
        found = router(*order).find("GET", "/v1/items/count")
        assert isinstance(found, PathMatch)
        assert found.target == "GET /v1/items/count"


def test_a_literal_without_the_verb_leaves_the_variable():
    found = router("POST /v1/items/search", "DELETE /v1/items/{id}").find("DELETE", "/v1/items/search")

    assert fields(found) == {"id": "search"}


def test_a_dead_end_behind_a_literal_is_left():
    found = router("GET /v1/items/{id}/a", "GET /v1/{kind}/special/b", "GET /v1/{kind}/{id}/c").find(
        "GET", "/v1/items/special/c"
    )

    assert fields(found) == {"kind": "items", "id": "special"}


def test_two_stars_take_the_rest_and_a_pattern_takes_its_segments():
    found = router("GET /v1/{a.b=**}").find("GET", "/v1/x/y/z")
    assert fields(found) == {"a.b": "x/y/z"}
    found = router("GET /v1/{name=shelves/*/books/*}:read").find("GET", "/v1/shelves/1/books/2:read")
    assert fields(found) == {"name": "shelves/1/books/2"}


def test_a_colon_that_is_no_verb_belongs_to_the_segment():
    found = router("GET /v1/items/{id}", "GET /v1/items/{id}:read").find("GET", "/v1/items/a:b")

    assert fields(found) == {"id": "a:b"}


def test_the_verb_of_a_path_is_cut_off():
    found = router("GET /v1/items/{id}", "GET /v1/items/{id}:read").find("GET", "/v1/items/a:read")

    assert fields(found) == {"id": "a"}


def test_a_known_path_with_another_verb_names_those_allowed():
    found = router("GET /v1/items", "POST /v1/items").find("PUT", "/v1/items")

    assert found == Refused(("GET", "POST"))


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/items/a/b", "/v1/items//", "/v1//parts", "/V1/items/a"])
def test_an_unknown_path_is_refused(path: str):
    assert router("GET /v1/items/{id}").find("GET", path) == Refused(())


def test_the_first_of_two_equal_routes_stays():
    made = router("GET /v1/items/{id}")

    assert not made.add("GET", parse("/v1/items/{other}"), "late")


@pytest.mark.parametrize("template", ["v1", "/v1/{a", "/v1/**/b"])
def test_a_malformed_template_is_refused(template: str):
    with pytest.raises(TemplateError):
        parse(template)


def test_bytes_that_are_no_utf8_are_noticed():
    found = router("GET /v1/items/{id}").find("GET", "/v1/items/%FF")
    assert isinstance(found, PathMatch)

    with pytest.raises(UnicodeDecodeError):
        found.template.read(found.segments)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=60), st.sampled_from(["GET", "POST", "X"]))
def test_no_path_breaks_the_router(path: str, method: str):
    made = router("GET /v1/items/{id}", "GET /v1/{rest=**}", "POST /v1/items/{id}:read", "GET /")

    assert isinstance(made.find(method, path), PathMatch | Refused)
