"""Every planted bug, of every contract and across them: what the suite must notice, gathered for the long run."""

from __future__ import annotations

import anchor_machine
import locker_machine
import prlx_machine
import rewards_machine
import role_matrix
import token_movement
import vault_machine
from harness import Mutant

MUTANTS: tuple[Mutant, ...] = (
    *locker_machine.MUTANTS,
    *rewards_machine.MUTANTS,
    *vault_machine.MUTANTS,
    *anchor_machine.MUTANTS,
    *prlx_machine.MUTANTS,
    *role_matrix.MUTANTS,
    *token_movement.MUTANTS,
)
