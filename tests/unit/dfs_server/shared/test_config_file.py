"""Every mistake in a config file gives one sentence with file, key, found and expected values; never a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dfs_server.shared import config_file
from dfs_server.shared.config_file import At, ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some.yaml"


def load(file: Path, content: str | bytes) -> object:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return config_file.load(file)


def test_what_yaml_says_comes_back_as_plain_values(file: Path) -> None:
    assert load(file, "a: [1, two, null]\nb: {c: 2.5}") == {"a": [1, "two", None], "b": {"c": 2.5}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [1", "line 1"),
        ("a: [", "line 1, column 5: this is not valid YAML: expected the node content, but found"),
        ("a: 1\nb: }", "line 2"),
        ("a: 1\n\ta: 2", "line 2"),
        ("a: 1\nb: 2\na: 3", "line 3, column 1: found the key 'a' twice"),
        ("x:\n  b: 2\n  b: 3", "line 3, column 3: found the key 'b' twice"),
        ("a: !!python/object:os.system x", "line 1"),
        ("a: *nobody", "line 1"),
        ("? [1, 2]\n: 3", "line 1"),
        (b"a: \xff\xfe", "not valid YAML"),
        (b"a: \x00", "not valid YAML"),
        ("a: 2024-99-99", "not valid YAML"),
        ("a: 1\n---\nb: 2", "line 2"),
        ("[" * 2000, "not valid YAML"),
    ],
)
def test_what_is_not_yaml_is_an_error_with_the_line(file: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(file, content)
    assert str(file) in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_merge_key_is_not_a_duplicate(file: Path) -> None:
    assert load(file, "base: &b {x: 1}\nc:\n  <<: *b\n  y: 2") == {"base": {"x": 1}, "c": {"x": 1, "y": 2}}


def test_a_huge_file_is_refused_before_it_is_parsed(file: Path) -> None:
    with pytest.raises(ConfigError, match="more than 1048576 bytes"):
        load(file, b"#" * (config_file.MAX_FILE_BYTES + 1))


def test_a_value_that_contains_itself_or_grows_is_described_in_short(file: Path) -> None:
    bomb = "a: &a [x, x, x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
    )
    value = load(file, bomb + "me: &me [*me]\n")
    assert isinstance(value, dict)
    with pytest.raises(ConfigError, match="found a list of 9; expected a text") as caught:
        config_file.text(value["j"], At(file, "j"), "a text")
    assert len(str(caught.value)) < 300
    with pytest.raises(ConfigError, match="found a list of 1"):
        config_file.text(value["me"], At(file, "me"), "a text")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        config_file.load(tmp_path)


def test_places_are_written_like_paths(file: Path) -> None:
    assert At(file).child("servers").child(2).child("port").key == "servers, item 3: port"


def test_an_error_has_file_key_found_and_expected(file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config_file.integer("ten", At(file, "servers[0].port"), low=1, high=65535)
    assert str(caught.value) == (
        f"{file}: servers[0].port: found the text 'ten'; expected a whole number from 1 to 65535"
    )


@pytest.mark.parametrize("value", [None, True, 1.5, "1", [1], {"a": 1}, 0, 11])
def test_only_whole_numbers_in_range_are_integers(file: Path, value: object) -> None:
    with pytest.raises(ConfigError, match="a whole number from 1 to 10"):
        config_file.integer(value, At(file, "n"), low=1, high=10)


@pytest.mark.parametrize("value", [None, False, "1", [1.0], -0.1, 10.5, float("nan"), float("inf")])
def test_only_numbers_in_range_are_numbers(file: Path, value: object) -> None:
    with pytest.raises(ConfigError, match="a number from 0 to 10"):
        config_file.number(value, At(file, "n"), low=0, high=10)


def test_good_values_pass_through(file: Path) -> None:
    at = At(file, "k")
    assert config_file.integer(7, at, low=0, high=10) == 7
    assert config_file.number(7, at, low=0, high=10) == 7.0
    assert config_file.text("ab", at, "x", pattern="[ab]+") == "ab"
    assert config_file.secret("s", at, "x") == "s"
    assert config_file.sequence([1], at, "x") == [1]
    assert config_file.mapping({"a": 1}, at, required=["a"], optional=["b"]) == {"a": 1}


def test_a_text_must_match_from_end_to_end(file: Path) -> None:
    for value in ("abc!", "", "abc\n", None, 5):
        with pytest.raises(ConfigError, match="expected letters"):
            config_file.text(value, At(file, "k"), "letters", pattern="[a-z]+")


def test_unknown_missing_and_strange_keys(file: Path) -> None:
    at = At(file, "x")
    with pytest.raises(
        ConfigError,
        match=r"x: found the unknown key 'usres' \(did you mean 'users'\?\); expected one of 'users', 'a' and 'b'",
    ):
        config_file.mapping({"usres": 1}, at, required=["users"], optional=["a", "b"])
    with pytest.raises(ConfigError, match=r"x\.users: found nothing; expected the key 'users'"):
        config_file.mapping({"a": 1}, at, required=["users"], optional=["a", "b"])
    with pytest.raises(ConfigError, match=r"found true \(yes/no value\) as a key; expected a name"):
        config_file.mapping({True: 1}, at, optional=["a"])
    with pytest.raises(ConfigError, match="found nothing; expected the keys 'a'"):
        config_file.mapping(None, at, optional=["a"])
    with pytest.raises(ConfigError, match="found a list of 0; expected the keys 'a'"):
        config_file.mapping([], at, optional=["a"])


@pytest.mark.parametrize("value", [271828, ["hush-hush"], {"hush-hush": 1}, True, None, ""])
def test_a_secret_is_never_quoted(file: Path, value: object) -> None:
    with pytest.raises(ConfigError, match="expected a password") as caught:
        config_file.secret(value, At(file, "password"), "a password")
    assert "hush" not in str(caught.value)
    assert "271828" not in str(caught.value)


def test_a_secret_that_cannot_be_converted_is_not_quoted_either(file: Path) -> None:
    def refuse(text: str) -> str:
        raise ValueError("too short")

    with pytest.raises(ConfigError, match=r"found an unusable text \(too short\)") as caught:
        config_file.secret_as("hush-hush", At(file, "password"), "a password", refuse)
    assert "hush" not in str(caught.value)


class TestFind:
    """A config is looked for in --config, $DFS_CONFIG, ./tryout/, ./conf/, ~/.config/dfsfuse/, in this order."""

    @pytest.fixture(autouse=True)
    def _somewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("DFS_CONFIG", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        work = tmp_path / "work"
        work.mkdir()
        monkeypatch.chdir(work)
        self.explicit = tmp_path / "mine.yaml"
        self.from_environment = tmp_path / "env" / "dfs.yaml"
        self.in_conf = work / "conf" / "dfs.yaml"
        self.in_home = tmp_path / "home" / ".config" / "dfsfuse" / "dfs.yaml"
        for path in (self.explicit, self.from_environment, self.in_conf, self.in_home):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    def test_the_order(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DFS_CONFIG", str(self.from_environment))
        assert config_file.find(self.explicit, "dfs.yaml") == self.explicit
        assert config_file.find(None, "dfs.yaml") == self.from_environment
        monkeypatch.delenv("DFS_CONFIG")
        tryout = self.in_conf.parents[1] / "tryout" / "dfs.yaml"
        tryout.parent.mkdir()
        tryout.touch()
        assert config_file.find(None, "dfs.yaml").resolve() == tryout
        tryout.unlink()
        assert config_file.find(None, "dfs.yaml").resolve() == self.in_conf
        self.in_conf.unlink()
        assert config_file.find(None, "dfs.yaml") == self.in_home
        self.in_home.unlink()
        looked = rf"looked for tryout/dfs.yaml, conf/dfs.yaml and {self.in_home}\. Name one with --config"
        with pytest.raises(ConfigError, match=rf"no such config file; {looked}"):
            config_file.find(None, "dfs.yaml")

    @pytest.mark.parametrize("folder", ["tryout", "conf"])
    def test_what_another_user_has_put_into_the_working_folder_is_refused(self, folder: str) -> None:
        """And no other one is read instead, which would be a surprise too."""
        config = self.in_conf.parents[1] / folder / "dfs.yaml"
        config.parent.mkdir(exist_ok=True)
        config.touch()
        os.chown(config, 4711, -1)
        with pytest.raises(ConfigError, match=rf"{folder}/dfs.yaml is not used, since .* another user \(4711\)"):
            config_file.find(None, "dfs.yaml")
        assert config_file.find(config, "dfs.yaml") == config, "a config that is named explicitly is used"

    def test_the_environment_may_name_the_folder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DFS_CONFIG", str(self.from_environment.parent))
        assert config_file.find(None, "dfs.yaml") == self.from_environment

    def test_what_is_named_and_is_not_there_is_not_replaced_by_another(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(ConfigError, match=r"named by --config\): there is no such config file"):
            config_file.find(tmp_path / "no.yaml", "dfs.yaml")
        with pytest.raises(ConfigError, match="found a folder"):
            config_file.find(tmp_path, "dfs.yaml")
        monkeypatch.setenv("DFS_CONFIG", str(tmp_path / "no.yaml"))
        with pytest.raises(ConfigError, match=r"named by \$DFS_CONFIG\): there is no such config file"):
            config_file.find(None, "dfs.yaml")
