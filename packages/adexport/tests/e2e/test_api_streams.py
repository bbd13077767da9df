"""Live progress over server-sent events: once each, across cuts, many at a time, and no obstacle to a stop."""

import json
import signal
import threading
import time

import httpx
import pytest


def read_stream(client, path, last=None, stop_after=None, timeout=30):
    """Entries of one connection as (id, kind), and whether the end was told."""
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    found, ended, event = [], False, ""
    with client.stream("GET", path, headers=headers, timeout=timeout) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                event, ended = value, ended or value == "end"
            if name == "data" and event == "progress":
                entry = json.loads(value)
                found.append((entry["sequence"], entry["kind"]))
                if stop_after is not None and len(found) >= stop_after:
                    break
            if ended:
                break
    return found, ended


def test_a_finished_export_streams_its_whole_timeline_and_ends(client, ask):
    home = ask().headers["location"]
    found, ended = read_stream(client, f"{home}/events")
    assert (found, ended) == ([(1, "accepted"), (2, "planned"), (3, "files"), (4, "completed")], True)


def test_a_cut_stream_resumes_without_gap_or_repetition(client, ask, make_order):
    home = ask(make_order(40, sizes=["1000x1000"], formats=["png"]), wait=None).headers["location"]
    seen, ended, connections = [], False, 0
    while not ended:
        last = seen[-1][0] if seen else None
        found, ended = read_stream(client, f"{home}/events", last, stop_after=3)
        seen, connections = seen + found, connections + 1
    assert connections > 3
    assert [sequence for sequence, _ in seen] == list(range(1, len(seen) + 1))
    assert (seen[0][1], seen[-1][1]) == ("accepted", "completed")
    timeline = client.get(f"{home}/timeline").json()
    assert len(timeline) == len(seen)
    indexes = [cell["index"] for entry in timeline for cell in entry["detail"]["cells"]]
    assert sorted(indexes) == list(range(40))


def test_entries_arrive_while_the_export_runs(client, ask, make_order):
    home = ask(make_order(80, sizes=["1200x1200"], formats=["png"]), wait=None).headers["location"]
    began, arrivals = time.monotonic(), []
    with client.stream("GET", f"{home}/events", timeout=30) as response:
        for line in response.iter_lines():
            if line.startswith("id: "):
                arrivals.append(time.monotonic() - began)
            if line == "event: end":
                break
    assert len(arrivals) > 10
    assert arrivals[-1] - arrivals[0] > 0.5


def test_twenty_watchers_see_the_same(server, ask, make_order):
    home = ask(make_order(10, sizes=["1000x1000"], formats=["png"]), wait=None).headers["location"]
    results = []

    def watch():
        with httpx.Client(base_url=server.url) as client:
            results.append(read_stream(client, f"{home}/events"))

    threads = [threading.Thread(target=watch) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 20
    assert all(result == results[0] and result[1] for result in results)


@pytest.mark.parametrize("given", ["x", "-1", "1.5", "９", "9" * 400])
def test_a_wrong_last_event_id_is_refused(client, ask, given):
    home = ask().headers["location"]
    response = client.get(f"{home}/events", headers={"Last-Event-ID": given.encode()})
    assert response.status_code == 400


def test_an_open_stream_does_not_keep_the_server_from_stopping(tmp_path, run_adexport, make_order):
    with (
        run_adexport(tmp_path / "data", "serve", "--port", "18150", "--no-worker") as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        home = client.post("/v1/exports", json=make_order()).headers["location"]
        with client.stream("GET", f"{home}/events") as response:
            assert next(response.iter_lines()).startswith("retry")
            assert server.stop(signal.SIGTERM) < 8
    # uvicorn ends itself by the signal it was sent, after everything is closed.
    assert server.process.returncode in (0, -signal.SIGTERM)
    assert "Error" not in server.log.read_text()
