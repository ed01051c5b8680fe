"""A real slapd with made-up people: as many as asked for, always the same ones, under limits like Active Directory's.

``python -m sandbox.active_directory --port 0 --users 2000 --folder DIR`` prints ``ready ldap://127.0.0.1:PORT``. In
``DIR`` are then ``account.json``, ``{host, ldaps, base_dn, login, password, admin, admin_password, ca_certs_file}``,
and the server's own certificate ``certificate.pem``, made for ``--host``, ``--names``, 127.0.0.1 and localhost; one
that is there is kept. The login's password is that of ``--password-file``, made up unless given. Needs Debian's
package ``slapd``.
"""

from __future__ import annotations

import argparse
import base64
import ctypes
import hashlib
import ipaddress
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import httpx2

from airflow_provider_airis.records import Window
from sandbox.fake import FakeServer, Running, token
from sandbox.verify import Tally, compare_records

if TYPE_CHECKING:
    from cryptography import x509

BASE_DN = "dc=example,dc=com"
PEOPLE = f"ou=people,{BASE_DN}"
GROUPS = f"ou=groups,{BASE_DN}"
LOGIN = f"cn=airis,ou=services,{BASE_DN}"
ADMIN = f"cn=admin,{BASE_DN}"
# As Active Directory: 1,000 entries without paging, 1,000 a page, no end in all.
LIMITS = "size.soft=500 size.hard=1000 size.pr=1000 size.prtotal=unlimited"
DEPARTMENTS = ("Engineering", "Data Science", "Finance", "Legal", "Operations", "People", "Sales", "Support")
TITLES = ("Analyst", "Engineer", "Lead", "Manager", "Specialist")
GIVEN = ("Ada", "Björn", "Chloé", "Dmitri", "Emeka", "Fatima", "Grace", "Hiro", "Inés", "Jürgen", "Kai", "Łucja")
SURNAMES = ("Abbott", "Baker", "Cruz", "Dąbrowski", "Eze", "Fischer", "García", "Hansen", "Ito", "Jones", "Kim", "Li")
_NAMESPACE = uuid.UUID("6f1ed7f6-0c4c-4d0e-9d3c-2f3a1b8f7a10")
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

_CONF = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
attributetype ( 2.16.840.1.113730.3.1.610 NAME 'nsAccountLock' EQUALITY caseIgnoreMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
attributetype ( 1.2.840.113556.1.4.1360 NAME 'mS-DS-ConsistencyGuid' EQUALITY octetStringMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.40 SINGLE-VALUE )
attributetype ( 1.2.840.113556.1.2.210 NAME 'proxyAddresses' EQUALITY caseIgnoreMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
objectclass ( 1.3.6.1.4.1.4203.666.3.1 NAME 'airisPerson' SUP top AUXILIARY
  MAY ( nsAccountLock $ mS-DS-ConsistencyGuid $ proxyAddresses ) )
{root}
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
moduleload ppolicy
pidfile {folder}/slapd.pid
argsfile {folder}/slapd.args
TLSCertificateFile {folder}/certificate.pem
TLSCertificateKeyFile {folder}/key.pem
database mdb
suffix "{base}"
rootdn "{admin}"
rootpw {password}
directory {folder}/data
maxsize 4294967296
dbnosync
index objectClass,entryUUID,uid,memberOf eq
index modifyTimestamp eq
overlay memberof
overlay ppolicy
limits dn.exact="{login}" {limits}
{access}
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{login}" read by * none
"""


def program(name: str) -> str:
    """The path of one of slapd's programs, which Debian installs where users do not look.

    :raises FileNotFoundError: it is not installed.
    """
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if not found:
        raise FileNotFoundError(f"{name} is not installed: apt-get install slapd")
    return found


class Slapd:
    """A slapd of its own; use it as a context manager.

    :param folder: for all its files.
    :param users: how many people to make up; none if ``ldif`` has the entries.
    :param limits: of the login, in slapd's words, and ``access``: more of its rules, which come first.
    :param vendor: who it says has made it; nobody as OpenLDAP does not say.
    """

    def __init__(
        self,
        folder: Path,
        *,
        users: int = 0,
        ldif: Path | None = None,
        port: int = 0,
        host: str = "127.0.0.1",
        names: Sequence[str] = (),
        password: str = "",
        limits: str = LIMITS,
        access: str = "",
        vendor: str = "",
    ) -> None:
        self.folder = folder
        self._vendor = vendor
        self.password, self.admin_password = password or secrets.token_urlsafe(16), secrets.token_urlsafe(16)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        shutil.rmtree(folder / "data", ignore_errors=True)
        (folder / "data").mkdir()
        self.ca_certs_file = _certificate(folder, [host, *names])
        self._conf = folder / "slapd.conf"
        self._configure(limits, access)
        loaded = folder / "load.ldif"
        with loaded.open("w") as file:
            file.writelines(_top(self.password))
            file.writelines([ldif.read_text()] if ldif else people(users))
        done = subprocess.run(
            [program("slapadd"), "-q", "-f", str(self._conf), "-l", str(loaded)], capture_output=True, text=True
        )
        loaded.unlink()
        if done.returncode:
            raise RuntimeError(f"slapadd failed:\n{done.stderr[-4000:]}")
        self.port, self.ldaps_port = port or _free_port(), _free_port()
        self.url, self.ldaps_url = f"ldap://{host}:{self.port}", f"ldaps://{host}:{self.ldaps_port}"
        self.start()
        account = {
            "host": self.url,
            "ldaps": self.ldaps_url,
            "base_dn": BASE_DN,
            "login": LOGIN,
            "password": self.password,
            "admin": ADMIN,
            "admin_password": self.admin_password,
            "ca_certs_file": str(self.ca_certs_file),
        }
        (folder / "account.json").write_text(json.dumps(account, indent=1))

    def _configure(self, limits: str, access: str) -> None:
        words = {"base": BASE_DN, "admin": ADMIN, "login": LOGIN, "limits": limits, "access": access}
        root = self.folder / "root.ldif"
        root.write_text(f"dn:\nvendorName: {self._vendor}\n")
        words["root"] = f"rootDSE {root}" if self._vendor else ""
        self._conf.write_text(_CONF.format(folder=self.folder, password=_hashed(self.admin_password), **words))

    def configure(self, *, limits: str = LIMITS, access: str = "") -> None:
        """Start it again with other limits and rules, on the entries that are there."""
        self.stop()
        self._configure(limits, access)
        self.start()

    def start(self) -> None:
        """Start it on the entries that are there."""
        with (self.folder / "slapd.log").open("ab") as log:
            self.process = subprocess.Popen(
                [program("slapd"), "-h", f"{self.url} {self.ldaps_url}", "-f", str(self._conf), "-d", "0"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        self.stop()
        raise RuntimeError(f"slapd did not start:\n{(self.folder / 'slapd.log').read_text()[-4000:]}")

    def stop(self) -> None:
        """End it, by its own process id."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def connection(self, **extra: object) -> dict[str, object]:
        """The fields of an Airflow connection to it, with StartTLS."""
        return {
            "conn_type": "ldap",
            "host": self.url,
            "login": LOGIN,
            "password": self.password,
            "extra": {"ca_certs_file": str(self.ca_certs_file), **extra},
        }

    def __enter__(self) -> Slapd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def people(count: int) -> Iterator[str]:
    """LDIF of so many people and the groups of their departments, in groups of groups; the same ones every time."""
    names = [f"user{number:06}" for number in range(count)]
    for department in (*DEPARTMENTS, "Everybody"):
        group = _slug(department)
        members = (
            [f"uid={name},{PEOPLE}" for name in names[DEPARTMENTS.index(department) :: len(DEPARTMENTS)]]
            if (department in DEPARTMENTS)
            else [f"cn={_slug(one)},{GROUPS}" for one in DEPARTMENTS]
        )
        lines = [f"dn: cn={group},{GROUPS}", "objectClass: groupOfNames", f"cn: {group}"]
        lines += [f"member: {member}" for member in members or [PEOPLE]]
        if department in DEPARTMENTS:
            lines.append(f"memberOf: cn={_slug('Everybody')},{GROUPS}")
        yield "\n".join([*lines, *_stamps(group, _EPOCH)]) + "\n\n"
    for number, name in enumerate(names):
        given, surname = GIVEN[number % len(GIVEN)], SURNAMES[number // len(GIVEN) % len(SURNAMES)]
        department = DEPARTMENTS[number % len(DEPARTMENTS)]
        lines = [
            f"dn: uid={name},{PEOPLE}",
            "objectClass: inetOrgPerson",
            *(["objectClass: shadowAccount", "shadowExpire: 21915"] if number % 100 == 7 else []),
            f"uid: {name}",
            _line("cn", f"{given} {surname}"),
            _line("sn", surname),
            _line("displayName", f"{given} {surname} {number}"),
            f"mail: {name}@example.com",
            f"departmentNumber: {department}",
            f"title: {TITLES[number % len(TITLES)]}",
            *([f"manager: uid={names[number // 10]},{PEOPLE}"] if number else []),
            f"memberOf: cn={_slug(department)},{GROUPS}",
            *(["pwdAccountLockedTime: 000001010000Z"] if number % 50 == 9 else []),
            *_stamps(name, _EPOCH + timedelta(minutes=number)),
        ]
        yield "\n".join(lines) + "\n\n"


def _top(password: str) -> Iterator[str]:
    entries = (
        f"dn: {BASE_DN}\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: Example",
        f"dn: {PEOPLE}\nobjectClass: organizationalUnit\nou: people",
        f"dn: {GROUPS}\nobjectClass: organizationalUnit\nou: groups",
        f"dn: ou=services,{BASE_DN}\nobjectClass: organizationalUnit\nou: services",
        f"dn: {LOGIN}\nobjectClass: applicationProcess\nobjectClass: simpleSecurityObject\ncn: airis",
    )
    yield "\n\n".join(entries) + f"\nuserPassword: {_hashed(password)}\n\n"


def _stamps(name: str, at: datetime) -> list[str]:
    stamp = f"{at:%Y%m%d%H%M%S}Z"
    return [
        f"entryUUID: {uuid.uuid5(_NAMESPACE, name)}",
        f"createTimestamp: {stamp}",
        f"modifyTimestamp: {stamp}",
    ]


def _line(name: str, value: str) -> str:
    return f"{name}: {value}" if value.isascii() else f"{name}:: {base64.b64encode(value.encode()).decode()}"


def _slug(name: str) -> str:
    return name.lower().replace(" ", "-")


def _hashed(password: str) -> str:
    salt = secrets.token_bytes(8)
    digest = hashlib.sha1(password.encode() + salt).digest()  # what slapd compares without a module
    return "{SSHA}" + base64.b64encode(digest + salt).decode()


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: also if this process is killed


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _certificate(folder: Path, names: Sequence[str]) -> Path:
    """Make a key and a certificate that vouches for itself, unless they are there."""
    path = folder / "certificate.pem"
    if path.exists():
        return path
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(
            x509.SubjectAlternativeName([_name(one) for one in dict.fromkeys(("127.0.0.1", "localhost", *names))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    (folder / "key.pem").chmod(0o600)
    path.write_bytes(certificate.public_bytes(pem))
    return path


def _name(one: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(one))
    except ValueError:
        return x509.DNSName(one)


def truth(running: Running, hub: httpx2.Client, windows: Sequence[Window]) -> Tally:  # noqa: ARG001
    """Compare the hub's active users with those that slapd's own client reads."""
    account = json.loads((running.secrets / "active_directory" / "account.json").read_text())
    secret = running.secrets / "active_directory" / "admin_password"
    secret.touch(mode=0o600)
    secret.write_text(account["admin_password"])
    where = ("-H", account["host"], "-D", account["admin"], "-y", str(secret), "-b", account["base_dn"])
    asked = ("-E", "pr=1000/noprompt", "(objectClass=inetOrgPerson)", "entryUUID", "uid", "mail", "title")
    command = ["ldapsearch", "-x", "-LLL", "-o", "ldif-wrap=no", *where, *asked]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    there: set[tuple[str, ...]] = set()
    for entry in filter(None, found.stdout.split("\n\n")):
        fields = dict(line.split(": ", 1) for line in entry.splitlines() if ": " in line)
        if "uid" in fields:
            there.add(tuple(fields.get(name, "") for name in ("entryUUID", "uid", "mail", "title")))
    held: list[tuple[str, ...]] = []
    cursor = None
    while True:
        query = {
            "source": "active_directory",
            "active": "true",
            "limit": 5000,
            **({"cursor": cursor} if cursor else {}),
        }
        page = hub.get("/api/v1/users", params=query).raise_for_status().json()
        held += [tuple(user.get(name) or "" for name in ("id", "username", "email", "title")) for user in page["users"]]
        if not (cursor := page["cursor"]):
            return compare_records(there, held)


PEER = FakeServer(
    "active_directory",
    8795,
    lambda url, made: {
        "ldap_default": {
            "conn_type": "ldap",
            "host": url,
            "login": LOGIN,
            "password": made["ldap_password"],
            "extra": json.dumps({"ca_certs_file": f"{made['directory']}/active_directory/certificate.pem"}),
        }
    },
    arguments=(
        *("--users", "2000", "--folder", "{secrets}/active_directory", "--names", "active-directory"),
        *("--password-file", "{secrets}/ldap_password"),
    ),
    secrets={"ldap_password": token},
    needs="slapd",
    scheme="ldap",
    writes=True,
    truth=truth,
)


def main() -> None:
    """Serve until asked to end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--folder", type=Path, help="for all files; a temporary one, deleted at the end, unless given")
    parser.add_argument("--names", default="", help="more names for the certificate, separated by commas")
    parser.add_argument("--password-file", type=Path)
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        program("slapd")
    except FileNotFoundError as error:
        sys.exit(str(error))
    password = arguments.password_file.read_text().strip() if arguments.password_file else ""
    names = [name for name in arguments.names.split(",") if name]
    with (
        tempfile.TemporaryDirectory(prefix="slapd-") as temporary,
        Slapd(
            arguments.folder or Path(temporary),
            users=arguments.users,
            port=arguments.port,
            host=arguments.host,
            names=names,
            password=password,
        ) as slapd,
    ):
        print(f"account {slapd.folder / 'account.json'}", flush=True)
        print(f"ready {slapd.url}", flush=True)
        slapd.process.wait()
        sys.exit(f"slapd ended by itself with {slapd.process.returncode}")


if __name__ == "__main__":
    main()
