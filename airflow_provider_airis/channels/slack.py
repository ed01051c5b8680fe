"""Alerts as Slack messages: one an alert, updated as the alert changes, with what has happened in its thread."""

from __future__ import annotations

import re
import threading
from time import sleep
from typing import TYPE_CHECKING, Any

from airflow_provider_airis.channels import chart
from airflow_provider_airis.channels.base import Channel
from airflow_provider_airis.channels.texts import cut, cut_lines, lasting, utf16
from airflow_provider_airis.channels.view import AlertView
from airflow_provider_airis.errors import PermanentError, RetryableError
from airflow_provider_airis.records import from_ms

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.airis import AirisHook

HEADER_CHARS = 150
FIELD_CHARS = 2_000
SECTION_CHARS = 3_000
# An action's id may have so many characters; the one of the button that acknowledges names the alert.
ACTION_CHARS = 255
ACKNOWLEDGE = "ack_alert_"
# How far Slack's clock and the hub's may be apart.
CLOCKS_MS = 300_000
# What chat.update answers of a message that was deleted, is another app's, or too old to be edited.
GONE = frozenset({"message_not_found", "cant_update_message", "edit_window_closed"})
# How the reference of what a webhook has posted begins.
WEBHOOK = "webhook:"
# Seconds between attempts to show a file that was uploaded just now: Slack looks at it first.
PAUSES_S = (0.0, 0.5, 1.0, 2.0, 4.0)
# Half of what is sent side by side: in a burst, the alerts themselves go first.
DRAWN_AT_ONCE = 2

# What Slack reads as formatting in mrkdwn, which has no way to escape it: bold, struck, code, italics, emoji, quotes.
_FORMATTING = re.compile(
    r"[*~`]|(?<!\w)_|_(?!\w)|:[a-z0-9_+'-]*[a-z_+][a-z0-9_+'-]*:|(?<!\w):\d+:|^\s*>", re.IGNORECASE | re.MULTILINE
)
_ICONS = {"critical": "🚨", "high": "🚨", "medium": "⚠️", "warning": "⚠️", "low": "ℹ️", "info": "ℹ️"}  # noqa: RUF001
_COLOURS = {"critical": "#b3261e", "high": "#d9480f", "medium": "#e0a100", "warning": "#e0a100"}
_CALM, _ACKNOWLEDGED, _RESOLVED = "#1f6feb", "#7a7a7a", "#2da160"


def message(view: AlertView, *, picture: str = "") -> dict[str, Any]:
    """The message of an alert: ``{text, blocks, attachments}``.

    The header and the chart are blocks; the fields, the description, the context and the buttons are those of an
    attachment, which has the severity's colour at its side. ``text`` is for notifications and screen readers.

    :param picture: id of the file with the chart.

    See https://docs.slack.dev/reference/block-kit/blocks
    """
    from slack_sdk.models.attachments import BlockAttachment
    from slack_sdk.models.blocks import ActionsBlock, Block, ContextBlock, HeaderBlock, ImageBlock, SectionBlock
    from slack_sdk.models.blocks.basic_components import SlackFile

    alert = view.alert
    colour = {"acknowledged": _ACKNOWLEDGED, "resolved": _RESOLVED}.get(alert.status)
    blocks: list[Block] = [HeaderBlock(text=_plain(_heading(view)))]
    if picture:
        limit = "" if alert.threshold is None else f"; the dashed line is the threshold, {alert.threshold:,.12g}"
        title = f"The hour before the alert fired, UTC{limit}"
        blocks.append(ImageBlock(slack_file=SlackFile(id=picture), alt_text=title, title=title))
    body: list[Block] = [
        SectionBlock(fields=[_said(value, FIELD_CHARS, label=name) for name, value in view.facts.items()]),
        SectionBlock(text=_said(view.description, SECTION_CHARS, label="Description")),
        ContextBlock(elements=[_said(" · ".join(_context(view)), FIELD_CHARS)]),
        ActionsBlock(elements=_buttons(view)),
    ]
    attachment = BlockAttachment(
        blocks=body, color=colour or _COLOURS.get(alert.severity, _CALM), fallback=cut(_heading(view), HEADER_CHARS)
    )
    return {
        "text": text(view),
        "blocks": [block.to_dict() for block in blocks],
        "attachments": [attachment.to_dict()],
    }


def text(view: AlertView) -> str:
    """What notifications and screen readers show instead of the blocks."""
    state = {"firing": "", "acknowledged": "Acknowledged: ", "resolved": "Resolved: "}[view.alert.status]
    return _shortened(f"{state}{view.alert.severity.upper()} Alert: {_escaped(view.name)}", SECTION_CHARS)


def reply(view: AlertView) -> str:
    """What the thread is told of an alert's change."""
    alert = view.alert
    after = lasting(alert.updated_at - alert.timestamp)
    if view.over:
        return f"✅ Resolved after {after}"
    if alert.status == "acknowledged":
        by = f" by {_escaped(view.acknowledged_by)}" if view.acknowledged_by else ""
        return _shortened(f"👀 Acknowledged{by} after {after}", SECTION_CHARS)
    what = f": {_escaped(view.name)}" if alert.id.startswith("group-") else ""
    now = f"{_ICONS[alert.severity]} {alert.severity.capitalize()} now, firing for {after}"
    return _shortened(f"{now}{what}", SECTION_CHARS)


def replied(view: AlertView) -> dict[str, Any]:
    """The message in the thread: with a block of plain text where Slack would read some of it as formatting."""
    from slack_sdk.models.blocks import SectionBlock

    said: dict[str, Any] = {"text": reply(view)}
    if not _FORMATTING.search(f"{view.name if view.alert.id.startswith('group-') else ''}{view.acknowledged_by}"):
        return said
    return {**said, "blocks": [SectionBlock(text=_said(_unescaped(reply(view)), SECTION_CHARS)).to_dict()]}


def _heading(view: AlertView) -> str:
    icon = {"acknowledged": "👀", "resolved": "✅"}.get(view.alert.status, _ICONS[view.alert.severity])
    return f"{icon} {view.title}"


def _context(view: AlertView) -> list[str]:
    first, *later = (f"{name} {from_ms(at):%Y-%m-%d %H:%M:%S} UTC" for name, at in view.times.items())
    return [first, *([f"Acknowledged by {view.acknowledged_by}"] if view.acknowledged_by else []), *later]


def _buttons(view: AlertView) -> list[Any]:
    from slack_sdk.models.blocks import ButtonElement

    alert_id = view.alert.id
    acknowledge = f"{ACKNOWLEDGE}{alert_id}"
    labels = {
        acknowledge if len(acknowledge) <= ACTION_CHARS else "airis_acknowledge": "Acknowledge",
        "airis_resolve": "Resolve",
        "airis_silence_1h": "Silence 1 h",
    }
    offered = {"firing": [*labels], "acknowledged": [*labels][1:], "resolved": []}[view.alert.status]
    buttons = [ButtonElement(text=_plain(labels[name]), action_id=name, value=alert_id) for name in offered]
    return [*buttons, ButtonElement(text=_plain("View Dashboard"), action_id="view_dashboard", url=view.url)]


class SlackChannel(Channel):
    """A channel of a workspace, ``#alerts``; or the one that an incoming webhook was made for.

    The reference is ``<channel id>:<ts>[:<chart's file>]``; of a webhook it is the state that was posted,
    ``webhook:<status>:<updated_at>``.

    See https://docs.slack.dev/reference/methods/chat.postMessage
    """

    updates = True
    finds = True
    hook_retries = 3

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._draws = True
        self._drawing = threading.BoundedSemaphore(DRAWN_AT_ONCE)
        self._looking = threading.Lock()
        # What earlier tries have left in the channel since when (Unix ms): alert id → reference.
        self._earlier: tuple[int, dict[str, str]] | None = None

    def refuses_all(self, error: PermanentError) -> bool:
        """Slack says everything with status 200."""
        from airflow_provider_airis.hooks.slack import REFUSALS

        return error.detail in REFUSALS or super().refuses_all(PermanentError(str(error)))

    def send(self, view: AlertView, sent: str | None, *, maybe_sent: bool) -> str | None:
        """Update the message and reply to it, or post the first one.

        A message that can no longer be updated is followed by a new one, unless there is only its end to tell.
        """
        if self.hook.is_webhook:
            return self._post_anew(view, sent, maybe_sent=maybe_sent)
        known = self._known(view, sent, maybe_sent=maybe_sent)
        if known is not None:
            try:
                known = self._update(view, known)
            except PermanentError as error:
                if error.detail not in GONE:
                    raise
                self.log.warning("The message of alert %s cannot be updated any more: %s", view.alert.id, error)
            else:
                if sent is not None or view.alert.status != "firing":
                    self._reply(view, known, maybe_sent=maybe_sent)
                return known
        return known if view.over else self._post(view)

    def illustrate(self, hub: AirisHook, view: AlertView, sent: str) -> str | None:
        """Put a chart of the hour before the alert fired into its message, of two alerts at a time; never raises."""
        if view.over or not self._draws or not self._drawing.acquire(blocking=False):
            return None
        try:
            if self.hook.is_webhook or sent.count(":") > 1:
                return None
            drawn = chart.draw(hub, view.alert)
            if drawn is None:
                self.log.info("Alert %s has no chart: the hub has no points of it", view.alert.id)
                return None
            file = self._upload(view, *drawn)
            self._show(view, f"{sent}:{file}")
            return f"{sent}:{file}"
        except Exception as error:  # noqa: BLE001  the alert is shown; nothing may come of a chart
            self.log.warning("Alert %s has no chart: %s", view.alert.id, error)
            return None
        finally:
            self._drawing.release()

    def _upload(self, view: AlertView, title: str, content: bytes) -> str:
        try:
            return str(self.hook.upload(f"airis-{view.alert.id}.png", content, title=title))
        except PermanentError:
            self._draws = False  # it would be no other for the next alert
            raise

    def _show(self, view: AlertView, reference: str) -> None:
        """Update the message with a file that was uploaded just now, which Slack may not know yet."""
        for left, pause in enumerate(PAUSES_S, 1 - len(PAUSES_S)):
            sleep(pause)
            try:
                self.hook.update(reference, self._message(view, reference))
                return
            except PermanentError as error:
                if error.detail != "invalid_blocks" or not left:
                    raise

    def _message(self, view: AlertView, reference: str = "") -> dict[str, Any]:
        _, _, file = (*reference.split(":"), "", "", "")[:3]
        metadata = {"alert_id": view.alert.id, "target": self.target, **({"chart": file} if file else {})}
        return {**message(view, picture=file), "metadata": metadata}

    def _update(self, view: AlertView, reference: str) -> str:
        try:
            self.hook.update(reference, self._message(view, reference))
        except PermanentError as error:
            if error.detail != "invalid_blocks" or reference.count(":") < 2:
                raise
            self.log.warning("The chart of alert %s cannot be shown any more: %s", view.alert.id, error)
            reference = reference.rpartition(":")[0]
            self.hook.update(reference, self._message(view))
        return reference

    def _reply(self, view: AlertView, reference: str, *, maybe_sent: bool) -> None:
        """Tell the thread, once, where that can be known."""
        if not self.options["replies"]:
            return
        state = view.state
        try:
            if maybe_sent and any(its.get("reply") == state for its in self.hook.replies(reference)):
                return
            metadata = {"alert_id": view.alert.id, "target": self.target, "reply": state}
            channel = reference.partition(":")[0]
            self.hook.post(channel, {**replied(view), "metadata": metadata}, thread=reference)
        except PermanentError as error:
            self.log.warning(
                "The thread of alert %s is not told; its message shows the state: %s", view.alert.id, error
            )

    def _post_anew(self, view: AlertView, sent: str | None, *, maybe_sent: bool) -> str:
        state = f"{WEBHOOK}{view.state}"
        if sent == state:
            return state
        if maybe_sent:
            self.repeats(view)
        self.hook.send(message(view))
        return state

    def _post(self, view: AlertView) -> str:
        try:
            return str(self.hook.post(self.target, self._message(view)))
        except RetryableError:
            with self._looking:
                self._earlier = None  # it may have been posted since the channel was read
            raise

    def _known(self, view: AlertView, reference: str | None, *, maybe_sent: bool) -> str | None:
        """The message that shows the alert already."""
        if reference is not None and reference.startswith(WEBHOOK):
            return None  # posted when the connection was another
        return self._find(view) if reference is None and maybe_sent else reference

    def _find(self, view: AlertView) -> str | None:
        """The message that an earlier try has left. The channel is read once for all alerts that ask."""
        with self._looking:
            since = view.alert.timestamp - CLOCKS_MS
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
            return self._earlier[1].get(view.alert.id)


def _escaped(value: str) -> str:
    """Slack takes only these three for markup in mrkdwn."""
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _unescaped(value: str) -> str:
    return value.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _shortened(escaped: str, most: int) -> str:
    """Cut, but not within an escaped character."""
    return re.sub(r"&[a-z]*…$", "…", cut_lines(escaped, most, utf16))


def _plain(value: str) -> Any:
    from slack_sdk.models.blocks import PlainTextObject

    return PlainTextObject(text=cut(value, HEADER_CHARS, utf16), emoji=True)


def _said(value: str, most: int, *, label: str = "") -> Any:
    """What the alert says, under a label; as plain text if Slack would read some of it as formatting."""
    from slack_sdk.models.blocks import MarkdownTextObject, PlainTextObject

    plain = _FORMATTING.search(value) is not None
    name = (f"{label}:\n" if plain else f"*{label}:*\n") if label else ""
    said = _shortened(name + _escaped(value), most)
    if plain:
        return PlainTextObject(text=said, emoji=False)
    # verbatim: neither addresses nor names become links.
    return MarkdownTextObject(text=said, verbatim=True)
