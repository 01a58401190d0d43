"""Typed access to a lab's Airflow through its public REST API, over the official client."""

from __future__ import annotations

import json
import threading
import uuid
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, TypeVar

import urllib3
from airflow_client.client import (
    ApiClient,
    ConfigApi,
    Configuration,
    DAGApi,
    DAGPatchBody,
    DagRunApi,
    DAGRunResponse,
    ImportErrorApi,
    MonitorApi,
    TaskInstanceApi,
    TriggerDAGRunPostBody,
    XComApi,
)
from airflow_client.client.exceptions import ApiException, ForbiddenException, UnauthorizedException

from labs.errors import LabError
from labs.runs import FINISHED_RUN, Run, TaskInstance
from labs.waiting import WaitTimeout, until

T = TypeVar("T")

HTTP_TIMEOUT = (3.0, 30.0)
"""Seconds to connect and to read, for each request."""

HEALTH_TIMEOUT = (3.0, 10.0)
"""The same for a look at the health, which is to be had at once or not at all."""

UNSENT = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
"""Failures after which the server cannot have seen the request."""

PAGE = 100
"""The largest page that Airflow 3 answers with."""


class AirflowError(LabError):
    """Airflow refused a request or could not be asked.

    Attributes:
        status: the HTTP status; 0 when no answer came.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed later: no answer, or an error of the server's own."""
        return self.status == 0 or self.status >= 500


@dataclass(frozen=True)
class ComponentHealth:
    """What the API server says of one component; status None for one that never reported."""

    status: str | None
    heartbeat: datetime | None = None


@dataclass(frozen=True)
class Dag:
    """One parsed DAG."""

    dag_id: str
    file: str
    tags: tuple[str, ...]
    max_active_tasks: int
    paused: bool


@dataclass(frozen=True)
class ImportFailure:
    """A DAG file that Airflow could not import, with Airflow's own words."""

    file: str
    stack_trace: str


class Airflow:
    """One lab's Airflow, logged in through the simple auth manager when first needed.

    A request that can be repeated safely is repeated for `patience` seconds while Airflow is not reached or
    answers with an error of its own, so that a restart of the API server or the database is ridden out. A
    401 or 403 logs in again once: a token of an earlier instance of the lab is never accepted.

    Args:
        api_url: as `http://127.0.0.1:28080`.
        others: addresses of further API servers: when one gives no answer, the next is asked from then on, at once
            if nothing was sent.
        patience: seconds for which a repeatable request is tried again.
    """

    def __init__(
        self, api_url: str, user: str, password: str, *, others: Collection[str] = (), patience: float = 30.0
    ) -> None:
        self._addresses = deque(address.rstrip("/") for address in (api_url, *others))
        self.patience = patience
        self._credentials = {"username": user, "password": password}
        # urllib3 would repeat on its own, without a deadline for the whole
        self._configuration = Configuration(host=self._addresses[0], access_token="", retries=0)
        self.client = ApiClient(self._configuration)
        self._login_lock, self._turn_lock = threading.Lock(), threading.Lock()

    @property
    def api_url(self) -> str:
        """The address that is asked next."""
        return str(self._configuration.host)

    def use(self, password: str) -> None:
        """Log in with another password from now on."""
        self._credentials["password"] = password

    # -- requests

    def call(self, request: Callable[..., T], *, patience: float | None = None, **arguments: Any) -> T:
        """Send one request of the generated client, such as `PoolApi(airflow.client).get_pool`.

        Args:
            patience: seconds for which to try again; 0 for a request that must not be sent twice, or whose
                caller does the waiting.

        Raises:
            AirflowError: it was refused, or still not answered when patience ended.
        """

        def probe() -> tuple[tuple[T] | None, str]:
            try:
                return (self._authorized(request, arguments),), "answered"
            except AirflowError as error:
                if not error.transient:
                    raise
                return None, str(error)

        patience = self.patience if patience is None else patience
        if patience <= 0:
            return self._authorized(request, arguments)
        what = f"Airflow to answer {request.__name__}"
        try:
            return until(probe, what=what, timeout=patience, interval=0.5)[0]
        except WaitTimeout as error:
            raise AirflowError(str(error), 0) from error

    def _authorized(self, request: Callable[..., T], arguments: Mapping[str, Any]) -> T:
        token = self._configuration.access_token
        try:
            if not token:
                raise UnauthorizedException(status=401)
            return self._sent(request, arguments)
        except (UnauthorizedException, ForbiddenException):
            self._log_in(instead_of=token)
        except ApiException as error:
            raise self._refusal(request.__name__, error) from error
        try:
            return self._sent(request, arguments)
        except ApiException as error:
            raise self._refusal(request.__name__, error) from error

    def _sent(self, request: Callable[..., T], arguments: Mapping[str, Any]) -> T:
        for left in reversed(range(len(self._addresses))):
            asked = self.api_url
            try:
                return request(**{"_request_timeout": HTTP_TIMEOUT, **arguments})
            except (urllib3.exceptions.HTTPError, OSError) as error:
                self._turn_from(asked)
                unsent = isinstance(getattr(error, "reason", error), UNSENT)
                if not (left and unsent):
                    raise AirflowError(f"Airflow at {asked} gave no answer ({_cause(error)})", 0) from error
        raise AssertionError("there is no address")

    def _turn_from(self, address: str) -> None:
        """Ask another API server from now on, unless another thread has done so."""
        with self._turn_lock:
            if self._addresses[0] == address:
                self._addresses.rotate(-1)
                self._configuration.host = self._addresses[0]

    def _refusal(self, what: str, error: ApiException) -> AirflowError:
        status = int(error.status or 0)
        return AirflowError(
            f"Airflow at {self.api_url} answered {status} to {what}: {_detail(error.body) or error.reason}",
            status,
        )

    def _log_in(self, instead_of: str | None) -> None:
        with self._login_lock:
            if self._configuration.access_token != instead_of:  # another thread was faster
                return
            user = self._credentials["username"]
            response = self._sent(self._request_token, {})
            body = bytes(response.read()).decode()
            if response.status != 201:
                raise AirflowError(
                    f"Airflow at {self.api_url} answered {response.status} to the login of {user}: "
                    f"{_detail(body)}; compare the password with the lab's outputs",
                    response.status,
                )
            self._configuration.access_token = json.loads(body)["access_token"]

    def _request_token(self, **arguments: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        return self.client.call_api("POST", f"{self.api_url}/auth/token", headers, self._credentials, **arguments)

    # -- the deployment

    def health(self) -> dict[str, ComponentHealth]:
        """One look at `metadatabase`, `scheduler`, `triggerer` and `dag_processor`; not repeated."""
        try:
            answer = self._sent(MonitorApi(self.client).get_health, {"_request_timeout": HEALTH_TIMEOUT})
        except ApiException as error:  # of a load balancer without a server: the API server itself answers 200
            raise self._refusal("get_health", error) from error
        names = ("metadatabase", "scheduler", "triggerer", "dag_processor")
        parts = {name: getattr(answer, name) for name in names}
        return {
            name: ComponentHealth(part.status, _time(getattr(part, f"latest_{name}_heartbeat", None)))
            for name, part in parts.items()
            if part
        }

    def config(self) -> dict[str, dict[str, str]]:
        """The API server's configuration by section and option; 403 unless `[api] expose_config` is set."""
        answer = self.call(ConfigApi(self.client).get_config, accept="application/json")
        return {
            section["name"]: {option["key"]: option["value"] for option in section["options"]}
            for section in answer.to_dict()["sections"]
        }

    # -- DAGs

    def import_errors(self) -> list[ImportFailure]:
        """The DAG files that Airflow could not import."""
        answer = self.call(ImportErrorApi(self.client).get_import_errors, limit=PAGE)
        return [ImportFailure(file=e.filename, stack_trace=e.stack_trace) for e in answer.import_errors]

    def dag(self, dag_id: str) -> Dag:
        """One DAG as it was last parsed; `AirflowError` with status 404 while there is none."""
        return self._dag(dag_id, self.patience)

    def _dag(self, dag_id: str, patience: float) -> Dag:
        dag = self.call(DAGApi(self.client).get_dag, patience=patience, dag_id=dag_id)
        return Dag(
            dag_id=dag.dag_id,
            file=dag.fileloc,
            tags=tuple(sorted(tag.name for tag in dag.tags)),
            max_active_tasks=dag.max_active_tasks,
            paused=dag.is_paused,
        )

    def wait_for_dag(self, dag_id: str, timeout: float = 180.0, *, file: str = "") -> Dag:
        """Wait until a DAG is parsed.

        Args:
            timeout: seconds.
            file: name of the file that defines it; an import error of that file ends the wait at once.

        Raises:
            AirflowError: the file has an import error; the message holds Airflow's own.
            WaitTimeout: it did not appear; the message holds all import errors.
        """

        def probe() -> tuple[Dag | None, str]:
            try:
                return self._dag(dag_id, patience=0), "there"
            except AirflowError as error:
                if error.status != 404 and not error.transient:
                    raise
                state = "not parsed yet" if error.status == 404 else str(error)
            if file and state == "not parsed yet":
                for failure in self.import_errors():
                    if failure.file.endswith(file):
                        raise AirflowError(f"Airflow cannot import {failure.file}:\n{failure.stack_trace}", 404)
            return None, state

        def detail() -> str:
            try:
                return "\n".join(f"{e.file}:\n{e.stack_trace}" for e in self.import_errors())
            except AirflowError as error:
                return f"the import errors could not be read: {error}"

        return until(probe, what=f"DAG {dag_id} to be parsed", timeout=timeout, interval=0.5, detail=detail)

    # -- runs

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> Run:
        """Start a run, unpausing the DAG first.

        The run's id is made here, so that a request which got no answer can be repeated without a second run.
        """
        self.call(
            DAGApi(self.client).patch_dag,
            dag_id=dag_id,
            dag_patch_body=DAGPatchBody(is_paused=False),
            update_mask=["is_paused"],
        )
        run_id = f"lab__{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%S}__{uuid.uuid4().hex[:8]}"
        body = TriggerDAGRunPostBody(dag_run_id=run_id, logical_date=None, conf=dict(conf or {}))
        try:
            api = DagRunApi(self.client)
            return _run(self.call(api.trigger_dag_run, dag_id=dag_id, trigger_dag_run_post_body=body))
        except AirflowError as error:
            if error.status != 409:  # a first request, whose answer was lost, has made it
                raise
        return self.run(Run(dag_id, run_id, "queued"))

    def run(self, run: Run) -> Run:
        """The run as it is now."""
        return self._run_now(run, self.patience)

    def _run_now(self, run: Run, patience: float) -> Run:
        return _run(
            self.call(
                DagRunApi(self.client).get_dag_run,
                patience=patience,
                dag_id=run.dag_id,
                dag_run_id=run.run_id,
            )
        )

    def wait(
        self,
        run: Run,
        timeout: float = 120.0,
        states: Collection[str] = FINISHED_RUN,
        *,
        watch: Callable[[list[TaskInstance]], None] | None = None,
    ) -> Run:
        """Wait until a run is in one of `states`.

        Args:
            timeout: seconds.
            watch: called with the run's task instances at each look, to sample what runs at the same time.

        Raises:
            WaitTimeout: with the task instances by state, and the last log lines of those not successful.
            AirflowError: the run has finished in another state.
        """

        def probe() -> tuple[Run | None, str]:
            try:
                now = self._run_now(run, patience=0)
                if watch:
                    watch(self.task_instances(run))
            except AirflowError as error:
                if not error.transient:
                    raise
                return None, str(error)
            if now.state in states:
                return now, now.state
            if now.state in FINISHED_RUN:
                raise AirflowError(
                    f"run {run.run_id} of {run.dag_id} ended as {now.state}, "
                    f"not as {' or '.join(sorted(states))}\n{self.explain(run)}",
                    200,
                )
            return None, now.state

        return until(
            probe,
            what=f"run {run.run_id} of {run.dag_id} to be {' or '.join(sorted(states))}",
            timeout=timeout,
            interval=0.3,
            detail=lambda: self.explain(run),
        )

    def explain(self, run: Run, tasks: int = 5, lines: int = 12) -> str:
        """Why a run is where it is: task instances by state, last log lines of those not successful."""
        try:
            instances = self.task_instances(run)
            counts = Counter(ti.state or "no state yet" for ti in instances)
            parts = [f"task instances: {', '.join(f'{n} {state}' for state, n in sorted(counts.items()))}"]
            uninteresting = ("success", "skipped", "upstream_failed", None)
            unhappy = [ti for ti in instances if ti.state not in uninteresting]
            for ti in unhappy[:tasks]:
                where = f" on {ti.hostname}" if ti.hostname else ""
                tail = self.log(ti).splitlines()[-lines:] if ti.started else []
                parts.append(f"{ti.label} (try {ti.try_number}): {ti.state}{where}")
                parts += [f"    {line}" for line in tail]
            return "\n".join(parts)
        except AirflowError as error:
            return f"its task instances could not be read: {error}"

    # -- task instances

    def task_instances(self, run: Run) -> list[TaskInstance]:
        """All task instances of a run, each with its latest try, in the order Airflow made them."""
        found: list[TaskInstance] = []
        while True:
            page = self.call(
                TaskInstanceApi(self.client).get_task_instances,
                dag_id=run.dag_id,
                dag_run_id=run.run_id,
                limit=PAGE,
                offset=len(found),
                order_by=["id"],
            ).task_instances
            found += [_task_instance(ti) for ti in page]
            if len(page) < PAGE:
                return found

    def tries(self, ti: TaskInstance) -> list[TaskInstance]:
        """Every try of one task instance, the latest last."""
        api = TaskInstanceApi(self.client)
        place: dict[str, Any] = {"dag_id": ti.dag_id, "dag_run_id": ti.run_id, "task_id": ti.task_id}
        if ti.map_index < 0:
            answer = self.call(api.get_task_instance_tries, **place)
        else:
            answer = self.call(api.get_mapped_task_instance_tries, **place, map_index=ti.map_index)
        return sorted((_task_instance(t) for t in answer.task_instances), key=lambda t: t.try_number)

    def log(self, ti: TaskInstance, try_number: int | None = None) -> str:
        """The log of one try (the instance's own by default) as `time level message` lines."""
        # the generated model of a log message warns on what Airflow really sends
        return log_text(
            self.call(
                self._log_messages,
                dag_id=ti.dag_id,
                dag_run_id=ti.run_id,
                task_id=ti.task_id,
                try_number=ti.try_number if try_number is None else try_number,
                map_index=ti.map_index,
            )
        )

    def _log_messages(self, **arguments: Any) -> list[Any]:
        response = TaskInstanceApi(self.client).get_log_without_preload_content(
            **arguments, full_content=True, accept="application/json"
        )
        body = response.data.decode()
        if response.status != 200:
            ApiException.from_response(http_resp=response, body=body, data=None)
        content: list[Any] = json.loads(body)["content"]
        return content

    def xcom(self, ti: TaskInstance, key: str = "return_value") -> Any:
        """What a task instance left for those after it; `AirflowError` with status 404 for nothing."""
        entry = self.call(
            XComApi(self.client).get_xcom_entry,
            dag_id=ti.dag_id,
            dag_run_id=ti.run_id,
            task_id=ti.task_id,
            xcom_key=key,
            map_index=ti.map_index,
            deserialize=True,
        )
        return (entry.to_dict() or {})["value"]  # type: ignore[index]


def _run(run: DAGRunResponse) -> Run:
    return Run(
        dag_id=run.dag_id,
        run_id=run.dag_run_id,
        state=run.state.value,
        queued=run.queued_at,
        started=run.start_date,
        ended=run.end_date,
    )


def _task_instance(ti: Any) -> TaskInstance:
    return TaskInstance(
        dag_id=ti.dag_id,
        run_id=ti.dag_run_id,
        task_id=ti.task_id,
        map_index=ti.map_index,
        try_number=ti.try_number,
        state=ti.state.value if ti.state else None,
        executor=ti.executor,
        queue=ti.queue,
        pool=ti.pool,
        hostname=ti.hostname or "",
        pid=ti.pid,
        scheduled=ti.scheduled_when,
        queued=ti.queued_when,
        started=ti.start_date,
        ended=ti.end_date,
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


def log_text(messages: list[Any]) -> str:
    """A task's log, as texts or as Airflow's own messages, as `time level message` lines."""
    lines = []
    for message in messages:
        if isinstance(message, str):
            lines.append(message)
            continue
        event = str(message.get("event", ""))
        if not event.startswith(("::group::", "::endgroup::")):
            lines.append(" ".join(filter(None, [message.get("timestamp"), message.get("level"), event])))
        for error in message.get("error_detail") or ():
            lines.append(f"{error['exc_type']}: {error['exc_value']}")
    return "\n".join(lines)


def _detail(body: str | None) -> str:
    """The `detail` of an error answer, or the beginning of whatever came."""
    try:
        return str(json.loads(body or "{}")["detail"])
    except (ValueError, KeyError, TypeError):
        return (body or "")[:200]


def _cause(error: BaseException) -> str:
    """What lies under urllib3's wrapping, in words."""
    reason = getattr(error, "reason", None)
    return _cause(reason) if isinstance(reason, BaseException) else str(error) or type(error).__name__
