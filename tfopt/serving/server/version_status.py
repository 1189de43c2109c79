"""What is known of the versions of a model: where each is between its discovery and its end."""

from __future__ import annotations

import enum
from collections.abc import Container
from dataclasses import dataclass, field, replace

from tfopt.serving.server.request_error import Code, RequestError
from tfopt.serving.server.served_model import ServedModel

__all__ = ["KnownModel", "KnownVersion", "State", "VersionStatus"]


class State(enum.StrEnum):
    """Where a version is, as TF Serving calls it."""

    START = "START"
    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    END = "END"


@dataclass(frozen=True)
class VersionStatus:
    """What the server tells of a version.

    Args:
        version: its number.
        state: where it is.
        error_code: "OK", or the name of the `Code` with which it could not be loaded.
        error_message: why not.
    """

    version: int
    state: State
    error_code: str = "OK"
    error_message: str = ""


@dataclass(eq=False)
class KnownVersion:
    """A version that was to be served at some time.

    Args:
        status: where it is.
        served: it, while it is in memory.
        failed_files: the names, sizes and times of its files when it could not be loaded.
    """

    status: VersionStatus
    served: ServedModel | None = None
    failed_files: frozenset[tuple[str, int, int]] | None = None


@dataclass(eq=False)
class KnownModel:
    """The versions of a model by number, and the names that some of them have."""

    name: str
    versions: dict[int, KnownVersion] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)

    def available(self) -> dict[int, ServedModel]:
        """The versions that take requests."""
        return {
            number: version.served
            for number, version in self.versions.items()
            if version.served and version.status.state == State.AVAILABLE
        }

    def retire(self, *, keep: Container[int]) -> list[KnownVersion]:
        """Lets all versions but those to keep take no more requests, and returns them."""
        retired = [self.versions[number] for number in self.available() if number not in keep]
        for version in retired:
            version.status = replace(version.status, state=State.UNLOADING)
        return retired

    def get(self, *, version: int | None, label: str | None) -> ServedModel:
        """The version that a request asks for; without `version` and `label`, the latest that takes requests.

        Raises:
            RequestError: NOT_FOUND if it takes none, INVALID_ARGUMENT if there is no such label.
        """
        if label is not None:
            if label not in self.labels:
                raise RequestError(Code.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}")
            version = self.labels[label]
        available = self.available()
        number = max(available, default=None) if version is None else version
        if number is None or number not in available:
            asked = f"Latest({self.name})" if version is None else f"Specific({self.name}, {version})"
            raise RequestError(Code.NOT_FOUND, f"Servable not found for request: {asked}")
        return available[number]

    def status(self, version: int | None) -> list[VersionStatus]:
        """Where the versions are, the latest first; or one of them.

        Raises:
            RequestError: NOT_FOUND if nothing is known of it.
        """
        if version is not None:
            if version not in self.versions:
                raise RequestError(Code.NOT_FOUND, f"Could not find version {version} of model {self.name}")
            return [self.versions[version].status]
        if not self.versions:
            raise RequestError(Code.NOT_FOUND, f"Could not find any versions of model {self.name}")
        return [self.versions[number].status for number in sorted(self.versions, reverse=True)]
