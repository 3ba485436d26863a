"""Real services that run on this machine for the length of a test session."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import uuid
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote

from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_TOOLS = Path(__file__).parents[1] / ".tools"
_NODE = _TOOLS / "bin" / "node"
_AZURITE = _TOOLS / "azurite" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"

# The emulator's life hangs on a pipe that only this process holds: it ends with it, however that ends.
_END_WITH_US = "process.stdin.resume();process.stdin.on('close',()=>process.exit());"
# Of a block that comes with an MD5 the service says which one it received. Azurite compares it, and says nothing.
_SAY_MD5 = """
import http from 'node:http';
import https from 'node:https';
for (const {prototype} of [http.Server, https.Server]) {
  const emit = prototype.emit;
  prototype.emit = function (event, request, response) {
    const md5 = event === 'request' && request.headers['content-md5'];
    if (md5 && request.method === 'PUT' && /[?&]comp=block(&|$)/.test(request.url)) {
      const write = response.writeHead;
      response.writeHead = function (status, ...more) {
        if (status === 201 && !response.hasHeader('Content-MD5')) response.setHeader('Content-MD5', md5);
        return write.call(response, status, ...more);
      };
    }
    return emit.apply(this, arguments);
  };
}
"""
_PRELOADED = f"data:text/javascript,{quote(_SAY_MD5 + _END_WITH_US)}"
_LISTENS = re.compile(r"successfully listens on https?://127\.0\.0\.1:(\d+)")


MARK = ("x-ms-request-id", "00000000-0000-0000-0000-000000000000")
"""What Azure's responses have, and nobody else's."""


class EmulatorMissing(Exception):
    """An emulator is not installed or does not start."""


class Authority:
    """Signs certificates, as a hospital does for the services in its network. `bundle` is what to trust.

    Its own certificate is also one for 127.0.0.1, with the key in `key`.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Hospital Root CA")])
        self._issued = 0
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        root = (
            self._certificate(self._name, self._key.public_key(), until=timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectAlternativeName([_general_name("127.0.0.1")]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.bundle = directory / "hospital-ca.pem"
        self.bundle.write_bytes(root.public_bytes(serialization.Encoding.PEM))
        self.key = directory / "hospital-ca-key.pem"
        self.key.write_bytes(_pem_of(self._key))

    def issue(self, *hosts: str, until: timedelta = timedelta(days=1)) -> tuple[Path, Path]:
        """A certificate for these names and addresses, and its key; one with a negative `until` has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a service")])
        certificate = (
            self._certificate(name, key.public_key(), until=until)
            .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self._issued += 1
        chain = self._directory / f"certificate-{self._issued}.pem"
        private = self._directory / f"key-{self._issued}.pem"
        chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private.write_bytes(_pem_of(key))
        return chain, private

    def server(self, *hosts: str, until: timedelta = timedelta(days=1)) -> ssl.SSLContext:
        """A server's side of TLS with such a certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(*hosts, until=until))
        return context

    def _certificate(
        self, name: x509.Name, key: ec.EllipticCurvePublicKey, *, until: timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=3))
            .not_valid_after(now + until)
        )


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


@dataclass(frozen=True, slots=True)
class Azurite:
    """A running Azurite. Name and key of the account are built into it and published: they are no secrets.

    It has another account, the `neighbour`, with a key of its own. With an `authority` it is one that speaks TLS and
    accepts logins.
    """

    port: int
    authority: Authority | None = None
    account: str = "devstoreaccount1"
    key: str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    @property
    def neighbour(self) -> Azurite:
        """The same service, as it is seen from the other account."""
        key = b64encode(b"the key of the other account".ljust(64)).decode()
        return replace(self, account="devstoreaccount2", key=key)

    @property
    def account_url(self) -> str:
        return self.url_at(self.port, scheme="https" if self.authority else "http")

    @property
    def connection_string(self) -> str:
        return (
            f"DefaultEndpointsProtocol={self.account_url.partition(':')[0]};AccountName={self.account};AccountKey={self.key};"
            f"BlobEndpoint={self.account_url};"
        )

    def url_at(self, port: int, *, scheme: str = "http") -> str:
        """The account's URL when the service is reached through another port (a wire)."""
        return f"{scheme}://127.0.0.1:{port}/{self.account}"

    def service(self) -> BlobServiceClient:
        """The SDK's own client with all permissions, to arrange and to look behind the scenes."""
        trusted = str(self.authority.bundle) if self.authority else True
        return BlobServiceClient(self.account_url, credential=self.key, connection_verify=trusted)

    def create_container(self) -> str:
        """A new container with a name that nobody else uses."""
        name = f"test-{uuid.uuid4().hex[:16]}"
        with self.service() as service:
            service.create_container(name).close()
        return name

    def sas(self, container: str, *, permissions: str = "racwdl", valid_for: timedelta = timedelta(hours=1)) -> str:
        """A SAS token for one container; a negative `valid_for` makes one that has expired already."""
        now = datetime.now(UTC)
        return generate_container_sas(
            self.account,
            container,
            account_key=self.key,
            permission=ContainerSasPermissions.from_string(permissions),
            start=now - timedelta(days=1),
            expiry=now + valid_for,
        )


@contextmanager
def running_azurite(directory: Path, *, authority: Authority | None = None) -> Iterator[Azurite]:
    """Start an Azurite that keeps everything in memory, and stop exactly that one.

    With an `authority` it has its certificate (one that is signed by another it would not trust itself, which it has
    to when it copies), and takes any token of a login that says what such tokens say and has not ended: who signed
    it, it does not look at.
    """
    if not (_NODE.exists() and _AZURITE.exists()):
        raise EmulatorMissing("Azurite is not installed: run scripts/tools")
    command = [str(_NODE), "--import", _PRELOADED, str(_AZURITE), "--blobHost", "127.0.0.1", "--blobPort", "0"]
    options = ["--inMemoryPersistence", "--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    if authority:
        options += ["--cert", str(authority.bundle), "--key", str(authority.key), "--oauth", "basic"]
    known = Azurite(0)
    accounts = ";".join(f"{each.account}:{each.key}" for each in (known, known.neighbour))
    with (
        (directory / "azurite.log").open("w") as log,
        subprocess.Popen(
            [*command, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=directory,
            env={**os.environ, "AZURITE_ACCOUNTS": accounts},
            text=True,
        ) as process,
    ):
        try:
            yield Azurite(_port_of(process, directory / "azurite.log"), authority)
        finally:
            process.kill()


def _port_of(process: subprocess.Popen[str], log: Path) -> int:
    """The port that the service chose, which it says in the moment it can be used."""
    said = ""
    for line in process.stdout or ():
        if found := _LISTENS.search(line):
            return int(found[1])
        said += line
    raise EmulatorMissing(f"Azurite did not start; run scripts/tools again. It said: {said}{log.read_text()}")


def real(name: str) -> Path:
    """Microsoft's own `az` or `azcopy`."""
    program = {"az": _TOOLS / "az" / "bin" / "az", "azcopy": _TOOLS / "azcopy" / "azcopy"}[name]
    if not program.exists():
        raise EmulatorMissing(f"{name} is not installed: run scripts/tools")
    return program
