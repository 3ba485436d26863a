"""Marks of the services: responses that carry one, and all others."""

from __future__ import annotations

import json

import pytest

from chorus_upload.errors import TransientError
from chorus_upload.storage.answers import no_answer
from chorus_upload.storage.service_mark import AZURE, S3, Mark, Unmarked, WrongStatus, require, require_json

PAGE = b"<html><head><title>Hospital network</title></head><body>Please log in.</body></html>"
NGINX = {"server": "nginx", "etag": '"5c8e-60"', "content-type": "text/html", "last-modified": "Wed, 01 Jan 2025"}
ERROR = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code></Error>'
KIND = "storage#object"
OBJECT = json.dumps({"kind": KIND, "size": "1"}).encode()


@pytest.mark.parametrize(
    ("mark", "headers", "body"),
    [
        (AZURE, {"x-ms-request-id": "7b2f"}, b""),
        (S3, {"x-amz-request-id": "7b2f"}, b""),
        (S3, {"x-amzn-requestid": "7b2f"}, b""),
    ],
)
def test_what_the_service_alone_gives_is_its_mark(mark: Mark, headers: dict[str, str], body: bytes) -> None:
    require(mark, 200, headers, body, expected={200})
    require(mark, 404, headers, body, expected={200})
    with pytest.raises(WrongStatus):
        require(mark, 200, headers, body, expected={201})


def test_xml_of_s3_is_its_mark_where_it_belongs() -> None:
    """Of a success S3 never says an Error, and an Error of S3 never comes without a Code."""
    page = b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"></ListBucketResult>'
    require(S3, 200, {}, page, expected={200})
    require(S3, 404, {}, ERROR, expected={200})
    for status, body in ((200, ERROR), (204, ERROR), (404, page), (403, b"<Error>blocked</Error>"), (503, b"<Error/>")):
        with pytest.raises(Unmarked):
            require(S3, status, {}, body, expected={200, 204})


@pytest.mark.parametrize("mark", [AZURE, S3])
@pytest.mark.parametrize("status", [200, 201, 202, 206, 302, 401, 403, 404, 409, 412, 416, 503])
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (NGINX, PAGE),
        ({}, b""),
        ({"x-ms-request-id": " ", "x-amz-request-id": ""}, b""),
        ({}, b"<?xml version='1.0'?><a/>"),
    ],
)
def test_nothing_else_is_one(mark: Mark, status: int, headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(Unmarked, match=rf"{status}, without {mark.name}"):
        require(mark, status, headers, body, expected={status})


def test_json_of_the_expected_kind_is_googles_mark() -> None:
    assert require_json(200, {}, OBJECT, expected={200}, kind=KIND)["size"] == "1"
    assert require_json(204, {"x-guploader-uploadid": "7b2f"}, b"", expected={204}, kind=None) == {}
    refusal = json.dumps({"error": {"code": 404, "message": "No such object: a/b"}}).encode()
    assert require_json(404, {}, refusal, expected={200}, kind=KIND)["error"]["code"] == 404
    with pytest.raises(WrongStatus):
        require_json(203, {}, OBJECT, expected={200}, kind=KIND)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, PAGE, KIND),
        (200, b"{}", KIND),
        (200, b"[" * 100_000, KIND),
        (200, b'{"kind": ' + b"9" * 5_000 + b"}", KIND),
        (200, json.dumps({"kind": "storage#objects"}).encode(), KIND),
        (204, b"", None),
        (404, PAGE, KIND),
        (404, b"", None),
        (403, json.dumps({"error": "blocked"}).encode(), KIND),
        (403, json.dumps({"error": {"code": 401}}).encode(), KIND),
    ],
)
def test_other_json_is_none(status: int, body: bytes, kind: str | None) -> None:
    with pytest.raises(Unmarked):
        require_json(status, NGINX, body, expected={200, 204}, kind=kind)


def test_a_response_of_somebody_else_is_told_apart_from_a_refusal() -> None:
    failure = no_answer(Unmarked(403, AZURE.name, "7"), doing="writing a")

    assert isinstance(failure, TransientError)
    assert (failure.foreign_status, failure.retry_after) == (403, 7.0)
    assert failure.message == (
        "writing a: something between here and the service responded (403, without x-ms-request-id)"
    )
    assert "proxy" in (failure.hint or "")
