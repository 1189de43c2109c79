"""Where a model is served: its address in REST or gRPC."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

from tfopt.errors import ConfigError

__all__ = ["METRICS_PATH", "Endpoint"]

METRICS_PATH = "/monitoring/prometheus/metrics"
"""Of TF Serving's Prometheus page, as its monitoring.config usually has it."""
EXPECTED = (
    "http://HOST:8501/v1/models/NAME or grpc://HOST:8500/NAME, either with /versions/N or /labels/LABEL behind it"
)


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A model on a server, and which of its signatures to call.

    Args:
        protocol: "rest" or "grpc".
        host: name or address of the server.
        port: its port for this protocol.
        model: the model's name.
        version: one version, or None for the one that the server chooses.
        label: the label of a version, instead of its number.
        signature: the signature to call.
        path: of the model in REST, such as "/v1/models/digits/versions/2".
        tls: whether REST is spoken over TLS.

    Example:
        >>> endpoint = Endpoint.of("http://localhost:8501/v1/models/digits/versions/2")
        >>> endpoint.model, endpoint.version, endpoint.metrics_url
        ('digits', 2, 'http://localhost:8501/monitoring/prometheus/metrics')
        >>> Endpoint.of("grpc://localhost:8500/digits").address
        'localhost:8500'
    """

    protocol: Literal["rest", "grpc"]
    host: str
    port: int
    model: str
    version: int | None = None
    label: str | None = None
    signature: str = "serving_default"
    path: str = ""
    tls: bool = False

    @classmethod
    def of(cls, url: str, *, signature: str = "serving_default") -> Endpoint:
        """Reads an address.

        Args:
            url: `http://HOST:8501/v1/models/NAME` or `grpc://HOST:8500/NAME`, with `/versions/N` or `/labels/LABEL`
                behind it for one version. https works too.
            signature: the signature to call.

        Raises:
            ConfigError: if it is no such address.
        """
        parts = urlsplit(url)
        path = parts.path.rstrip("/").removesuffix(":predict")
        prefix = {"http": r".*/v1/models/", "https": r".*/v1/models/", "grpc": "/"}.get(parts.scheme)
        found = prefix and re.fullmatch(
            rf"{prefix}(?P<model>[^/:]+)(/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?", path
        )
        try:
            port = parts.port or {"http": 8501, "https": 443, "grpc": 8500}.get(parts.scheme, 0)
        except ValueError:
            found = None
        if not found or not parts.hostname:
            raise ConfigError(f"Endpoint: expected {EXPECTED}. Received: {url!r}.")
        version = found["version"]
        return cls(
            protocol="grpc" if parts.scheme == "grpc" else "rest",
            host=parts.hostname,
            port=port,
            model=unquote(found["model"]),
            version=None if version is None else int(version),
            label=found["label"],
            signature=signature,
            path="" if parts.scheme == "grpc" else path,
            tls=parts.scheme == "https",
        )

    @property
    def address(self) -> str:
        """HOST:PORT; an IPv6 address stands in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The address as `of` reads it."""
        if self.protocol == "rest":
            return f"{self._origin}{self.path}"
        behind = f"/versions/{self.version}" if self.version is not None else f"/labels/{self.label}"
        return f"grpc://{self.address}/{self.model}{behind if self.version is not None or self.label else ''}"

    @property
    def metrics_url(self) -> str | None:
        """Where the server's Prometheus page usually is; None for gRPC, which does not tell the other port."""
        return f"{self._origin}{METRICS_PATH}" if self.protocol == "rest" else None

    @property
    def _origin(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.address}"
