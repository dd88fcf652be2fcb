"""How a server behaves, each option declared once."""

from pydantic import Field

from weitiao.records.options import Options


class ServeOptions(Options):
    """The server's address, who may ask, and how much at once."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """The address to listen on; 127.0.0.1 is reached from this computer only, 0.0.0.0 from all."""

    port: int = Field(default=8000, ge=0, le=65535)
    """The port; 0 takes any that is free."""

    api_keys: tuple[str, ...] = Field(default=(), repr=False)
    """Who asks must send one of these keys, as ``Authorization: Bearer KEY``."""

    auth: bool = True
    """Off: whoever reaches the address may ask, without a key."""

    max_waiting: int = Field(default=64, ge=1)
    """Requests that may wait for their turn; what comes beyond is asked to come back later."""

    deadline_seconds: float = Field(default=300, gt=0)
    """Seconds after which a request is given up, counted from its arrival."""

    max_body_bytes: int = Field(default=1_000_000, ge=1000)
    """The largest request in bytes; for a job, ``max_job_bytes`` holds."""

    rate_limit: int | None = Field(default=None, ge=1)
    """Requests a minute for each key, or for each address where there are no keys."""

    max_tokens: int | None = Field(default=None, ge=1)
    """The longest answer in tokens, whatever is asked for; without it, what the context holds."""

    grace_seconds: int = Field(default=5, ge=0)
    """Seconds that running answers get to end when the server is stopped."""

    log_prompts: bool = False
    """Write questions and answers into the log, too."""
