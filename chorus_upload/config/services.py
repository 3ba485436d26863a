"""Names of the services that hold stores: one name however a service is reached, and never one name for two."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from configparser import ConfigParser, Error
from pathlib import Path
from urllib.parse import urlsplit

from chorus_upload.config.accounts import has_own_name, is_numeric_host
from chorus_upload.config.local_paths import expanded
from chorus_upload.config.settings import Auth, Location

_AZURE = ".blob.core.windows.net"
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_PORTS = {"http": 80, "https": 443}
_S3 = re.compile(
    r"(?:.+\.)?s3(?:-[a-z0-9-]+)?(?:\.[a-z0-9-]+){0,3}\."
    r"(?P<suffix>amazonaws\.com|amazonaws\.com\.cn|c2s\.ic\.gov|sc2s\.sgov\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov"
    r"|amazonaws\.eu)"
)
_NOT_S3 = re.compile(r"\.(?:elb|compute|compute-1|execute-api)\.")
_PARTITIONS = {
    "amazonaws.com": "aws",
    "amazonaws.com.cn": "aws-cn",
    "c2s.ic.gov": "aws-iso",
    "sc2s.sgov.gov": "aws-iso-b",
    "cloud.adc-e.uk": "aws-iso-e",
    "csp.hci.ic.gov": "aws-iso-f",
    "amazonaws.eu": "aws-eusc",
}
_REGIONS = {
    "cn-": "aws-cn",
    "us-gov-": "aws-us-gov",
    "us-iso-": "aws-iso",
    "us-isob-": "aws-iso-b",
    "eu-isoe-": "aws-iso-e",
    "us-isof-": "aws-iso-f",
    "eusc-": "aws-eusc",
}
_USUAL_PARTITION = "aws"


def service_of(location: Location, environ: Mapping[str, str] = os.environ) -> str:
    """Return the name of the service at a place in a cloud; "" for Amazon's usual partition and for Google itself.

    Azure is named by cloud and account, whatever the host: the account alone in the public cloud. Where only a host is
    known, its name and port stand for the service, as they do for what speaks like S3 or Google.
    """
    auth = location.auth
    match location.scheme:
        case "az":
            return _azure(auth)
        case "s3":
            return _s3(auth, environ)
        case "gs":
            return _google(auth)
    return ""


def earlier_names(location: Location) -> tuple[str, ...]:
    """Return the names that releases before 1.0 gave the service of a place, the likeliest first.

    They named Azure by its account, or the first label of its host, and nothing else at all.
    """
    if location.scheme != "az":
        return ("",)
    host = urlsplit(location.auth.azure_account_url or "").hostname or ""
    label = host.partition(".")[0].removesuffix("-secondary") if host and not is_numeric_host(host) else None
    names = (location.auth.azure_account_name, label, location.auth.azure_account_url, "")
    return tuple(dict.fromkeys(name for name in names if name is not None))


def endpoint_name(url: str) -> str:
    """Return host and port of an address, and its path, in one spelling whatever the protocol."""
    parts = urlsplit(url if "://" in url else f"https://{url}")
    host = (parts.hostname or "").rstrip(".")
    host = _THIS_MACHINE[1] if host in _THIS_MACHINE else host
    port = parts.port or _PORTS.get(parts.scheme, 443)
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port}{parts.path.rstrip('/')}"


def _azure(auth: Auth) -> str:
    name, url = auth.azure_account_name, auth.azure_account_url
    host = (urlsplit(url or "").hostname or "").rstrip(".")
    if url and is_numeric_host(host):
        return endpoint_name(url)
    if url and has_own_name(host):
        # A host of a site's own, in front of an account of the public cloud.
        return name or endpoint_name(url)
    if not url:
        return name or ""
    account, _, rest = host.partition(".")
    named = f"{account.removesuffix('-secondary')}.{rest.removeprefix('privatelink.')}"
    if named.endswith(_AZURE):
        return named.removesuffix(_AZURE)
    port = urlsplit(url).port
    return named if port in (None, 443) else f"{named}:{port}"


def _s3(auth: Auth, environ: Mapping[str, str]) -> str:
    profile = _profile(auth, environ)
    endpoint = auth.aws_endpoint_url or profile.get("endpoint_url")
    if endpoint is None:
        region = environ.get("AWS_DEFAULT_REGION") or profile.get("region", "")
        partition = next((name for lead, name in _REGIONS.items() if region.startswith(lead)), _USUAL_PARTITION)
    else:
        host = (urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}").hostname or "").rstrip(".")
        amazon = _S3.fullmatch(host)
        if amazon is None or _NOT_S3.search(host):
            return endpoint_name(endpoint)
        partition = "aws-us-gov" if "us-gov-" in host else _PARTITIONS[amazon["suffix"]]
    return "" if partition == _USUAL_PARTITION else partition


def _profile(auth: Auth, environ: Mapping[str, str]) -> dict[str, str]:
    """Return region and address that the profile in `~/.aws/config` has for S3, as Amazon's own library reads them."""
    path = environ.get("AWS_CONFIG_FILE")
    parser = ConfigParser(interpolation=None, strict=False, default_section="")
    try:
        parser.read_string((Path(path).expanduser() if path else expanded("~/.aws/config")).read_text("utf-8"))
    except (OSError, ValueError, Error):
        return {}
    name = auth.aws_profile or environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE") or "default"
    section = next((each for each in (f"profile {name}", name) if parser.has_section(each)), None)
    if section is None:
        return {}
    found = {key: parser[section][key] for key in ("region", "endpoint_url") if parser[section].get(key)}
    services = f"services {parser[section].get('services', '')}"
    if parser.has_section(services):
        of_s3 = re.search(r"(?m)^\s*endpoint_url\s*=\s*(\S+)", parser[services].get("s3", ""))
        found |= {"endpoint_url": of_s3[1]} if of_s3 else {}
    ignored = environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "")
    if "true" in (ignored.lower(), parser[section].get("ignore_configured_endpoint_urls", "").lower()):
        found.pop("endpoint_url", None)
    return found


def _google(auth: Auth) -> str:
    endpoint = auth.google_endpoint_url
    if not endpoint:
        return ""
    name = endpoint_name(endpoint)
    host = name.partition(":")[0]
    return "" if host == "googleapis.com" or host.endswith(".googleapis.com") else name
