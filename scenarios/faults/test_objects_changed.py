"""Somebody changes the objects of a lab by hand: `preview` names each object and field, `up` puts them back.

Kubernetes' contract: who applies an object on the server's side owns the fields that it gives, and says so with
`force`; what others added stays theirs.
Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/

Hint: `./lab preview LAB` before and after `kubectl scale deploy/airflow-dag-processor --replicas=0`.
"""

import pytest

from scenarios.faulting import late_fails
from scenarios.upgrading import applied, changes

pytestmark = pytest.mark.needs(platform="kubernetes")


def test_what_was_changed_by_hand_is_told_and_put_back(lab, services, faults, evidence):
    """Each change is told with object and field, no secret with its value; then all is as before."""
    with late_fails(), faults.changed_by_hand(lab) as hand:
        upgrade = applied(lab, services)
        again = changes(lab.preview())
    told = {(kind, name): why for (_, kind, name), why in upgrade.said.items() if "drift: " in why}
    evidence("preview", upgrade.rows())
    evidence(
        "changed by hand", [{"what": f"{kind} {name}", "told": why} for (kind, name), why in hand.expected.items()]
    )
    assert told == hand.expected
    assert {key: why for key, why in upgrade.done.items() if "drift: " in why} == {
        key: why for key, why in upgrade.said.items() if "drift: " in why
    }
    assert hand.secret not in str(upgrade.said), "a secret was told"
    assert again == {}, "something still differs"
