"""Embedding models of the deployment, through OpenAI's unmodified SDK."""

from __future__ import annotations

import math

import pytest
from openai import BadRequestError, NotFoundError, OpenAI, UnprocessableEntityError

MODEL = "builtin/use-multilingual"
pytestmark = pytest.mark.varies


@pytest.fixture(scope="module")
def openai(server):
    with OpenAI(base_url=f"{server.http_url}/v1", api_key="unused", timeout=300, max_retries=0) as made:
        yield made


def test_texts_become_vectors_in_both_forms(openai):
    texts = ["The boiler is broken.", "The heating does not work.", "Cats sleep a lot."]
    packed = openai.embeddings.create(model=MODEL, input=texts)  # the SDK asks for base64
    plain = openai.embeddings.create(model=MODEL, input=texts, encoding_format="float")
    assert (packed.object, packed.model) == ("list", MODEL)
    assert [item.index for item in packed.data] == [0, 1, 2]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, rel=1e-6)
        assert math.hypot(*one.embedding) == pytest.approx(1, rel=1e-5)
    boiler, heating, cats = (item.embedding for item in plain.data)
    assert math.dist(boiler, heating) < math.dist(boiler, cats)
    assert packed.usage.prompt_tokens == packed.usage.total_tokens > 0


def test_one_text_is_one_vector_of_its_dimensions(openai):
    [item] = openai.embeddings.create(model=MODEL, input="Hello!").data
    assert openai.embeddings.create(model=MODEL, input="Hello!", dimensions=len(item.embedding)).data[0].index == 0
    with pytest.raises((BadRequestError, UnprocessableEntityError), match=str(len(item.embedding))):
        openai.embeddings.create(model=MODEL, input="Hello!", dimensions=len(item.embedding) + 1)


@pytest.mark.parametrize("wrong", [[], [[1, 2, 3]], 7])
def test_what_is_no_text_is_refused(openai, wrong):
    with pytest.raises((BadRequestError, UnprocessableEntityError)) as refused:
        openai.embeddings.create(model=MODEL, input=wrong)
    assert refused.value.type == "invalid_request_error"


def test_an_unknown_model_is_said_to_be(openai):
    with pytest.raises(NotFoundError) as refused:
        openai.embeddings.create(model="nobody/none", input="Hello!")
    assert "nobody/none" in refused.value.body["message"]
