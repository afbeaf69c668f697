"""Every test here must give back its threads, sockets, descriptors and segments."""

import datetime as dt
import gc
import ipaddress
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import leaks
from scaleml.comm import inprocess, simulated

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture(autouse=True)
def tidy(frozen: None, no_leaks: None) -> Iterator[None]:
    before = leaks.descriptors()
    yield
    gc.collect()
    # Other threads of this process, such as a cluster's that other tests left running, open and close files, too.
    assert not leaks.opened_since(before)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "scaleml test")])
    now = dt.datetime.now(dt.UTC)
    hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture(scope="session")
def tls(certificate: Path) -> Contexts:
    """Contexts that check each other's certificate, as Dask's do."""
    contexts = []
    for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        context = ssl.SSLContext(protocol)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(certificate)
        context.load_verify_locations(certificate)
        contexts.append(context)
    return contexts[0], contexts[1]


@pytest.fixture(params=["shared memory", "socket", "tls"])
def way(request: pytest.FixtureRequest) -> dict[str, object]:
    """Keyword arguments of `inprocess.run` for each way in which ranks are linked."""
    if request.param == "tls":
        return {"tls": request.getfixturevalue("tls"), "shared_memory": False}
    return {"shared_memory": request.param == "shared memory"}


@pytest.fixture(params=["shared memory", "tcp", "tls", "simulated", "simulated hosts"])
def run(request: pytest.FixtureRequest) -> Callable[..., list[Any]]:
    """A function like `inprocess.run`, for every communicator: in the table of tests that all must pass."""
    if request.param.startswith("simulated"):

        def on_virtual_clocks(n: int, function: Callable[..., Any], *args: object) -> list[Any]:
            hosts = [rank // 2 for rank in range(n)] if "hosts" in request.param else None
            return simulated.run(n, function, *args, hosts=hosts)

        return on_virtual_clocks
    tls = request.getfixturevalue("tls") if request.param == "tls" else None

    def on_threads(n: int, function: Callable[..., Any], *args: object) -> list[Any]:
        return inprocess.run(n, function, *args, shared_memory=request.param == "shared memory", tls=tls)

    return on_threads
