"""The row of Active Directory and other LDAP directories."""

from __future__ import annotations

from airflow_provider_airis.catalog.system import Connection, EventSpec, Field, Form, Option, Source, System

ROW = System(
    stem="active_directory",
    prefix="ActiveDirectory",
    title="Active Directory and LDAP",
    category="enterprise",
    summary="the users of a directory: who they are, their groups, whether they may log in",
    url="https://learn.microsoft.com/windows/win32/ad/active-directory-domain-services",
    connection=Connection(
        "ldap",
        form=Form(
            title="Active Directory / LDAP",
            relabeling={"host": "Servers", "login": "Bind DN or user@domain"},
            placeholders={
                "host": "dc1.example.com, dc2.example.com",
                "login": "CN=airis,OU=Services,DC=example,DC=com",
            },
            hidden=("schema",),
            http=False,
            fields=(
                Field(
                    "tls",
                    "string",
                    "Encryption",
                    "starttls, ldaps, or none: only then a password is sent unencrypted.",
                    "starttls",
                    ("starttls", "ldaps", "none"),
                ),
                Field("verify", "boolean", "Verify TLS", "Whether the server's certificate is checked.", True),
                Field("ca_certs_file", "string", "CA bundle", "File of the CA certificates; the system's if empty."),
                Field(
                    "authentication",
                    "string",
                    "Authentication",
                    "simple, anonymous, gssapi (Kerberos) or external (certificate); simple if there is a login.",
                ),
                Field("cert_file", "string", "Client certificate", "File of the certificate for external."),
                Field("key_file", "string", "Client key", "File of its key, unless the certificate's file has it."),
                Field("base_dn", "string", "Base DN", "Where to search; the server's naming context if empty."),
                Field(
                    "dereference_aliases",
                    "string",
                    "Follow aliases",
                    "Which alias entries the server follows: never, searching, finding or always.",
                    "never",
                    ("never", "searching", "finding", "always"),
                ),
                Field("timeout", "number", "Timeout (s)", "Longest wait for a server to accept or answer.", 30),
            ),
        ),
    ),
    requires=("ldap3>=2.9.1", "pyasn1>=0.6.1,<0.7"),
    tested_against="a real OpenLDAP; for what only Active Directory has, a Samba domain controller",
    source=Source(
        kind="registry",
        schedule="*/15 * * * *",
        reconcile={"mode": "full"},
        options=(
            Option(
                "connections",
                "list",
                "ldap_default",
                "Connections of type ldap, one mapped task each.",
                "ldap_default, ldap_subsidiary",
                argument="ldap_conn_id",
                maps=True,
            ),
            Option(
                "source",
                "string",
                "active_directory",
                "Name in the hub of ldap_default's directory; that of another connection has its name behind it.",
            ),
            Option(
                "preset", "string", "auto", "active_directory, openldap, 389ds, or auto: what the server says it is."
            ),
            Option(
                "base_dn",
                "string",
                "",
                "Where to search; the connection's base_dn if empty.",
                "OU=People,DC=example,DC=com",
            ),
            Option("search_filter", "string", "", "Who is a user, as an LDAP filter; the preset's if empty."),
            Option(
                "attributes",
                "json",
                "",
                "JSON, field to attribute, over the preset's; other names are read into the users' attributes.",
                '{"department": "ou", "phone": "telephoneNumber"}',
            ),
            Option(
                "disabled_if",
                "string",
                "",
                "When an account is disabled, by commas: attribute=value, !=value or &bits; the preset's if empty.",
                "nsAccountLock=TRUE, employeeStatus!=active",
            ),
            Option("group", "string", "", "Distinguished name of a group: only its members."),
            Option("groups_by", "string", "memberof", "Who says it: memberof of the users, or members of the groups."),
            Option("nested_groups", "boolean", "false", "Count groups in groups."),
            Option(
                "dirsync", "boolean", "false", "Read changes by DirSync, which needs Replicating Directory Changes."
            ),
            Option("max_missing_share", "float", "0.1", "Share of the known users that one sync may deactivate."),
            Option(
                "max_missing",
                "integer",
                "500",
                "How many of the known users one sync may deactivate; the smaller bound counts.",
            ),
        ),
    ),
    events=(
        EventSpec(
            "directory_synced",
            "A sync is in force: `mode`, `method`, `server`, how many users it `created`, `updated` and `deactivated`.",
        ),
    ),
)
