"""All that can be set of a server, in its groups."""

from weitiao.records.options import Options
from weitiao.serving.jobs.options import JobOptions
from weitiao.serving.keeping import KeepOptions
from weitiao.serving.options import ServeOptions


class ServerSettings(Options):
    """What ``weitiao serve`` takes as ``key=value``."""

    server: ServeOptions = ServeOptions()
    """Its address, who may ask, and how much at once."""

    keep: KeepOptions = KeepOptions()
    """The memory of answers, and the log of requests."""

    jobs: JobOptions = JobOptions()
    """Work that takes longer than a request."""
