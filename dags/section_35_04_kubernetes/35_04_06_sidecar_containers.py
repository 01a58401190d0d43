"""# 35.4.6 Containers beside the task

A pod may have more containers than `base`. All share the pod's network (`127.0.0.1` is the same for all) and the
volumes that they mount; processes and all other files are each one's own.

    init containers, one after the other     then all at once
    ┌ fetch ┐ ─▶ ┌ check ┐ ─▶ ( ┌ proxy ┐ ─▶ )  ┌ base: the task ┐  ┌ shipper ┐
                                 a sidecar

| kind | starts | ends | fails the pod |
| --- | --- | --- | --- |
| init container | before the next one, and before `base` | must end with 0 | yes: `base` never starts (35.4.9) |
| sidecar | in its place in that order; `base` waits for its startup probe | stopped once the others have ended | no |
| further container | together with `base` | on its own, *or the pod lives for ever* | yes |

A sidecar is an init container with `restart_policy="Always"`, since Kubernetes 1.29. The last line is the trap: the
executor waits for the *pod* to end. The task's state in Airflow is right, as the task reports it itself, but a
container that never ends keeps the pod `Running`: its slot of the executor, and its requests on the node, are never
given back. Such containers have to agree on an end, as here `shipper` does with a file `done` on a volume of both.

Airflow looks at `base` only: at its log, and at its exit code among the others. The first container of a
`pod_override` is merged with the template's first, so `base` comes first here too.

Each further container needs what the namespace's policy asks for: a security context, requests and limits.

**What to look for**: the order in the log of `prepared`; the two answers in that of `proxied`; `kubectl logs … -c
shipper` while `shipped` runs; and that all three pods end.
"""

import logging
import time
import urllib.request
from pathlib import Path

from airflow.sdk import Param, conf, dag, task
from kubernetes.client import models as k8s

log = logging.getLogger("airflow.task")

IMAGE = "{}:{}".format(
    conf.get("kubernetes_executor", "worker_container_repository", fallback=""),
    conf.get("kubernetes_executor", "worker_container_tag", fallback=""),
)
"""These labs have one image for all: it has a shell and Python. Real sidecars bring their own."""

API = conf.get("core", "execution_api_server_url", fallback="").removesuffix("/execution/")
SHARED = "/shared"
PORT = 8899

FETCH = f"date +%s.%N >{SHARED}/fetched && echo 'raw data' >{SHARED}/data"
CHECK = f"grep -q raw {SHARED}/data && sed -i s/raw/checked/ {SHARED}/data && date +%s.%N >{SHARED}/checked"

PROXY = """
import http.server, os, signal, urllib.request

class Proxy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with urllib.request.urlopen(os.environ["TARGET"] + self.path, timeout=10) as answer:
            body = answer.read()
        self.send_response(answer.status)
        self.send_header("Via", "1.1 sidecar")
        self.end_headers()
        self.wfile.write(body)

# process 1 of a container ignores signals that it has no handler for, and would be killed half a minute later
signal.signal(signal.SIGTERM, lambda *_: (print("proxy ends", flush=True), os._exit(0)))
server = http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Proxy)
print("proxy listens", flush=True)
server.serve_forever()
"""

SHIPPER = f"""
import pathlib, time
log, done, sent = pathlib.Path("{SHARED}/work.log"), pathlib.Path("{SHARED}/done"), 0
while True:
    last = done.exists()
    lines = log.read_text().splitlines() if log.exists() else []
    for line in lines[sent:]:
        print("shipped:", line, flush=True)
    sent = len(lines)
    if last:
        break
    time.sleep(0.2)
print("shipper ends, after", sent, "lines", flush=True)
"""


def container(name, command, **more):
    """A small container of its own, as the namespace's policy wants it."""
    safe = k8s.V1SecurityContext(
        allow_privilege_escalation=False,
        run_as_non_root=True,
        capabilities=k8s.V1Capabilities(drop=["ALL"]),
        seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
    )
    size = k8s.V1ResourceRequirements(
        requests={"cpu": "20m", "memory": "32Mi"}, limits={"cpu": "200m", "memory": "128Mi"}
    )
    return k8s.V1Container(
        name=name,
        image=IMAGE,
        image_pull_policy="IfNotPresent",
        command=command,
        security_context=safe,
        resources=size,
        volume_mounts=[k8s.V1VolumeMount(name="shared", mount_path=SHARED)],
        **more,
    )


def pod(*beside, init=()):
    """The `executor_config` of a pod with these containers, and a volume that all of them share."""
    base = k8s.V1Container(name="base", volume_mounts=[k8s.V1VolumeMount(name="shared", mount_path=SHARED)])
    volume = k8s.V1Volume(name="shared", empty_dir=k8s.V1EmptyDirVolumeSource(size_limit="16Mi"))
    spec = k8s.V1PodSpec(containers=[base, *beside], init_containers=list(init) or None, volumes=[volume])
    return {"pod_override": k8s.V1Pod(spec=spec)}


def proxy():
    """A sidecar that listens before `base` starts, and is stopped after `base` has ended."""
    return container(
        "proxy",
        ["python", "-c", PROXY],
        restart_policy="Always",
        env=[k8s.V1EnvVar(name="TARGET", value=API), k8s.V1EnvVar(name="PORT", value=str(PORT))],
        startup_probe=k8s.V1Probe(tcp_socket=k8s.V1TCPSocketAction(port=PORT), period_seconds=1, failure_threshold=60),
    )


@dag(
    dag_id="35_04_06_sidecar_containers",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    tags=["reference", "core", "advanced", "success"],
    params={
        "lines": Param(5, type="integer", minimum=1, maximum=100, description="lines that `shipped` writes"),
    },
    doc_md=__doc__,
)
def sidecar_containers():
    @task(
        executor_config=pod(
            init=[container("fetch", ["/bin/sh", "-ec", FETCH]), container("check", ["/bin/sh", "-ec", CHECK])]
        )
    )
    def prepared():
        """Finds what two init containers have made ready for it, one after the other."""
        now, times = time.time(), {name: float(Path(SHARED, name).read_text()) for name in ("fetched", "checked")}
        for name, at in times.items():
            log.info("%s %.1f s before this line", name, now - at)
        data = Path(SHARED, "data").read_text().strip()
        log.info("The data is %r: check saw what fetch had left.", data)
        return {"data": data, **times, "base": now}

    @task(executor_config=pod(init=[proxy()]))
    def proxied():
        """Asks Airflow's API server, once itself and once through the sidecar on its own 127.0.0.1."""
        answers = {}
        for name, url in {"direct": API, "sidecar": f"http://127.0.0.1:{PORT}"}.items():
            with urllib.request.urlopen(f"{url}/api/v2/version", timeout=20) as answer:
                answers[name] = {"via": answer.headers.get("Via"), "body": answer.read().decode()}
            log.info("%s: Via %s, %s", name, answers[name]["via"], answers[name]["body"])
        log.info("The sidecar goes on when this task ends; the kubelet stops it then.")
        return answers

    @task(executor_config=pod(container("shipper", ["python", "-c", SHIPPER])))
    def shipped(params=None):
        """Writes a log file that `shipper` reads, and says at the end that there will be no more."""
        with Path(SHARED, "work.log").open("w") as file:
            for number in range(1, params["lines"] + 1):
                print(f"line {number}", file=file, flush=True)
                time.sleep(0.3)
        Path(SHARED, "done").touch()
        log.info(
            "%s lines written; without the file `done`, shipper and this pod would live for ever.", params["lines"]
        )
        return {"lines": params["lines"]}

    @task
    def report(prepared, proxied, shipped):
        """What each kind of container did for its task."""
        order = sorted(("fetched", "checked", "base"), key=lambda step: prepared[step])
        log.info("Init containers, in order: %s", " ▶ ".join(order))
        same = proxied["direct"]["body"] == proxied["sidecar"]["body"]
        log.info("The proxy gave the same answer: %s, and left its mark: %s", same, proxied["sidecar"]["via"])
        log.info("The shipper was given %s lines: kubectl logs … -c shipper", shipped["lines"])
        return {"order": order, "same_answer": same, "via": proxied["sidecar"]["via"], "lines": shipped["lines"]}

    report(prepared(), proxied(), shipped())


sidecar_containers()
