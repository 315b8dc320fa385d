"""BudgetService over the domain."""

from __future__ import annotations

from typing import Any

import grpc.aio

from letta.llm.v1 import budget_pb2 as budgets_pb
from letta.llm.v1 import budget_service_pb2 as pb
from letta.llm.v1 import budget_service_pb2_grpc
from letta_common.actor import current_actor
from letta_common.clock import Clock
from letta_common.values.paging import Page
from letta_common.values.times import stamp_of
from letta_llm_gateway.domain.accounting.budgets import Action, Budgets, BudgetScope, BudgetStanding, Period, new_budget

_Context = grpc.aio.ServicerContext[Any, Any]


class BudgetServicer(budget_service_pb2_grpc.BudgetServiceServicer):
    def __init__(self, budgets: Budgets, clock: Clock) -> None:
        self._budgets = budgets
        self._clock = clock

    async def SetBudget(self, request: pb.SetBudgetRequest, context: _Context) -> pb.SetBudgetResponse:
        actor, sent = current_actor(), request.budget
        scope = BudgetScope(sent.scope or BudgetScope.ORGANIZATION.value)
        period = Period(sent.period or Period.MONTH.value)
        action = Action(sent.action or Action.REFUSE.value)
        wanted = new_budget(actor, self._clock, (scope, sent.subject_id, period, sent.limit_microdollars, action))
        return pb.SetBudgetResponse(budget=_pack(await self._budgets.put(actor, wanted)))

    async def ListBudgets(self, request: pb.ListBudgetsRequest, context: _Context) -> pb.ListBudgetsResponse:
        found = await self._budgets.page(current_actor(), Page.of(request))
        return pb.ListBudgetsResponse(budgets=[_pack(standing) for standing in found])

    async def DeleteBudget(self, request: pb.DeleteBudgetRequest, context: _Context) -> pb.DeleteBudgetResponse:
        await self._budgets.delete(current_actor(), request.budget_id)
        return pb.DeleteBudgetResponse()


def _pack(standing: BudgetStanding) -> budgets_pb.Budget:
    budget = standing.budget
    return budgets_pb.Budget(
        id=budget.id,
        scope=budgets_pb.BudgetScope.ValueType(budget.scope.value),
        subject_id=budget.subject_id or None,
        period=budgets_pb.BudgetPeriod.ValueType(budget.period.value),
        limit_microdollars=budget.limit_microdollars,
        action=budgets_pb.BudgetAction.ValueType(budget.action.value),
        spent_microdollars=standing.spent_microdollars,
        created_at=stamp_of(budget.created_at),
        updated_at=stamp_of(budget.updated_at),
    )
