"""Many callers, replicas that die or are paused, and the one promise: each acknowledged message once, in order.

An `Exchange` does what it is told to and remembers what was promised; `check_end` holds that against what memory has in
the end. It does not know where runs and messages are kept, so that one story is told over twins and over PostgreSQL.
"""

import asyncio
from itertools import pairwise

from letta.agent.v1 import agent_pb2, run_pb2
from letta.common.v1 import message_pb2
from letta.llm.v1.generation_service_pb2 import CALL_PURPOSE_SUMMARY
from letta_agent.domain.journal.records import ListRunsRequest, RunStatus
from letta_agent.domain.loop.compaction_run import COMPACTION
from letta_agent.domain.peers.memory import Message
from letta_agent.domain.runs.runs import SendCommand
from letta_common.errors import ConversationBusy, RunNotActive
from letta_common.values.paging import Page
from letta_messages.rendering import text_of
from tests.fakes.agent.peers import ScriptedModels, answer, asked, say
from tests.fakes.agent.world import AGENT, ANN, SIGNED, World

DONE, CANCELLED = RunStatus.RUN_STATUS_COMPLETED, RunStatus.RUN_STATUS_CANCELLED
ROUNDS = 60
"""Take-overs after which what has not ended counts as stuck."""


class GatedModels(ScriptedModels):
    """A model that answers when it is let: to what was said last, so that each answer tells its question."""

    def __init__(self):
        super().__init__()
        self.gates = []
        self.open = False

    async def generate(self, prompt, messages):
        self.prompts.append(asked(prompt, messages))
        if prompt.attribution.purpose == CALL_PURPOSE_SUMMARY:
            return answer(say("So far."))
        if not self.open:
            gate = asyncio.Event()
            self.gates.append(gate)
            await gate.wait()
        said = [m for m in map(Message.FromString, messages) if m.role == message_pb2.MESSAGE_ROLE_USER]
        return answer(say(f"re {text_of(said[-1]) if said else 'nothing'}"))

    def let(self):
        """Let the oldest question that waits be answered."""
        if self.gates:
            self.gates.pop(0).set()

    def let_all(self):
        """Let every question be answered, now and from now on."""
        self.open = True
        while self.gates:
            self.gates.pop().set()


class Exchange:
    """A conversation among replicas, and what its callers were promised."""

    def __init__(self, replica, actor, *, signed=SIGNED, expire=None, texts=None):
        self._actor, self._signed = actor, signed
        self._expire = expire or self._expire_twin
        self._texts = texts or self._texts_of_twin
        self._seed = replica
        self.replicas = []
        self.zombies = []
        self.acknowledged = {}
        self.refused = set()
        self.keys = {}
        self._ways = {}
        self._count = 0
        self.start()

    def start(self):
        """Start a replica."""
        self.replicas.append(self._seed.another(takeovers=10_000, models=GatedModels()))

    async def send(self, index, *, enqueue=False, times=1):
        """Send messages, all at once; those that are admitted are promised."""
        texts = [f"m{self._count + number}" for number in range(times)]
        self._count += times
        replicas = [self.replicas[(index + number) % len(self.replicas)] for number in range(times)]
        await asyncio.gather(
            *(self._send(replica, text, text, enqueue) for replica, text in zip(replicas, texts, strict=True))
        )

    async def repeat(self, index, pick):
        """Send a message again that was sent before, with its key."""
        sent = sorted(self.keys)
        if sent:
            text = sent[pick % len(sent)]
            run_id = self.keys[text]
            await self._send(self.replicas[index % len(self.replicas)], text, text, enqueue=True)
            assert self.keys[text] == run_id, "the same key began another run"

    async def _send(self, replica, text, key, enqueue):
        busy = run_pb2.ON_BUSY_ENQUEUE if enqueue else run_pb2.ON_BUSY_REJECT
        busy = self._ways.setdefault(key, busy)
        request = run_pb2.RunRequest(input_text=text, on_busy=busy, background=True)
        try:
            admitted = await replica.runs.admit(self._actor, SendCommand(AGENT, AGENT, request, key), self._signed)
        except ConversationBusy:
            self.refused.add(text)
            return
        self.acknowledged[admitted.run_id] = text
        self.keys[key] = admitted.run_id

    async def compact(self, index):
        """Ask for a smaller context, if the conversation is free."""
        request = run_pb2.RunRequest(include_compaction_messages=True)
        asked = SendCommand(AGENT, AGENT, request, run_type=COMPACTION, compaction=agent_pb2.CompactionSettings())
        try:
            await self.replicas[index % len(self.replicas)].runs.admit(self._actor, asked, self._signed)
        except ConversationBusy:
            return

    def let(self, index):
        """Let a replica's model answer, a zombie's too."""
        everyone = self.replicas + self.zombies
        everyone[index % len(everyone)].models.let()

    async def cancel(self, index, pick):
        """Cancel one of the runs."""
        runs = sorted(self.acknowledged)
        if runs:
            try:
                await self.replicas[index % len(self.replicas)].runs.cancel(self._actor, runs[pick % len(runs)])
            except RunNotActive:
                return

    async def crash(self, index):
        """Let a replica die; its leases run out."""
        replica = self.replicas.pop(index % len(self.replicas))
        await _stop(replica)
        await self._expire(replica.runner.options.owner)
        if not self.replicas:
            self.start()

    async def pause(self, index):
        """Let the leases of a replica run out although it lives on and knows nothing."""
        replica = self.replicas.pop(index % len(self.replicas))
        self.zombies.append(replica)
        await self._expire(replica.runner.options.owner)
        if not self.replicas:
            self.start()

    async def dispatch(self, index):
        """Let a replica look for work."""
        await self.replicas[index % len(self.replicas)].runner.dispatch()

    async def settle(self):
        """Let everything come to its end. Raises AssertionError when something does not."""
        for _ in range(ROUNDS):
            for replica in (*self.replicas, *self.zombies):
                replica.models.let_all()
            for replica in (*self.replicas, *self.zombies):
                tasks = [active.task for active in replica.runner._active.values()]
                if tasks:
                    await asyncio.wait(tasks)
            if not await self._active():
                return
            await self._expire("")
            await self.replicas[0].runner.dispatch()
        raise AssertionError(f"runs that do not end: {await self._active()}")

    async def close(self):
        """Stop every replica."""
        for replica in (*self.replicas, *self.zombies):
            await _stop(replica)

    async def _active(self):
        filters = ListRunsRequest(active=True)
        return [record.id for record in await self._seed.store.list_runs(self._actor, filters, Page(limit=1_000))]

    async def check(self):
        """Hold the messages in memory against what was promised, at any time."""
        told = await self._texts()
        questions = [text for role, text in told if role == "user"]
        assert len(questions) == len(set(questions)), f"a message came twice: {questions}"
        assert not self.refused - set(self.acknowledged.values()) & set(questions), "a refused message came"
        answers = [text for role, text in told if role == "assistant"]
        assert len(answers) == len(set(answers)), f"a message was answered twice: {answers}"

    async def check_end(self):
        """Hold everything against what was promised, once all runs have ended."""
        await self.check()
        told = [(role, text) for role, text in await self._texts() if role in {"user", "assistant"}]
        records = {run: await self._seed.store.get(self._actor, run) for run in self.acknowledged}
        assert {record.status for record in records.values()} <= {DONE, CANCELLED}
        in_order = sorted(records.values(), key=lambda record: (record.created_at, record.id))
        places = {text: place for place, (role, text) in enumerate(told) if role == "user"}
        for record in in_order:
            text = self.acknowledged[record.id]
            if record.status == DONE:
                assert text in places, f"lost: {text}"
                assert told[places[text] + 1] == ("assistant", f"re {text}"), f"not answered at once: {text}"
        found = [places[self.acknowledged[record.id]] for record in in_order if self.acknowledged[record.id] in places]
        assert all(first < second for first, second in pairwise(found)), f"out of order: {told}"
        assert set(places) <= set(self.acknowledged.values()), "a message that nobody was promised"

    async def _expire_twin(self, owner):
        for thread in self._seed.store.state.threads.values():
            if not owner or thread.owner == owner:
                thread.until = self._seed.clock.now()

    async def _texts_of_twin(self):
        return self._seed.memory.texts(AGENT)


async def _stop(replica):
    """End the tasks of a replica as its death would."""
    tasks = [active.task for active in replica.runner._active.values() if active.task is not None]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def fresh():
    """Return an exchange over twins."""
    return Exchange(await World().agent(), ANN)
