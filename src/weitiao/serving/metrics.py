"""The numbers that Prometheus reads at /metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from weitiao.serving.engine import Engine

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """One application's numbers, in a registry of their own."""

    def __init__(self, engine: Engine) -> None:
        self._registry = own = CollectorRegistry()
        self.requests = Counter(
            "weitiao_requests",
            "Requests by route, status and model.",
            ("route", "status", "model"),
            registry=own,
        )
        self.errors = Counter("weitiao_errors", "Refusals by code.", ("code",), registry=own)
        self.seconds = Histogram(
            "weitiao_request_seconds",
            "From a request's arrival to its answer's end.",
            ("route",),
            buckets=_SECONDS,
            registry=own,
        )
        self.first_token = Histogram(
            "weitiao_time_to_first_token_seconds",
            "From a request's arrival to its first token.",
            ("model",),
            buckets=_SECONDS,
            registry=own,
        )
        self.token_seconds = Histogram(
            "weitiao_time_per_output_token_seconds",
            "Between the tokens of an answer, averaged over it.",
            ("model",),
            buckets=_TOKEN_SECONDS,
            registry=own,
        )
        self.prompt_tokens = Counter(
            "weitiao_prompt_tokens", "Tokens of prompts.", ("model",), registry=own
        )
        self.output_tokens = Counter(
            "weitiao_output_tokens", "Tokens of answers.", ("model",), registry=own
        )
        self.batch = Histogram(
            "weitiao_batch_size",
            "Requests that ran together, seen at each step of each answer.",
            buckets=_ROWS,
            registry=own,
        )
        self.cache = Counter(
            "weitiao_cache", "Looks into the cache: hit or miss.", ("result",), registry=own
        )
        running = Gauge("weitiao_running", "Requests that are being answered.", registry=own)
        waiting = Gauge("weitiao_waiting", "Requests that wait for their turn.", registry=own)
        running.set_function(lambda: engine.load().running)
        waiting.set_function(lambda: engine.load().waiting)

    def text(self) -> bytes:
        """Return all of them as Prometheus reads them."""
        return generate_latest(self._registry)
