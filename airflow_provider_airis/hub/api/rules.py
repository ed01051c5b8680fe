"""Rules: kept, replaced, deleted."""

from __future__ import annotations

import secrets

from fastapi import APIRouter, Depends, Request, Response

from airflow_provider_airis.hub.alerting import rulebook
from airflow_provider_airis.hub.alerting.rules import Rule, RuleBody
from airflow_provider_airis.hub.auth import require
from airflow_provider_airis.hub.problems import Problem
from airflow_provider_airis.hub.requests import answer, change, from_store, to_store
from airflow_provider_airis.hub.store.writer import Transaction
from airflow_provider_airis.hub.wire import RulesAnswer, docs

router = APIRouter(prefix="/api/v1")
_reader = [Depends(require("read"))]
_admin = [Depends(require("admin"))]


@router.get("/rules", dependencies=_reader, **docs(RulesAnswer))
async def list_rules(request: Request) -> Response:
    """All rules."""
    return answer(RulesAnswer(await from_store(request, rulebook.read)))


@router.get("/rules/{rule_id}", dependencies=_reader, **docs(Rule))
async def get_rule(request: Request, rule_id: str) -> Response:
    """One rule."""
    found = next((rule for rule in await from_store(request, rulebook.read) if rule.id == rule_id), None)
    if found is None:
        raise Problem(404, f"there is no rule {rule_id!r}")
    return answer(found)


def _rule(body: RuleBody, rule_id: str | None) -> Rule:
    if rule_id is not None and body.id not in (None, rule_id):
        raise Problem(400, f"the address says {rule_id!r}", pointer="/id")
    fields = {name: getattr(body, name) for name in body.__struct_fields__}
    return Rule(**fields | {"id": rule_id or body.id or secrets.token_hex(8)})


@router.post("/rules", dependencies=_admin, **docs(Rule, RuleBody, status=201))
async def post_rule(request: Request) -> Response:
    """Add a rule; it gets an id unless it has one."""

    def work(transaction: Transaction, body: RuleBody) -> tuple[int, Rule]:
        rule = _rule(body, None)
        rulebook.put(transaction, rule, replace=False)
        return 201, rule

    return await change(request, RuleBody, work)


@router.put("/rules/{rule_id}", dependencies=_admin, **docs(Rule, RuleBody))
async def put_rule(request: Request, rule_id: str) -> Response:
    """Set a rule: 201 where there was none, 200 where it replaces one."""

    def work(transaction: Transaction, body: RuleBody) -> tuple[int, Rule]:
        rule = _rule(body, rule_id)
        return (201 if rulebook.put(transaction, rule, replace=True) else 200), rule

    return await change(request, RuleBody, work)


@router.delete("/rules/{rule_id}", dependencies=_admin, **docs(status=204))
async def delete_rule(request: Request, rule_id: str) -> Response:
    """Delete a rule and resolve its alerts."""

    def work(transaction: Transaction, _document: bytes) -> tuple[int, None]:
        rulebook.remove(transaction, rule_id)
        return 204, None

    return await to_store(request, b"", work)
