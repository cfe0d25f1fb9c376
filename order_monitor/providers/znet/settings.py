"""The keys of the settings' ``provider`` that only znet needs."""

from __future__ import annotations

from pydantic import BaseModel, Field

from order_monitor.providers.secret import Secret


class ZnetSettings(BaseModel):
    """An account at a znet panel."""

    kod: Secret | None = None
    """znet: the account's code at the provider. Better kept in a secrets file."""
    sifre: Secret | None = None
    """znet: the account's password at the provider. Better kept in a secrets file."""
    status_path: str = Field(default="servis/pin_kontrol.php", pattern=r"^[A-Za-z0-9._~/\-]+$")
    """znet: the path below `base_url` that gives an order's state."""
