"""The server's config: its keys, each possible mistake, and the warning about plain passwords."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.servers import REPOSITORY

from dfs_server import config
from dfs_server.shared.config_file import ConfigError
from dfs_server.wire.accounts import Verifier

SCRAM = str(Verifier.of_password("geheim", b"0123456789abcdef"))


def read(tmp_path: Path, content: str, mode: int = 0o600) -> config.ServerConfig:
    path = tmp_path / "dfs.yaml"
    path.write_text(content)
    path.chmod(mode)
    return config.read(path)


def test_users_and_defaults(tmp_path: Path) -> None:
    found = read(tmp_path, f"users:\n  alice: {{password: alice-secret}}\n  bob: {{scram: '{SCRAM}'}}\n")
    assert list(found.users) == ["alice", "bob"]
    assert str(found.users["bob"]) == SCRAM
    alice = found.users["alice"]
    assert alice == Verifier.of_password("alice-secret", alice.salt)
    assert (found.grace_period_s, found.reserve_bytes, found.max_connections) == (
        600.0,
        64 * 1024 * 1024,
        256,
    )
    assert found.warnings == ()


def test_the_limits_can_be_set(tmp_path: Path) -> None:
    found = read(tmp_path, "users: {a: {password: x}}\ngrace_period_s: 0.5\nreserve_bytes: 0\nmax_connections: 8\n")
    assert (found.grace_period_s, found.reserve_bytes, found.max_connections) == (0.5, 0, 8)


def test_the_file_that_comes_with_it_is_right_and_its_comments_name_the_defaults() -> None:
    path = REPOSITORY / "conf" / "dfs.yaml"
    found = config.read(path)
    assert list(found.users) == ["alice", "bob"]
    commented = dict(re.findall(r"^# (\w+): (\d+)$", path.read_text(), re.MULTILINE))
    assert {key: float(value) for key, value in commented.items()} == {
        "grace_period_s": found.grace_period_s,
        "reserve_bytes": found.reserve_bytes,
        "max_connections": found.max_connections,
        "scrub_days": found.scrub_days,
        "scrub_mb_s": found.scrub_mb_s,
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "found nothing; expected the keys 'users'"),
        ("- users", "found a list of 1; expected the keys"),
        ("user: {}", "found the unknown key 'user' (did you mean 'users'?); expected one of 'users'"),
        ("users:", "users: found nothing; expected users"),
        ("users: {}", "users: found no user"),
        ("users: [alice]", "users: found a list of 1"),
        ("users: {123: {password: x}}", "users: found the number 123 as a key"),
        (
            "users: {alice: secret}",
            "users.alice: found the text 'secret'; expected the keys 'password' and 'scram'",
        ),
        ("users: {alice: {}}", "users.alice: found neither; expected either 'password' or 'scram'"),
        ("users: {alice: {password: a, scram: b}}", "users.alice: found both"),
        ("users: {alice: {pasword: a}}", "users.alice: found the unknown key 'pasword'"),
        (
            "users: {alice: {password: 1234}}",
            "users.alice.password: found a number; expected a password in quotes",
        ),
        ("users: {alice: {password: ''}}", "users.alice.password: found an empty text; expected a password"),
        ('users: {alice: {password: "a\\u0007b"}}', "users.alice.password: found an unusable text"),
        (
            "users: {alice: {scram: abc}}",
            "users.alice.scram: found an unusable text (not of the form SCRAM",
        ),
        ("users: {alice: {scram: 'SCRAM-SHA-256$4096:YWFh$YWFh:YWFh'}}", "wrong length"),
        ("users: {../bob: {password: x}}", "users: found the user name '../bob'"),
        ("users: {.: {password: x}}", "users: found the user name '.'"),
        ("users: {'': {password: x}}", "users: found the user name ''"),
        ("users: {server.json: {password: x}}", "users: found the user name 'server.json'"),
        ("users: {a/b: {password: x}}", "it names a folder"),
        (
            "users: {a: {password: x}}\ngrace_period_s: soon",
            "grace_period_s: found the text 'soon'; expected a number",
        ),
        (
            "users: {a: {password: x}}\nreserve_bytes: -1",
            "reserve_bytes: found the number -1; expected a whole number",
        ),
        ("users: {a: {password: x}}\nmax_connections: 1", "max_connections: found the number 1"),
    ],
)
def test_each_mistake_has_its_sentence(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, content)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'dfs.yaml'}")


def test_a_plain_password_in_a_file_that_others_can_read_is_warned_about(tmp_path: Path) -> None:
    content = "users: {alice: {password: alice-secret}}"
    (warning,) = read(tmp_path, content, 0o644).warnings
    assert "alice" in warning
    assert "chmod 600" in warning
    assert "alice-secret" not in warning
    assert read(tmp_path, f"users: {{alice: {{scram: '{SCRAM}'}}}}", 0o644).warnings == ()


def test_secrets_are_not_in_the_repr(tmp_path: Path) -> None:
    found = read(tmp_path, f"users: {{alice: {{scram: '{SCRAM}'}}}}")
    assert "users" not in repr(found)
    assert repr(found.users["alice"]) == "Verifier(...)"
