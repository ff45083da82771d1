"""`dfsmount`: the command line: its options, the order in which they are checked, and the one place where its errors
are handled.

    mount       checks config, mountpoint and FUSE; goes to the background; connects, mounts, reports, serves
    unmount     `-u`: see `dfsfuse.mount.unmounting`

Without -f the parent returns when the mount works, or says why it does not. The exit codes are in
`dfsfuse.cli.exit_codes`.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import click

import dfsfuse
from dfs_server.shared import command_line
from dfs_server.shared.config_file import ConfigError
from dfs_server.shared.starting import SWITCH_S
from dfsfuse.cli.config import ClientConfig, load_config
from dfsfuse.cli.exit_codes import DONE, FAILED, OUTPUT_CLOSED, USAGE, exit_code_of
from dfsfuse.cli.local import local_servers
from dfsfuse.cli.mount import background
from dfsfuse.cli.mount import log as mount_log
from dfsfuse.cli.mount.background import Report
from dfsfuse.errors import DfsError, UnavailableError
from dfsfuse.mount import choice, covering, libfuse, mountpoints, options, unmounting
from dfsfuse.mount.errors import FuseMissingError
from dfsfuse.mount.options import MountOptions

PROGRAM = "dfsmount"
log = logging.getLogger("dfsfuse.cli.mount.dfsmount")  # also when it is run as __main__

EPILOG = """\b
Options after -o (comma-separated; -o can be repeated):
  durability=close|fsync   when data is on the servers' disks: at close() (default), or only at fsync()
  incomplete=suffix|eio|eremoteio   files that cannot be assembled: NAME [incomplete] (default), or not opened
                           (for backups)
  commit=SECONDS           save data of a file that stays open after this time (default 1)
  cache=SIZE               memory for file data, like 256M (default 64M)
  log=FILE                 where the background process writes its log
  binding=auto|kernel|fusepy   how to talk to the kernel (auto: directly where that works, else through libfuse 2)
  lock_timeout=SECONDS     others may take this mount's locks after this time without a sign of life (default 10)
  unmount_timeout=SECONDS  at the end, keep data in a local folder if it cannot be saved for this long (default 30)
  wait=SECONDS             wait this long for servers to return, rather than fail with EIO or EROFS (default 0)
  heal_mb_s=N              recreate missing copies at no more than N megabytes a second (default 32; 0: not at all)
  nonempty                 mount over a folder that is not empty
  relatime|strictatime|noatime   when reading updates the access time (default: once a day, and after a change)
  ro, allow_other, noexec, attr_timeout=S, entry_timeout=S, ...   as for every FUSE mount
"""


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    mountpoint: Path
    config: Path | None
    local: bool
    foreground: bool
    verbose: bool
    options: MountOptions


def _version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"dfsmount {dfsfuse.__version__}; {choice.versions()}")
        ctx.exit()


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("mountpoint", type=Path)  # click.Path would stat it, and block if it hangs
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path, readable=False),
    help="The client's config file (dfc.yaml).",
)
@click.option("-o", "option_lists", metavar="OPTIONS", multiple=True, help="Mount options, see below.")
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground and log to standard error.")
@click.option("--local", is_flag=True, help="Needs no config: starts its own four servers under your data folder.")
@click.option("-u", "--unmount", is_flag=True, help="Unmount MOUNTPOINT and wait until everything is on the servers.")
@click.option("-z", "--lazy", is_flag=True, help="With -u: even if programs are using it.")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
@click.option("--version", is_flag=True, callback=_version, expose_value=False, is_eager=True, help="Show the version.")
def cli(
    mountpoint: Path,
    config: Path | None,
    option_lists: tuple[str, ...],
    foreground: bool,
    local: bool,
    unmount: bool,
    lazy: bool,
    verbose: bool,
) -> int:
    """Mount the folder that is stored on four servers at MOUNTPOINT, or unmount it (-u).

    The config is FILE, or else $DFS_CONFIG, ./tryout/dfc.yaml, ./conf/dfc.yaml or ~/.config/dfsfuse/dfc.yaml.
    """
    if unmount:
        return end(mountpoint, lazy=lazy)
    if lazy:
        raise click.UsageError("-z can only be used with -u")
    if local and config is not None:
        raise click.UsageError("--local cannot be used with --config: it creates its own config")
    parsed = options.parse(option_lists, as_root=os.geteuid() == 0)
    return mount(Request(mountpoint, config, local, foreground, verbose, parsed))


def end(mountpoint: Path, *, lazy: bool, force: bool = False, is_quiet: bool = False) -> int:
    """Unmount, and report data that could not be saved. Returns the exit code. Raises the same as
    `unmounting.unmount`."""
    from dfsfuse.cli.mount import ending

    mountpoint, began_ns = mountpoints.absolute(mountpoint), time.time_ns()
    sentence = unmounting.unmount(mountpoint, lazy=lazy, force=force)
    kept = ending.of_mount(mountpoint, began_ns)
    for one in kept:
        _complain(PROGRAM, f"{mountpoint}: {ending.told(one)}")
    if not is_quiet:
        click.echo(sentence)
    return UnavailableError.exit_code if kept else DONE


def mount(request: Request) -> int:
    """Mount, and serve the mount here (`-f`) or in the background. Returns the exit code."""
    config = None if request.local else load_config(request.config)
    for warning in config.warnings if config else ():
        click.echo(f"{PROGRAM}: warning: {warning}", err=True)
    mountpoint = mountpoints.absolute(request.mountpoint)
    if unmounting.remove_stale(mountpoint):
        click.echo(f"{PROGRAM}: {mountpoint}: removed the stale mount that a killed dfsmount had left here", err=True)
    mountpoints.check(mountpoint, allow_nonempty=request.options.nonempty)
    covering.refuse(mountpoint, covering.of_every_mount())
    covering.refuse(mountpoint, covering.servers_below(mountpoint))
    if request.local:
        covering.refuse(mountpoint, [("the folders of its own four servers", local_servers.default_folder())])
    covering.forget_covered_imports(mountpoint)
    request = replace(request, options=choice.choose(request.options))
    libfuse.require(library=request.options.binding == "fusepy")
    if request.foreground:
        os.chdir("/")  # the current folder may be about to be covered
        _log_to(logging.StreamHandler(), request.verbose)
        return _serve(request, config, mountpoint, lambda _: None)
    log_file = request.options.log_file or mount_log.default_file(mountpoint)
    try:
        log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handler = mount_log.HeldLog(log_file)
    except OSError as error:
        raise ConfigError(f"{log_file}: the log cannot be written: {error.strerror}") from error
    report = background.run(
        lambda report: _in_background(request, config, mountpoint, handler, report), log_file=log_file
    )
    if report.text:
        click.echo(f"{PROGRAM}: {report.text}", err=True)
    return report.exit_code


def _in_background(
    request: Request,
    config: ClientConfig | None,
    mountpoint: Path,
    handler: logging.Handler,
    report: background.Reporter,
) -> int:
    _log_to(handler, request.verbose)
    began_at = os.fstat(2).st_size
    try:
        code = _serve(request, config, mountpoint, lambda remark: report(Report(DONE, remark)))
    except BaseException as error:  # the child reports its last error to the parent and the log
        is_expected = isinstance(error, DfsError)
        log.error("%s: the mount ended: %s", mountpoint, error, exc_info=None if is_expected else error)  # noqa: TRY400
        text = str(error) or type(error).__name__
        if isinstance(error, FuseMissingError):
            text += _complaints_since(began_at)
        report(Report(exit_code_of(error), text))
        return exit_code_of(error)
    finally:
        logging.shutdown()
    return code


def _complaints_since(offset: int) -> str:
    """The messages that libfuse wrote to standard error, which is the log file."""
    with Path("/proc/self/fd/2").open(errors="replace") as written:
        written.seek(offset)
        found = [line.strip() for line in written if line.startswith("fuse")]
    return f" ({'; '.join(found)})" if found else ""


def _serve(request: Request, config: ClientConfig | None, mountpoint: Path, on_ready: Callable[[str], None]) -> int:
    from dfs_server.shared.memory import share_one_heap
    from dfsfuse.cli.mount import ending
    from dfsfuse.cli.mount.config_watch import ConfigWatch
    from dfsfuse.cli.session import open_for_mount
    from dfsfuse.mount import bindings, running

    def ready() -> None:
        missing = missing_servers(mountpoint, session.cluster.missing())
        remark = f"{missing} ({reminder})" if missing and reminder else missing or reminder
        log.log(logging.WARNING if remark else logging.INFO, "%s", remark or f"{mountpoint}: mounted")
        on_ready(remark)

    if request.options.why_fusepy:
        log.info("%s: using fusepy: %s", mountpoint, request.options.why_fusepy)
    sys.setswitchinterval(SWITCH_S)
    share_one_heap()
    patience_s = request.options.unmount_timeout_s
    with (
        running.announced(mountpoint, patience_s=patience_s),
        bindings.signals_held(),
        _servers(config) as connected_to,
    ):
        session = open_for_mount(connected_to, request.options)
        mount_options = options.named(request.options, source_of(connected_to))
        reminder = ending.waiting(session.namespace())  # now, because the folder may be about to be covered
        with ending.saved(session, mountpoint, patience_s):
            watch = ConfigWatch(
                session.cluster, connected_to, may_open=lambda path: not covering.covers(mountpoint, path)
            )
            watch.start()
            try:
                bindings.serve(session.vfs, mountpoint, mount_options, ready, lambda: watch.read_again("SIGHUP"))
            finally:
                watch.close()
            log.info("%s: unmounted; saving the remaining data", mountpoint)
    log.info("%s: done", mountpoint)
    return DONE


def missing_servers(mountpoint: Path, missing: Sequence[str]) -> str:
    """The message for a successful mount with missing servers; `missing` has a text for each. Empty if none is
    missing."""
    if not missing:
        return ""
    if len(missing) == 1:
        means = "The other three are enough to read and write; until it is back none of them should fail."
    else:
        means = "Until three servers answer nothing can be written, and files may be incomplete."
    return f"{mountpoint}: mounted, but {'; '.join(missing)}. {means}"


def source_of(config: ClientConfig) -> str:
    """The source that the mount table and `df` show: `alice@10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.4`, with ports only where
    they are needed to distinguish the servers."""
    hosts = [f"[{server.host}]" if ":" in server.host else server.host for server in config.servers]
    ports = [str(server.port) for server in config.servers]
    if len(set(hosts)) == 1:
        servers = f"{hosts[0]}:{','.join(ports)}"
    elif len(set(ports)) == 1:
        servers = ",".join(hosts)
    else:
        servers = ",".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=True))
    return f"{config.credentials.username}@{servers}"


def _servers(config: ClientConfig | None) -> AbstractContextManager[ClientConfig]:
    return local_servers.running(local_servers.default_folder()) if config is None else nullcontext(config)


def _log_to(handler: logging.Handler, verbose: bool) -> None:
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler], force=True)
    logging.getLogger("fuse").setLevel(logging.CRITICAL)  # it repeats what `errno_of` has logged


def run(arguments: list[str] | None = None, command: click.Command = cli, program: str = PROGRAM) -> int:
    """Run one command line, report errors, and return the exit code."""
    try:
        outcome = command_line.invoke(command, sys.argv[1:] if arguments is None else arguments, program)
    except click.ClickException as error:
        _complain(program, command_line.usage_sentence(error, program))
        return USAGE
    except BrokenPipeError:  # of standard output: on a connection it would be a DfsError
        command_line.drop_output()
        return OUTPUT_CLOSED
    except (DfsError, ConfigError, OSError) as error:
        _complain(program, str(error))
        return exit_code_of(error)
    except (KeyboardInterrupt, click.Abort):
        return exit_code_of(KeyboardInterrupt())
    except Exception as error:  # this is where every error ends
        _complain(program, f"unexpected error: {error!r} (this is a bug in dfsfuse: please report it)")
        log.exception("unexpected exception")
        return FAILED
    return outcome if isinstance(outcome, int) else DONE


def _complain(program: str, sentence: str) -> None:
    with suppress(OSError):  # nobody is listening
        click.echo(f"{program}: {sentence}", err=True)


def main() -> None:
    """The program `dfsmount`."""
    command_line.ensure_streams()
    sys.exit(command_line.flushed(run(), PROGRAM))


if __name__ == "__main__":
    main()
