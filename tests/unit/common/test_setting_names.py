"""Names that are no settings are told at the start, with the one that was meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from letta_common.process.settings import Settings
from letta_rpc.startup.lifetime import begin
from letta_rpc.startup.setting_names import LIST, unknown
from scripts.reference import setting_names


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("LETTA_LOG_LEVL", "LETTA_LOG_LEVEL"),
        ("LETTA_DATABASE_URI", "LETTA_DATABASE_URL"),
        ("LETTA_DEFAULT_LLM_HANDEL", "LETTA_DEFAULT_LLM_HANDLE"),
        ("LETTA_MEMORY_EMBEDDING_BATCHES", "LETTA_MEMORY_EMBEDDING_BATCH"),
        ("LETTA_SOMETHING_ELSE_ENTIRELY", ""),
    ],
)
def test_a_misspelt_variable_is_told_with_the_one_that_was_meant(name: str, meant: str) -> None:
    assert list(unknown({name: "1"}, {})) == [(name, meant)]


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "LETTA_HOME",
        "LETTA_PG_URI",
        "LETTA_API_KEY",
        "letta_log_level",
        "LETTA_GATEWAY_BIND",
        "LETTA_MEMORY_DATABASE_URL",
        "LETTA_DEFAULT_LLM_HANDLE",
        "LETTA_LLM_GATEWAY_DEFAULT_LLM_HANDLE",
    ],
)
def test_what_some_service_reads_is_known(name: str) -> None:
    assert list(unknown({name: "1"}, {})) == []


def test_a_setting_of_one_service_is_none_of_another() -> None:
    assert list(unknown({"LETTA_AUTH_DEFAULT_LLM_HANDLE": "1"}, {})) != []


def test_the_file_is_read_to_its_second_level() -> None:
    configured = {"log_levle": "info", "memory": {"embeding_batch": 1, "log_level": "info"}, "log_level": "info"}
    assert list(unknown({}, configured)) == [
        ("config.json: log_levle", "log_level"),
        ("config.json: memory.embeding_batch", "embedding_batch"),
    ]


@pytest.mark.parametrize("answer", ["warn", "ignore"])
def test_a_start_says_it_in_the_log(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LETTA_HOME", str(tmp_path))
    monkeypatch.setenv("LETTA_LOG_LEVL", "debug")
    monkeypatch.setenv("LETTA_UNKNOWN_SETTINGS", answer)
    begin(Settings)

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    told = [line["event"] for line in lines if "LETTA_LOG_LEVL " in line["event"]]
    expected = ["unknown setting LETTA_LOG_LEVL has no effect; did you mean LETTA_LOG_LEVEL?"]
    assert told == (expected if answer == "warn" else [])


def test_the_list_is_up_to_date() -> None:
    assert LIST.read_text() == setting_names(), "run 'make docs' and commit the result"
