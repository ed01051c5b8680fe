"""TLS as a connection's extras say: against which certificates the peer is checked, and with which one we answer."""

from __future__ import annotations

import re
import ssl
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from airflow_provider_airis.hooks.fields import FieldError

_YES, _NO = ("", "true", "1", "yes", "none"), ("false", "0", "no")


def context(verify: Any, cert: str = "", key: str = "") -> ssl.SSLContext:
    """A client's context.

    :param verify: true, false, or the path of a CA bundle: a file or a folder.
    :param cert: our certificate with its chain, for servers that ask for one: the path of a PEM file, or PEM itself.
    :param key: its private key, likewise, unless ``cert`` has it.
    :raises FieldError: one of them cannot be read.
    """
    made = _verifying(str(verify).strip())
    if key and not cert:
        raise FieldError("it has a client_private_key but no client_cert")
    if cert:
        with pem("client_cert", cert) as certfile, pem("client_private_key", key) as keyfile:
            try:
                made.load_cert_chain(certfile, keyfile or None, password=_no_password)
            except (OSError, ValueError) as error:
                raise FieldError(
                    f"its client_cert and client_private_key are no pair of PEM without a passphrase ({_why(error)})"
                ) from None
    return made


def _verifying(word: str) -> ssl.SSLContext:
    if word.lower() in _NO:
        unchecked = httpx2.create_ssl_context()
        unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
        return unchecked
    if word.lower() in _YES:
        return httpx2.create_ssl_context()
    try:
        if Path(word).is_dir():
            return ssl.create_default_context(capath=word)
        return ssl.create_default_context(cafile=word)
    except OSError as error:
        raise FieldError(f"its verify names no readable CA bundle: {word}") from error


@contextmanager
def pem(name: str, text: str) -> Iterator[str]:
    """The path of a PEM; ``ssl`` reads files only, so what is PEM itself is one for that moment."""
    if "-----BEGIN" not in text:
        if text and not Path(text).is_file():
            raise FieldError(f"its {name} is neither PEM nor a file that can be read")
        yield text
        return
    # Readable by us alone.
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        if not (pem := _lines(text)):
            raise FieldError(f"its {name} is PEM that is cut off")
        file.write(pem)
        file.flush()
        yield file.name


def _lines(text: str) -> str:
    """PEM in lines: the field of a form has made one of them, which OpenSSL does not read."""
    blocks = re.findall(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", text.replace("\\n", "\n"), re.DOTALL)
    bodies = ((label, "\n".join(textwrap.wrap("".join(body.split()), 64))) for label, body in blocks)
    return "".join(f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n" for label, body in bodies)


def _no_password() -> str:
    # Otherwise OpenSSL would ask for it on the terminal.
    return ""


def _why(error: Exception) -> str:
    return getattr(error, "reason", None) or type(error).__name__
