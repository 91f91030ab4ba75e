from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from node_scene import Operate

from parallelix import private_files
from parallelix.node import keys
from parallelix.node.errors import Busy, KeyExists, KeyMissing, KeyRefused
from parallelix.node.home import Home, exclusive
from parallelix.private_files import PrivateFileRefused

MARK = keys.NODE_KEY_PREFIX.encode()
PRIVATE = {"node.key": "node_key", "envelope.pem": "envelope_key", "poe.pem": "poe_key"}


@pytest.fixture
def made(home: Home, made_keys: Home) -> Home:
    shutil.copytree(made_keys.root, home.root)
    return home


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_keys_are_private_whatever_the_umask(home: Home, umask: int) -> None:
    old = os.umask(umask)
    try:
        keys.create_keys(home, replace=False, config=b"")
    finally:
        os.umask(old)
    assert [mode(path) for path in (home.root, home.keys_folder)] == [0o700, 0o700]
    assert [mode(path) for path in (home.node_key, home.envelope_key, home.poe_key, home.config)] == [0o600] * 4


def test_the_three_keys_load_again_and_show_no_secret(made: Home) -> None:
    loaded = keys.load_keys(made)
    assert loaded.envelope_public_pem.startswith("-----BEGIN PUBLIC KEY-----")
    assert loaded.poe_public_pem.startswith("-----BEGIN PUBLIC KEY-----")
    assert loaded.envelope_public_pem != loaded.poe_public_pem
    assert loaded.poe.key_size == loaded.envelope.raw_value.key_size == 3072
    assert loaded.node.secret.hex() not in repr(loaded)
    assert repr(loaded) == f"NodeKeys(node=NodeKey({loaded.node.address}))"


def loosen(bits: int) -> Callable[[Path], None]:
    return lambda path: path.chmod(bits)


def become_a_link(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


def become_a_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nonexistent/key")


def become_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir(0o700)


def loosen_the_folder(path: Path) -> None:
    path.parent.chmod(0o750)


def link_the_folder(path: Path) -> None:
    moved = path.parent.with_name("moved")
    path.parent.rename(moved)
    path.parent.symlink_to(moved, target_is_directory=True)


BAD = {
    "readable by the group": loosen(0o640),
    "writable by the group": loosen(0o620),
    "executable by the group": loosen(0o610),
    "readable by others": loosen(0o604),
    "writable by others": loosen(0o602),
    "open to all": loosen(0o666),
    "a symbolic link": become_a_link,
    "a dangling link": become_a_dangling_link,
    "a pipe": become_a_pipe,
    "a folder": become_a_folder,
    "in a folder open to the group": loosen_the_folder,
    "in a folder that is a link": link_the_folder,
}


@pytest.mark.parametrize("name", PRIVATE)
@pytest.mark.parametrize("bad", BAD)
def test_every_command_that_opens_a_key_refuses_one_that_is(made: Home, operate: Operate, name: str, bad: str) -> None:
    path: Path = getattr(made, PRIVATE[name])
    BAD[bad](path)
    with pytest.raises(KeyRefused) as refused:
        keys.load_keys(made)
    assert str(path) in refused.value.message or str(path.parent) in refused.value.message
    assert operate("start", "--node-id", "4217", "--cpu").code == 3
    if name == "node.key":
        assert operate("status").code == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("name", [*PRIVATE, "keys", "."])
def test_a_key_or_folder_of_another_user_is_refused(made: Home, operate: Operate, name: str) -> None:
    os.chown(getattr(made, PRIVATE[name]) if name in PRIVATE else made.root / name, 12345, -1)
    refused = operate("start", "--node-id", "4217", "--cpu")
    assert refused.code == 3
    assert "belongs to user 12345, must belong to user 0" in refused.err


def test_another_owner_is_refused_also_where_this_user_could_read_the_file(made: Home) -> None:
    another = os.geteuid() + 1
    with pytest.raises(PrivateFileRefused, match=f"must belong to user {another}"):
        private_files.read(made.node_key, owner_uid=another)
    with pytest.raises(PrivateFileRefused, match=f"must belong to user {another}"):
        private_files.require_folder(made.keys_folder, owner_uid=another)


@pytest.mark.parametrize(
    "damage", [b"", b"parallelix-node-key-v1:" + b"f" * 63, b"parallelix-node-key-v1:" + b"0" * 64]
)
def test_a_damaged_node_key_is_refused_without_showing_it(made: Home, damage: bytes) -> None:
    made.node_key.write_bytes(damage)
    with pytest.raises(KeyRefused, match="damaged") as refused:
        keys.load_node_key(made)
    assert damage.decode()[-30:] not in refused.value.message or not damage
    assert refused.value.__cause__ is None


def test_a_key_without_our_mark_is_refused_because_it_may_be_a_wallets(made: Home) -> None:
    made.node_key.write_text("0x" + "ab" * 32)
    with pytest.raises(KeyRefused, match="damaged or not a node key"):
        keys.load_node_key(made)


def test_a_weaker_or_broken_rsa_key_is_refused(made: Home) -> None:
    made.poe_key.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(KeyRefused, match="3072 bits"):
        keys.load_keys(made)


def test_a_huge_file_is_not_read(made: Home) -> None:
    made.node_key.write_bytes(b"x" * 70_000)
    with pytest.raises(KeyRefused, match="70000 bytes, at most 65536"):
        keys.load_node_key(made)


def test_a_missing_key_says_how_to_get_one(home: Home) -> None:
    with pytest.raises(KeyMissing, match="parallelix-node init"):
        keys.load_keys(home)


def test_creating_never_overwrites(tmp_path: Path) -> None:
    private_files.create(tmp_path / "file", b"first")
    with pytest.raises(FileExistsError):
        private_files.create(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"


def test_a_second_init_leaves_the_key_alone(made: Home) -> None:
    before = made.node_key.read_bytes()
    with pytest.raises(KeyExists, match="--force"):
        keys.create_keys(made, replace=False, config=b"")
    assert made.node_key.read_bytes() == before


def test_replacing_makes_three_new_keys_and_forgets_the_old_nodes_state(made: Home) -> None:
    made.state.write_text("{}")
    before = keys.load_keys(made)
    keys.create_keys(made, replace=True, config=None)
    after = keys.load_keys(made)
    assert before.node.address != after.node.address
    assert before.poe_public_pem != after.poe_public_pem
    assert before.envelope_public_pem != after.envelope_public_pem
    assert not made.state.exists()


def crash_at(step: int, home: Home, *, replace: bool) -> None:
    """A process that dies without a word at the given step of making keys."""
    child = os.fork()
    if child == 0:
        steps: list[str] = []

        def progress(name: str) -> None:
            steps.append(name)
            if len(steps) == step:
                os._exit(9)

        keys.create_keys(home, replace=replace, config=b"", progress=progress)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 9


@pytest.mark.parametrize("step", [1, 2, 3])
def test_an_init_that_was_killed_is_made_good_by_the_next(home: Home, step: int) -> None:
    crash_at(step, home, replace=False)
    assert not keys.node_key_exists(home)
    made = keys.create_keys(home, replace=False, config=b"")
    assert keys.load_keys(home).node.address == made.address
    assert sorted(path.name for path in home.root.iterdir()) == ["config.toml", "keys", "lock", "node.key"]
    assert sorted(path.name for path in home.keys_folder.iterdir()) == ["envelope.pem", "poe.pem"]


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_replacement_that_was_killed_leaves_the_old_node_working(made: Home, step: int) -> None:
    before = keys.load_keys(made).node.address
    crash_at(step, made, replace=True)
    assert keys.load_keys(made).node.address == before


def test_of_several_inits_at_once_one_makes_the_key_and_the_others_say_so(home: Home) -> None:
    command = [sys.executable, "-m", "parallelix.node", "init", "--json"]
    environment = os.environ | {"PARALLELIX_HOME": str(home.root)}
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    answers = [process.communicate() for process in running]
    codes = sorted(process.returncode for process in running)
    assert codes[0] == 0 and all(code in (3, 7) for code in codes[1:]), answers
    printed = next(out for (out, _err), process in zip(answers, running, strict=True) if process.returncode == 0)
    assert keys.load_keys(home).node.address in printed


def test_a_folder_in_use_by_a_daemon_refuses_another_and_a_new_key(made: Home) -> None:
    with exclusive(made, purpose="start"):
        with pytest.raises(Busy, match=rf"in use by start \(pid {os.getpid()}\)"), exclusive(made, purpose="start"):
            pass
        with pytest.raises(Busy):
            keys.create_keys(made, replace=True, config=None)
    with exclusive(made, purpose="start"):
        pass
