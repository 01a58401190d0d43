"""Of a lab in containers, only what it gives the address of is published, and on loopback: the API, and Flower.

The facts are Docker's bindings of each container and the sockets on which this machine listens. A container that had
this machine's network would need no binding, so the kernel is asked whose each one is.

Hint: `docker ps` shows the ports of each container; `ss -ltnp` who listens on this machine.
"""

from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from labs.daemon import OWNER, daemon
from labs.paths import run_directory

pytestmark = pytest.mark.needs(platform="docker", because="elsewhere a lab's ports are not published by Docker")


def listeners(containers, bound):
    """The addresses on which this machine listens for containers, through Docker's proxies or on a bound port."""
    found, ports = set(), {address.rpartition(":")[2] for address in bound}
    own = {each["IPAddress"] for c in containers for each in c.attrs["NetworkSettings"]["Networks"].values()} - {""}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            proxy = process.name() == "docker-proxy" and not own.isdisjoint(process.cmdline())
            for each in process.net_connections("tcp"):
                if each.status == psutil.CONN_LISTEN and (proxy or str(each.laddr.port) in ports):
                    found.add(f"{each.laddr.ip}:{each.laddr.port}")
    return found


def test_nothing_else_listens_on_this_machine(lab, evidence):
    """Bindings and sockets are those addresses that the lab gives, and every container has a network of its own."""
    with daemon() as client:
        containers = client.containers.list(filters={"label": f"{OWNER}={run_directory(lab.name)}"})
    bound = {
        f"{binding['HostIp']}:{binding['HostPort']}"
        for container in containers
        for bindings in container.attrs["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    }
    replicas = [replica for group in lab.outputs["services"].values() for replica in group]
    names = {replica["name"] for replica in replicas}
    given = {address for replica in replicas for address in replica["endpoints"].values()}
    given = {address for address in given if address.rpartition(":")[0] not in names}  # that only containers know
    listening = listeners(containers, bound)
    evidence("addresses", {"given by the lab": given, "bound by Docker": bound, "listened on": listening})
    assert urlsplit(lab.outputs["api_url"]).netloc in given
    assert bound == given, f"published are {sorted(bound)}, where the lab gives {sorted(given)}"
    assert listening == given, f"this machine listens on {sorted(listening)} for the lab, which gives {sorted(given)}"
    assert {address.rpartition(":")[0] for address in given} == {"127.0.0.1"}, (
        f"{sorted(given)} are not all on loopback"
    )

    here = Path("/proc/self/ns/net").stat().st_ino
    inits = {each.name: each.attrs["State"]["Pid"] for each in containers}
    apart = {name: Path(f"/proc/{pid}/ns/net").stat().st_ino != here for name, pid in inits.items()}
    evidence("on a network of its own", apart)
    assert len(apart) >= len(names) and all(apart.values()), f"on this machine's network: {apart}"
