"""Addresses of servers, to be shown and to be kept where others read them."""

from __future__ import annotations

import re

_PASSWORD = re.compile(r"(?<=://)([^/@:]*):[^/@]*@")


def without_password(text: str) -> str:
    """``http://user:***@host`` for an address with a password; any other text as it is."""
    return _PASSWORD.sub(r"\1:***@", text)
