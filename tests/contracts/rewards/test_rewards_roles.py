from __future__ import annotations

import boa
import pytest
from rewards_stage import NOBODY, Stage, stranger

ROLES = [("liveness", "setLiveness", "LivenessChanged"), ("guardian", "setGuardian", "GuardianChanged")]


@pytest.mark.parametrize(("role", "setter", "event"), ROLES)
def test_the_owner_names_another_account(stage: Stage, role: str, setter: str, event: str) -> None:
    previous, current = getattr(stage.rewards, role)(), boa.env.generate_address("new")
    getattr(stage.rewards, setter)(current, sender=stage.owner)
    assert stage.events() == [(event, {"previous": previous, "current": current})]
    assert getattr(stage.rewards, role)() == current


@pytest.mark.parametrize(("role", "setter", "event"), ROLES)
def test_nobody_else_does_not_even_the_role_itself(stage: Stage, role: str, setter: str, event: str) -> None:
    for caller in (getattr(stage.rewards, role)(), stage.network.roles.deployer, stranger()):
        with stage.refused("ownable: caller is not the owner"):
            getattr(stage.rewards, setter)(stranger(), sender=caller)


@pytest.mark.parametrize(("role", "setter", "event"), ROLES)
def test_the_zero_address_is_refused(stage: Stage, role: str, setter: str, event: str) -> None:
    with stage.refused("rewards: zero address"):
        getattr(stage.rewards, setter)(NOBODY, sender=stage.owner)


def test_the_previous_reporter_reports_no_more(stage: Stage) -> None:
    stage.rewards.setLiveness(stranger(), sender=stage.owner)
    with stage.refused("rewards: caller is not the liveness reporter"):
        stage.report()


def test_the_previous_guardian_pauses_no_more(stage: Stage) -> None:
    guardian = stage.guardian
    stage.rewards.setGuardian(stranger(), sender=stage.owner)
    with stage.refused("rewards: caller is not the guardian"):
        stage.rewards.pause(sender=guardian)


def test_ownership_passes_in_two_steps_and_cannot_be_dropped(stage: Stage) -> None:
    stage.rewards.transfer_ownership(stranger(), sender=stage.owner)
    assert (stage.rewards.owner(), stage.rewards.pending_owner()) == (stage.owner, stranger())
    stage.rewards.accept_ownership(sender=stranger())
    assert (stage.rewards.owner(), stage.rewards.pending_owner()) == (stranger(), NOBODY)
    assert not hasattr(stage.rewards, "renounce_ownership")
