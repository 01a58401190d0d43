"""A scheduler stands still: it runs, holds what it has and does nothing. Kubernetes ends it and starts it again.

Kubernetes' contract: when a container's liveness probe has failed `failureThreshold` times in a row, one each
`periodSeconds`, the kubelet kills the container, after the pod's grace, and starts it again in the same pod. The probe
of services of Airflow asks whether the process has run since the last time; a heartbeat in a database would not do, as
a database that is away would then cost all of them.
Source: https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/

Hint: `kubectl describe pod` counts the failed probes, and says why the container was ended.
"""

import pytest

from scenarios.pods import moment, statuses

pytestmark = [pytest.mark.long, pytest.mark.needs(cluster="kind")]

DAG = "35_01_03_check_current_executor"


def test_it_is_ended_and_started_again(lab, airflow, faults, namespace, services, timeline, evidence):
    """The same pod has the next container of its kind, as late as its probe says; what waited for it is done then."""
    airflow.wait_for_dag(DAG)
    schedulers = [each["name"] for each in lab.outputs["services"]["scheduler"]]
    (before,) = services.service_pod(schedulers[0]).parts

    with faults.stood_still(schedulers[0]) as fault:
        run = airflow.trigger(DAG)
        timeline(run)
    pod = namespace.api.request("GET", namespace.path("pods", before.name))
    run = airflow.wait(run, 120)

    (container,), (status,) = pod["spec"]["containers"], statuses(pod).values()
    probe, last = container["livenessProbe"], status["lastState"]["terminated"]
    period, grace = probe["periodSeconds"], pod["spec"]["terminationGracePeriodSeconds"]
    patience = period * probe["failureThreshold"]
    ended, begun = moment(last["finishedAt"]), moment(status["state"]["running"]["startedAt"])
    said = {event["reason"]: event["message"] for event in namespace.events(before.uid)}
    first = min(ti.started.timestamp() for ti in airflow.task_instances(run))
    evidence("liveness probe", probe)
    evidence("what Kubernetes says", {reason: said.get(reason, "") for reason in ("Unhealthy", "Killing")})
    evidence("the container's last end", last)
    evidence(
        "seconds after the fault",
        {"container ended": ended - fault.at, "the next one started": begun - fault.at, "first task": first - fault.at},
    )
    assert pod["metadata"]["uid"] == before.uid
    assert status["restartCount"] == before.restarts + 1
    assert "stands still" in said["Unhealthy"]
    assert "failed liveness probe" in said["Killing"]
    assert last["exitCode"] == 137, "what stands still cannot end by itself"
    # the first of the probes may come at once, and the one before that may have passed just after the fault
    assert patience - period - 1 <= ended - fault.at <= patience + 2 * period + grace, (
        f"ended after {ended - fault.at} s"
    )
    assert run.state == "success", airflow.explain(run)
    assert (first < begun) == (len(schedulers) > 1), "another scheduler would have gone on, and only another one"
