from __future__ import annotations

import os
import plistlib
import shutil
import subprocess
from pathlib import Path

import pytest
from node_scene import Operate

import services
from parallelix.node import service
from parallelix.node.errors import ConfigRefused, ServiceFailed
from parallelix.node.home import Home

ODD = ["/opt/with space/bin/parallelix-node", "start", "--node-id", "4217", "--model", 'we"ird $HOME %h \\ é', "--gpu"]


def unit(arguments: list[str], *, scope: service.Scope, home: Path = Path("/home/op/.parallelix")) -> str:
    return service.systemd_unit(arguments, home=home, scope=scope, user="op")


@pytest.mark.parametrize("scope", ["user", "system"])
@pytest.mark.parametrize("odd", [False, True])
def test_systemd_accepts_the_unit(tmp_path: Path, scope: service.Scope, odd: bool) -> None:
    program = tmp_path / ("with space" if odd else "bin") / "parallelix-node"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    arguments = [str(program), *ODD[1:]] if odd else [str(program), "start", "--node-id", "4217", "--gpu"]
    path = tmp_path / "parallelix-node.service"
    text = unit(arguments, scope=scope).replace("User=op", "User=root")
    path.write_text(text)
    # Its own manual and the network target are not the unit's concern.
    command = [
        services.systemd_analyze(),
        "verify",
        "--man=no",
        "--recursive-errors=no",
        *(["--user"] if scope == "user" else []),
    ]
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run([*command, str(path)], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_finds_fault_with_a_broken_unit(tmp_path: Path) -> None:
    path = tmp_path / "parallelix-node.service"
    path.write_text(
        unit(["/nonexistent/program"], scope="user").replace("Restart=on-failure", "Restart=on-success-only")
    )
    command = [services.systemd_analyze(), "verify", "--man=no", "--recursive-errors=no", "--user", str(path)]
    done = subprocess.run(
        command, env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert "on-success-only" in done.stderr and "not executable" in done.stderr


@pytest.mark.parametrize("scope", ["user", "system"])
def test_a_node_that_stopped_for_good_stays_stopped(scope: service.Scope) -> None:
    lines = unit(["/bin/parallelix-node", "start"], scope=scope).splitlines()
    assert "Restart=on-failure" in lines
    assert "RestartPreventExitStatus=2 3" in lines
    assert "NoNewPrivileges=yes" in lines and "UMask=0077" in lines and "LimitCORE=0" in lines


def test_only_a_system_unit_names_a_user_and_fences_the_file_system() -> None:
    system, user = (unit(["/bin/parallelix-node"], scope=scope) for scope in ("system", "user"))
    assert "User=op" in system and "ProtectSystem=strict" in system and "ReadWritePaths=/home/op/.parallelix" in system
    assert "User=" not in user and "ProtectSystem" not in user
    assert "WantedBy=multi-user.target" in system and "WantedBy=default.target" in user


def test_odd_arguments_are_quoted_as_systemd_reads_them() -> None:
    text = unit(ODD, scope="user")
    assert (
        'ExecStart="/opt/with space/bin/parallelix-node" start --node-id 4217 '
        '--model "we\\"ird $$HOME %%h \\\\ é" --gpu' in text
    )


def test_the_launchd_job_is_a_plist_that_keeps_a_stopped_node_stopped() -> None:
    job = plistlib.loads(service.launchd_plist(ODD, home=Path("/Users/op/.parallelix")).encode())
    assert job["Label"] == "io.parallelix.node"
    assert job["ProgramArguments"] == ODD
    assert job["KeepAlive"] == {"SuccessfulExit": False}
    assert job["RunAtLoad"] is True
    assert job["Umask"] == 0o077
    assert job["EnvironmentVariables"] == {"PARALLELIX_HOME": "/Users/op/.parallelix"}


def test_launchd_is_told_of_the_job_in_the_users_own_domain() -> None:
    user_home = Path("/Users/op")
    home = user_home / ".parallelix"
    plan = service.launchd_plan(ODD, home=home, scope="user", user_home=user_home, uid=501, user="op")
    path = "/Users/op/Library/LaunchAgents/io.parallelix.node.plist"
    assert str(plan.path) == path
    assert ("launchctl", "bootstrap", "gui/501", path) in plan.commands
    assert "UserName" not in plistlib.loads(plan.content.encode())


def test_a_job_of_the_whole_machine_runs_as_the_one_whose_keys_it_opens() -> None:
    user_home = Path("/Users/op")
    home = user_home / ".parallelix"
    plan = service.launchd_plan(ODD, home=home, scope="system", user_home=user_home, uid=0, user="op")
    assert str(plan.path) == "/Library/LaunchDaemons/io.parallelix.node.plist"
    assert plistlib.loads(plan.content.encode())["UserName"] == "op"


def test_a_control_character_cannot_smuggle_a_line_into_the_unit() -> None:
    with pytest.raises(ConfigRefused, match="control character"):
        service.plan(["parallelix-node", "a\nExecStartPre=/bin/sh"], home=Path("/"), scope="user", environment={})


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl and a loginctl that write down what they were asked. `fail` makes systemctl refuse."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("systemctl", "loginctl"):
        script = folder / name
        script.write_text(
            f'#!/bin/sh\necho "{name} $@" >> {tmp_path}/asked\n'
            f"if [ -e {tmp_path}/fail ]; then echo 'Failed to connect to bus' >&2; exit 1; fi\n"
        )
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr("sys.platform", "linux")
    return tmp_path


@pytest.fixture
def made(home: Home, made_keys: Home) -> Home:
    shutil.copytree(made_keys.root, home.root)
    return home


def test_installing_writes_the_unit_enables_lingering_and_starts_it(
    made: Home, manager: Path, operate: Operate
) -> None:
    installed = operate("service", "--node-id", "4217", "--cpu", "--slots", "2", "--model", "llama3.2")
    assert installed.out == "✓ installed + started as systemd service 'parallelix-node'\n"
    path = manager / ".config" / "systemd" / "user" / "parallelix-node.service"
    assert "start --node-id 4217 --cpu --slots 2 --model llama3.2" in path.read_text()
    asked = (manager / "asked").read_text().splitlines()
    assert asked[0].startswith("loginctl enable-linger ")
    assert asked[1:] == [
        "systemctl --user daemon-reload",
        "systemctl --user enable parallelix-node.service",
        "systemctl --user restart parallelix-node.service",
    ]


def test_installing_again_replaces_the_unit(made: Home, manager: Path, operate: Operate) -> None:
    assert operate("service", "--node-id", "4217", "--cpu").code == 0
    assert operate("service", "--node-id", "4218", "--cpu").code == 0
    folder = manager / ".config" / "systemd" / "user"
    assert [path.name for path in folder.iterdir()] == ["parallelix-node.service"]
    assert "--node-id 4218" in (folder / "parallelix-node.service").read_text()


def test_a_dry_run_changes_nothing(home: Home, manager: Path, operate: Operate) -> None:
    printed = operate("service", "--node-id", "4217", "--gpu", "--dry-run")
    assert printed.code == 0 and "Restart=on-failure" in printed.out
    assert not (manager / "asked").exists() and not (manager / ".config").exists()


def test_a_manager_that_refuses_is_quoted(made: Home, manager: Path, operate: Operate) -> None:
    (manager / "fail").touch()
    refused = operate("service", "--node-id", "4217", "--cpu", "--json")
    assert refused.code == 1
    assert refused.error["error"] == "node.service_failed"
    assert (
        "`systemctl --user daemon-reload` ended with 1 and said: Failed to connect to bus" in refused.error["message"]
    )


def test_without_systemd_the_way_out_is_named(
    made: Home, manager: Path, operate: Operate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    refused = operate("service", "--node-id", "4217", "--cpu", "--json")
    assert "no systemctl on this machine" in refused.error["message"]
    assert "--dry-run" in refused.error["message"]


def test_without_a_key_there_is_nothing_to_install(home: Home, manager: Path, operate: Operate) -> None:
    refused = operate("service", "--node-id", "4217", "--cpu", "--json")
    assert (refused.code, refused.error["error"]) == (3, "node.key_missing")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--node-id: missing"),
        (["--node-id", "x"], "expected the decimal number"),
        (["--node-id", "-1"], "expected the decimal number"),
        (["--node-id", str(2**256)], "expected the decimal number"),
        (["--node-id", "1", "--gpu", "--cpu"], "choose one"),
        (["--node-id", "1", "--slots", "0"], "slots"),
        (["--node-id", "1", "--runtime", "cuda"], "runtime"),
        (["--node-id", "1", "--runtime", "llama_cpp"], "--gguf"),
        (["--node-id", "1", "--tier", "9"], "tier"),
    ],
)
def test_what_start_would_refuse_is_refused_before_anything_is_installed(
    made: Home, manager: Path, operate: Operate, arguments: list[str], said: str
) -> None:
    refused = operate("service", *arguments)
    assert refused.code == 2 and said in refused.err
    assert not (manager / ".config").exists()


def test_a_folder_that_cannot_be_written_says_what_root_is_for(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    plan = service.systemd_plan(
        ["/bin/true"], home=tmp_path, scope="user", user_home=tmp_path / "file", user="op", environment={}
    )
    with pytest.raises(ServiceFailed, match="cannot be written"):
        service.install(plan)


def test_under_sudo_a_system_service_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    plan = service.plan(
        ["/bin/true"], home=Path("/home/op/.parallelix"), scope="system", environment={"SUDO_USER": "op"}
    )
    assert "User=op" in plan.content
    assert str(plan.path) == "/etc/systemd/system/parallelix-node.service"
