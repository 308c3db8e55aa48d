"""What can go wrong with a plugin: one type per cause, whose text names who, what, where and the way out.

``state`` is what a plugin becomes when the error is its reason: ``blocked`` where something outside
stops it, ``failed`` where its own code or manifest is wrong, ``disabled`` where somebody wants it off.
"""

from __future__ import annotations

from .base import PluginError
from .blocking import (
    CircularDependencyError,
    DependencyHeldError,
    DependencyVersionError,
    HostVersionError,
    MissingDependencyError,
    PluginConflictError,
    PluginDisabledError,
    ResourceMissingError,
)
from .code import (
    AppWideRegistrationError,
    AsyncHookError,
    DuplicatePluginError,
    EntryPointError,
    HookTimeoutError,
    InvalidManifestError,
    MissingExportError,
    MissingManifestError,
    PluginFolderError,
    PluginHookError,
    PluginLoadError,
    RouteConflictError,
    UndeclaredImportError,
    UnhealthyPluginError,
)
from .control import (
    CommandRefusedError,
    ControlSocketError,
    NoServerError,
    ServerRunsError,
)
from .desired import LiveChangesRefusedError, StateConflictError, StateFileError, StateUnavailableError
from .installing import (
    AlreadyInstalledError,
    ArchiveRefusedError,
    DependantsInstalledError,
    FolderTakenError,
    InstallBusyError,
    InstalledElsewhereError,
    InstallRefusedError,
    MemberRefusedError,
    NoFormerVersionError,
    NotRemovableError,
    RolledBackError,
)
from .operating import (
    ConfigurationError,
    DependantsEnabledError,
    IllegalTransitionError,
    InterruptedChangeError,
    PluginBusyError,
    PluginDirectoryError,
    PluginIdChangedError,
    PluginNotFoundError,
    PluginStartupError,
    PortTakenError,
    ReplacementRefusedError,
)
from .quarantine import QuarantinedError
from .settings import NoSettingsError, PluginSettingsError, SecretStorageError, SettingProblem
from .starting import SafeModeError, SuspectedCrashError

__all__ = [
    "AlreadyInstalledError",
    "AppWideRegistrationError",
    "ArchiveRefusedError",
    "AsyncHookError",
    "CircularDependencyError",
    "CommandRefusedError",
    "ConfigurationError",
    "ControlSocketError",
    "DependantsEnabledError",
    "DependantsInstalledError",
    "DependencyHeldError",
    "DependencyVersionError",
    "DuplicatePluginError",
    "EntryPointError",
    "FolderTakenError",
    "HookTimeoutError",
    "HostVersionError",
    "IllegalTransitionError",
    "InstallBusyError",
    "InstallRefusedError",
    "InstalledElsewhereError",
    "InterruptedChangeError",
    "InvalidManifestError",
    "LiveChangesRefusedError",
    "MemberRefusedError",
    "MissingDependencyError",
    "MissingExportError",
    "MissingManifestError",
    "NoFormerVersionError",
    "NoServerError",
    "NoSettingsError",
    "NotRemovableError",
    "PluginBusyError",
    "PluginConflictError",
    "PluginDirectoryError",
    "PluginDisabledError",
    "PluginError",
    "PluginFolderError",
    "PluginHookError",
    "PluginIdChangedError",
    "PluginLoadError",
    "PluginNotFoundError",
    "PluginSettingsError",
    "PluginStartupError",
    "PortTakenError",
    "QuarantinedError",
    "ReplacementRefusedError",
    "ResourceMissingError",
    "RolledBackError",
    "RouteConflictError",
    "SafeModeError",
    "SecretStorageError",
    "ServerRunsError",
    "SettingProblem",
    "StateConflictError",
    "StateFileError",
    "StateUnavailableError",
    "SuspectedCrashError",
    "UndeclaredImportError",
    "UnhealthyPluginError",
]
