"""Requests to the API server: each way to fail has its error."""

from __future__ import annotations

from typing import NoReturn

import pytest
from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from job.errors import AccessError, FinetuneError, UnavailableError
from job.observability import kube_api


def answer(error: Exception) -> object:
    """Return what comes of a request that raises an error."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise error

    return kube_api.request(refuse, "finetune", needs="get on jobs", remedy="look at the network")


def test_answer_is_returned() -> None:
    """The method gets its arguments and a time limit."""
    sent = kube_api.request(lambda *args, **kwargs: (args, kwargs), "a", needs="", remedy="", limit=2)

    assert (("a",), {"limit": 2, "_request_timeout": kube_api.TIMEOUT}) == sent


def test_absent_object_is_none() -> None:
    """An object that does not exist is no error."""
    assert None is answer(ApiException(status=404, reason="Not Found"))


@pytest.mark.parametrize(
    ("error", "expected", "remedy"),
    [
        (ApiException(status=401, reason="Unauthorized"), AccessError, "get on jobs"),
        (ApiException(status=403, reason="Forbidden"), AccessError, "get on jobs"),
        (ApiException(status=429, reason="Too Many Requests"), UnavailableError, "look at the network"),
        (ApiException(status=503, reason="Unavailable"), UnavailableError, "look at the network"),
        (ApiException(status=0, reason="TLS"), UnavailableError, "look at the network"),
        (HTTPError("refused"), UnavailableError, "look at the network"),
    ],
)
def test_failures(error: Exception, expected: type[FinetuneError], remedy: str) -> None:
    """A missing permission names what is needed; a server that is busy or away says what to look at."""
    with pytest.raises(expected) as caught:
        answer(error)

    assert remedy == caught.value.remedy


def test_other_refusal() -> None:
    """What the caller alone can judge, such as a conflict, is raised as it is."""
    with pytest.raises(ApiException):
        answer(ApiException(status=409, reason="Conflict"))


@pytest.mark.parametrize(("body", "message"), [('{"message": "no"}', "no"), ("{}", ""), ("<html>", ""), (None, "")])
def test_message(body: str | None, message: str) -> None:
    """The server's own words are found in its answer, if it is the API server's."""
    error = ApiException(status=403)
    error.body = body

    assert message == kube_api.message_of(error)
