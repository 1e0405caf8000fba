"""Whether the Hub answers: what is asked, how long, and what counts as an answer."""

import urllib.error

import pytest

from cadenza.data import hub


@pytest.fixture
def asked(monkeypatch):
    """Answer `urlopen` with `answers[0]`, an exception or nothing; returns the answers and the questions."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    answers, questions, closed = [None], [], []

    class Response:
        def close(self):
            closed.append(True)

    def urlopen(url, timeout=None):
        questions.append((url, timeout))
        if answers[0] is not None:
            raise answers[0]
        return Response()

    monkeypatch.setattr(hub.urllib.request, "urlopen", urlopen)
    hub.reachable.cache_clear()
    yield answers, questions, closed
    hub.reachable.cache_clear()


def test_it_is_asked_once_and_the_line_is_closed(asked):
    _, questions, closed = asked
    assert hub.reachable() is True
    assert hub.reachable() is True
    assert questions == [("https://huggingface.co", 5.0)]
    assert closed == [True]


@pytest.mark.parametrize(
    ("error", "answered"),
    [
        (urllib.error.HTTPError("https://huggingface.co", 503, "busy", None, None), True),
        (urllib.error.URLError("no route"), False),
        (TimeoutError(), False),
    ],
)
def test_an_error_of_the_server_is_an_answer(asked, error, answered):
    asked[0][0] = error
    assert hub.reachable() is answered


@pytest.mark.parametrize("word", ["1", "true", "TRUE", "yes", "on"])
def test_offline_means_not_to_ask(asked, monkeypatch, word):
    monkeypatch.setenv("HF_HUB_OFFLINE", word)
    assert hub.reachable() is False
    assert asked[1] == []


def test_another_endpoint_is_asked_and_zero_is_not_offline(asked, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    assert hub.reachable(2.5) is True
    assert asked[1] == [("https://mirror.example", 2.5)]
