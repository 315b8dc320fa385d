"""The loop of a run: ask the model, execute what it calls, commit, and again, until it has nothing more to call.

The order of writes makes a run survive its replica. What the model made of a step with tool calls is kept before the
calls are executed, so that another replica executes the same ones. The messages of a step are committed at once, under
a fence and by position, so that a repeat or a replica that was paused changes nothing. The last commit decides how the
run ended.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

from letta.common.v1 import message_pb2
from letta.common.v1.message_pb2 import CompactionTrigger
from letta.llm.v1 import generation_service_pb2 as llm_pb2
from letta.memory.v1 import context_service_pb2 as memory_pb2
from letta_agent.domain.context import approvals
from letta_agent.domain.context.compactor import TRIGGER, CompactionRequest, corrected
from letta_agent.domain.context.system_prompt import compile_system, facts_of
from letta_agent.domain.context.working import BYTES_PER_TOKEN, WorkingContext
from letta_agent.domain.journal.feed import Feed
from letta_agent.domain.journal.passports import Passport
from letta_agent.domain.journal.records import (
    HeldCalls,
    RunEnd,
    RunJob,
    RunKey,
    RunStatus,
    StepSummary,
    StopReason,
    StoredStep,
)
from letta_agent.domain.loop.deps import LoopDeps, beside
from letta_agent.domain.loop.run_memory import RunMemory
from letta_agent.domain.loop.step_messages import (
    Deltas,
    blank_message,
    calls_of,
    model_message,
    notice_message,
    return_message,
    says,
    summary_of,
)
from letta_agent.domain.loop.strategies.base import GO_ON, Decision, Strategy, TakenStep
from letta_agent.domain.peers.memory import Message
from letta_agent.domain.toolcalls.executor import StepCalls, ToolCallContent, ToolReturnContent, is_readable
from letta_agent.domain.toolcalls.rules import ToolRules
from letta_agent.domain.toolcalls.toolsets import Toolset
from letta_common.actor import acting_as
from letta_common.errors import ContextWindowExceeded, LLMInvalidResponse, NoPendingApproval
from letta_common.values.ids import new_id
from letta_messages.rendering import expand

MAX_STEPS = 50  # as V1 has it, where a request names no other number
COMPACTIONS = 3  # each evicts more; what does not fit then is the prompt itself
"""How often one step may make its context smaller."""
_WAIT = Decision(StopReason.STOP_REASON_REQUIRES_APPROVAL)
_APPROVAL = message_pb2.MessageRole.MESSAGE_ROLE_APPROVAL


class Loop:
    """Works on one run."""

    def __init__(self, tools: LoopDeps, job: RunJob, feed: Feed, passport: Passport, strategy: Strategy) -> None:
        self._tools = tools
        self._memory = RunMemory(tools.memory, tools.store, feed)
        self._job = job
        self._state = job.definition.state
        self._feed = feed
        self._passport = passport
        self._strategy = strategy
        self._rules = ToolRules(self._state.tool_rules)
        self._history: list[ToolReturnContent] = []
        self._summaries: list[StepSummary] = []
        self._kept: dict[int, StoredStep] = {}
        self._context: WorkingContext
        self._toolset: Toolset
        self._began_ns = tools.clock.monotonic_ns()
        self._ttft_ns = 0
        self._pending: HeldCalls | None = None
        self._input = approvals.Settled(())
        self._begun = False
        self.committed = False
        """A step of the run was committed."""
        self._open: tuple[int, StoredStep, int] | None = None
        self._context_tokens = job.definition.context_tokens

    async def work(self) -> RunEnd:
        """Work on the run to its end. Raises the errors of its peers, and Fenced when another replica owns it now."""
        begun = await self._begin()
        index = 0
        if begun.HasField("last_step"):
            last = begun.last_step
            self._recall(last.step_index)
            if last.stop_reason != GO_ON:  # decided by the commit; only the closing was left undone
                return self._decided(last.stop_reason)
            index = last.step_index + 1
        elif self._input.left:
            return self._wait_on()
        pending = approvals.pending(self._context.messages)
        if pending is not None and index == 0:
            await self._answer(pending)
            index = 1
        while True:
            decision = await self._step(index)
            if decision.stop_reason != GO_ON:
                return self._end(decision.stop_reason)
            index += 1

    async def conclude(self) -> RunEnd | None:
        """Return how a run ended that an earlier owner decided; None when it was to go on. No older owner writes on."""
        begun = await self._begin()
        if not begun.HasField("last_step"):
            return None
        last = begun.last_step
        self._recall(last.step_index)
        return None if last.stop_reason == GO_ON else self._decided(last.stop_reason)

    async def withdraw(self) -> bool:
        """Take the input of a run that failed back, unless a step was committed; say whether none of it is left."""
        if not self._begun:
            return True
        if self.committed:
            return False
        async with self._acting():
            return await self._memory.withdraw()

    async def deny(self) -> None:
        """Close what a cancelled run leaves open: calls that wait for approval, or that were not executed."""
        async with self._acting():
            begun = await self._memory.begin(())
            asked = approvals.request_of(begun.messages)
            if asked is None:
                return
            self._context = WorkingContext(begun)
            index = begun.last_step.step_index + 1 if begun.HasField("last_step") else 0
            step = StoredStep(step_id=asked.step_id, message=asked, return_id=new_id("message"))
            message = return_message(step, approvals.cancelled(asked), self.held.run_id, self._tools.clock.now())
            await self._commit(index, [message], StopReason.STOP_REASON_CANCELLED)
        self._show(message)

    @property
    def held(self) -> RunKey:
        """Return the key of the run; its fence may rise while the run begins."""
        return self._feed.held

    @property
    def summaries(self) -> tuple[StepSummary, ...]:
        """Return how the steps went so far."""
        return tuple(self._summaries)

    def broken(self, status: int, stop: StopReason.ValueType) -> tuple[StepSummary, ...]:
        """Return how the steps went, with the one in the middle of which the run ended."""
        if self._open is None:
            return self.summaries
        index, step, began = self._open
        step.model = step.model or self._job.request.override_model or self._state.model
        took = self._tools.clock.monotonic_ns() - began
        last = replace(summary_of(step, index, stop=stop, step_ns=took, tool_ns=0), status=status)
        return (*self._summaries, last)

    async def _begin(self) -> memory_pb2.BeginStepResponse:
        if self._job.claims:  # only a former owner can have left checkpoints
            self._kept = await self._tools.store.get_checkpoints(self.held)
        given, compacts = self._job.input.messages, self._job.input.HasField("compaction_settings")
        self._input = approvals.settled(given, self._job.waiting, denies=self._tools.denies and not compacts)
        messages = self._input.first
        async with self._acting():
            self._begun = True  # before the call: a request whose answer is lost may have been carried out
            looked = self._tools.toolsets.of(self._job.actor, self._job.definition.tool_ids)
            begun, found = await beside(self._memory.begin(messages), looked)
        self.committed = begun.HasField("last_step")  # by a former owner, whose input must not be withdrawn
        self._toolset = self._strategy.prepare(found.with_client_tools(self._job.request.client_tools))
        size = sum(message.ByteSize() for message in messages)  # not counted by the vendor yet
        self._context = WorkingContext(begun, tokens=self._context_tokens, input_bytes=size)
        if self._state.message_buffer_autoclear and messages:
            self._context.begin_at(messages[0].id)
        return begun

    def _recall(self, last: int) -> None:
        """Take over the steps that an earlier owner committed."""
        for index in range(last + 1):
            step = self._kept.pop(index, None)
            if step is not None:
                self._summaries.append(summary_of(step, index, stop=0, step_ns=0, tool_ns=0))
                self._history += [ToolReturnContent(name=call.name) for call in calls_of(step.message)]

    async def _answer(self, pending: approvals.WaitingCalls) -> None:
        """Execute what was approved and commit it as a step of its own."""
        now = self._tools.clock.now()
        step = StoredStep(step_id=pending.message.step_id, message=pending.message, return_id=new_id("message"))
        async with self._acting():
            returns = await self._call(step, 0, pending.answers)
            message = return_message(step, returns, self.held.run_id, now)
            await self._commit(0, [message, *self._input.later], GO_ON)
        self._show(message)

    async def _step(self, index: int) -> Decision:
        clock = self._tools.clock
        began = clock.monotonic_ns()
        async with self._acting():
            stored = self._kept.pop(index, None)
            replayed = stored is not None
            if stored is None:
                stored = await self._think(index, began)
            else:
                self._open = (index, stored, began)
                if stored.HasField("summary"):
                    self._context.shrink(stored.summary, stored.first_kept_message_id)
            calls = calls_of(stored.message)
            if calls and not replayed:  # before any tool runs: another owner must execute these calls and no others
                await self._tools.store.checkpoint(self.held, index, stored)
        if calls:
            self._show(stored.message, told=replayed)
        messages = [stored.message] if stored.message.parts else []
        asks = stored.message.role == _APPROVAL
        acted = clock.monotonic_ns()
        returns: list[ToolReturnContent] = []
        async with self._acting():
            if calls and not asks:
                returns = await self._call(stored, index, {}, replayed=replayed)
                messages.append(return_message(stored, returns, self.held.run_id, clock.now()))
                self._history += returns
                self._show(messages[-1])
            tool_ns = clock.monotonic_ns() - acted
            decision = _WAIT if asks else self._decide(stored, returns)
            if decision.notice:
                notice = notice_message(decision.notice, self.held.run_id, stored.step_id, clock.now())
                messages.append(notice)
            await self._commit(index, messages, decision.stop_reason, self._moved(stored, decision.stop_reason))
        if asks:
            self._pending = self._waiting(stored.message)
        if not calls:  # after the commit: what is shown has to be what stays
            self._show(stored.message)
        if decision.notice:
            self._show(messages[-1])
        took = clock.monotonic_ns() - began
        self._summaries.append(summary_of(stored, index, stop=decision.stop_reason, step_ns=took, tool_ns=tool_ns))
        self._open = None
        return decision

    def _moved(self, stored: StoredStep, stop: StopReason.ValueType) -> memory_pb2.Window | None:
        """Return what becomes of the window with a step: the last one of a forgetful agent clears it."""
        if self._state.message_buffer_autoclear and stop not in {GO_ON, _WAIT.stop_reason}:
            self._context_tokens = 0
            return memory_pb2.Window(cleared=True)
        if not stored.HasField("summary"):
            return None
        return memory_pb2.Window(summary=stored.summary, first_kept_message_id=stored.first_kept_message_id)

    def _decide(self, stored: StoredStep, made: list[ToolReturnContent]) -> Decision:
        turn = TakenStep(
            calls=made,
            said=says(stored.message),
            cut=stored.cut,
            last=len(self._summaries) + 1 >= (self._job.request.max_steps or MAX_STEPS),
            history=self._history,
            arguments=[call.input for call in calls_of(stored.message)],
            equipped=bool(self._toolset.schemas),
        )
        return self._strategy.decide(turn, self._rules)

    async def _think(self, index: int, began: int) -> StoredStep:
        """Ask the model, with a smaller context if the whole one does not fit."""
        clock = self._tools.clock
        now = clock.now()
        blank = blank_message(self.held.run_id, new_id("step"), now)
        step = StoredStep(step_id=blank.step_id, return_id=new_id("message"), started_ns=int(now.timestamp() * 1e9))
        self._open = (index, step, began)
        for attempt in range(COMPACTIONS + 1):
            prompt = self._prompt(blank.step_id)
            overhead = len(prompt.system.encode()) + self._toolset.size
            if await self._is_full(overhead):
                await self._compact(step, overhead, attempt)
            asked = clock.monotonic_ns()
            step.llm_started_ns = int(clock.now().timestamp() * 1e9)
            try:
                generation = await self._generate(prompt, blank)
                break
            except ContextWindowExceeded as error:
                if attempt == COMPACTIONS or not await self._compact(step, overhead, attempt, refused=error):
                    raise
        step.llm_ns = clock.monotonic_ns() - asked
        self._finish(step, generation, blank)
        return step

    def _finish(self, step: StoredStep, generation: llm_pb2.Generation, blank: Message) -> None:
        message = model_message(generation, blank, several=self._several)
        if any(self._waits(call) for call in calls_of(message)):
            message.role = _APPROVAL
        step.message.CopyFrom(message)
        step.usage.CopyFrom(generation.usage)
        step.model, step.provider_type = generation.model, generation.provider_type
        step.context_window = generation.context_window or self._window
        step.cut = generation.finish_reason == llm_pb2.FINISH_REASON_LENGTH
        step.warnings.extend(generation.warnings)
        self._context_tokens = generation.usage.prompt_tokens + generation.usage.completion_tokens
        self._ttft_ns = self._ttft_ns or self._tools.clock.monotonic_ns() - self._began_ns

    def _prompt(self, step_id: str) -> llm_pb2.Prompt:
        """Return what the model is asked, but for the messages."""
        request, state = self._job.request, self._state
        freedom = self._rules.freedom(self._toolset.names, self._history)
        schemas = self._toolset.schemas
        if freedom.constrained:
            schemas = tuple(schema for schema in schemas if schema.name in freedom.allowed)
        choice = llm_pb2.ToolChoice(mode=llm_pb2.TOOL_CHOICE_MODE_AUTO)
        if freedom.required and len(schemas) == 1:
            choice = llm_pb2.ToolChoice(mode=llm_pb2.TOOL_CHOICE_MODE_TOOL, name=schemas[0].name)
        elif freedom.required or (self._strategy.must_call and schemas):
            choice.mode = llm_pb2.TOOL_CHOICE_MODE_REQUIRED
        prompt = llm_pb2.Prompt(
            model=request.override_model or state.model,
            system=self._system(),
            tools=schemas,
            tool_choice=choice,
            settings=state.model_settings,
            attribution=llm_pb2.Attribution(
                agent_id=state.id, run_id=self.held.run_id, step_id=step_id, purpose=llm_pb2.CALL_PURPOSE_STEP
            ),
        )
        if not self._several and prompt.settings.parallel_tool_calls:  # rules decide after each call
            prompt.settings.parallel_tool_calls = False
        return prompt

    def _system(self) -> str:
        context = self._context
        facts = facts_of(self._tools.clock.now(), self._state.timezone, context.message_count, context.passage_count)
        return compile_system(
            self._state,
            context.blocks.values(),
            directories=context.directories,
            conversation_id=self.held.conversation_id,
            facts=facts,
            rules=self._rules.described(),
            system=self._job.request.override_system,
        )

    async def _generate(self, prompt: llm_pb2.Prompt, blank: Message) -> llm_pb2.Generation:
        messages = self._context.messages
        if not self._job.request.stream_tokens:
            return await self._tools.models.generate(prompt, messages)
        gated = [schema.name for schema in prompt.tools if self._is_gated(schema.name)]
        deltas = Deltas(blank.id, blank.step_id, self._tools.clock.now(), gated=gated)
        async with aclosing(self._tools.models.stream(prompt, messages)) as events:  # type: ignore[type-var]
            async for event in events:
                if event.HasField("finished"):
                    return event.finished.generation
                if event.HasField("part_started"):
                    self._ttft_ns = self._ttft_ns or self._tools.clock.monotonic_ns() - self._began_ns
                self._feed.say(deltas.of(event))
        raise LLMInvalidResponse("the stream of the model ended early")

    async def _is_full(self, overhead: int) -> bool:
        limit = TRIGGER * self._window
        if self._context.estimate(overhead) <= limit:  # cheap, and true of nearly all steps
            return False
        # A vendor's count needs no second look.
        return self._context.counted or await self._context.measure(overhead) > limit

    async def _compact(
        self,
        step: StoredStep,
        overhead: int,
        attempt: int,
        *,
        refused: ContextWindowExceeded | None = None,
        trigger: CompactionTrigger.ValueType = CompactionTrigger.COMPACTION_TRIGGER_POST_STEP,
    ) -> bool:
        full = CompactionRequest(
            state=self._state,
            messages=tuple(self._context.messages),
            overhead=overhead // BYTES_PER_TOKEN,
            window=self._window,
            model=self._job.request.override_model or self._state.model,
            trigger=trigger if refused is None else CompactionTrigger.COMPACTION_TRIGGER_CONTEXT_WINDOW_EXCEEDED,
            run_id=self.held.run_id,
            step_id=step.step_id,
            attempt=attempt,
        )
        if refused is not None:
            full = corrected(full, refused.metadata, estimate=await self._context.measure(overhead))
        moved = await self._tools.compactor.compact(full)
        if moved is None:
            return False
        step.summary.CopyFrom(moved.summary)
        step.first_kept_message_id = moved.first_kept_message_id
        self._context.shrink(step.summary, step.first_kept_message_id)
        if self._job.request.include_compaction_messages:
            self._show(step.summary)
        return True

    async def _call(
        self, step: StoredStep, index: int, answers: Mapping[str, ToolReturnContent], *, replayed: bool = False
    ) -> list[ToolReturnContent]:
        held, definition = self.held, self._job.definition
        calls = calls_of(step.message)
        environment = (
            self._tools.secrets.environment(held.organization_id, held.agent_id, definition.secrets)
            if definition.secrets
            else {}
        )
        return await self._tools.caller.execute(
            StepCalls(
                run=held,
                step_index=index,
                message_id=step.message.id,
                calls=calls,
                toolset=self._toolset,
                rules=self._rules,
                history=tuple(self._history),
                environment=environment,
                replayed=replayed,
                answers=answers,
                state=self._state,
                blocks=tuple(self._context.blocks.values()),
            )
        )

    async def _commit(
        self, index: int, messages: list[Message], stop: StopReason.ValueType, window: memory_pb2.Window | None = None
    ) -> None:
        committed = await self._memory.commit(index, messages, stop, self._context, window)
        self.committed = True  # from here on a failure leaves the input where it is
        self._context.learn(committed)
        self._context.measured(self._context_tokens)  # the vendor's count takes the place of our estimate
        self._context.add(messages)

    def _show(self, message: Message, *, told: bool = False) -> None:
        """Tell the listener, unless it has read the model's words as they came."""
        model = message.role in {_APPROVAL, message_pb2.MessageRole.MESSAGE_ROLE_ASSISTANT}
        if model and self._job.request.stream_tokens and not told:  # the pieces were the message
            return
        self._feed.say(expand(message, send_tool=self._send_tool))

    def _wait_on(self) -> RunEnd:
        """End a run that answered some of the calls that wait: show the others again."""
        asked = approvals.request_of(self._context.messages)
        if asked is None:
            raise NoPendingApproval("the calls that waited have left the conversation", pending_call_ids="")
        others = expand(approvals.narrowed(asked, self._input.left))
        self._feed.say(others)
        self._pending = HeldCalls(asked.id, self._input.left, others[0].SerializeToString())
        return self._end(_WAIT.stop_reason)

    def _decided(self, stop: StopReason.ValueType) -> RunEnd:
        """End a run that an earlier owner decided."""
        if stop == _WAIT.stop_reason and (asked := approvals.request_of(self._context.messages)):
            self._pending = self._waiting(asked)
        return self._end(stop)

    def _waiting(self, message: Message) -> HeldCalls:
        calls = calls_of(message)
        gated = tuple(call.id for call in calls if self._waits(call)) or tuple(call.id for call in calls)
        shown = [found for found in expand(message) if found.HasField("approval_request_message")]
        return HeldCalls(message.id, gated, shown[0].SerializeToString())

    def _end(self, stop: StopReason.ValueType) -> RunEnd:
        return RunEnd(
            status=RunStatus.RUN_STATUS_COMPLETED,
            stop_reason=stop,
            steps=self.summaries,
            context_tokens=self._context_tokens,
            ttft_ns=self._ttft_ns,
            pending=self._pending,
        )

    @property
    def _send_tool(self) -> tuple[str, str] | None:
        request = self._job.request
        hidden = request.HasField("use_assistant_message") and not request.use_assistant_message
        if hidden or self._strategy.send_tool is None:
            return None
        name, argument = self._strategy.send_tool
        return request.assistant_message_tool_name or name, request.assistant_message_tool_kwarg or argument

    @property
    def _several(self) -> bool:
        free = not self._strategy.must_call and self._rules.only_approvals
        return free and bool(self._state.model_settings.parallel_tool_calls)

    @property
    def _window(self) -> int:
        return self._state.context_window_limit or 128_000  # agents that were stored without one

    def _waits(self, call: ToolCallContent) -> bool:
        """Say whether a call waits for an answer; one that cannot be executed is told to the model at once."""
        return self._is_gated(call.name) and is_readable(call)

    def _is_gated(self, name: str) -> bool:
        return name in self._toolset.client_names or self._rules.needs_approval(name)

    @asynccontextmanager
    async def _acting(self) -> AsyncIterator[None]:
        """Let the calls inside act for the run's principal, with a context that is still valid for a while."""
        with acting_as(await self._passport.signed()):  # a run may outlive the context of its request
            yield
