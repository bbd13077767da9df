"""Several processes on one store: a worker apart, a worker killed, a server started again, a port taken."""

import io
import os
import signal
import time
import zipfile

import httpx


def start(client, body):
    return client.post("/v1/exports", json=body).headers["location"]


def wait(client, home, seconds=30):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        export = client.get(home, headers={"Prefer": "wait=5"}).json()["export"]
        if export["state"] in ("done", "dead", "cancelled"):
            return export
    raise AssertionError(f"not over: {export}")


def test_a_worker_of_its_own_does_the_work(tmp_path, run_adexport, make_order):
    data = tmp_path / "data"
    with (
        run_adexport(data, "serve", "--port", "18160", "--no-worker") as server,
        httpx.Client(base_url=server.url, timeout=40) as client,
    ):
        home = start(client, make_order())
        assert client.get(home, headers={"Prefer": "wait=1"}).json()["status"] == "pending"
        with run_adexport(data, "worker", wait=False) as worker:
            export = wait(client, home)
            assert (export["state"], export["done"]) == ("done", 4)
            gives_way = [os.getpriority(os.PRIO_PROCESS, each.process.pid) for each in (server, worker)]
            assert gives_way[1] == min(gives_way[0] + 10, 19), "people wait for the API"
            assert worker.stop(signal.SIGTERM) < 15
            assert worker.process.returncode == 0, worker.log.read_text()
            started, *_, stopped = worker.log.read_text().splitlines()
            assert str(data) in started
            assert stopped == "Worker stopped."


def test_a_killed_worker_loses_nothing_and_doubles_nothing(tmp_path, run_adexport, make_order):
    data = tmp_path / "data"
    with (
        run_adexport(data, "serve", "--port", "18170", "--no-worker") as server,
        httpx.Client(base_url=server.url, timeout=40) as client,
    ):
        home = start(client, make_order(30, sizes=["1000x1000"], formats=["png"]))
        with run_adexport(data, "worker", wait=False) as worker:
            while client.get(home).json()["export"]["done"] < 5:
                time.sleep(0.05)
            worker.stop(signal.SIGKILL)
        with run_adexport(data, "worker", wait=False):
            export = wait(client, home, 90)
        assert (export["state"], export["done"], export["failed"]) == ("done", 30, 0)
        timeline = client.get(f"{home}/timeline").json()
        indexes = [cell["index"] for entry in timeline for cell in entry["detail"]["cells"]]
        assert sorted(indexes) == list(range(30))


def test_a_taken_port_gives_the_next_one_and_a_restart_keeps_everything(tmp_path, run_adexport, make_order):
    with run_adexport(tmp_path / "one", "serve", "--port", "18180") as first:
        with run_adexport(tmp_path / "two", "serve", "--port", "18180") as second:
            assert second.url != first.url
            with httpx.Client(base_url=second.url, timeout=40) as client:
                home = start(client, make_order())
                assert wait(client, home)["done"] == 4
            second.stop()
        with run_adexport(tmp_path / "two", "serve", "--port", "18190") as again:
            assert httpx.get(f"{again.url}{home}").json()["status"] == "done"
            assert httpx.get(f"{again.url}{home}/archive").status_code == 200


def test_on_postgres_a_worker_is_killed_and_every_file_is_there_once(tmp_path, run_adexport, make_order, new_database):
    data = tmp_path / "data"
    with (
        new_database() as url,
        run_adexport(data, "serve", "--port", "18165", "--no-worker", ADEXPORT_STORE=url) as server,
        run_adexport(data, "worker", wait=False, ADEXPORT_STORE=url) as first,
        run_adexport(data, "worker", wait=False, ADEXPORT_STORE=url) as second,
        httpx.Client(base_url=server.url, timeout=40) as client,
    ):
        home = start(client, make_order(30, sizes=["1000x1000"], formats=["png"]))
        while client.get(home).json()["export"]["done"] < 5:
            time.sleep(0.05)
        first.stop(signal.SIGKILL)
        export = wait(client, home, 60)
        assert second.process.poll() is None, second.log.read_text()
        assert (export["state"], export["done"], export["failed"]) == ("done", 30, 0)
        timeline = client.get(f"{home}/timeline").json()
        indexes = [cell["index"] for entry in timeline for cell in entry["detail"]["cells"]]
        assert sorted(indexes) == list(range(30))
        archive = client.get(f"{home}/archive").content
        assert len(zipfile.ZipFile(io.BytesIO(archive)).namelist()) == 32  # two manifests beside the files
        assert not (data / "adexport.db").exists()


def test_files_of_another_database_are_refused(tmp_path, run_adexport, new_database):
    data = tmp_path / "data"
    with run_adexport(data, "serve", "--port", "18168") as server:
        server.stop()
    marker = (data / "files/.owner").read_bytes()
    with new_database() as url, run_adexport(data, "serve", "--port", "18168", wait=False, ADEXPORT_STORE=url) as other:
        assert other.process.wait(20) == 3
        _, why, advice = other.log.read_text().splitlines()
        assert "belong to another database" in why
        assert "ADEXPORT_DATA" in advice
    assert (data / "files/.owner").read_bytes() == marker
    with run_adexport(data, "serve", "--port", "18168"):
        pass  # its own database is let in again


def test_a_folder_from_before_owners_is_taken_over(tmp_path, run_adexport, make_order):
    data = tmp_path / "data"
    with run_adexport(data, "serve", "--port", "18169") as server, httpx.Client(base_url=server.url) as client:
        home = start(client, make_order())
        assert wait(client, home)["done"] == 4
    (data / "files/.owner").unlink()
    with run_adexport(data, "serve", "--port", "18169") as server:
        assert httpx.get(f"{server.url}{home}/archive").status_code == 200
        assert (data / "files/.owner").exists()
