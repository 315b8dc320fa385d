"""The engine behind builtin/rules: what it saves, what it recalls, what it leaves alone."""

from __future__ import annotations

import json

import pytest

from letta_llm_gateway.domain.rules.engine import LIMITS, UNKNOWN, Dialogue, HeardMessage, Reply, Wish, decide
from letta_llm_gateway.domain.rules.facts import facts_in, second_person, third_person

INSERT = {
    "properties": {"label": {}, "new_str": {}, "insert_line": {"type": "integer"}},
    "required": ["label", "new_str"],
}
TOOLS = {"memory_insert": INSERT}


def system(human: str = "", persona: str = "I am a helper.") -> str:
    return (
        "Base.\n<memory_blocks>\nThese are blocks.\n\n<persona>\n<metadata>\n- read_only=true\n</metadata>\n"
        f"<value>\n{persona}\n</value>\n</persona>\n\n<human>\n<description>About the user</description>\n"
        f"<value>\n{human}\n</value>\n</human>\n"
        "</memory_blocks>"
    )


def act(*said: str, human: str = "", tools=TOOLS, after: tuple[HeardMessage, ...] = (), forced: str = "") -> Reply:
    *before, newest = said
    facts = [fact for text in before for fact in facts_in(text)]
    return decide(Dialogue(system(human), [HeardMessage("user", newest), *after], tools, forced, facts))


def saved(text: str) -> str:
    reply = act(text)
    return str(reply.calls[0].arguments["new_str"]) if reply.calls else ""


STATEMENTS = {
    "Hi, my name is Sam": "The user's name is Sam.",
    "I am allergic to peanuts": "The user is allergic to peanuts.",
    "I live in Oslo and I work as a nurse.": "The user lives in Oslo.\nThe user works as a nurse.",
    "My name is Ann. I'm 34 years old and I have two kids.": (
        "The user's name is Ann.\nThe user is 34 years old.\nThe user has two kids."
    ),
    "Please remember that the wifi password is hunter2": "The wifi password is hunter2.",
    "Can you remember that my dog is called Rex?": "The user's dog is called Rex.",
    "I really like jazz.": "The user really likes jazz.",
    "Hey! I'm Priya, and I'm in a choir.": "The user's name is Priya.\nThe user is in a choir.",
    "I can't stand cilantro": "The user can't stand cilantro.",
    "I've been a vegetarian since 2010": "The user has been a vegetarian since 2010.",
    "Don't forget that the meeting moved to Thursday": "The meeting moved to Thursday.",
    "I studied law in Vienna": "The user studied law in Vienna.",
    "My phone number is 555-0199.": "The user's phone number is 555-0199.",
    "I recently moved to Porto with my partner.": "The user recently moved to Porto with the user's partner.",
}


@pytest.mark.parametrize(("text", "fact"), STATEMENTS.items())
def test_statements_are_saved_in_the_third_person(text, fact):
    assert saved(text).replace(".", "") == fact.replace(".", "")
    assert act(text).calls[0].arguments["label"] == "human"


@pytest.mark.parametrize(
    "text",
    [
        "How are you today?",
        "What's the weather like?",
        "Tell me a joke",
        "Write me a poem about autumn",
        "Can you help me with my taxes?",
        "I have a question about Python",
        "I don't understand",
        "Thanks, that helped me a lot!",
        "Good morning!",
        "I want to know who won the game",
        "Let's talk about music",
        "I'd like to order a pizza",
        "Sorry, I misspoke.",
        "ok",
        "",
        "???",
    ],
)
def test_what_is_no_statement_is_not_saved(text):
    assert not act(text).calls


MEMORY = """The user's name is Sam.
The user is allergic to peanuts.
The user lives in Oslo.
The user's sister is called Anna.
The user works as a nurse.
The user was born in 1987 in Lisbon.
The user's favourite food is ramen.
The user drives a red Volvo.
The user's wife's birthday is on March 3rd.
The user speaks Spanish and French.
The user has three cats.
Prefers short answers."""


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is my name?", "Your name is Sam."),
        ("what's my name", "Your name is Sam."),
        ("Tell me my name", "Your name is Sam."),
        ("Do you remember my name?", "Your name is Sam."),
        ("Where do I live?", "You live in Oslo."),
        ("Which city do I live in?", "You live in Oslo."),
        ("What am I allergic to?", "You are allergic to peanuts."),
        ("Do I have any allergies?", "You are allergic to peanuts."),
        ("Can I eat peanut butter?", "You are allergic to peanuts."),
        ("What's my job?", "You work as a nurse."),
        ("What do I do for a living?", "You work as a nurse."),
        ("Who is my sister?", "Your sister is called Anna."),
        ("When was I born?", "You were born in 1987 in Lisbon."),
        ("What car do I have?", "You drive a red Volvo."),
        ("When is my wife's birthday?", "Your wife's birthday is on March 3rd."),
        ("Which languages can I speak?", "You speak Spanish and French."),
        ("How many cats do I have?", "You have three cats."),
        ("What's my favourite dish?", "Your favourite food is ramen."),
    ],
)
def test_questions_are_answered_from_memory(question, answer):
    assert act(question, human=MEMORY) == Reply(answer)


@pytest.mark.parametrize(
    "question",
    [
        "What is my favourite movie?",
        "What's my shoe size?",
        "What's my mother's name?",
        "How tall am I?",
        "Where did I park?",
        "When is my dentist appointment?",
    ],
)
def test_what_it_was_not_told_it_does_not_know(question):
    assert act(question, human=MEMORY) == Reply(UNKNOWN)


@pytest.mark.parametrize(
    "text", ["Tell me a joke", "What is the capital of Norway?", "Who wrote Hamlet?", "What's 2+2?"]
)
def test_what_needs_a_language_model_is_declined(text):
    assert LIMITS in act(text, human=MEMORY).text


def test_everything_known_is_told_on_demand():
    told = act("What do you know about me?", human=MEMORY).text

    assert all(word in told for word in ("Your name is Sam.", "You live in Oslo.", "You have three cats."))
    assert act("What do you know about me?").text == UNKNOWN


def test_a_save_is_confirmed_and_the_question_of_the_same_message_answered():
    done = (HeardMessage("assistant", "", (Wish("memory_insert", {}),)), HeardMessage("tool", "ok"))

    reply = act("My name is Sam and I live in Oslo. Where do I live?", after=done)

    assert reply == Reply("Got it, I will remember: Your name is Sam. You live in Oslo. You live in Oslo.")


def test_a_failed_save_is_admitted():
    failed = (
        HeardMessage("assistant", "", (Wish("memory_insert", {}),)),
        HeardMessage("tool", "block is read-only", failed=True),
    )

    assert act("My name is Sam", after=failed).text == "I could not save that: block is read-only"


def test_without_a_memory_tool_it_says_so_and_still_recalls_from_the_conversation():
    assert act("My name is Sam", tools={}).text == "Noted, for this conversation: Your name is Sam."
    assert act("My name is Sam", "What is my name?", tools={}).text == "Your name is Sam."


def test_a_fact_that_is_known_is_not_saved_again():
    assert act("my name is Sam", human=MEMORY) == Reply("I remember: Your name is Sam.")


def test_a_correction_replaces_the_old_fact():
    replace_tool = {"properties": {"label": {}, "old_string": {}, "new_string": {}}}

    reply = act("My name is Max", human=MEMORY, tools={**TOOLS, "memory_replace": replace_tool})

    wanted = {"label": "human", "old_string": "The user's name is Sam.", "new_string": "The user's name is Max."}
    assert reply.calls == (Wish("memory_replace", wanted),)


def test_the_newer_of_two_facts_wins():
    assert act("Where do I live?", human="The user lives in Oslo.\nThe user lives in Rome.").text == "You live in Rome."


def test_arguments_are_named_as_the_tool_names_them():
    append = {"properties": {"label": {}, "content": {}, "request_heartbeat": {"type": "boolean"}}}
    append["required"] = ["label", "content", "request_heartbeat"]

    reply = act("My name is Sam", tools={"core_memory_append": append})

    wanted = {"label": "human", "content": "The user's name is Sam.", "request_heartbeat": True}
    assert reply.calls == (Wish("core_memory_append", wanted),)


def test_old_agents_speak_through_send_message():
    tools = {**TOOLS, "send_message": {"properties": {"message": {}}, "required": ["message"]}}

    assert act("What is my name?", human=MEMORY, tools=tools).calls == (
        Wish("send_message", {"message": "Your name is Sam."}),
    )
    assert act("My name is Eve", tools=tools).calls[0].name == "memory_insert"


def test_a_forced_tool_is_called_and_a_forbidden_one_is_not():
    assert act("hello", forced="memory_insert").calls[0].name == "memory_insert"
    assert act("hello", forced="*").calls[0].name == "memory_insert"
    assert act("My name is Sam", forced="-") == Reply("Done.")


def test_what_memory_lacks_is_searched_for_once():
    search = {"properties": {"query": {}}, "required": ["query"]}
    tools = {"conversation_search": search}
    first = act("What is my shoe size?", tools=tools)
    assert first.calls[0].name == "conversation_search"
    assert "shoe" in first.calls[0].arguments["query"]
    found = json.dumps({"results": [{"role": "user", "content": "My shoe size is 44."}]})

    def after(result: str):
        return (HeardMessage("assistant", "", first.calls), HeardMessage("tool", result))

    assert act("What is my shoe size?", tools=tools, after=after(found)).text == "Your shoe size is 44."
    assert act("What is my shoe size?", tools=tools, after=after("no results")).text == UNKNOWN


def test_call_is_a_hook_for_tests():
    assert act('CALL roll_die {"sides": 6}').calls == (Wish("roll_die", {"sides": 6}),)
    assert act("CALL now").calls == (Wish("now", {}),)
    assert act(
        "CALL now", after=(HeardMessage("assistant", "", (Wish("now", {}),)), HeardMessage("tool", "12:00"))
    ) == Reply("Done.")
    assert act("CALL now {broken").text
    assert not act("please CALL now").calls


def test_small_talk():
    assert act("Hello!", human=MEMORY).text.startswith("Hello, Sam!")
    assert act("Thanks a lot").text == "You're welcome!"
    assert act("bye", human=MEMORY).text == "Goodbye, Sam!"
    assert act("Who are you?").text == f"I am a helper. {LIMITS}"


def test_the_same_dialogue_gets_the_same_act():
    assert len({repr(act("I live in Rome. Where do I live?")) for _ in range(20)}) == 1


@pytest.mark.parametrize(
    ("first", "third", "second"),
    [
        ("I don't eat fish", "The user doesn't eat fish.", "You don't eat fish."),
        ("I watch birds", "The user watches birds.", "You watch birds."),
        ("I carry a knife", "The user carries a knife.", "You carry a knife."),
        ("I went home", "The user went home.", "You went home."),
        (
            "I also play chess with my son",
            "The user also plays chess with the user's son.",
            "You also play chess with your son.",
        ),
    ],
)
def test_persons_are_turned(first, third, second):
    assert third_person(first) == third
    assert second_person(third) == second
