"""# 35.4.7 Volumes: what a pod finds, and what it leaves

A pod's own files are gone with it. What is to be there before, or to stay after, comes from a volume:

| volume | holds | lives as long as | here |
| --- | --- | --- | --- |
| `persistent_volume_claim` | files of all who mount it | the claim | `write_shared`, `read_shared` |
| `config_map` | settings, up to 1 MiB, readable by whoever may read the namespace | the ConfigMap | `configured` |
| `secret` | the same for what is confidential; in memory on the node | the Secret | `configured` |
| `empty_dir` | scratch space of one pod; with `medium="Memory"` it counts as memory | the *pod* | `write_shared` |

* A claim that is `ReadWriteOnce` can be used on *one node at a time*: its pods are all placed there. Only storage that
  is `ReadWriteMany` (NFS, EFS, Filestore, …) serves pods on several nodes. With neither, use an object store and XCom.
* A ConfigMap or Secret that is mounted follows its changes within a minute or so; as an environment variable, or by
  `sub_path`, it does not. One that does not exist leaves the pod `Pending`, with an event `FailedMount`.
* Mount a Secret as a file with a narrow mode, rather than pass it as a variable, which child processes inherit.
* Every try is a new pod: `empty_dir` is empty again, the claim is not. Write to the claim so that a second time does
  no harm.

These labs have a claim `task-data`, a ConfigMap `task-settings` and a Secret `task-credentials`:

    kubectl get pvc,configmap,secret

**What to look for**: `read_shared`, in another pod, has the file of `write_shared`, and not its scratch file; the log
of `configured` shows the settings as they are, and of the password only a fingerprint.
"""

import hashlib
import json
import logging
import os
import socket
import stat
from pathlib import Path

from airflow.sdk import dag, task
from kubernetes.client import models as k8s

log = logging.getLogger("airflow.task")

DATA, SCRATCH, SETTINGS, CREDENTIALS = "/data", "/scratch", "/etc/task/settings", "/etc/task/credentials"


def mounted(**volumes):
    """The `executor_config` of a pod with these volumes: name → (path, source of the volume, read only)."""
    mounts = [
        k8s.V1VolumeMount(name=name, mount_path=path, read_only=read_only)
        for name, (path, _, read_only) in volumes.items()
    ]
    sources = [k8s.V1Volume(name=name, **source) for name, (_, source, _) in volumes.items()]
    base = k8s.V1Container(name="base", volume_mounts=mounts)
    return {"pod_override": k8s.V1Pod(spec=k8s.V1PodSpec(containers=[base], volumes=sources))}


SHARED = {"persistent_volume_claim": k8s.V1PersistentVolumeClaimVolumeSource(claim_name="task-data")}
OWN = {"empty_dir": k8s.V1EmptyDirVolumeSource(size_limit="32Mi")}
IN_MEMORY = {"empty_dir": k8s.V1EmptyDirVolumeSource(medium="Memory", size_limit="16Mi")}


def filesystem(path):
    """The kind of filesystem that is mounted at a path."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return {target: kind for _, target, kind, *_ in mounts}.get(path, "none")


@dag(
    dag_id="35_04_07_volume_mounts",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=1,
    tags=["reference", "core", "intermediate", "success"],
    doc_md=__doc__,
)
def volume_mounts():
    @task(executor_config=mounted(data=(DATA, SHARED, False), scratch=(SCRATCH, OWN, False)))
    def write_shared(ti=None):
        """Writes one file to the claim and one to its scratch space; a second time leaves the same."""
        line = f"{ti.task_id} of {ti.run_id}"
        for folder in (DATA, SCRATCH):
            fresh = Path(folder, "35_04_07.new")
            fresh.write_text(line)
            fresh.replace(Path(folder, "35_04_07.txt"))  # whole or not at all, for whoever reads meanwhile
            log.info("%s: %s", folder, sorted(file.name for file in Path(folder).iterdir()))
        return {"pod": socket.gethostname(), "line": line, "uid": os.getuid(), "kind": filesystem(DATA)}

    @task(executor_config=mounted(data=(DATA, SHARED, True), scratch=(SCRATCH, OWN, False)))
    def read_shared(written):
        """Another pod: the claim has the file, the scratch space is new."""
        found = Path(DATA, "35_04_07.txt").read_text()
        scratch = sorted(file.name for file in Path(SCRATCH).iterdir())
        log.info("%s wrote %r; %s reads %r", written["pod"], written["line"], socket.gethostname(), found)
        log.info("Its scratch file is not here: %s", scratch)
        try:
            Path(DATA, "mine").touch()
            refused = None
        except OSError as error:  # mounted read-only
            refused = error.strerror
        log.info("I asked for the claim read-only; writing: %s", refused or "worked")
        return {"pod": socket.gethostname(), "line": found, "scratch": scratch, "writing": refused}

    @task(
        executor_config=mounted(
            settings=(SETTINGS, {"config_map": k8s.V1ConfigMapVolumeSource(name="task-settings")}, True),
            credentials=(
                CREDENTIALS,
                {"secret": k8s.V1SecretVolumeSource(secret_name="task-credentials", default_mode=0o440)},
                True,
            ),
            memory=("/fast", IN_MEMORY, False),
        )
    )
    def configured():
        """Reads its settings and its password from files; of the password it tells a fingerprint only."""
        settings = json.loads(Path(SETTINGS, "settings.json").read_text())
        password = Path(CREDENTIALS, "password")
        secret, mode = password.read_bytes(), stat.filemode(password.stat().st_mode)
        fingerprint = hashlib.sha256(secret).hexdigest()[:12]
        log.info("Settings: %s", settings)
        log.info(
            "Password: %s bytes, sha256 %s…, mode %s, on %s", len(secret), fingerprint, mode, filesystem(CREDENTIALS)
        )
        log.info("Scratch space in memory: %s", filesystem("/fast"))
        kinds = {path: filesystem(path) for path in (CREDENTIALS, "/fast")}
        return {"settings": settings, "fingerprint": fingerprint, "mode": mode, "kinds": kinds}

    @task
    def report(written, read, configured):
        """What crossed from pod to pod, and what did not."""
        log.info("Shared: %r ▶ %r", written["line"], read["line"])
        log.info("Not shared: scratch space, %s", read["scratch"])
        log.info("Given: settings %s", configured["settings"])
        return {
            "crossed": written["line"] == read["line"],
            "pods": [written["pod"], read["pod"]],
            "scratch": read["scratch"],
        }

    written = write_shared()
    report(written, read_shared(written), configured())


volume_mounts()
