"""What may be spent: budgets of an organization, a user or an agent, checked from memory before each call.

A replica knows what was booked as of its last reading (`Options.seconds`), what it booked since, and what its calls in
flight are expected to cost; all of that counts. So a budget is exceeded at most by what calls in flight cost beyond
their estimates, one call, and what the other replicas spend between two readings.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import Enum
from typing import Protocol

import structlog
from prometheus_client import Counter

from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import BudgetExceeded, BudgetNotFound, DatabaseUnavailable, InvalidArgument, PermissionDenied
from letta_common.values.ids import new_id
from letta_common.values.paging import Page

_log = structlog.get_logger("letta.llm.budgets")
_refused = Counter("letta_llm_budget_refusals", "Generations that a budget refused.")
_warned = Counter("letta_llm_budget_warnings", "Generations beyond a budget that only warns.")
DEPLOYMENT = "LETTA_BUDGET_DOLLARS"
# The books of an organization that generates no more need not be read every few seconds.
_FORGET_SECONDS = 600.0


class BudgetScope(Enum):
    """Whose spending a budget limits, numbered as the contract numbers it."""

    ORGANIZATION = 1
    USER = 2
    AGENT = 3


class Period(Enum):
    """After which time a budget is whole again, numbered as the contract numbers it. Days and months are UTC's."""

    DAY = 1
    MONTH = 2
    FOREVER = 3

    def start(self, today: date) -> date:
        """Return the first day of the period."""
        if self is Period.DAY:
            return today
        return today.replace(day=1) if self is Period.MONTH else date.min


class Action(Enum):
    """What happens beyond a budget, numbered as the contract numbers it."""

    REFUSE = 1
    WARN = 2


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit of cost."""

    id: str
    organization_id: str
    scope: BudgetScope
    subject_id: str
    """The user or the agent; empty for the organization."""
    period: Period
    limit_microdollars: int
    action: Action
    created_at: datetime
    updated_at: datetime

    def covers(self, user_id: str, agent_id: str) -> bool:
        """Say whether a call counts."""
        return (
            self.subject_id
            == {BudgetScope.ORGANIZATION: "", BudgetScope.USER: user_id, BudgetScope.AGENT: agent_id}[self.scope]
        )

    @property
    def words(self) -> str:
        """Return what the budget limits, for people."""
        whose = self.scope.name.lower() + (f" {self.subject_id}" if self.subject_id else "")
        return f"budget {self.id} of the {whose}"


@dataclass(frozen=True, slots=True)
class BudgetStanding:
    """A budget and what was spent of it in its running period, as booked."""

    budget: Budget
    spent_microdollars: int


@dataclass(frozen=True, slots=True)
class Spent:
    """What an organization has spent this month, and its budgets."""

    month_microdollars: int
    standings: Sequence[BudgetStanding]


class BudgetStore(Protocol):
    """Where budgets are kept."""

    async def put(self, actor: Actor, budget: Budget) -> Budget:
        """Store a budget; one of the same scope, subject and period is changed and keeps its id."""
        ...

    async def list_budgets(self, actor: Actor, page: Page) -> Sequence[Budget]:
        """Return one page of budgets. Raises CursorNotFound."""
        ...

    async def delete(self, actor: Actor, budget_id: str) -> None:
        """Delete a budget. Raises BudgetNotFound."""
        ...

    async def spent(self, organization_ids: Sequence[str], today: date) -> dict[str, Spent]:
        """Return what organizations have spent: a statement of the system."""
        ...


@dataclass(frozen=True, slots=True)
class BudgetOptions:
    """How spending is watched."""

    ceiling_microdollars: int = 0
    """What every organization may spend a month, whatever it sets; 0 is any sum."""
    seconds: float = 5.0
    """How often the books are read."""


@dataclass(slots=True, eq=False)
class Hold:
    """What a call in flight is expected to cost."""

    organization_id: str
    user_id: str
    agent_id: str
    microdollars: int


@dataclass(slots=True)
class _Line:
    budget: Budget
    booked: int
    local: int = 0
    """Booked by this replica since the reading, and held by its calls in flight."""
    warned: bool = False

    @property
    def spent(self) -> int:
        return self.booked + self.local


@dataclass(slots=True)
class _Ledger:
    day: date
    used_at: int
    lines: list[_Line] = field(default_factory=list)


class Budgets:
    """Operations on budgets, and the check before each call."""

    def __init__(
        self,
        store: BudgetStore,
        clock: Clock,
        flush: Callable[[], Awaitable[bool]],
        options: BudgetOptions | None = None,
    ) -> None:
        self._store, self._clock, self._flush, self.options = store, clock, flush, options or BudgetOptions()
        self._ledgers: dict[str, _Ledger] = {}
        self._holds: set[Hold] = set()
        self._spends: deque[tuple[int, Hold]] = deque()
        self._number = 0
        self._lock = asyncio.Lock()

    async def put(self, actor: Actor, budget: Budget) -> BudgetStanding:
        """Set a budget. Raises PermissionDenied or InvalidArgument."""
        _managers_only(actor)
        if bool(budget.subject_id) == (budget.scope is BudgetScope.ORGANIZATION):
            raise InvalidArgument("a budget of a user or an agent names it; one of the organization names nobody",
                                  field="subject_id")  # fmt: skip
        kept = await self._store.put(actor, budget)
        await self._read([actor.organization_id])
        for line in self._ledgers[actor.organization_id].lines:
            if line.budget.id == kept.id:
                return BudgetStanding(line.budget, line.spent)
        return BudgetStanding(kept, 0)

    async def page(self, actor: Actor, page: Page) -> Sequence[BudgetStanding]:
        """Return one page of budgets with what was spent of them. Raises CursorNotFound."""
        found = await self._store.list_budgets(actor, page)
        await self._flush()
        spent = await self._store.spent([actor.organization_id], self._clock.now().date())
        known = {each.budget.id: each.spent_microdollars for each in spent[actor.organization_id].standings}
        return [BudgetStanding(budget, known.get(budget.id, 0)) for budget in found]

    async def delete(self, actor: Actor, budget_id: str) -> None:
        """Delete a budget. Raises PermissionDenied or BudgetNotFound."""
        _managers_only(actor)
        await self._store.delete(actor, budget_id)
        self._ledgers.pop(actor.organization_id, None)

    async def admit(self, actor: Actor, agent_id: str, estimate: Callable[[], int]) -> Hold:
        """Let a call pass and hold what it is expected to cost until it is settled. Raises BudgetExceeded."""
        ledger = self._ledgers.get(actor.organization_id)
        today = self._clock.now().date()
        if ledger is None or ledger.day != today:
            ledger = await self._first(actor.organization_id, today)
        ledger.used_at = self._clock.monotonic_ns()
        hold = Hold(actor.organization_id, actor.user_id, agent_id, 0)
        lines = [line for line in ledger.lines if line.budget.covers(hold.user_id, agent_id)]
        if not lines:
            return hold
        for line in lines:
            if line.spent >= line.budget.limit_microdollars:
                _beyond(line)
        # Only here: without a budget nobody needs the price.
        hold.microdollars = estimate()
        if hold.microdollars:
            self._holds.add(hold)
            for line in lines:
                line.local += hold.microdollars
        return hold

    def settle(self, hold: Hold, microdollars: int | None) -> None:
        """Replace what was expected by what the call did cost; a cost that is not known counts as nothing."""
        self._holds.discard(hold)
        cost, expected = microdollars or 0, hold.microdollars
        hold.microdollars = cost
        if cost:
            self._number += 1
            self._spends.append((self._number, hold))
        ledger = self._ledgers.get(hold.organization_id)
        for line in ledger.lines if ledger else ():
            if line.budget.covers(hold.user_id, hold.agent_id):
                line.local += cost - expected

    async def refresh(self) -> None:
        """Read the books of every organization that generated lately, in one statement."""
        old = self._clock.monotonic_ns() - round(_FORGET_SECONDS * 1e9)
        for organization_id in [key for key, ledger in self._ledgers.items() if ledger.used_at < old]:
            del self._ledgers[organization_id]
        if self._ledgers:
            await self._read(list(self._ledgers))
        else:
            # No ledger is left that could lack them.
            self._spends.clear()

    async def _first(self, organization_id: str, today: date) -> _Ledger:
        async with self._lock:
            ledger = self._ledgers.get(organization_id)
            if ledger is None or ledger.day != today:
                try:
                    await self._read_locked([organization_id])
                except DatabaseUnavailable:
                    if ledger is None:
                        raise
                    return ledger  # an old reading and what was counted since are better than no answer
            return self._ledgers[organization_id]

    async def _read(self, organization_ids: Sequence[str]) -> None:
        async with self._lock:
            await self._read_locked(organization_ids)

    async def _read_locked(self, organization_ids: Sequence[str]) -> None:
        # Before the flush: what is booked meanwhile may count twice until the next reading, and is never missed.
        mark = self._number
        if not await self._flush():
            raise DatabaseUnavailable("the books are not written; budgets are checked by what is known")
        today = self._clock.now().date()
        found = await self._store.spent(organization_ids, today)
        for organization_id in organization_ids:
            spent = found[organization_id]
            before = self._ledgers.get(organization_id)
            warned = {line.budget.id for line in before.lines if line.warned and before.day == today} if before else ()
            lines = [_Line(each.budget, each.spent_microdollars) for each in spent.standings]
            if self.options.ceiling_microdollars:
                lines.append(_Line(self._ceiling(organization_id), spent.month_microdollars))
            for line in lines:
                line.local = self._counted(line.budget, mark)
                line.warned = line.budget.id in warned
            self._ledgers[organization_id] = _Ledger(
                today, before.used_at if before else self._clock.monotonic_ns(), lines
            )
        if len(organization_ids) == len(self._ledgers):  # everybody's reading is newer than these
            while self._spends and self._spends[0][0] <= mark:
                self._spends.popleft()

    def _counted(self, budget: Budget, mark: int) -> int:
        """Return what a reading does not have: booked after the mark, and in flight."""
        spends = [hold for number, hold in self._spends if number > mark]
        return sum(
            hold.microdollars
            for hold in (*spends, *self._holds)
            if hold.organization_id == budget.organization_id and budget.covers(hold.user_id, hold.agent_id)
        )

    def _ceiling(self, organization_id: str) -> Budget:
        now = self._clock.now()
        limit = self.options.ceiling_microdollars
        return Budget(
            DEPLOYMENT, organization_id, BudgetScope.ORGANIZATION, "", Period.MONTH, limit, Action.REFUSE, now, now
        )


def _beyond(line: _Line) -> None:
    budget = line.budget
    words = (
        f"{budget.words} is used up: {_dollars(line.spent)} of {_dollars(budget.limit_microdollars)}, "
        f"period {budget.period.name.lower()}"
    )
    if budget.action is Action.WARN:
        _warned.inc()
        if not line.warned:
            line.warned = True
            _log.warning("a budget is spent; it only warns", budget=words, organization_id=budget.organization_id)
        return
    _refused.inc()
    raise BudgetExceeded(
        f"{words}; raise it or wait for the next period",
        budget_id=budget.id,
        scope=budget.scope.name,
        subject_id=budget.subject_id,
        period=budget.period.name,
        spent_microdollars=str(line.spent),
        limit_microdollars=str(budget.limit_microdollars),
    )


def _dollars(microdollars: int) -> str:
    return f"${microdollars / 1e6:.6f}".rstrip("0").rstrip(".")


def new_budget(actor: Actor, clock: Clock, rest: tuple[BudgetScope, str, Period, int, Action]) -> Budget:
    """Return a budget that begins now."""
    scope, subject_id, period, limit, action = rest
    now = clock.now()
    return Budget(new_id("budget"), actor.organization_id, scope, subject_id, period, limit, action, now, now)


def missing(budget_id: str) -> BudgetNotFound:
    """Return the error for a budget that the organization does not have."""
    return BudgetNotFound(f"Budget {budget_id} not found", budget_id=budget_id)


def _managers_only(actor: Actor) -> None:
    if not actor.scopes & {"keys", "admin"}:
        raise PermissionDenied(
            "budgets are changed by who manages the organization; the credential lacks the scope `keys` or `admin`",
            scope="keys",
        )
