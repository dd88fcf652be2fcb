"""Who may ask, and whether the request was meant for this server."""

import hmac
import ipaddress
from hashlib import sha256

from weitiao.errors import RunError
from weitiao.serving.faults import RequestError
from weitiao.serving.options import ServeOptions


def is_loopback(host: str) -> bool:
    """Tell whether ``host`` is reached from this computer only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_exposure(options: ServeOptions) -> None:
    """Refuse to let other computers in without a key, unless that was asked for.

    Raises:
        RunError: the address can be reached by others and nobody would be asked for a key.
    """
    if not is_loopback(options.host) and options.auth and not options.api_keys:
        raise RunError("serve.error.exposed", host=options.host)


class Keys:
    """The keys that are known, compared in a time that tells nothing of them."""

    def __init__(self, options: ServeOptions) -> None:
        given = options.api_keys if options.auth else ()
        self._digests = [sha256(key.encode()).digest() for key in given]

    def __len__(self) -> int:
        return len(self._digests)

    def name(self, authorization: str) -> str:
        """Return whose key it is: key-1 for the first; '' where none is needed.

        Raises:
            RequestError: there is no key, or none that is known.
        """
        if not self._digests:
            return ""
        scheme, key = authorization.partition(" ")[0], _key(authorization)
        if scheme.lower() != "bearer" or not key:
            raise RequestError("serve.error.no_key")
        digest = _digest(key)
        found = [hmac.compare_digest(digest, known) for known in self._digests]
        if True not in found:
            raise RequestError("serve.error.wrong_key")
        return f"key-{found.index(True) + 1}"

    def owner(self, authorization: str) -> str:
        """Return what a known key's requests are known by later; '' where none is needed.

        It stays the same when other keys are added, and after a restart.
        """
        return owner_of(_key(authorization)) if self._digests else ""


def owner_of(key: str) -> str:
    """Return what a key's jobs and requests are known by: a digest of it."""
    return _digest(key).hex()[:32]


def _key(authorization: str) -> str:
    return authorization.partition(" ")[2].strip()


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogateescape")).digest()


def check_host(options: ServeOptions, host: str) -> None:
    """Refuse names that a foreign page had its own name server point at this computer.

    With a key, or at an address that others reach anyway, a page gains nothing by it.

    Raises:
        RequestError: ``host``, the header, is none of this computer's own names.
    """
    guarded = is_loopback(options.host) and not (options.auth and options.api_keys)
    name = host[: host.rindex("]") + 1] if host.startswith("[") and "]" in host else host
    name = name if name.startswith("[") else name.partition(":")[0]
    if guarded and not is_loopback(name):
        raise RequestError("serve.error.host", host=host[:100])
