"""The manual pages list every option, subcommand and exit code of the commands, and nothing else; and they are
well-formed man(7), as far as that can be checked without a formatter."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from dfs_server import cli as dfs_server
from dfsfuse.cli.dfc import app as dfc
from dfsfuse.cli.mount import dfsmount, mount_helper, umount_helper
from dfsfuse.mount import options

ROOT = Path(__file__).resolve().parents[2]
PAGES = {path.name: path.read_text() for path in sorted((ROOT / "docs/man").iterdir())}
MACROS = frozenset("TH SH SS TP PP B I BR BI RB RI IR br nf fi RS RE".split())
PAGE = pytest.mark.parametrize("name", PAGES)

COMMANDS = [
    ("dfs-server.8", "dfs-server", dfs_server.cli),
    ("dfsmount.8", "dfsmount", dfsmount.cli),
    ("dfsmount.8", "mount.dfs", mount_helper.cli),
    ("dfsmount.8", "umount.dfs", umount_helper.cli),
    ("dfc.1", "dfc", dfc.cli),
    *(("dfc.1", name, command) for name, command in dfc.cli.commands.items()),
]


def plain(text: str) -> str:
    """Return the text without the formatter's escapes and quotes."""
    return text.replace("\\-", "-").replace('"', "")


def section(page: str, kind: str, title: str) -> str:
    """Return the text under a heading."""
    after = plain(PAGES[page]).partition(f"\n.{kind} {title}\n")[2]
    assert after, f"{page} has no section {title}"
    return re.split(r"\n\.SH |\n\.SS " if kind == "SS" else r"\n\.SH ", after)[0]


def tags(text: str) -> list[str]:
    """Return the tags (the lines after .TP), without their macros."""
    return [line.split(maxsplit=1)[1] for line in re.findall(r"^\.TP\n(.*)$", text, re.MULTILINE)]


def options_of(command: click.Command) -> set[str]:
    with click.Context(command) as context:
        declared = command.get_params(context)
    return {name for one in declared if isinstance(one, click.Option) for name in (*one.opts, *one.secondary_opts)}


@pytest.mark.parametrize(("page", "title", "command"), COMMANDS, ids=[title for _, title, _ in COMMANDS])
def test_every_option_is_explained_and_no_other(page: str, title: str, command: click.Command) -> None:
    explained = set(
        re.findall(r"(?:^| )(--?[a-zA-Z][a-z-]*)", "\n".join(tags(section(page, "SS", title))), re.MULTILINE)
    )
    help_options = {"-h", "--help"}  # explained once on each page
    assert explained - help_options == options_of(command) - help_options


def test_every_command_of_dfc_is_explained_and_no_other() -> None:
    assert re.findall(r"^\.SS (\S+)$", section("dfc.1", "SH", "COMMANDS"), re.MULTILINE) == list(dfc.cli.commands)


def test_every_mount_option_is_explained_and_no_other() -> None:
    explained = {
        word.partition("=")[0]
        for tag in tags(section("dfsmount.8", "SH", "MOUNT OPTIONS"))
        for word in tag.replace(",", " ").replace(" | ", "|").split()
        if not word.isupper()
    }
    assert explained == {name.partition("=")[0] for name in options.known()}


def test_the_values_of_our_own_options() -> None:
    said = plain(PAGES["dfsmount.8"]).replace(" | ", "|")
    for name in options.known():
        if "|" in name:
            assert name in said


@pytest.mark.parametrize(
    ("page", "part"),
    [("dfc.1", "dfc and dfsmount"), ("dfsmount.8", "dfc and dfsmount"), ("dfs-server.8", "dfs-server")],
)
def test_the_exit_codes_are_those_of_the_interface(page: str, part: str) -> None:
    documented = (ROOT / "docs/cli.md").read_text().partition("## Exit codes")[2].partition(f"### {part}\n")[2]
    rows = re.findall(r"^\| ([\d, ]+) \| (.*) \|$", documented.partition("\n#")[0], re.MULTILINE)
    codes = {code for code, meaning in rows if len(code) < 3 and not (page == "dfc.1" and "dfsmount: " in meaning)}
    assert set(tags(section(page, "SH", "EXIT STATUS"))) == codes


@PAGE
def test_the_page_is_well_formed(name: str) -> None:
    text = PAGES[name]
    lines = text.splitlines()
    stem, number = name.rsplit(".", 1)
    assert lines[0].startswith(f".TH {stem.upper().replace('-', chr(92) + '-')} {number} ")
    assert re.match(rf"\.SH NAME\n{re.escape(stem)}", text.partition("\n")[2].replace("\\-", "-"))
    titles = re.findall(r"^\.SH (.*)$", text, re.MULTILINE)
    assert titles[:3] == ["NAME", "SYNOPSIS", "DESCRIPTION"] and titles[-1] == "SEE ALSO"
    for at, line in enumerate(lines, start=1):
        where = f"{name}, line {at}: {line!r}"
        assert line and line == line.rstrip() and line.isascii(), where
        assert not line.startswith("'"), where
        assert not re.sub(r"\\[-e]", "", line).count("\\"), where
        if line.startswith("."):
            assert line[1:].split()[0] in MACROS, where
            assert line.count('"') % 2 == 0, where
        if line == ".TP":
            assert re.match(r"\.(B|I|BI|BR) .", lines[at]), where
    assert lines.count(".nf") == lines.count(".fi") and lines.count(".RS") == lines.count(".RE")
    assert not re.search(r"(?:^|\s)--?[a-z]", text.replace("\\-", ""), re.MULTILINE), "an option needs \\-"


@PAGE
def test_the_pages_it_refers_to_are_there_or_the_systems(name: str) -> None:
    for title, number in re.findall(r"^\.BR (\S+) \((\d)\)", plain(PAGES[name]), re.MULTILINE):
        if title.startswith("df"):
            assert f"{title}.{number}" in PAGES
