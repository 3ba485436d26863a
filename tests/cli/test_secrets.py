"""No credential is ever shown: not in messages, not in the log, not in tracebacks."""

from __future__ import annotations

import io
import logging

import pytest
from pydantic import SecretStr

from chorus_upload.cli.failures import failure_of
from chorus_upload.cli.invocation import Invocation
from chorus_upload.cli.logs import set_up_logging
from chorus_upload.cli.render.plain import plain_sink
from chorus_upload.cli.render.stream import Stream
from chorus_upload.cli.secrets import Redactor, secrets_in
from chorus_upload.errors import AccessDenied
from chorus_upload.events import FileFailed, Notice
from chorus_upload.model import FailureKind
from tests.cli.streams import Pretended

SIGNATURE = "kJ8s%2Fq%2BZz0aXw%3D"
TOKEN = f"sv=2024-05-04&se=2026-04-01&sr=c&sp=rwl&sig={SIGNATURE}"


@pytest.mark.parametrize(
    "text",
    [
        f"PUT https://acct.blob.core.windows.net/c/k?{TOKEN} failed",
        f"https://example.org/x?X-Amz-Credential=a&X-Amz-Signature={SIGNATURE}",
        f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={SIGNATURE};EndpointSuffix=x",
        f"Authorization: Bearer {SIGNATURE}",
        f"Authorization: SharedKey acct:{SIGNATURE}",
        f"sftp://me:{SIGNATURE}@host/dir",
        f'{{"access_token": "{SIGNATURE}"}}',
        f"password={SIGNATURE}",
        f"password: {SIGNATURE}",
        f"{{'password': '{SIGNATURE}'}}",
        f"x-amz-security-token: {SIGNATURE}",
    ],
)
def test_what_has_the_shape_of_a_secret_is_masked(text: str) -> None:
    shown = Redactor()(text)

    assert SIGNATURE not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    "text",
    [
        "the token of 1001/Images/sig.dcm: key 20260301120000/1001 is taken; passwords are not asked for",
        "cannot read /etc/passwd: it is no configuration",
        "/etc/passwd: Permission denied",
        "the SAS token: expired on 2026-03-01",
        "signature: did not match",
        "C:\\secret: 20260301120000 is no directory",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert Redactor()(text) == text


def test_the_key_of_a_connection_string_is_masked_by_itself() -> None:
    redact = Redactor()
    redact.learn([f"DefaultEndpointsProtocol=https;AccountName=hospital;AccountKey={SIGNATURE};EndpointSuffix=x"])

    assert redact(f"{SIGNATURE} kJ8s/q+Zz0aXw= of hospital") == "*** *** of hospital"


def test_known_secrets_are_masked_however_they_are_written() -> None:
    redact = Redactor()
    redact.learn(["s3cret/key+1=", f"?{TOKEN}", "abc"])

    assert redact("s3cret/key+1%3D and s3cret%2fkey%2b1%3d") == "*** and ***"
    assert redact("s3cret/key+1= and s3cret%2Fkey%2B1%3D") == "*** and ***"
    assert redact(f"token {TOKEN}.") == "token ***."
    assert redact("signature kJ8s/q+Zz0aXw= did not match") == "signature *** did not match"
    assert redact("the abc of it") == "the abc of it"


def test_secrets_are_found_however_deep() -> None:
    settings = {"central": {"auth": {"token": SecretStr("one"), "account": "name"}}, "sites": [(SecretStr("two"),)]}

    assert set(secrets_in(settings)) == {"one", "two"}


def test_tracebacks_hold_no_secret() -> None:
    redact = Redactor()
    redact.learn(["hunter2hunter2"])
    cause = ValueError(f"https://h/c?{TOKEN}")
    error = AccessDenied("hunter2hunter2 was refused", hint="ask for hunter2hunter2")
    error.__cause__ = cause

    failure = failure_of(error, verbose=True, redact=redact)

    assert failure.traceback is not None
    assert "ValueError: https://h/c" in failure.traceback
    shown = f"{failure.message}{failure.hint}{failure.traceback}"
    assert "hunter2" not in shown
    assert SIGNATURE not in shown


def test_log_lines_hold_no_secret_and_come_only_when_asked_for() -> None:
    err = Pretended()
    sink = plain_sink(out=Stream(io.StringIO()), err=Stream(err))
    logger = logging.getLogger("chorus_upload.anything")

    warned: list[str] = []
    set_up_logging(sink.log, warned.append, verbose=False, redact=Redactor())
    logger.debug("not shown")
    logger.warning("sent instead: ?%s", TOKEN)
    set_up_logging(sink.log, warned.append, verbose=True, redact=Redactor())
    logger.debug("GET ?%s", TOKEN)
    logging.getLogger("azure.core").warning("not ours")

    assert err.shown.count("\n") == 1
    assert "DEBUG chorus_upload.anything: GET ?sv=" in err.shown
    (warning,) = warned
    assert warning.startswith("sent instead: ?sv=")
    assert SIGNATURE not in warning
    assert SIGNATURE not in err.shown


def test_events_that_repeat_a_service_hold_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    run = Invocation()

    run.emit(Notice(f"retrying https://h/c?{TOKEN}"))
    run.emit(FileFailed("a", "1/a", "OMOP", FailureKind.TRANSIENT, f"GET https://h/c?{TOKEN}: 503"))
    run.close()

    shown = capsys.readouterr().err
    assert "retrying https://h/c?sv=" in shown
    assert "503" in shown
    assert SIGNATURE not in shown


def test_how_an_address_is_written_is_no_secret() -> None:
    hint = "Set `proxy` in the configuration, as http://user:password@host:port."

    assert Redactor()(hint) == hint
    assert "passwords" not in Redactor()("http://user:passwords@host")
