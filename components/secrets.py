"""The secrets that the components of one lab share."""

from __future__ import annotations

import base64
import secrets
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult

NAMES = (
    "fernet_key",
    "jwt_secret",
    "api_secret_key",
    "database_password",
    "broker_password",
    "log_store_password",
    "admin_password",
    "task_password",
)


Props = dict[str, Any]


class _Generated(ResourceProvider):
    """Random values, kept in the stack's encrypted state until others are asked for."""

    def create(self, props: Props) -> CreateResult:
        return CreateResult("generated", {**props, **_generated()})

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        return DiffResult(changes=_rotates(olds, news) or not all(olds.get(name) for name in NAMES))

    def update(self, _id: str, olds: Props, news: Props) -> UpdateResult:
        values = _generated()
        if _rotates(olds, news):
            # what earlier keys have encrypted stays readable
            values["fernet_key"] = f"{values['fernet_key']},{olds['fernet_key']}"
        else:
            values |= {name: olds[name] for name in NAMES if olds.get(name)}
        return UpdateResult({**olds, **news, **values})


def _rotates(olds: Props, news: Props) -> bool:
    return bool(news.get("rotation")) and news["rotation"] != olds.get("rotation")


def _generated() -> dict[str, str]:
    values = {name: secrets.token_urlsafe(48) for name in NAMES}
    values["fernet_key"] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    for plain in ("database_password", "broker_password"):  # they stand in URLs and configuration files
        values[plain] = secrets.token_hex(24)
    values["admin_password"] = secrets.token_urlsafe(12)
    return values


class LabSecrets(Resource, module="airflow", name="LabSecrets"):
    """Generated per lab, identical in every component that needs them.

    Args:
        rotation: any text; another than the last one gives new secrets, "" leaves them as they are.

    Attributes:
        fernet_key: encrypts connections and variables in the metadata database (`[core] fernet_key`); behind it those
            of before, which still decrypt.
        jwt_secret: signs the tokens of the API and of task execution (`[api_auth] jwt_secret`).
        api_secret_key: signs sessions and log requests (`[api] secret_key`).
        database_password: of the role `airflow`.
        broker_password: of Redis.
        log_store_password: of the user `airflow` of the log store.
        admin_password: of the user `admin`.

    Source: https://airflow.apache.org/docs/apache-airflow/stable/security/secrets/fernet.html and
    https://airflow.apache.org/docs/apache-airflow/stable/security/jwt_token_authentication.html
    """

    fernet_key: pulumi.Output[str]
    jwt_secret: pulumi.Output[str]
    api_secret_key: pulumi.Output[str]
    database_password: pulumi.Output[str]
    broker_password: pulumi.Output[str]
    log_store_password: pulumi.Output[str]
    admin_password: pulumi.Output[str]

    def __init__(self, name: str, rotation: str = "", opts: pulumi.ResourceOptions | None = None) -> None:
        hidden = pulumi.ResourceOptions(additional_secret_outputs=list(NAMES))
        props = {**dict.fromkeys(NAMES), "rotation": rotation}
        super().__init__(_Generated(), name, props, pulumi.ResourceOptions.merge(hidden, opts))
