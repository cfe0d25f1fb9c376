"""The keys of the settings' ``provider`` that only client APIs need."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from order_monitor.providers.secret import Secret


class ClientApiSettings(BaseModel):
    """An account at a client API."""

    token: Secret | None = None
    """Client API: the account's token. Better kept in a secrets file."""
    replay: Literal["hold", "pin", "message"] = "hold"
    """Client API (such as barakat): what it has in `replay_api` where no PIN is: a code to `"hold"`,
    its `"pin"` or a `"message"`.
    """
