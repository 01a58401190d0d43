"""Every verifier and every fault has a mutation that must turn it red, and the mutations fit the DAGs as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.dag_folder import section_folders
from tests.lab.mutations import EDITS, IN_PODS, MUTATIONS, SAME_EXECUTOR

ROOT = Path(__file__).parents[2]
SECTIONS = ("35.1", "35.2", "35.3", "35.4", "35.5", "35.6", "35.7", "35.8", "35.9", "35.10")
DAGS = {file.stem: file for folder in section_folders(SECTIONS) for file in folder.glob("*.py")}
FAULTS = sorted(file.stem for file in (ROOT / "scenarios" / "faults").glob("test_*.py"))
BROKEN = {part for mutations in MUTATIONS.values() for mutation in mutations for part in mutation.scenarios}


@pytest.mark.parametrize("dag_id", DAGS)
def test_a_dag_has_a_verifier_that_a_mutation_turns_red(dag_id: str) -> None:
    verifier = ROOT / "scenarios" / DAGS[dag_id].parent.name / f"test_{dag_id}.py"
    assert verifier.exists()
    assert any(part in verifier.stem for part in BROKEN)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_has_a_mutation(fault: str) -> None:
    assert fault in BROKEN


@pytest.mark.parametrize(("dag_id", "edit"), [*EDITS.items(), *SAME_EXECUTOR.items(), *IN_PODS.items()])
def test_an_edit_fits_its_dag(dag_id: str, edit: tuple[str, str]) -> None:
    old, new = edit
    text = DAGS[dag_id].read_text()
    assert text.count(old) == 1
    compile(text.replace(old, new), dag_id, "exec")
