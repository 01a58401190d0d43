"""Every verifier has a mutation that must turn it red, and the mutations fit the DAGs as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.dag_folder import section_folders
from stacks.catalogue import LABS
from tests.lab.mutations import EDGE_MUTATIONS, EDITS, MUTATIONS

ROOT = Path(__file__).parents[2]
SECTIONS = (*LABS["local"].sections, "35.6")
DAGS = {file.stem: file for folder in section_folders(SECTIONS) for file in folder.glob("*.py")}


@pytest.mark.parametrize("dag_id", DAGS)
def test_a_dag_has_a_verifier_that_a_mutation_turns_red(dag_id: str) -> None:
    verifier = ROOT / "scenarios" / DAGS[dag_id].parent.name / f"test_{dag_id}.py"
    assert verifier.exists()
    assert any(part in verifier.stem for mutation in (*MUTATIONS, *EDGE_MUTATIONS) for part in mutation.scenarios)


@pytest.mark.parametrize("dag_id", EDITS)
def test_an_edit_fits_its_dag(dag_id: str) -> None:
    old, new = EDITS[dag_id]
    text = DAGS[dag_id].read_text()
    assert text.count(old) == 1
    compile(text.replace(old, new), dag_id, "exec")
