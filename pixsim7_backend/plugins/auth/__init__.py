"""Accounts, logins and access tokens. What other plugins may use is in ``__all__``.

Endpoints put :data:`CurrentUser` or :data:`AdminUser` into their parameters. The functions on accounts
take the caller's session and leave the commit to it.
"""

from __future__ import annotations

from .accounts import (
    AccountFilter,
    DuplicateAccountError,
    LastAdminError,
    accounts_matching,
    administer,
    get_account,
    update_profile,
)
from .admin_account import InvalidAccountError, create_admin
from .dependencies import AdminUser, CurrentUser, admin_user
from .login_sessions import UserIdentity
from .manifest import manifest, on_load, router
from .rules import Role
from .schemas import DisplayName, Email, UserAccount, Username
from .secret_key import WeakSecretError

__all__ = [
    # the plugin
    "manifest", "router", "on_load",
    # who is asking
    "CurrentUser", "AdminUser", "admin_user", "UserIdentity", "Role",
    # accounts
    "UserAccount", "AccountFilter", "accounts_matching", "get_account", "update_profile", "administer",
    "create_admin", "DuplicateAccountError", "InvalidAccountError", "LastAdminError", "WeakSecretError",
    # input types
    "DisplayName", "Email", "Username",
]  # fmt: skip
