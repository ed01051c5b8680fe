"""Mail by SMTP, through the connection of Airflow's own SMTP provider."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from email.message import Message
from email.utils import getaddresses, parseaddr
from time import sleep
from typing import Any, cast

from airflow.sdk.exceptions import AirflowException

from airflow_provider_airis.errors import AirisError, PermanentError, RetryableError
from airflow_provider_airis.hooks.base import SystemHook

WAIT_S = 1.0
# Details of a refusal: some of the addresses were refused, or all of them.
PARTLY, NOBODY = "partly sent", "no address accepted"
_ADVICE = {
    530: "the server wants a login, or encryption first",
    534: "the server wants another way to log in, often an app password or auth_type oauth2",
    535: "check login and password of connection {conn_id}",
    538: "the server takes a login only over an encrypted connection",
    550: "the server refuses the address; check target, and from_email of connection {conn_id}",
    552: "the mail is too large for the server",
    553: "the server refuses the address; check target, and from_email of connection {conn_id}",
    554: "the server refuses the mail; its administrators know why",
}


class DeferredError(RetryableError):
    """The server has turned some addresses away for now; the others have the mail.

    :param addresses: those that lack it.
    """

    def __init__(self, message: str, addresses: Sequence[str]) -> None:
        super().__init__(message)
        self.addresses = tuple(addresses)


class EmailHook(SystemHook):
    """Sends mail on an Airflow connection of type ``smtp``; all its fields are the SMTP provider's.

    The extra ``from_email`` is needed: from whom the mail is.

    :param conn_id: connection of type ``smtp``.
    :param timeout: seconds to wait for an answer; over the connection's own.
    :param retries: how often a mail is offered again that the server has turned away for now. After a connection that
        broke it is not: the server may have taken it.

    See https://airflow.apache.org/docs/apache-airflow-providers-smtp/stable/connections/smtp.html
    """

    default_conn_name = "smtp_default"
    conn_type = "smtp"
    hook_name = "E-mail"

    def __init__(self, conn_id: str | None = None, *, timeout: float | None = None, retries: int = 1) -> None:
        super().__init__(conn_id, timeout=timeout, retries=retries)

    @property
    def sender(self) -> str:
        """From whom the mail is, ``alerts@example.com`` or ``AIRIS-MON <alerts@example.com>``."""
        sender = str(self.extra.get("from_email") or "")
        if "@" not in parseaddr(sender)[1]:
            raise self._misconfigured("its extra from_email is no address")
        return sender

    def send(self, message: Message, to: Sequence[str] = ()) -> None:
        """Hand a mail to the server.

        :param to: of the addresses of its ``To`` those that lack it; all of them unless given.
        :raises DeferredError: the server has turned some of them away for now, again and again; the others have it.
        :raises RetryableError: the server is not there, or turns the mail away for now.
        :raises PermanentError: the server refuses the login, the mail or an address. Where it refuses some of them, the
            others have the mail, and ``detail`` is ``partly sent``.
        """
        addresses = [address for _, address in getaddresses(message.get_all("To", [])) if "@" in address]
        if not addresses:
            raise PermanentError(f"{self.hook_name}: {message['To']!r} is no address; check target")
        lacking, left = [*to] or addresses, self.retries
        while lacking := self._offer(message, lacking, addresses, last=not left):
            left -= 1
            self.log.warning("The mail is offered to %s again in %.0f s", ", ".join(lacking), WAIT_S)
            sleep(WAIT_S)

    def _offer(self, message: Message, to: Sequence[str], addresses: Sequence[str], *, last: bool) -> list[str]:
        """Offer a mail once, to all of its addresses or those that lack it; returns whom to offer it again."""
        said: dict[str, tuple[int, bytes]] = {}
        others = "the other addresses were sent the mail"
        partly = len(to) < len(addresses)
        try:
            self._with_client(lambda client: said.update(client.send_message(message, to_addrs=[*to])))
        except RetryableError as error:
            if error.status is not None and not last:
                self.log.warning("%s", error)
                return [*to]
            if partly:
                raise DeferredError(f"{error}; {others}", to) from error
            raise
        except PermanentError as error:
            if partly:
                # Whoever has it is not sent it again for the sake of those.
                raise PermanentError(f"{error}; {others}", detail=PARTLY) from error
            raise
        if not said:
            return []
        busy = any(code < 500 for code, _ in said.values())
        if not busy:
            raise PermanentError(self._refuse(said, others), detail=PARTLY)
        if last:
            raise DeferredError(self._refuse(said, others), [*said])
        self.log.warning("%s", self._refuse(said, others))
        return [*said]

    def check(self) -> str:
        """Connect, encrypt, log in, and send nothing; returns what to tell the user."""
        sender = self.sender
        self._with_client(lambda client: client.noop())
        login = f"the login {self.connection.login}" if self.connection.login else "mail without a login"
        return f"{self._server} accepts {login}; mail is from {sender}"

    def _with_client(self, use: Callable[[smtplib.SMTP], Any]) -> None:
        with self._translated():
            client = self._open()
            try:
                use(client)
            finally:
                with suppress(smtplib.SMTPException, OSError):
                    client.quit()

    def _open(self) -> smtplib.SMTP:
        """The provider's client, connected and logged in."""
        with self.importing():
            from airflow.providers.smtp.hooks.smtp import SmtpHook

        seconds = self._timeout_s

        class Hook(SmtpHook):
            timeout = seconds  # type: ignore[assignment]  # an int, says the provider; any will do
            smtp_retry_limit = 0

        if not self.connection.host:
            raise self._misconfigured("it has no host")
        hook = Hook(self.conn_id)
        try:
            hook.get_conn()
        except BaseException:
            if isinstance(hook._smtp_client, smtplib.SMTP):
                hook._smtp_client.close()
            raise
        return cast("smtplib.SMTP", hook._smtp_client)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except AirisError:
            raise
        except smtplib.SMTPRecipientsRefused as error:
            raise self._nobody(error.recipients) from error
        except smtplib.SMTPResponseException as error:
            raise self._refused(error.smtp_code, error.smtp_error) from error
        except smtplib.SMTPNotSupportedError as error:
            raise PermanentError(
                f"{self._asked} cannot do it: {error}; check disable_tls and login of connection {self.conn_id}"
            ) from error
        except ssl.SSLCertVerificationError as error:
            raise PermanentError(
                f"{self._asked} was sent nothing, its certificate is not trusted ({error.verify_message})"
            ) from error
        except ssl.SSLError as error:
            raise PermanentError(
                f"{self._asked} does not speak TLS like that ({error.reason}): for STARTTLS set disable_ssl of "
                f"connection {self.conn_id} to true, for TLS from the start set disable_tls"
            ) from error
        except (smtplib.SMTPException, OSError) as error:
            raise RetryableError(f"{self._asked} gave no answer: {self._redacted(str(error))}") from error
        except AirflowException as error:
            # The provider's own word for a server that hangs up, or is silent, before it has said anything.
            if isinstance(error.__context__, smtplib.SMTPServerDisconnected):
                raise RetryableError(f"{self._asked} gave no answer: {error.__context__}") from error
            raise PermanentError(f"{self._asked}: {self._redacted(str(error))}") from error

    def _refused(self, code: int, said: bytes | str) -> AirisError:
        text = said.decode(errors="replace") if isinstance(said, bytes) else said
        message = self._redacted(f"{self._asked} answered {code} {' '.join(text.split())[:500]}".rstrip())
        if 400 <= code < 500 or code < 0:
            return RetryableError(message, status=code if code > 0 else None)
        advice = _ADVICE.get(code, "").format(conn_id=self.conn_id)
        return PermanentError(f"{message}: {advice}" if advice else message, status=code)

    def _nobody(self, refused: dict[str, tuple[int, bytes]]) -> AirisError:
        code = max(code for code, _ in refused.values())
        if code < 500:
            return RetryableError(self._refuse(refused), status=code)
        return PermanentError(self._refuse(refused), detail=NOBODY, status=code)

    def _refuse(self, refused: dict[str, tuple[int, bytes]], more: str = "check target") -> str:
        told = "; ".join(f"{who}: {code} {said.decode(errors='replace')}" for who, (code, said) in refused.items())
        return f"{self._asked} refuses {self._redacted(told)[:1_000]}: {more}"

    @property
    def _server(self) -> str:
        return f"{self.connection.host}:{self.connection.port}" if self.connection.port else str(self.connection.host)

    @property
    def _asked(self) -> str:
        return f"{self.hook_name} (connection {self.conn_id}): {self._server}"
