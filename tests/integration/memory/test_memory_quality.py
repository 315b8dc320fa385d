"""How well search finds what was said, on conversations of our own with the shapes of LoCoMo and BEAM."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

from benchmarks.memory.corpora import beam, generated, locomo
from benchmarks.memory.quality import measure
from tests.support.databases import Databases


def embed(texts: Sequence[str]) -> list[list[float]]:
    """Embed texts as the sums of their words, so that texts with common words are near."""
    vectors = []
    for text in texts:
        values = [0.01] * 64
        for word in text.lower().replace("?", " ").replace(".", " ").split():
            values[hashlib.sha256(word.encode()).digest()[0] % 64] += 1.0
        length = math.sqrt(sum(value * value for value in values))
        vectors.append([value / length for value in values])
    return vectors


async def test_search_finds_more_than_any_of_its_lanes_alone(databases: Databases) -> None:
    report = await measure(databases.empty(), {"generated": generated(2, 10)}, embed)
    methods = report["methods"]["generated"]

    assert report["generated_r10"] >= 85, report
    assert methods["search"]["r10"] >= max(methods[name]["r10"] for name in ("words", "meaning")) - 3, report
    assert report["fresh_top10"] >= 80, report


LOCOMO = [
    {
        "sample_id": "conv-1",
        "conversation": {
            "speaker_a": "Ann",
            "speaker_b": "Bob",
            "session_1_date_time": "1:56 pm on 8 May, 2023",
            "session_1": [
                {"speaker": "Ann", "dia_id": "D1:1", "text": "I adopted a greyhound."},
                {"speaker": "Bob", "dia_id": "D1:2", "text": "How lovely!"},
            ],
            "session_2_date_time": "10:02 am on 1 June, 2023",
            "session_2": [{"speaker": "Bob", "dia_id": "D2:1", "text": "I paint at night."}],
        },
        "qa": [
            {"question": "Which dog has Ann?", "answer": "a greyhound", "evidence": ["D1:1"], "category": 1},
            {"question": "Nothing?", "answer": "no", "evidence": ["D9:9"], "category": 5},
        ],
    }
]


def test_locomo_is_read() -> None:
    [corpus] = locomo(LOCOMO)
    assert [(turn.id, turn.session, turn.speaker) for turn in corpus.turns] == [
        ("0/D1:1", "0/session_1", "Ann"),
        ("0/D1:2", "0/session_1", "Bob"),
        ("0/D2:1", "0/session_2", "Bob"),
    ]
    assert corpus.turns[0].at.isoformat() == "2023-05-08T13:56:00+00:00"
    assert [(question.text, question.gold) for question in corpus.questions] == [("Which dog has Ann?", {"0/D1:1"})]


def test_beam_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "7"
    (folder / "probing_questions").mkdir(parents=True)
    turns = [
        [
            {"role": "user", "id": 0, "content": "It takes 300ms. ->-> 1,1"},
            {"role": "assistant", "id": 1, "content": "Ok"},
        ]
    ]
    later = [[{"role": "user", "id": 2, "content": "It takes 250ms now."}]]
    chat = [{"batch_number": 1, "turns": turns}, {"batch_number": 2, "turns": later}]
    (folder / "chat.json").write_text(json.dumps(chat))
    source = {"original_info": [0], "updated_info": [2]}
    probing = {
        "knowledge_update": [{"question": "How long does it take?", "source_chat_ids": source}],
        "abstention": [{"question": "Who am I?"}],
    }
    (folder / "probing_questions" / "probing_questions.json").write_text(json.dumps(probing))

    [corpus] = beam(tmp_path)
    assert [(turn.id, turn.role, turn.text) for turn in corpus.turns] == [
        ("7/0", "user", "It takes 300ms."),
        ("7/1", "assistant", "Ok"),
        ("7/2", "user", "It takes 250ms now."),
    ]
    [question] = corpus.questions
    assert (question.gold, question.updates) == ({"7/0", "7/2"}, (("7/0", "7/2"),))
