"""One API server of two is lost while tasks of both zones run.

Airflow's contract: API servers keep no state between requests, and accept each other's tokens when they share
`[api_auth] jwt_secret`; a task tries a report again `[workers] execution_api_retries` times and ends only after
`max_failed_heartbeats` that failed. `[core] execution_api_server_url` is one address, though: what fails over for tasks
is what stands behind that address. With a load balancer that is the other server; without one, the tasks of the zone
that knows the lost server have to wait for its return; no longer than `[scheduler] task_instance_heartbeat_timeout`,
which is 300 s in production, and here too.
Source: https://airflow.apache.org/docs/apache-airflow/stable/configurations-ref.html#workers

Hint: `./lab status` says whether the lab has a load balancer.
"""

import time

import pytest

from scenarios.faulting import PATIENT, late_fails

pytestmark = pytest.mark.needs(executor="CeleryExecutor", replicas="api-server")

LOST = "api-server-1"


def test_programs_and_the_other_zone_go_on_and_no_task_is_lost(lab, airflow, faults, start_probe, evidence):
    """Requests are answered, tasks that reach the other server end meanwhile, and the others when it is back."""
    balanced = "load-balancer" in lab.outputs["services"]
    meanwhile = ["zone_a", "zone_b"] if balanced else ["zone_b"]
    with lab.reconfigured(PATIENT):
        probes = {zone: start_probe(f"probe_{zone}") for zone in ("zone_a", "zone_b")}
        for probe in probes.values():
            probe.wait_for_executions(2)

        with faults.lost(LOST) as fault:
            answers = []
            for _ in range(20):
                asked = time.time()
                airflow.run(probes["zone_a"].run)
                answers.append(time.time() - asked)
            for zone in meanwhile:
                probes[zone].release()
            with late_fails():
                ended = {zone: airflow.wait(probes[zone].run, timeout=60) for zone in meanwhile}
            seconds = {f"{zone} ended": run.ended.timestamp() - fault.at for zone, run in ended.items()}
            going_on = {zone: probe.going_on() for zone, probe in probes.items() if zone not in meanwhile}
            down = time.time() - fault.at
        for probe in probes.values():
            probe.release()
        with late_fails():
            states = {zone: airflow.wait(probe.run).state for zone, probe in probes.items()}

    account = [{"zone": zone, **row} for zone, probe in probes.items() for row in probe.account()]
    evidence("a load balancer", balanced)
    evidence("20 requests meanwhile, longest (s)", max(answers))
    evidence("seconds after the loss", {**seconds, "server back, at the earliest": down, "healthy again": fault.down})
    evidence("tasks", account)
    assert max(answers) < 5, f"a request took {max(answers):.1f} s"
    assert all(len(tasks) == 2 for tasks in going_on.values()), f"tasks that wait for the server ended: {going_on}"
    assert set(states.values()) == {"success"}, f"the runs ended as {states}"
    for row in account:
        seen = (row["state"], row["tries"], row["executions started"], row["completed"])
        assert seen == ("success", 1, 1, 1), f"{row} was not executed just once, to its end"
