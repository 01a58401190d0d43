"""What every verifier gets: the lab under test, its Airflow and hosts, and recorders for what it finds.

    python -m pytest scenarios --lab local --results results.json -p no:cacheprovider

A verifier is a module `test_35_02_01_….py` beside the others of its section; the first line of its docstring
is the scenario's title. A failed assertion is *failed*; any other exception is *unknown*, because a check
that crashed has shown nothing; what the lab cannot do is *not applicable*. A paragraph "Hint: …" in the
docstring of the test or the module is shown when the check does not pass.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import testinfra

from labs.airflow import Airflow
from labs.paths import run_directory
from labs.results import Claim, ClaimVerdict, plain
from labs.runs import Run, TaskInstance
from labs.service_logs import service_logs
from scenarios.busy_pods import BusyPods, busy_pods
from scenarios.celery import Celery
from scenarios.faulting import Faults, Services
from scenarios.faulting_docker import DockerServices
from scenarios.faulting_kubernetes import ClusterFaults, KubernetesServices, pod_host
from scenarios.faulting_process import ProcessServices
from scenarios.network import SOON, keeps_policies, service_address
from scenarios.observing import Look, Observation, process_table
from scenarios.pods import Namespace, PodRun, pod_runs
from scenarios.probing import Executing, ProbeRun, deployed, exchange_folder, probe_runs
from scenarios.recorder import FINDINGS, RECORDER, Recorder, dag_of
from scenarios.replicas import Replicas
from scenarios.sites import Sites
from stacks.catalogue import class_name

if TYPE_CHECKING:
    from labs.lab import Lab

SERVICES: Mapping[str, Callable[[Path, Mapping[str, Any]], Services]] = {
    "process": lambda home, outputs: ProcessServices(home, outputs["services"]),
    "docker": lambda home, outputs: DockerServices(home, outputs["services"]),
    "kubernetes": lambda _home, outputs: KubernetesServices(Namespace(outputs), outputs["services"]),
}
"""Platform → its services, from a lab directory and the lab's outputs."""

NEEDS = ("executor", "default_executor", "platform", "cluster", "local", "section", "replicas", "extras", "because")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("labs")
    group.addoption("--lab", metavar="NAME", help="the running lab to verify")
    group.addoption("--results", metavar="FILE", help="write the results there as JSON, after every check")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "needs(executor, default_executor, platform, cluster, local, section, replicas, extras): what a lab must have, "
        "of the replicas roles with more than one, `local` the processes and folders that this machine sees; a name, "
        "or several: any of them, but all of the extras; because: why",
    )
    config.addinivalue_line("filterwarnings", "default")  # those of third parties decide nothing here
    config.option.continue_on_collection_errors = True  # one broken module leaves the others to be checked
    config.stash[RECORDER] = Recorder(config)
    config.pluginmanager.register(config.stash[RECORDER])


def pytest_sessionstart(session: pytest.Session) -> None:
    if not session.config.getoption("--lab") and not session.config.getoption("--collect-only"):
        raise pytest.UsageError("no lab was named; say which running lab to verify with --lab NAME")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker in item.iter_markers("needs"):
            wrong = sorted(set(marker.kwargs) - set(NEEDS)) + [str(arg) for arg in marker.args]
            if wrong:
                raise pytest.UsageError(
                    f"{item.nodeid} needs {', '.join(wrong)}; name a need as one of {', '.join(NEEDS)}"
                )


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop() -> Generator[None, object, object]:
    # SIGTERM unwinds like Ctrl-C, so that faults heal and a reconfigured lab is restored
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return (yield)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Lab:
    """The lab under test: `.name`, `.platform`, `.executors`, `.outputs`, `.reconfigured({...})`."""
    from labs.lab import Lab

    return Lab.of(request.config.getoption("--lab"))


@pytest.fixture(scope="session")
def airflow(lab: Lab) -> Airflow:
    """The lab's Airflow, logged in when first used."""
    return lab.airflow()


@pytest.fixture(scope="session")
def executor(lab: Lab) -> str:
    """Class name of the lab's default executor: it runs every task that names none."""
    return class_name(lab.executors[0])


@pytest.fixture(scope="session")
def words(lab: Lab) -> dict[str, str]:
    """Executor → what the lab's list has for it, in order: its alias, else its class or path."""
    return {class_name(spec): spec.split(":")[0] for spec in lab.executors}


@pytest.fixture(scope="session")
def host(lab: Lab, services: Services) -> Callable[..., Any]:
    """`host(role, replica=0)`: the testinfra host on which that replica of a role runs."""

    def host(role: str, replica: int = 0) -> Any:
        if lab.platform == "kubernetes":
            return pod_host(services, lab.outputs["services"][role][replica]["name"])
        return testinfra.get_host(lab.outputs["services"][role][replica]["host"])

    return host


@pytest.fixture(scope="session")
def service_log(lab: Lab) -> Callable[..., Callable[[], str]]:
    """`read = service_log(role, replica=0)`: begin here to read a service's log; `read()` gives the text since then."""

    def service_log(role: str, replica: int = 0) -> Callable[[], str]:
        log = service_logs(lab.outputs)[lab.outputs["services"][role][replica]["name"]]
        start = log.now()
        return lambda: log.read(start)

    return service_log


@pytest.fixture
def evidence(request: pytest.FixtureRequest) -> Callable[[str, Any], None]:
    """`evidence(label, value)`: record what a judgement rests on: a value, a mapping, or rows as mappings.

    What is labelled `labs.comparison.RESULT` is the same on every lab; `compare` shows whether it is.
    """
    findings = request.node.stash[FINDINGS]
    return lambda label, value: findings.evidence.append((label, plain(value)))


@pytest.fixture
def claim(request: pytest.FixtureRequest, lab: Lab) -> Callable[..., None]:
    """`claim(statement, source, verdict, numbers)`: judge a statement as holds, outdated or wrong."""
    findings = request.node.stash[FINDINGS]

    def claim(statement: str, source: str, verdict: ClaimVerdict, numbers: Mapping[str, Any]) -> None:
        version = str(lab.outputs["airflow_version"])
        findings.claims.append(Claim(statement, source, verdict, version, plain(numbers)))

    return claim


@pytest.fixture(scope="session")
def timeline(request: pytest.FixtureRequest, airflow: Airflow) -> Callable[[Run], list[TaskInstance]]:
    """`timeline(run)`: draw every try of a run's task instances in the report; returns them.

    The report shows it with the check that is under way, so a run that a whole module shares is drawn once.
    """
    recorder = request.config.stash[RECORDER]
    return lambda run: recorder.current.add_run(airflow, run)


@pytest.fixture(scope="module")
def run_dag(
    request: pytest.FixtureRequest, lab: Lab, airflow: Airflow, timeline: Callable[[Run], list[TaskInstance]]
) -> Callable[..., Observation]:
    """`run_dag(conf=None, *, dag_id=…, timeout=120, state="success", on=None)`: run a DAG to its end.

    Waits until the DAG is parsed, triggers it, waits until the run has ended, asserts that it ended in
    `state`, and draws it in the report. The DAG is that of the module, `35_02_01_…` for `test_35_02_01_….py`,
    unless another is named. While it runs, its task instances are looked at again and again, and so are the
    processes of the testinfra host `on`. Where tasks have pods, these are watched; with `settle`, until they rest.
    """
    own = dag_of(request.path)

    def run_dag(
        conf: Mapping[str, Any] | None = None,
        *,
        dag_id: str = own,
        timeout: float = 120.0,
        state: str = "success",
        on: Any = None,
        settle: bool = False,
    ) -> Observation:
        looks: list[Look] = []
        pods = Namespace(lab.outputs).watched() if "KubernetesExecutor" in lab.executors else nullcontext()
        unread = unmet({"local": "folders"}, lab)

        def watch(instances: list[TaskInstance]) -> None:
            looks.append(Look(instances, process_table(on) if on else {}))

        airflow.wait_for_dag(dag_id, file=f"{dag_id}.py")
        with pods as history:
            run = airflow.trigger(dag_id, conf)
            timeline(run)
            run = airflow.wait(run, timeout, watch=watch)
            if history and settle:
                history.wait_quiet(run)
        assert run.state == state, f"run {run.run_id} of {dag_id} ended as {run.state}\n{airflow.explain(run)}"
        return Observation(airflow, run, airflow.task_instances(run), looks, history, unread)

    return run_dag


@pytest.fixture(scope="session")
def probes(lab: Lab, airflow: Airflow) -> Iterator[frozenset[str]]:
    """Ids of the probe DAGs, which are in the lab from the first check that asks for them to the last check."""
    if not lab.outputs["paths"]["dags"]:
        pytest.skip("needs folders that this machine and the tasks both see; a cluster of the user's has none")
    with deployed(airflow, Path(lab.outputs["paths"]["dags"])) as dag_ids:
        yield dag_ids


@pytest.fixture
def exchange(lab: Lab) -> Iterator[Path]:
    """A folder that tasks and this machine see under the same path, gone afterwards."""
    with exchange_folder(lab.outputs) as folder:
        yield folder


@pytest.fixture
def start_probe(
    probes: frozenset[str],
    airflow: Airflow,
    services: Services,
    exchange: Path,
    timeline: Callable[[Run], list[TaskInstance]],
) -> Iterator[Callable[..., ProbeRun]]:
    """`start_probe(dag_id, conf=None)`: a run of a probe DAG, drawn in the report; see `scenarios.probing`."""
    with probe_runs(airflow, exchange, services.process) as start:

        def start_probe(dag_id: str, conf: Mapping[str, Any] | None = None) -> ProbeRun:
            probe = start(dag_id, conf)
            timeline(probe.run)
            return probe

        yield start_probe


@pytest.fixture(scope="session")
def services(lab: Lab) -> Services:
    """The lab's services as its platform sees them."""
    return SERVICES[lab.platform](run_directory(lab.name), lab.outputs)


@pytest.fixture(scope="session")
def namespace(lab: Lab) -> Namespace:
    """The lab's namespace on its cluster; only on the kubernetes platform."""
    if missing := unmet({"platform": "kubernetes"}, lab):
        pytest.skip(missing)  # this comes before the `needs` of a check are looked at
    return Namespace(lab.outputs)


@pytest.fixture(scope="session")
def policies_kept(lab: Lab, namespace: Namespace) -> None:
    """Ends a check as *not applicable* where the cluster's network keeps no NetworkPolicies, which it finds out."""
    api = urlsplit(lab.outputs["internal_api_url"]).netloc
    if not keeps_policies(namespace, service_address(namespace, api)):
        pytest.skip(
            "needs a network that keeps NetworkPolicies; on this cluster, a pod with one that lets nothing out reached "
            f"the lab's API for {SOON:.0f} s"
        )


@pytest.fixture(scope="module")
def run_in_pods(lab: Lab, namespace: Namespace, run_dag: Callable[..., Observation]) -> Iterator[Callable[..., PodRun]]:
    """`run_in_pods(conf=None, …)`: as `run_dag`, with every version of every pod of the run; none of them is kept."""
    if missing := unmet({"executor": "KubernetesExecutor"}, lab):
        pytest.skip(missing)
    with pod_runs(namespace, run_dag) as run:
        yield run


@pytest.fixture
def start_in_pods(
    airflow: Airflow, namespace: Namespace, timeline: Callable[[Run], list[TaskInstance]]
) -> Iterator[Callable[..., BusyPods]]:
    """`start_in_pods(dag_id, word, conf=None)`: a run of a DAG whose tasks say a word when they begin to work."""
    with busy_pods(airflow, namespace, timeline) as start:
        yield start


@pytest.fixture(scope="session")
def celery(lab: Lab, services: Services) -> Celery:
    """The lab's Celery workers, with their broker and result backend."""
    return Celery(lab.outputs, services)


@pytest.fixture(scope="session")
def executing(lab: Lab, executor: str) -> Executing:
    """What runs the tasks that name neither executor nor queue."""
    if executor == "LocalExecutor":
        return Executing(("scheduler",), int(lab.outputs["options"]["core.parallelism"]))
    if executor == "KubernetesExecutor":
        pytest.skip("needs an executor whose slots are those of a service; with KubernetesExecutor they are pods")
    role = "edge-worker" if executor == "EdgeExecutor" else "worker"
    workers = [worker for worker in lab.outputs["services"][role] if "default" in worker["queues"]]
    return Executing(tuple(worker["name"] for worker in workers), sum(worker["slots"] for worker in workers))


@pytest.fixture
def executing_log(lab: Lab, executing: Executing) -> Callable[[], str]:
    """`executing_log()`: what the services that run these tasks have logged since the check began."""
    logs = [service_logs(lab.outputs)[service] for service in executing.services]
    starts = [log.now() for log in logs]
    return lambda: "".join(log.read(start) for log, start in zip(logs, starts, strict=True))


@pytest.fixture(scope="session")
def sites(airflow: Airflow, services: Services) -> Sites:
    """The lab's edge sites, as Airflow and as their machine show them."""
    return Sites(airflow, services)


@pytest.fixture(scope="session")
def replicas(lab: Lab, airflow: Airflow) -> Replicas:
    """The services of Airflow of which the lab has several."""
    return Replicas(airflow, lab.outputs["services"])


@pytest.fixture
def faults(
    services: Services,
    sites: Sites,
    replicas: Replicas,
    celery: Celery,
    lab: Lab,
    airflow: Airflow,
    evidence: Callable[[str, Any], None],
) -> Faults:
    """What can be broken in the lab, as context managers: `with faults.killed("scheduler"): …`."""

    def unwell(since: float) -> str:
        roles = lab.outputs["services"]
        return (
            replicas.unwell(since)
            or (sites.unwell(since) if "edge-worker" in roles else "")
            or (celery.unwell() if "worker" in roles else "")
        )

    if lab.platform == "kubernetes":
        assert isinstance(services, KubernetesServices)
        return ClusterFaults(Namespace(lab.outputs), services, airflow, evidence, unwell)
    return Faults(services, airflow, evidence, unwell)


@pytest.fixture(autouse=True, scope="module")
def module_applicable(request: pytest.FixtureRequest, lab: Lab) -> None:
    """Ends the checks of a module as *not applicable* before the module runs anything for all of them."""
    request.config.stash[RECORDER].outputs = lab.outputs
    _skip_unless_met(request.node, lab)


@pytest.fixture(autouse=True)
def applicable(request: pytest.FixtureRequest, lab: Lab) -> None:
    """Ends a check as *not applicable* when the lab lacks what its `needs` markers name."""
    _skip_unless_met(request.node, lab)


def _skip_unless_met(node: pytest.Item | pytest.Collector, lab: Lab) -> None:
    for marker in node.iter_markers("needs"):
        missing = unmet(marker.kwargs, lab)
        if missing:
            pytest.skip(missing)


def unmet(needs: Mapping[str, Any], lab: Lab) -> str:
    """The first need that the lab does not meet, as a sentence; "" when it meets them all."""
    cluster = str(lab.outputs.get("cluster", {}).get("kind", ""))
    has: dict[str, set[str]] = {
        "executor": {name for spec in lab.executors for name in (*spec.split(":"), spec.split(".")[-1])},
        "default_executor": {class_name(lab.executors[0])},
        "platform": {lab.platform},
        "cluster": {cluster} if cluster else set(),
        "local": set() if cluster == "context" else {"processes", "folders"},
        "section": set(lab.outputs["sections"]),
        "replicas": {role for role, found in lab.outputs["services"].items() if len(found) > 1},
        "extras": set(lab.outputs.get("extras", ())),
    }
    because = f", because {needs['because']}" if "because" in needs else ""
    for need, wanted in needs.items():
        if need == "because":
            continue
        names = [wanted] if isinstance(wanted, str) else list(wanted)
        met = all(n in has[need] for n in names) if need == "extras" else any(n in has[need] for n in names)
        if not met:
            there = ", ".join(sorted(has[need])) or "none"
            joint = " and " if need == "extras" else " or "
            return f"needs {need.replace('_', ' ')} {joint.join(names)}{because}; lab {lab.name} has {there}"
    return ""
