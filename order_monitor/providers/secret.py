"""A secret in the settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, SecretStr


def _is_given(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().strip():
        raise ValueError("is empty")
    return value


def plain(secret: SecretStr | None) -> str:
    """Return what it hides; nothing if it is not set."""
    return "" if secret is None else secret.get_secret_value()


Secret = Annotated[SecretStr, AfterValidator(_is_given)]
