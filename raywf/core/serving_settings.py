"""What the endpoint and the rollouts of new versions are told; see `raywf.core.settings`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from raywf.core.addresses import LOOPBACK, is_safe_address
from raywf.core.codec import require


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcSettings:
    """The OpenID provider whose JSON web tokens are taken besides API keys.

    Its public keys are at `keys_url` (None: where its discovery document says); `scope_claim` lists what a
    token is for, as `scope_prefix` and ``predict``, ``outcomes`` or ``admin``.
    """

    issuer: str
    audience: str
    keys_url: str | None = None
    scope_claim: str = "scope"
    scope_prefix: str = ""

    def __post_init__(self) -> None:
        rule = "an https address"
        require(is_safe_address(self.issuer), "issuer", rule, self.issuer)
        require(self.keys_url is None or is_safe_address(self.keys_url), "keys_url", rule, self.keys_url)
        require(self.audience != "", "audience", "who the tokens are for", self.audience)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSettings:
    """The endpoint: HTTP, and gRPC on a `grpc_port` of its own (None: no gRPC).

    On another `host` than loopback it needs API keys or `oidc`, unless it is `open_to_all`. Several workflows
    of one cluster share its host and port, and each answers below a `route` of its own. With `max_replicas`
    there are so many at most and `replicas` at least, as their load is. A version that takes more memory than
    `max_model_mb` is refused.

    A replica whose requests wait for longer than `max_wait_s` refuses further ones until they do not. What
    the log has taken outlives the process; `sync` "each" lets it outlive a power loss too, before the answer,
    "interval" within `sync_ms`.
    """

    host: str = "127.0.0.1"
    open_to_all: bool = False
    oidc: OidcSettings | None = None
    port: int = 8000
    route: str = "/"
    grpc_port: int | None = None
    replicas: int = 2
    max_replicas: int | None = None
    scale_up_after: timedelta = timedelta(seconds=10)
    scale_down_after: timedelta = timedelta(minutes=10)
    replica_cpus: float = 0.0
    max_body_bytes: int = 4_000_000
    max_rows: int = 10_000
    max_model_mb: float = 2000.0
    alias_poll_s: float = 1.0
    request_timeout_s: float = 30.0
    max_wait_s: float = 1.0
    sync: Literal["interval", "each"] = "interval"
    sync_ms: float = 100.0

    def __post_init__(self) -> None:
        require(1 <= self.port <= 65535, "port", "in [1, 65535]", self.port)
        grpc = self.grpc_port
        fits = grpc is None or (1 <= grpc <= 65535 and grpc != self.port)
        require(fits, "grpc_port", "in [1, 65535] and another than 'port'", grpc)
        require(self.replicas >= 1, "replicas", "at least 1", self.replicas)
        most = self.max_replicas
        require(most is None or most >= self.replicas, "max_replicas", "at least `replicas`", most)
        words = self.route.strip("/").split("/")
        good = self.route == "/" or all(w.replace("-", "").replace("_", "").isalnum() for w in words)
        rule = "'/' or a path such as '/churn'"
        require(good and self.route == "/" + "/".join(words), "route", rule, self.route)
        require(self.max_model_mb > 0, "max_model_mb", "above 0", self.max_model_mb)
        require(self.max_wait_s > 0, "max_wait_s", "above 0", self.max_wait_s)
        require(self.sync_ms > 0, "sync_ms", "above 0", self.sync_ms)

    @property
    def may_be_open(self) -> bool:
        """Whether calls need no key while there is none."""
        return self.open_to_all or (self.host in LOOPBACK and self.oidc is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSettings:
    """How a challenger that passed the gate comes to serve.

    At once (`direct`); after it answered a copy of the traffic (`shadow`); by growing shares of it (`canary`,
    the `steps`); or it has half of it and stays there until somebody decides (`ab`). A step lasts at least
    `bake` and until the challenger answered `min_rows` rows, `min_labelled` of them with a label; one that
    comes to nothing within `patience` ends the rollout. Rows of the same value of the feature `key` are
    answered by the same version. Back it goes when it is worse beyond doubt, overall or, by more than
    `slice_margin`, on a slice; when more than `max_failed` of its answers fail; when it is `max_slower`
    times slower; or when a replica takes `max_growth_mb` more memory than before. It becomes champion once
    it is "better", or "not_worse" by more than `margin`, at `alpha`.

    However a version came to be champion, for as long as `watch` the former one stays in memory, answers a
    copy of the traffic and each row that the new one cannot, and is champion again by the same rules.
    """

    mode: Literal["direct", "shadow", "canary", "ab"] = "direct"
    steps: tuple[float, ...] = (0.01, 0.05, 0.25, 0.5)
    bake: timedelta = timedelta(minutes=10)
    patience: timedelta = timedelta(days=14)
    watch: timedelta = timedelta(hours=1)
    min_rows: int = 500
    min_labelled: int = 200
    key: str | None = None
    require: Literal["not_worse", "better"] = "not_worse"
    alpha: float = 0.05
    margin: float = 0.01
    slice_margin: float = 0.02
    max_failed: float = 0.001
    max_slower: float = 3.0
    max_growth_mb: float = 500.0

    def __post_init__(self) -> None:
        rising = list(self.steps) == sorted(set(self.steps)) and len(self.steps) > 0
        within = all(0 < share <= 1 for share in self.steps)
        require(rising and within, "steps", "rising shares in (0, 1]", self.steps)
        require(self.bake > timedelta(0), "bake", "longer than nothing", self.bake)
        require(self.watch >= timedelta(0), "watch", "at least 0s, which is none", self.watch)
        require(self.patience >= self.bake, "patience", "at least as long as bake", self.patience)
        require(0 < self.alpha < 0.5, "alpha", "in (0, 0.5)", self.alpha)
        require(0 < self.max_failed < 1, "max_failed", "a share in (0, 1)", self.max_failed)
        require(self.max_slower > 1, "max_slower", "above 1", self.max_slower)
        for name in ("margin", "slice_margin"):
            require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))

    @property
    def first_share(self) -> float:
        """The share of the live traffic that the challenger begins with."""
        return {"canary": self.steps[0], "ab": 0.5}.get(self.mode, 0.0)
