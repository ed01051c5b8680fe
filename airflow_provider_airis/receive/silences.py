"""What a silence of one message is about: as much as the message showed, and no more."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from airflow_provider_airis.records import Alert
from airflow_provider_airis.routes.matching import MOST_MATCHERS, Matcher, labels, parse_matchers

# A part of a group's key: matchers or labels in braces, values in double quotes.
_PART = r'\{(?:"(?:[^"\\]|\\.)*"|[^{}"])*\}'
_KEY = re.compile(rf"\{{\}}(?P<route>(?:/{_PART})*):(?P<labels>{_PART})", re.DOTALL)
# Of an alert's labels, those that it need not have when it comes back.
_PASSING = ("alert_id", "severity")


class TooWideError(Exception):
    """No silence holds back what a message showed and nothing else; says so to a person."""


def narrow(group: str, alerts: Sequence[Alert]) -> list[Matcher]:
    """The conditions of the route that led to a message, and the labels that all of its alerts have in common.

    Where these say nothing, the alerts are named one by one.

    :param group: the group's key, ``{}/{team="ml"}:{alertname="Drift"}``.
    :raises TooWideError: there are too many to be named.
    """
    common = set.intersection(*(set(labels(alert).items()) for alert in alerts))
    its = {name: value for name, value in common if name not in _PASSING}
    found = {**_route(group), **{f"{m}": m for m in (Matcher(name, "=", its[name]) for name in sorted(its))}}
    if len(found) <= MOST_MATCHERS and any(not matcher.matches({}) for matcher in found.values()):
        return [*found.values()]
    try:
        return [Matcher("alert_id", "=~", "|".join(re.escape(alert.id) for alert in alerts))]
    except ValueError as error:
        raise TooWideError(
            f"Nothing is silenced: the {len(alerts):,} alerts of this message have no label in common, so a silence "
            "would hold back others too. Silence them on AIRIS-MON's pages, by the labels that you mean."
        ) from error


def _route(group: str) -> dict[str, Matcher]:
    key = _KEY.fullmatch(group)
    parts: Iterable[str] = [*re.findall(_PART, key["route"], re.DOTALL), key["labels"]] if key else ()
    matchers = [matcher for part in parts if part.strip("{}") for matcher in parse_matchers(part)]
    return {str(matcher): matcher for matcher in matchers if matcher.name != "alert_id"}
