"""Data reaches pods through a claim, a ConfigMap and a Secret, and stays in the pod with an emptyDir.

Hint: `kubectl get pvc,configmap,secret` in the lab's namespace; a volume that is missing is an event of the pod.
"""

import base64
import hashlib
import json

import pytest

pytestmark = pytest.mark.needs(executor="KubernetesExecutor", section="35.4")


@pytest.fixture(scope="module")
def given(namespace):
    """What the namespace has for the tasks: kind → object."""
    names = {
        "persistentvolumeclaims": "task-data",
        "configmaps": "task-settings",
        "secrets": "task-credentials",
    }
    found = {kind: namespace.api.found(namespace.path(kind, name)) for kind, name in names.items()}
    missing = [f"{kind} {names[kind]}" for kind, each in found.items() if each is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} in the namespace, and a storage class for the claim")
    return found


@pytest.fixture(scope="module")
def ran(given, run_in_pods):
    """One run, and every version of its pods."""
    return run_in_pods(timeout=240)


def sources(life):
    """Name → source of each volume of a pod."""
    return {
        volume["name"]: {k: v for k, v in volume.items() if k != "name"} for volume in life.first["spec"]["volumes"]
    }


def test_a_claim_is_shared_by_pods(ran, namespace, evidence):
    """What one pod wrote another one read, from the same claim, which is bound."""
    writer, reader = ran.one("write_shared"), ran.one("read_shared")
    claims = [sources(life)["data"]["persistentVolumeClaim"]["claimName"] for life in (writer, reader)]
    status = namespace.api.request("GET", namespace.path("persistentvolumeclaims", "task-data"))
    evidence("claim", {"phase": status["status"]["phase"], "modes": status["spec"]["accessModes"]})
    evidence("pods", [life.row() for life in (writer, reader)])
    told = ran.xcom("read_shared")
    assert claims == ["task-data"] * 2
    assert writer.uid != reader.uid and told["pod"] == reader.name
    assert told["line"] == f"write_shared of {ran.seen.run.run_id}", "the reader found the file of another run"
    assert status["status"]["phase"] == "Bound"
    if status["spec"]["accessModes"] == ["ReadWriteOnce"]:
        assert writer.node == reader.node, "a claim for one node was used on two"
    assert told["writing"] is not None, "a mount that is read-only could be written to"


def test_scratch_space_goes_with_its_pod(ran):
    """Both pods had an emptyDir of that name; the second one's was empty."""
    for task_id in ("write_shared", "read_shared"):
        assert "emptyDir" in sources(ran.one(task_id))["scratch"]
    assert ran.xcom("read_shared")["scratch"] == []


def test_settings_come_from_the_config_map(ran, given, evidence):
    """The task has what the API server has."""
    kept = json.loads(given["configmaps"]["data"]["settings.json"])
    evidence("settings", kept)
    assert sources(ran.one("configured"))["settings"]["configMap"]["name"] == "task-settings"
    assert ran.xcom("configured")["settings"] == kept


def test_a_secret_is_a_file_that_is_told_to_nobody(ran, given, evidence):
    """The task's fingerprint is that of the Secret; the password is in no log, XCom or pod."""
    password = base64.b64decode(given["secrets"]["data"]["password"])
    told = ran.xcom("configured")
    evidence("secret", {"mode": told["mode"], "filesystem": told["kinds"]})
    assert told["fingerprint"] == hashlib.sha256(password).hexdigest()[:12], "the task read another password"
    assert told["mode"].endswith("---"), f"others may read it: {told['mode']}"
    assert told["kinds"] == {"/etc/task/credentials": "tmpfs", "/fast": "tmpfs"}
    text = password.decode()
    spread = [json.dumps(told), ran.log("configured"), ran.log("report"), json.dumps(ran.one("configured").last)]
    assert not [each for each in spread if text in each], "the password is where others can read it"


def test_the_report_says_what_crossed(ran):
    """The line is in the log twice, as written and as read."""
    line = f"write_shared of {ran.seen.run.run_id}"
    assert f"Shared: '{line}' ▶ '{line}'" in ran.log("report")
    assert ran.xcom("report")["crossed"] is True
