"""Tasks on LocalExecutor share files, network and CPUs of one machine, but no memory.

Hint: `listen` and `call` must run at the same time, so they need two slots of LocalExecutor.
"""

import pytest

from scenarios.judge import all_overlap, max_concurrent, overlap, span

pytestmark = pytest.mark.needs(executor="LocalExecutor")

BURNERS = ["burn_1", "burn_2", "burn_3", "burn_4"]


@pytest.fixture(scope="module")
def shared(run_dag, host):
    """One run of all experiments."""
    return run_dag({"cpu_seconds": 1.5}, timeout=180, on=host("scheduler"))


def test_tasks_share_the_filesystem(shared, host, evidence):
    """One task reads the very file that another one wrote, on the same host but in another process."""
    write, read = shared.one("filesystem.write"), shared.one("filesystem.read")
    written, found = shared.xcom("filesystem.write"), shared.xcom("filesystem.read")
    evidence("write", {"host": write.hostname, "pid": write.pid, "inode": written["inode"], "path": written["path"]})
    evidence("read", {"host": read.hostname, "pid": read.pid, "inode": found["inode"], "text": found["text"]})
    assert found["inode"] == written["inode"], "the tasks saw two files"
    assert found["text"] == f"written by pid {write.pid}", "the file was not written by the task `write`"
    assert read.pid == found["pid"] != write.pid
    assert read.hostname == write.hostname
    assert not host("scheduler").file(written["path"]).exists, "the file that `read` removed is still on the host"


def test_tasks_share_the_network(shared, evidence):
    """One task calls another one, which runs at the same time, on 127.0.0.1."""
    listen, call = shared.one("network.listen"), shared.one("network.call")
    heard, called = shared.xcom("network.listen"), shared.xcom("network.call")
    evidence("listen", {"pid": listen.pid, "port": heard["port"], "message": heard["message"]})
    evidence("call", {"pid": call.pid, "port": called["port"]})
    assert overlap(listen, call) > 0, "the two tasks did not run at the same time"
    assert heard["port"] == called["port"]
    assert heard["message"] == f"hello from pid {call.pid}", "the message came from someone else"
    assert listen.pid != call.pid


def test_tasks_share_no_memory(shared, host, evidence):
    """A variable set by one task is unset in the next, which is another process; RAM is shared by all."""
    remember, recall = shared.xcom("memory.remember"), shared.xcom("memory.recall")
    total = int(host("scheduler").check_output("awk '/^MemTotal:/ {print $2}' /proc/meminfo")) // 1024
    evidence("variable", {"set by one task": remember["notes"], "found by the next": recall["notes"]})
    evidence("memory in MB", {"a task": remember["memory_mb"], "free": remember["free_mb"], "machine": total})
    assert remember["notes"] == {"word": "hello"}
    assert recall["notes"] == {}, "the next task found the variable set"
    assert shared.one("memory.remember").pid != shared.one("memory.recall").pid
    assert 0 < remember["memory_mb"] < total > remember["free_mb"] > 0


def test_tasks_compete_for_the_cpus(shared, host, evidence):
    """Four computing tasks at once get no more CPU time than there are CPUs, so each takes longer."""
    tasks, burned = shared.all(*BURNERS), shared.xcoms(*BURNERS)
    cpus = int(host("scheduler").check_output("getconf _NPROCESSORS_ONLN"))
    used = sum(each["cpu_seconds"] for each in burned)
    slowdown = sum(each["seconds"] for each in burned) / used
    seen = {pid: process.cpu for look in shared.looks for pid, process in look.processes.items()}
    evidence("CPUs", {"there": cpus, "in use on average": used / span(tasks), "slowed down": slowdown})
    evidence("CPU seconds by process, as last seen on the host", [seen.get(ti.pid) for ti in tasks])
    assert all_overlap(tasks), "the four tasks did not run at the same time"
    assert sum(seen.get(ti.pid, 0) for ti in tasks) >= used / 2, "the host's process table knows less CPU time"
    assert used / span(tasks) <= cpus, "the tasks claim more CPU time than the machine has"
    if max_concurrent(tasks) > cpus:
        assert slowdown > 1.1, "more tasks than CPUs, but they were not slowed down"
    assert f"Four at once on {cpus} CPUs" in shared.log("contention")
