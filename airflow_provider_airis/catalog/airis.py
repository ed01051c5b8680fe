"""The row of AIRIS-MON."""

from __future__ import annotations

from airflow_provider_airis.catalog.system import Connection, Field, Form, Option, System

ROW = System(
    stem="airis",
    prefix="Airis",
    title="AIRIS-MON",
    category="AIRIS-MON",
    summary="the hub: takes metrics and events in, evaluates rules, gives alerts out",
    url="https://airis-mon.example.com/docs",
    connection=Connection(
        "airis",
        form=Form(
            title="AIRIS-MON",
            relabeling={"host": "Base URL", "password": "Token"},
            placeholders={
                "host": "https://airis-mon.example.com",
                "password": "token with the scopes ingest, read, alerts",
            },
            hidden=("login", "port", "schema"),
            fields=(
                Field(
                    "compression",
                    "string",
                    "Compression",
                    "Content-Encoding of what is delivered.",
                    "gzip",
                    ("gzip", "none"),
                ),
                Field(
                    "consumer",
                    "string",
                    "Consumer name",
                    "Whose place in the change feed the dispatch Dag keeps.",
                    "airflow",
                ),
                Field(
                    "dashboard_url",
                    "string",
                    "Dashboard URL",
                    "Base of the links in notifications, if not the base URL.",
                ),
            ),
        ),
    ),
    tested_against="the reference hub of this package, over sockets",
    options=(
        Option(
            "routes_file",
            "string",
            "",
            "Path of the routing file. Without one the hub's own routes hold, and where it has none, each alert goes "
            "by itself to the systems of its severity.",
            "/opt/airflow/routes.yaml",
        ),
        Option(
            "alerts_conn_id",
            "string",
            "",
            "Connection of the hub that is asked for alerts, and that keeps what was sent; airis_default, unless set. "
            "Name a companion hub if AIRIS-MON itself has no change feed.",
            "airis_alerts",
        ),
        Option(
            "docs_url",
            "string",
            "",
            "Where this documentation is published for your users; the Dags' descriptions lead there.",
            "https://docs.example.com/airis",
        ),
    ),
)
