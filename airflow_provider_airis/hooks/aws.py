"""What every AWS service's hook has in common: the account behind a connection, calls, pages, AWS's errors in words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from airflow_provider_airis.errors import AirisError, PermanentError, RetryableError, SetupError
from airflow_provider_airis.hooks import connections
from airflow_provider_airis.hooks.base import SystemHook

_MAX_PAGES = 1_000
# How often a listing begins anew because its page token was refused.
_RESTARTS = 2
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "NotAuthorized", "UnauthorizedOperation"})
_REFUSED_CREDENTIALS = frozenset(
    {
        "AuthFailure",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
# Those that botocore itself sends again, and temporary credentials that have run out, which are fetched anew.
PASSING = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "ExpiredToken",
        "ExpiredTokenException",
        "InternalFailure",
        "InternalServiceError",
        "InternalServiceFault",
        "LimitExceeded",
        "LimitExceededException",
        "LimitExceededFault",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestExpired",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeTooSkewed",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
_ACCOUNT = re.compile(r"arn:aws[a-z-]*:[a-z0-9-]*:[a-z0-9-]*:(\d{12}):")
_ACTION = re.compile(r"not authorized to perform: ([\w-]+:\w+)")


class UnansweredError(RetryableError):
    """A service did not answer at all, so that asking it for something else would wait as long."""


class DeniedError(PermanentError):
    """A right is lacking, or the credentials are not accepted: so it is for every call of the kind."""


class AwsHook(SystemHook):
    """One account and region of AWS. Opens nothing before the first call.

    Credentials, role, proxy and ``config_kwargs`` are the Amazon provider's connection of type ``aws``; its
    ``config_kwargs`` win over the timeouts and retries given here. The connection must exist; ``aws_default`` alone may
    be absent, which is logged: the credentials are then those of the process.

    :param conn_id: connection of type ``aws``.
    :param region_name: region to read; the connection's if None.
    :param timeout: seconds to wait for an answer.
    :param retries: how often a call that may succeed later is sent again.

    Errors that pass (throttling, 5xx, the network) are :class:`~airflow_provider_airis.errors.RetryableError`, others
    :class:`~airflow_provider_airis.errors.PermanentError`: AWS's own cause first, then what to do. A service that has
    not answered once, all retries included, is not asked again by the same hook.
    """

    default_conn_name = "aws_default"
    conn_type = "aws"

    def __init__(
        self, conn_id: str | None = None, *, region_name: str | None = None, timeout: float = 20, retries: int = 4
    ) -> None:
        super().__init__(conn_id, timeout=timeout, retries=retries)
        self.calls: Counter[str] = Counter()
        self._timeout_of_calls = timeout
        self._region_name = region_name
        self._clients: dict[str, Any] = {}
        self._unanswered: dict[str, UnansweredError] = {}

    @cached_property
    def region_name(self) -> str:
        """The region that is read."""
        region: str | None = self._region_name or self._aws("sts").region_name
        if not region:
            raise SetupError(f"No AWS region: give region_name, or set it in the extra of connection {self.conn_id!r}")
        self._check_region(region)
        return region

    @staticmethod
    def _check_region(region: str) -> None:
        """Refuse what is no region by the names that AWS's partitions use; one newer than botocore passes."""
        from botocore import exceptions, session

        try:
            session.get_session().get_partition_for_region(region)
        except exceptions.UnknownRegionError:
            raise SetupError(f"{region!r} is no AWS region: one looks like eu-west-1") from None

    def account_id(self) -> str:
        """The account that is read: of the connection's role, else as GetCallerIdentity names it, without permissions.

        See https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
        """
        role = self.extra.get("role_arn") if self._has_connection else None
        return account_of(str(role)) or str(self._call("sts", "get_caller_identity")["Account"])

    @cached_property
    def _has_connection(self) -> bool:
        if self.conn_id == self.default_conn_name and not connections.exists(self.conn_id):
            self.log.warning(
                "Connection %s does not exist: AWS is asked with the credentials of this process (its environment, "
                "its machine's role)",
                self.conn_id,
            )
            return False
        _ = self.connection
        return True

    def _aws(self, service: str) -> Any:
        with self.importing():
            from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

        conn_id = self.conn_id if self._has_connection else None
        return AwsBaseHook(aws_conn_id=conn_id, region_name=self._region_name, client_type=service)

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            from botocore.config import Config

            hook = self._aws(service)
            config = Config(
                connect_timeout=min(10, self._timeout_of_calls),
                read_timeout=self._timeout_of_calls,
                retries={"mode": "standard", "total_max_attempts": self.retries + 1},
            )
            given = hook.config
            client = hook.get_client_type(region_name=self.region_name, config=config.merge(given) if given else config)
            self._clients[service] = client
            self._opened(service, client)
        return self._clients[service]

    def _opened(self, service: str, client: Any) -> None:
        """A client was made."""

    def _pages(self, service: str, method: str, field: str, **request: Any) -> Iterator[dict[str, Any]]:
        """Every page of a listing. A refused page token begins it anew, so what it yields may come again."""
        tokens: set[str] = set()
        restarts = 0
        while True:
            try:
                page = self._call(service, method, **request)
            except PermanentError as error:
                if (
                    isinstance(error, DeniedError)
                    or "NextToken" not in request
                    or "token" not in str(error).lower()
                    or restarts == _RESTARTS
                ):
                    raise
                self.log.warning("%s. The listing begins anew", error)
                restarts += 1
                tokens.clear()
                del request["NextToken"]
                continue
            if field not in page:
                raise RetryableError(
                    f"{service} {method} in {self.region_name} was answered without {field}, so by something else than "
                    f"AWS: check the proxy and the endpoint_url of connection {self.conn_id!r}"
                )
            yield page
            token = page.get("NextToken")
            if not token:
                return
            if token in tokens or len(tokens) == _MAX_PAGES:
                raise PermanentError(
                    f"{service} {method} in {self.region_name} sends an endless cursor, given up after page "
                    f"{len(tokens) + 1}; check the endpoint_url of connection {self.conn_id!r}"
                )
            tokens.add(token)
            request["NextToken"] = token

    def _call(self, service: str, method: str, **request: Any) -> dict[str, Any]:
        if service in self._unanswered:
            raise self._unanswered[service]
        client = self._client_or_error(service)
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        action = f"{service}:{''.join(word.title() for word in method.split('_'))}"
        self.calls[action] += 1
        try:
            answer: dict[str, Any] = getattr(client, method)(**request)
        except ClientError as error:
            raise self._refused(action, request, error) from error
        except (BotoCoreError, ResponseParserError) as error:
            failed = self._failed(action, error)
            if isinstance(failed, UnansweredError):
                self._unanswered[service] = UnansweredError(f"{failed} (not asked again)")
            raise failed from error
        return answer

    def _client_or_error(self, service: str) -> Any:
        with self.importing():
            from botocore.exceptions import BotoCoreError, ClientError

        try:
            return self._client(service)
        except ClientError as error:
            raise self._refused(f"{service}:*", {}, error) from error
        except BotoCoreError as error:
            raise self._failed(service, error) from error

    def _refused(self, action: str, request: dict[str, Any], error: Any) -> AirisError:
        """AWS's error answer, translated: what AWS names as its cause comes first."""
        code, detail = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
        meta = error.response.get("ResponseMetadata", {})
        status = meta.get("HTTPStatusCode", 0)
        if str(error.operation_name).startswith("AssumeRole"):
            action = f"sts:{error.operation_name}"
        said = f"{code} {detail}".strip()
        asked = f"{action} in {self.region_name} by connection {self.conn_id!r}"
        if code in _DENIED:
            if named := _ACTION.search(detail):
                action = named[1]
            resource = f" on endpoint {request['EndpointName']!r}" if "EndpointName" in request else ""
            text = f"{self._missing(action, detail, resource)}. AWS says {said}"
            return DeniedError(text, detail=detail, status=status)
        if code == "OptInRequired":
            text = f"{asked} was refused: AWS says {said}. Enable the service or region for this account"
            return DeniedError(text, detail=detail, status=status)
        if code in PASSING or status == 429 or status >= 500:
            wait = meta.get("HTTPHeaders", {}).get("retry-after", "")
            retry_after = float(wait) if wait.isdigit() else None
            return RetryableError(f"{asked} failed: HTTP {status} {said}", retry_after=retry_after)
        if code in _REFUSED_CREDENTIALS:
            text = (
                f"{asked} was refused: AWS says {said}. Either region {self.region_name} is not enabled for the "
                f"account, or its credentials are not accepted: enable it, or renew them"
            )
            return DeniedError(text, detail=detail, status=status)
        return PermanentError(f"{asked} was refused: HTTP {status} {said}", detail=detail, status=status)

    def _failed(self, action: str, error: Exception) -> AirisError:
        """No answer, translated: the network passes, the configuration does not."""
        from botocore import exceptions
        from botocore.parsers import ResponseParserError

        text = f"{action} by connection {self.conn_id!r} failed: {error}"
        if isinstance(error, exceptions.SSLError):
            return PermanentError(f"{text}; check verify in the connection's extra")
        if isinstance(error, exceptions.ConnectionError | exceptions.HTTPClientError):
            return UnansweredError(text)
        passing = (exceptions.CredentialRetrievalError, exceptions.MetadataRetrievalError, ResponseParserError)
        if isinstance(error, passing):
            return RetryableError(text)
        if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
            return SetupError(f"{text}; set the key's id and secret, or a role, in the connection")
        return PermanentError(text)

    def _missing(self, action: str, said: str = "", resource: str = "") -> str:
        account = account_of(said)
        who = f"connection {self.conn_id!r}" + (f" (account {account})" if account else "")
        return f"{who} lacks the permission {action}{resource} in {self.region_name}"


def account_of(text: str) -> str:
    """The account in the first ARN of a text, empty if there is none."""
    found = _ACCOUNT.search(text)
    return found[1] if found else ""
