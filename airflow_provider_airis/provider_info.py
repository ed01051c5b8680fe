"""The catalog as Airflow's provider registration.

See https://airflow.apache.org/docs/apache-airflow-providers/howto/create-custom-providers.html
"""

from __future__ import annotations

from typing import Any

from airflow_provider_airis import __version__
from airflow_provider_airis.catalog import SYSTEMS, Field, Form, System


def get_provider_info() -> dict[str, Any]:
    """What the entry point ``apache_airflow_provider`` answers; Airflow validates it against its own schema."""
    operators = [system for system in SYSTEMS if system.collect_class or system.notify_class]
    return {
        "package-name": "airflow-provider-airis",
        "name": "AIRIS-MON",
        "description": "Feeds the AIRIS-MON hub from AI/ML platforms and clouds, and carries its alerts out.",
        "versions": [__version__],
        "integrations": [
            {"integration-name": system.title, "external-doc-url": system.url, "tags": ["service"]}
            for system in SYSTEMS
        ],
        "hooks": [_modules(system, "hooks") for system in SYSTEMS],
        "operators": [_modules(system, "operators") for system in operators],
        "sensors": [{"integration-name": "AIRIS-MON", "python-modules": ["airflow_provider_airis.sensors.alerts"]}],
        "triggers": [{"integration-name": "AIRIS-MON", "python-modules": ["airflow_provider_airis.triggers.alerts"]}],
        "asset-uris": [{"schemes": ["airis"], "handler": "airflow_provider_airis.assets.sanitize_uri"}],
        "notifications": ["airflow_provider_airis.notifications.airis.AirisNotifier"],
        "extra-links": ["airflow_provider_airis.links.AirisAlertLink"],
        "connection-types": [
            _connection_type(system, system.connection.form) for system in SYSTEMS if system.connection.form
        ],
        "config": {
            system.section: {
                "description": f"{system.title}: {system.summary}.",
                "options": {
                    option.name: {
                        "description": option.description,
                        "version_added": "0.1.0",
                        "type": option.type if option.type not in ("list", "json") else "string",
                        "default": option.default,
                        "example": option.example,
                    }
                    for option in system.all_options
                },
            }
            for system in SYSTEMS
            if system.all_options
        },
    }


def _modules(system: System, kind: str) -> dict[str, Any]:
    return {"integration-name": system.title, "python-modules": [f"airflow_provider_airis.{kind}.{system.stem}"]}


def _connection_type(system: System, form: Form) -> dict[str, Any]:
    return {
        "connection-type": system.connection.type,
        "hook-class-name": system.hook_class,
        "hook-name": form.title,
        "ui-field-behaviour": {
            "hidden-fields": list(form.hidden),
            "relabeling": form.relabeling,
            "placeholders": form.placeholders,
        },
        "conn-fields": {field.name: _conn_field(field) for field in system.form_fields},
    }


def _conn_field(field: Field) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": [field.type, "null"]}
    if field.enum:
        schema["enum"] = [*field.enum]
    if field.secret:
        schema["format"] = "password"
    if field.default is not None:
        schema["default"] = field.default
    return {"label": field.title, "description": field.description, "schema": schema}
