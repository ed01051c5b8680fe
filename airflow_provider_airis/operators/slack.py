"""Alerts as Slack messages: one an alert, updated as the alert changes, with what has happened in its thread."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from datetime import datetime
from time import sleep
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_airis.errors import PermanentError, RetryableError
from airflow_provider_airis.operators import chart
from airflow_provider_airis.operators.deliver import AirisToOperator, cut
from airflow_provider_airis.operators.texts import cut_lines, lasting
from airflow_provider_airis.records import Alert, from_ms
from airflow_provider_airis.settings import flag

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.airis import AirisHook

HEADER_CHARS = 150
FIELD_CHARS = 2_000
SECTION_CHARS = 3_000
# How far Slack's clock and the hub's may be apart.
CLOCKS_MS = 300_000
# What chat.update answers of a message that was deleted, is another app's, or too old to be edited.
GONE = frozenset({"message_not_found", "cant_update_message", "edit_window_closed"})
_LOOKING = threading.Lock()
# How the reference of what a webhook has posted begins.
WEBHOOK = "webhook:"
# Seconds between attempts to show a file that was uploaded just now: Slack looks at it first.
PAUSES_S = (0.0, 0.5, 1.0, 2.0, 4.0)
# Half of what is delivered side by side: in a burst, the alerts themselves go first.
_DRAWING = threading.BoundedSemaphore(2)

_ICONS = {"critical": "🚨", "high": "🚨", "medium": "⚠️", "warning": "⚠️", "low": "ℹ️", "info": "ℹ️"}  # noqa: RUF001
_COLOURS = {"critical": "#b3261e", "high": "#d9480f", "medium": "#e0a100", "warning": "#e0a100"}
_CALM, _ACKNOWLEDGED, _RESOLVED = "#1f6feb", "#7a7a7a", "#2da160"


def message(alert: Alert, url: str, *, picture: str = "") -> dict[str, Any]:
    """The message of an alert: ``{text, blocks, attachments}``.

    The header and the chart are blocks; the fields, the description, the context and the buttons are those of an
    attachment, which has the severity's colour at its side. ``text`` is for notifications and screen readers.

    :param picture: id of the file with the chart.

    See https://docs.slack.dev/reference/block-kit/blocks
    """
    from slack_sdk.models.attachments import BlockAttachment
    from slack_sdk.models.blocks import ActionsBlock, Block, ContextBlock, HeaderBlock, ImageBlock, SectionBlock
    from slack_sdk.models.blocks.basic_components import SlackFile

    colour = {"acknowledged": _ACKNOWLEDGED, "resolved": _RESOLVED}.get(alert.status)
    blocks: list[Block] = [HeaderBlock(text=_plain(_heading(alert)))]
    if picture:
        limit = "" if alert.threshold is None else f"; the dashed line is the threshold, {alert.threshold:,.12g}"
        title = f"The hour before the alert fired, UTC{limit}"
        blocks.append(ImageBlock(slack_file=SlackFile(id=picture), alt_text=title, title=title))
    fields = {
        "Alert": alert.name,
        "Severity": alert.severity,
        "Model": alert.model_id or "N/A",
        "Environment": alert.environment or "N/A",
    }
    body: list[Block] = [
        SectionBlock(fields=[_mrkdwn(f"*{name}:*\n", value, FIELD_CHARS) for name, value in fields.items()]),
        SectionBlock(text=_mrkdwn("*Description:*\n", alert.description or "N/A", SECTION_CHARS)),
        ContextBlock(elements=[_mrkdwn("", " · ".join(_context(alert)), FIELD_CHARS)]),
        ActionsBlock(elements=_buttons(alert, url)),
    ]
    attachment = BlockAttachment(
        blocks=body, color=colour or _COLOURS.get(alert.severity, _CALM), fallback=cut(_heading(alert), HEADER_CHARS)
    )
    return {
        "text": text(alert),
        "blocks": [block.to_dict() for block in blocks],
        "attachments": [attachment.to_dict()],
    }


def text(alert: Alert) -> str:
    """What notifications and screen readers show instead of the blocks."""
    state = {"firing": "", "acknowledged": "Acknowledged: ", "resolved": "Resolved: "}[alert.status]
    return _shortened(f"{state}{alert.severity.upper()} Alert: {_escaped(alert.name)}", SECTION_CHARS)


def reply(alert: Alert) -> str:
    """What the thread is told of an alert's change."""
    after = lasting(alert.updated_at - alert.timestamp)
    if alert.status == "resolved":
        return f"✅ Resolved after {after}"
    if alert.status == "acknowledged":
        by = f" by {_escaped(alert.acknowledged_by)}" if alert.acknowledged_by else ""
        return _shortened(f"👀 Acknowledged{by} after {after}", SECTION_CHARS)
    what = f": {_escaped(alert.name)}" if alert.id.startswith("group-") else ""
    now = f"{_ICONS[alert.severity]} {alert.severity.capitalize()} now, firing for {after}"
    return _shortened(f"{now}{what}", SECTION_CHARS)


def _heading(alert: Alert) -> str:
    word = f"{alert.severity.upper()} Alert"
    if alert.status == "acknowledged":
        return f"👀 {word} (acknowledged)"
    if alert.status == "resolved":
        return f"✅ Resolved: {word}"
    return f"{_ICONS[alert.severity]} {word}"


def _context(alert: Alert) -> list[str]:
    context = [f"Triggered at {_utc(from_ms(alert.timestamp))}"]
    if alert.acknowledged_by:
        context.append(f"Acknowledged by {alert.acknowledged_by}")
    if alert.status == "resolved":
        context.append(f"Resolved at {_utc(from_ms(alert.updated_at))}")
    return context


def _buttons(alert: Alert, url: str) -> list[Any]:
    from slack_sdk.models.blocks import ButtonElement

    labels = {"airis_acknowledge": "Acknowledge", "airis_resolve": "Resolve", "airis_silence_1h": "Silence 1 h"}
    offered = {"firing": [*labels], "acknowledged": ["airis_resolve", "airis_silence_1h"], "resolved": []}[alert.status]
    buttons = [ButtonElement(text=_plain(labels[name]), action_id=name, value=alert.id) for name in offered]
    return [*buttons, ButtonElement(text=_plain("View Dashboard"), action_id="view_dashboard", url=url)]


class AirisToSlackOperator(AirisToOperator):
    """Posts an alert to a Slack channel, updates that message as the alert changes, and says so in its thread.

    :param alert_id: the alert's id at the hub.
    :param target: the channel: ``#name``, or its id.
    :param slack_conn_id: connection of type ``slack`` with a bot token that has ``chat:write``. With
        ``channels:read`` and ``channels:history`` as well, a message whose posting was not confirmed is found again;
        with ``files:write``, :meth:`illustrate` adds a chart. Or one of an incoming webhook, whose messages cannot be
        changed: each change is a message then, in the channel that the webhook was made for.
    :param replies: whether changes are told in the message's thread, too; the option's unless given.

    See https://docs.slack.dev/reference/methods/chat.postMessage
    """

    system: ClassVar[str] = "slack"
    hook_retries = 3
    template_fields: Sequence[str] = (*AirisToOperator.template_fields, "slack_conn_id")

    def __init__(self, *, slack_conn_id: str = "slack_default", replies: bool | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.slack_conn_id = slack_conn_id
        self.replies = replies
        self._draws = True
        # What earlier tries have left in the channel since when (Unix ms): alert id → reference.
        self._earlier: tuple[int, dict[str, str]] | None = None

    @property
    def receiver_conn_id(self) -> str:
        """The connection with the bot token."""
        return self.slack_conn_id

    def refuses_all(self, error: PermanentError) -> bool:
        """Slack says everything with status 200."""
        from airflow_provider_airis.hooks.slack import REFUSALS

        return error.detail in REFUSALS or super().refuses_all(PermanentError(str(error)))

    def send(self, alert: Alert, reference: str | None, *, url: str, again: bool) -> str | None:
        """Update the message and reply to it, or post the first one; returns ``<channel id>:<ts>[:<chart's file>]``.

        A message that can no longer be updated is followed by a new one, unless there is only its end to tell. Of a
        webhook the reference is the state that was posted, ``webhook:<status>:<updated_at>``.
        """
        if self.hook.is_webhook:
            return self._post_anew(alert, reference, url, again=again)
        told = reference is not None
        reference = self._known(alert, reference, again=again)
        if reference is not None:
            try:
                reference = self._update(alert, reference, url)
            except PermanentError as error:
                if error.detail not in GONE:
                    raise
                self.log.warning("The message of alert %s cannot be updated any more: %s", alert.id, error)
            else:
                if told or alert.status != "firing":
                    self._reply(alert, reference, again=again)
                return reference
        return reference if alert.status == "resolved" else self._post(alert, url)

    def illustrate(self, hub: AirisHook, alert: Alert, reference: str, *, url: str) -> str | None:
        """Put a chart of the hour before the alert fired into its message, of two alerts at a time; never raises.

        :param reference: what :meth:`send` has returned.
        :return: the reference from now on; None if it stays, as there is no chart.
        """
        if alert.status == "resolved" or not self._draws or not _DRAWING.acquire(blocking=False):
            return None
        try:
            if self.hook.is_webhook or reference.count(":") > 1:
                return None
            drawn = chart.draw(hub, alert)
            if drawn is None:
                self.log.info("Alert %s has no chart: the hub has no points of it", alert.id)
                return None
            file = self._upload(alert, *drawn)
            self._show(alert, f"{reference}:{file}", url)
            return f"{reference}:{file}"
        except Exception as error:  # noqa: BLE001  the alert is told; nothing may come of a chart
            self.log.warning("Alert %s has no chart: %s", alert.id, error)
            return None
        finally:
            _DRAWING.release()

    def _upload(self, alert: Alert, title: str, content: bytes) -> str:
        try:
            return str(self.hook.upload(f"airis-{alert.id}.png", content, title=title))
        except PermanentError:
            self._draws = False  # it would be no other for the next alert
            raise

    def _show(self, alert: Alert, reference: str, url: str) -> None:
        """Update the message with a file that was uploaded just now, which Slack may not know yet."""
        for left, pause in enumerate(PAUSES_S, 1 - len(PAUSES_S)):
            sleep(pause)
            try:
                self.hook.update(reference, self._message(alert, url, reference))
                return
            except PermanentError as error:
                if error.detail != "invalid_blocks" or not left:
                    raise

    def _message(self, alert: Alert, url: str, reference: str = "") -> dict[str, Any]:
        _, _, file = (*reference.split(":"), "", "", "")[:3]
        metadata = {"alert_id": alert.id, "target": self.target, **({"chart": file} if file else {})}
        return {**message(alert, url, picture=file), "metadata": metadata}

    def _update(self, alert: Alert, reference: str, url: str) -> str:
        try:
            self.hook.update(reference, self._message(alert, url, reference))
        except PermanentError as error:
            if error.detail != "invalid_blocks" or reference.count(":") < 2:
                raise
            self.log.warning("The chart of alert %s cannot be shown any more: %s", alert.id, error)
            reference = reference.rpartition(":")[0]
            self.hook.update(reference, self._message(alert, url))
        return reference

    def _reply(self, alert: Alert, reference: str, *, again: bool) -> None:
        """Tell the thread, once, where that can be known."""
        if not (flag(self.system, "replies") if self.replies is None else self.replies):
            return
        state = f"{alert.status}:{alert.updated_at}"
        try:
            if again and any(its.get("reply") == state for its in self.hook.replies(reference)):
                return
            metadata = {"alert_id": alert.id, "target": self.target, "reply": state}
            channel = reference.partition(":")[0]
            self.hook.post(channel, {"text": reply(alert), "metadata": metadata}, thread=reference)
        except PermanentError as error:
            self.log.warning("The thread of alert %s is not told; its message shows the state: %s", alert.id, error)

    def _post_anew(self, alert: Alert, reference: str | None, url: str, *, again: bool) -> str:
        state = f"{WEBHOOK}{alert.status}:{alert.updated_at}"
        if reference == state:
            return state
        if again:
            self.log.warning(
                "An earlier try may have posted alert %s as %s; it is posted again", alert.id, alert.status
            )
        self.hook.send(message(alert, url))
        return state

    def _post(self, alert: Alert, url: str) -> str:
        try:
            return str(self.hook.post(self.target, self._message(alert, url)))
        except RetryableError:
            with _LOOKING:
                self._earlier = None  # it may have been posted since the channel was read
            raise

    def _known(self, alert: Alert, reference: str | None, *, again: bool) -> str | None:
        """The message that shows the alert already."""
        if reference is not None and reference.startswith(WEBHOOK):
            return None  # posted when the connection was another
        return self._find(alert) if reference is None and again else reference

    def _find(self, alert: Alert) -> str | None:
        """The message that an earlier try has left. The channel is read once for all alerts that ask."""
        with _LOOKING:
            since = alert.timestamp - CLOCKS_MS
            if self._earlier is None or since < self._earlier[0]:
                found: dict[str, str] = {}
                try:
                    for metadata, reference in self.hook.posted(self.target, since=since):
                        if metadata.get("target") == self.target and "reply" not in metadata:
                            chart = f":{metadata['chart']}" if metadata.get("chart") else ""
                            found.setdefault(str(metadata.get("alert_id")), f"{reference}{chart}")
                except PermanentError as error:
                    self.log.warning("Cannot look whether an earlier try has posted, so it is posted again: %s", error)
                    since = 0
                self._earlier = since, found
            return self._earlier[1].get(alert.id)


def _utc(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _escaped(value: str) -> str:
    """Slack takes only these three for markup in mrkdwn."""
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _shortened(escaped: str, most: int) -> str:
    """Cut, but not within an escaped character."""
    return re.sub(r"&[a-z]*…$", "…", cut_lines(escaped, most))


def _plain(value: str) -> Any:
    from slack_sdk.models.blocks import PlainTextObject

    return PlainTextObject(text=cut(value, HEADER_CHARS), emoji=True)


def _mrkdwn(label: str, value: str, most: int) -> Any:
    from slack_sdk.models.blocks import MarkdownTextObject

    return MarkdownTextObject(text=_shortened(label + _escaped(value), most))
