"""One run of a program against what a snapshot remembers: decides what each resource needs, and does it.

The semantics are the Pulumi CLI's (`pkg/resource/deploy/step_generator.go`): registering a resource leaves it
as it is, updates, replaces or creates it; what the program no longer registers is deleted after it succeeded.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter
from typing import Any

from pulumi.output import UNKNOWN

from labs.engines.base import UNWANTED, Event, Operation, Step, Watcher, name_of, type_of
from labs.engines.checkpoint import Checkpoint, Pending, Resource, Snapshot
from labs.engines.drift import told
from labs.engines.providers import Difference, DynamicProvider, Provider, Registry, find
from labs.engines.values import Secret, Values, from_provider, has_unknown, keep_secret, reveal
from labs.errors import Interrupted, LabError, UsageError
from labs.waiting import interruption

PARALLEL = 256
"""Operations at once: they wait for processes and servers, so the number of cores says nothing about it."""


@dataclass(frozen=True)
class Goal:
    """A resource as the program wants it; the fields are those of Pulumi's resource options."""

    urn: str
    custom: bool
    parent: str = ""
    inputs: Values = field(default_factory=dict)
    dependencies: tuple[str, ...] = ()
    property_dependencies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    protect: bool = False
    retain: bool = False
    delete_before_replace: bool | None = None
    ignore_changes: tuple[str, ...] = ()
    secret_outputs: tuple[str, ...] = ()
    provider: str = ""


class Deployment:
    """Applies goals, in any thread, as they come; remembers every operation before and after it.

    Args:
        checkpoint: where to save; None for a dry run, which calls no provider's create, update or delete.
    """

    def __init__(self, snapshot: Snapshot, providers: Registry, checkpoint: Checkpoint | None, watch: Watcher) -> None:
        self.steps: list[Step] = []
        self._snapshot = snapshot
        self._providers = providers
        self._checkpoint = checkpoint
        self._watch = watch
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._wanted = self._written = 0
        self._telling = threading.Lock()
        self._replacing = threading.Lock()
        self._registered: set[str] = set()
        self._recreating: dict[str, str] = {}
        self._failures: list[tuple[str, Exception]] = []
        # What a dead process left in the middle of: its half-made things are no longer resources.
        self._half_made = [item for item in snapshot.pending if item.operation != "update"]
        self._half_updated = {item.resource.urn for item in snapshot.pending if item.operation == "update"}
        gone = [item.resource for item in snapshot.pending if item.operation == "delete"]
        snapshot.condemned = [item for item in snapshot.condemned if item not in gone]
        snapshot.resources = {urn: item for urn, item in snapshot.resources.items() if item not in gone}

    @property
    def dry_run(self) -> bool:
        """Whether this only plans."""
        return self._checkpoint is None

    @property
    def stopped(self) -> bool:
        """Whether nothing new may start."""
        return bool(self._failures) or interruption.is_set()

    def register(self, goal: Goal) -> Resource | None:
        """Make a resource match its goal; None when that failed or may not start any more."""
        try:
            with self._lock:
                if goal.urn in self._registered:
                    raise UsageError(
                        f"the program makes {goal.urn} twice; give each resource of a type a name of its own"
                    )
                self._registered.add(goal.urn)
            if self.stopped:
                return None
            return self._custom(goal) if goal.custom else self._component(goal)
        except Exception as error:
            self.fail(goal.urn, error)
            return None

    def set_outputs(self, urn: str, outputs: Values) -> None:
        """Record what a component, or the stack, registered as its outputs."""
        with self._lock:
            resource = self._snapshot.resources.get(urn)
            if resource is not None and (self.dry_run or not has_unknown(outputs)):
                self._snapshot.resources[urn] = replace(resource, outputs=outputs)
        self._save()

    def fail(self, urn: str, error: Exception) -> None:
        """Remember a failure; nothing new starts from here on."""
        with self._lock:
            self._failures.append((urn, error))

    def finish(self, reason: str = UNWANTED) -> None:
        """Delete what no goal asked for, unless something failed.

        Raises:
            LabError: what the first failure said, untouched when it was a `LabError`.
            Interrupted: a signal arrived; what exists is remembered.
        """
        self._raise()
        resources = self._snapshot.resources
        doomed = {id(item): (item, reason) for urn, item in resources.items() if urn not in self._registered}
        doomed |= {id(item): (item, "replaced") for item in self._snapshot.condemned}
        doomed |= {id(item.resource): (item.resource, "left by an interrupted run") for item in self._half_made}
        protected = sorted(item.name for item, _ in doomed.values() if item.protect)
        if protected:
            raise LabError(f"{', '.join(protected)} is protected; take `protect` off it and run `up` before it can go")
        self._delete_all(list(doomed.values()))
        self._raise()
        self._snapshot.pending.clear()
        self._save()

    def _raise(self) -> None:
        if interruption.is_set():
            raise Interrupted(
                f"interrupted; {len(self._snapshot.resources)} resources exist and are remembered: run "
                "`up` to go on or `down` to remove them"
            )
        if not self._failures:
            return
        (urn, error), *others = self._failures
        text = str(error) if isinstance(error, LabError) else f"{name_of(urn)} failed: {type(error).__name__}: {error}"
        if others:
            text += f"; also failed: {', '.join(name_of(urn) for urn, _ in others)}"
        if isinstance(error, LabError):
            error.args = (text,)  # of whatever kind, which has the exit code
            raise error
        raise LabError(text) from error

    # Goals

    def _component(self, goal: Goal) -> Resource:
        old = self._snapshot.resources.get(goal.urn)
        new = _resource(goal, "", goal.inputs, old.outputs if old else {})
        if old is None:
            step = self._step("create", goal.urn, "new")
        else:
            changed = changed_keys(old.inputs, goal.inputs)
            step = self._step("update" if changed else "same", goal.urn, because(changed))
        with self._doing(step):
            self._record(new)
        return new

    def _custom(self, goal: Goal) -> Resource | None:
        old = self._snapshot.resources.get(goal.urn)
        provider = self._provider(goal)
        wanted = goal.inputs
        if old is not None:
            wanted = _ignore(goal.ignore_changes, wanted, old.inputs)
        inputs = self._check(provider, goal.urn, old, wanted)
        if old is None:
            self._clean(goal.urn, inputs)
            reason = self._recreating.get(goal.urn)
            step = self._step("replace" if reason else "create", goal.urn, reason or "new")
            return self._create(provider, goal, inputs, step)
        difference, changed = self._diff(provider, old, inputs)
        if difference.changes and difference.replaces:
            return self._replace(provider, goal, old, self._check(provider, goal.urn, None, wanted), difference)
        self._clean(goal.urn, None)
        if difference.changes or goal.urn in self._half_updated:
            reason = _reason(changed, difference, old) if difference.changes else "its last update did not finish"
            return self._update(provider, goal, old, inputs, self._step("update", goal.urn, reason))
        new = _resource(goal, old.id, inputs, old.outputs)
        with self._doing(self._step("same", goal.urn)):
            self._record(new)
        return new

    # Operations

    def _create(
        self, provider: Provider, goal: Goal, inputs: Values, step: Step, condemn: Resource | None = None
    ) -> Resource:
        new = _resource(goal, "", inputs, {})
        with self._doing(step, Pending("create", new)):
            if not self.dry_run:
                id_, outputs = provider.create(goal.urn, reveal(inputs))
                if not id_:
                    raise LabError(f"the provider of {step.type} gave {step.name} no id, a defect of that provider")
                new = replace(new, id=id_, outputs=_outputs(outputs, inputs, goal))
            self._record(new, condemn)
        return new

    def _update(self, provider: Provider, goal: Goal, old: Resource, inputs: Values, step: Step) -> Resource:
        new = _resource(goal, old.id, inputs, inputs)
        with self._doing(step, Pending("update", old)):
            if not self.dry_run:
                outputs = provider.update(goal.urn, old.id, reveal(old.outputs), reveal(inputs))
                new = replace(new, outputs=_outputs(outputs, inputs, goal))
            self._record(new)
        return new

    def _replace(
        self, provider: Provider, goal: Goal, old: Resource, inputs: Values, difference: Difference
    ) -> Resource | None:
        if old.protect and goal.protect:
            raise LabError(f"{old.name} is protected and would be replaced; take `protect` off it first")
        step = self._step("replace", goal.urn, told(difference.drift, old.inputs) or because(difference.replaces))
        self._clean(goal.urn, inputs)
        first = goal.delete_before_replace
        if not (difference.delete_before_replace if first is None else first):
            return self._create(provider, goal, inputs, step, condemn=old)
        with self._replacing:
            doomed = [
                (old, "replaced"),
                *((item, f"{old.name} is replaced") for item in self._dependents(old)),
            ]
            self._recreating |= {item.urn: reason for item, reason in doomed[1:]}
            self._delete_all(doomed)
        return None if self.stopped else self._create(provider, goal, inputs, step)

    def _delete(self, resource: Resource, reason: str) -> None:
        with self._doing(self._step("delete", resource.urn, reason), Pending("delete", resource)):
            if resource.custom and not resource.retain and not self.dry_run:
                provider = self._provider(resource)
                provider.delete(resource.urn, resource.id, reveal(resource.outputs or resource.inputs))
            with self._lock:
                snapshot = self._snapshot
                if snapshot.resources.get(resource.urn) is resource:
                    del snapshot.resources[resource.urn]
                snapshot.condemned = [item for item in snapshot.condemned if item is not resource]
                snapshot.pending = [item for item in snapshot.pending if item.resource != resource]

    def _clean(self, urn: str, inputs: Values | None) -> None:
        """Finish what an earlier run left of this resource, before anything else is done to it.

        Args:
            inputs: what it is about to be created with: a create that began with the same is done again, and what was
                replaced but is not deleted yet must go first, for it may be the very thing that comes back.
        """
        with self._lock:
            mine = [item for item in self._half_made if item.resource.urn == urn]
            self._half_made = [item for item in self._half_made if item not in mine]
            condemned = [item for item in self._snapshot.condemned if item.urn == urn and inputs is not None]
        for item in mine:
            again = item.operation == "create" and inputs is not None and not changed_keys(item.resource.inputs, inputs)
            if not again:
                self._delete(item.resource, "left by an interrupted run")
        for resource in condemned:
            self._delete(resource, "replaced")

    def _dependents(self, root: Resource) -> list[Resource]:
        """What must be deleted before `root` can be: everything that a new `root` would replace too."""
        found = [root.urn]
        resources = dict(self._snapshot.resources)
        order = TopologicalSorter({urn: item.needs & resources.keys() for urn, item in resources.items()})
        for urn in order.static_order():
            item = resources[urn]
            unknown = {key for key, urns in item.property_dependencies.items() if set(found) & set(urns)}
            if not item.custom or not unknown or urn in self._registered:
                continue
            inputs = {key: UNKNOWN if key in unknown else value for key, value in item.inputs.items()}
            if self._diff(self._provider(item), item, inputs)[0].replaces:
                if item.protect:
                    raise LabError(f"{item.name} is protected and would be replaced; take `protect` off it first")
                found.append(urn)
        return [resources[urn] for urn in found[1:]]

    def _delete_all(self, doomed: list[tuple[Resource, str]]) -> None:
        """Delete in reverse order of need, independent ones at once; what a failed one needs stays."""
        graph: TopologicalSorter[int] = TopologicalSorter()
        for index, (item, _) in enumerate(doomed):
            graph.add(index, *(other for other, (user, _) in enumerate(doomed) if item.urn in user.needs))
        graph.prepare()
        running: dict[Future[None], int] = {}
        with ThreadPoolExecutor(PARALLEL) as pool:
            while graph.is_active():
                if not interruption.is_set():
                    running |= {pool.submit(self._delete, *doomed[index]): index for index in graph.get_ready()}
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    index = running.pop(future)
                    error = future.exception()
                    if error is None:
                        graph.done(index)
                    elif isinstance(error, Exception):
                        self.fail(doomed[index][0].urn, error)
                    else:
                        raise error

    # Asking providers

    def _provider(self, of: Goal | Resource) -> Provider:
        named = self._snapshot.resources.get(of.provider)
        return find(self._providers, type_of(of.urn), reveal(named.outputs) if named else None)

    def _check(self, provider: Provider, urn: str, old: Resource | None, wanted: Values) -> Values:
        checked = provider.check(urn, reveal(old.inputs) if old else {}, reveal(wanted))
        return keep_secret(from_provider(checked), wanted)

    def _diff(self, provider: Provider, old: Resource, inputs: Values) -> tuple[Difference, tuple[str, ...]]:
        """What the provider says, and which inputs changed."""
        changed = changed_keys(old.inputs, inputs)
        difference = provider.diff(old.urn, old.id, reveal(old.outputs), reveal(inputs))
        if difference.changes is None:
            difference = replace(difference, changes=bool(changed))
        return difference, changed

    # Bookkeeping

    def _step(self, operation: Operation, urn: str, reason: str = "") -> Step:
        return Step(operation, type_of(urn), name_of(urn), urn, reason)

    @contextmanager
    def _doing(self, step: Step, pending: Pending | None = None) -> Iterator[None]:
        """Around an operation: on disk before it starts and after it ends, and told to whoever watches."""
        with self._lock:
            self.steps.append(step)
        if self.dry_run:
            yield
            return
        if pending is not None:
            with self._lock:
                self._snapshot.pending.append(pending)
            self._save(step)
            self.tell(Event("start", step))
        began = time.monotonic()
        try:
            yield
        except BaseException as error:
            # A create that failed made nothing; of any other end nobody knows what it left.
            if pending and pending.operation == "create" and not isinstance(error, Interrupted):
                with self._lock:
                    self._snapshot.pending = [item for item in self._snapshot.pending if item is not pending]
                with suppress(LabError):
                    self._save()
            self.tell(Event("failed", step, time.monotonic() - began, str(error)))
            raise
        self._save(step)
        self.tell(Event("done", step, time.monotonic() - began))

    def _record(self, new: Resource, condemn: Resource | None = None) -> None:
        with self._lock:
            self._snapshot.resources[new.urn] = new
            self._snapshot.pending = [item for item in self._snapshot.pending if item.resource.urn != new.urn]
            if condemn is not None:
                # Its protection was taken off by the goal that replaced it.
                self._snapshot.condemned.append(replace(condemn, protect=False))

    def _save(self, step: Step | None = None) -> None:
        """Have on disk what is known now; of several operations that want that at once, one writes for all."""
        if self._checkpoint is None:
            return
        with self._lock:
            self._wanted += 1
            mine = self._wanted
        # A delete makes room on a full disk, and a checkpoint that still lists the deleted only has it deleted again.
        with suppress(LabError) if step and step.operation == "delete" else nullcontext(), self._writing:
            if self._written >= mine:
                return
            with self._lock:
                covered, document = self._wanted, self._checkpoint.document(self._snapshot)
            self._checkpoint.save(document)
            self._written = covered

    def tell(self, event: Event) -> None:
        """Pass an event to whoever watches, one at a time."""
        with self._telling:
            self._watch(event)


def _resource(goal: Goal, id_: str, inputs: Values, outputs: Values) -> Resource:
    return Resource(
        urn=goal.urn,
        custom=goal.custom,
        id=id_,
        parent=goal.parent,
        inputs=inputs,
        outputs=outputs,
        dependencies=goal.dependencies,
        property_dependencies=goal.property_dependencies,
        protect=goal.protect,
        retain=goal.retain,
        provider=goal.provider,
    )


def _outputs(outputs: Values, inputs: Values, goal: Goal) -> Values:
    marked = keep_secret(from_provider(outputs), inputs)
    hidden = {key: Secret(reveal(marked[key])) for key in goal.secret_outputs if key in marked}
    return {**marked, **hidden}


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    """The top-level properties that differ, secret or not."""
    return tuple(key for key in sorted({*old, *new}) if reveal(old.get(key)) != reveal(new.get(key)))


def because(keys: Iterable[str]) -> str:
    """The reason of a step, naming properties and never their values."""
    names = ["its provider" if key == DynamicProvider.KEY else key for key in keys]
    return f"{', '.join(names)} changed" if names else ""


def _reason(changed: Iterable[str], difference: Difference, old: Resource) -> str:
    """Why a resource is updated: what the program wants otherwise, or what somebody changed beside it."""
    why = [because(changed), told(difference.drift, old.inputs)]
    return "; ".join(filter(None, why)) or "what it stands for has changed"


_PATH = re.compile(r"""\.?(?:\[(?P<index>\d+)\]|\["(?P<quoted>[^"]*)"\]|(?P<name>[^.\[\]]+))""")


def _ignore(paths: Iterable[str], wanted: Values, old: Values) -> Values:
    """`wanted` with the values of `old` at `paths` (`a`, `a.b`, `a[0].b`, `a["b.c"]`; `*` for all)."""
    for path in paths:
        if path == "*":
            return old
        keys = [
            int(found["index"]) if found["index"] else found["quoted"] or found["name"]
            for found in _PATH.finditer(path)
        ]
        wanted = _reset(wanted, old, keys)
    return wanted


def _reset(new: Any, old: Any, keys: list[str | int]) -> Any:
    if not keys:
        return old
    key, *rest = keys
    if isinstance(new, Mapping) and isinstance(old, Mapping):
        if key in old and (rest == [] or key in new):
            return {**new, key: _reset(new.get(key), old[key], rest)}
        return {name: value for name, value in new.items() if rest or name != key}
    if isinstance(new, list) and isinstance(old, list) and isinstance(key, int) and key < min(len(new), len(old)):
        return [*new[:key], _reset(new[key], old[key], rest), *new[key + 1 :]]
    return new
