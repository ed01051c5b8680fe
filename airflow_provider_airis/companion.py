"""``airis webhooks register``: an AIRIS-MON without a change feed posts its alerts to a companion hub."""

from __future__ import annotations

import argparse
import secrets
import sys
from typing import TYPE_CHECKING

from airflow_provider_airis.errors import AirisError, PermanentError, RetryableError

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.airis import AirisHook


def register(options: argparse.Namespace) -> int:
    """Register the companion's address at the hub, with a new secret; exit status 1 if that was not done."""
    from airflow.sdk.exceptions import AirflowNotFoundException

    from airflow_provider_airis.hooks.airis import AirisHook
    from airflow_provider_airis.settings import alerts_conn_id

    companion_id = options.companion or alerts_conn_id()
    if companion_id == options.conn_id:
        print(
            f"{options.conn_id} cannot be its own companion: name another hub by --companion, or by alerts_conn_id in "
            "section [airis]",
            file=sys.stderr,
        )
        return 1
    try:
        with AirisHook(options.conn_id) as hub, AirisHook(companion_id) as companion:
            url = _register(hub, companion, options.name or options.conn_id, options.url, again=options.again)
    except (AirisError, AirflowNotFoundException) as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{options.conn_id} posts its alerts to {url}, signed with a new secret that both hubs keep.\n"
        f"With alerts_conn_id = {companion_id} in section [airis], alerts are sent from there."
    )
    return 0


def _register(hub: AirisHook, companion: AirisHook, name: str, url: str | None, *, again: bool) -> str:
    known = companion.webhooks.inbound()
    if name in known and not again:
        raise PermanentError(
            f"{companion.conn_id} takes alerts from {name} already. --again registers once more, with a new secret; "
            f"remove the old webhook at {hub.conn_id} then, or it posts twice"
        )
    secret = f"whsec_{secrets.token_urlsafe(32)}"
    # First who takes the posts, so that none is refused.
    path = companion.webhooks.take(name, secret).path
    address = f"{(url or companion.base_url).rstrip('/')}{path}"
    try:
        hub.webhooks.create(f"airflow-{name}", address, secret, headers={})
    except RetryableError as error:
        raise RetryableError(
            f"{error}. Whether the webhook is registered is not known: look there, and use --again if it is not"
        ) from error
    except PermanentError:
        if name not in known:
            companion.webhooks.take_no_more(name)
        raise
    return address
