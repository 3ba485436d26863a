"""Which names a kind of store can give to its objects."""

from __future__ import annotations

_LONGEST_IN_AZURE = 1024
_MOST_PARTS_IN_AZURE = 254
_LONGEST_IN_S3 = 1024
_FORBIDDEN_ON_WINDOWS = frozenset('<>:"\\|?*') | {chr(code) for code in range(32)}
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"}
    | {f"{device}{number}" for device in ("com", "lpt") for number in "0123456789\u00b9\u00b2\u00b3"}
)
_LONGEST_IN_GS = 1024
_RESERVED_IN_GS = ".well-known/acme-challenge/"


def refused_by_azure(name: str) -> str | None:
    """Why an object of a container cannot have this name: the service would refuse or bend it; None if it can."""
    if any(character < " " or "\x7f" <= character <= "\x9f" or character in "\ufffe\uffff" for character in name):
        return "it holds a control character"
    if "\\" in name:
        return "it would turn the backslash into a slash"
    # As the service counts: in units of UTF-16.
    if len(name.encode("utf-16-le")) // 2 > _LONGEST_IN_AZURE or name.count("/") >= _MOST_PARTS_IN_AZURE:
        return (
            f"names have at most {_LONGEST_IN_AZURE} characters, "
            f"and at most {_MOST_PARTS_IN_AZURE} parts between slashes"
        )
    return None


def refused_by_s3(name: str) -> str | None:
    """Why an object of a bucket cannot have this name: a service would refuse or bend it; None if it can."""
    if any(character < " " or "\x7f" <= character <= "\x9f" or character in "\ufffe\uffff" for character in name):
        return "it holds a control character"
    if "\\" in name:
        return "some services would turn the backslash into a slash"
    if len(name.encode()) > _LONGEST_IN_S3:
        return f"names have at most {_LONGEST_IN_S3} bytes as UTF-8"
    return None


def refused_by_windows(part: str) -> str | None:
    """Why a file or directory cannot have this name there, or would be something else; None if it can."""
    if found := sorted(_FORBIDDEN_ON_WINDOWS & set(part)):
        return f"it holds {found[0]!r}"
    if part[-1] in ". ":
        return "it would lose the dot or space at its end"
    if part.partition(".")[0].rstrip(" ").casefold() in _DEVICES:
        return "it is the name of a device"
    return None


def refused_by_gs(name: str) -> str | None:
    """Why an object of a bucket of Google's cannot have this name: the service would refuse it; None if it can."""
    # It takes most of these, and then many programs cannot list them.
    if any(character < " " or "\x7f" <= character <= "\x9f" or character in "\ufffe\uffff" for character in name):
        return "it holds a control character"
    if name.startswith(_RESERVED_IN_GS):
        return f"names that begin with {_RESERVED_IN_GS} are the service's own"
    if len(name.encode()) > _LONGEST_IN_GS:
        return f"names have at most {_LONGEST_IN_GS} bytes as UTF-8"
    return None
