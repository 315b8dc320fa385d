"""The embedder of an agent is the one of its archive, over REST and a vendor's real wire."""

from __future__ import annotations

from tests.callers import OPENAI, until

SMALL = "openai/text-embedding-3-small"


def embedded(vendor):
    return [
        text for request in vendor.requests if request.path.endswith("/embeddings") for text in request.body["input"]
    ]


async def call(api, method, path, **body):
    answer = await api.http.request(method, path, **body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_the_archive_of_an_agent_is_embedded_by_what_the_agent_names(api, openai):
    agent_id = await api.agent(OPENAI, embedding=SMALL)
    await call(
        api, "POST", f"/v1/agents/{agent_id}/archival-memory", json={"text": "The cellar key hangs by the door."}
    )

    [archive] = await call(api, "GET", f"/v1/archives/?agent_id={agent_id}")
    config = archive["embedding_config"]
    assert (config["handle"], config["embedding_dim"]) == (SMALL, openai.dimensions)
    assert embedded(openai) == ["The cellar key hangs by the door."]


async def test_an_agent_that_is_given_another_embedder_takes_its_archive_along(api, openai):
    agent_id = await api.agent(OPENAI)
    await call(api, "POST", f"/v1/agents/{agent_id}/archival-memory", json={"text": "The attic is locked."})
    assert embedded(openai) == []
    await call(api, "PATCH", f"/v1/agents/{agent_id}", json={"embedding": SMALL})

    [archive] = await call(api, "GET", f"/v1/archives/?agent_id={agent_id}")
    assert archive["embedding_config"]["handle"] == SMALL
    path = f"/v1/archives/{archive['id']}/embedding"
    state = await until(lambda: call(api, "GET", path), lambda found: found["state"] == "up_to_date")
    assert (state["embedding"], state["embedded_count"]) == (SMALL, 1)
    assert embedded(openai) == ["The attic is locked."]
