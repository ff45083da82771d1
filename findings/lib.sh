# What the scripts of this folder share; each begins with `. "$(dirname "$0")/lib.sh"`. By itself it does nothing but make a
# temporary folder, $work, which is removed at the end with everything that was mounted or started in it.
#
# Exit status of the scripts: 0: as seen. 1: it behaves differently now. 2: it could not be tried (a package is not to be had).
set -euo pipefail
export LC_ALL=C.UTF-8 TZ=UTC
work=$(mktemp -d)
debian=$work/debian
libraries=$debian/usr/lib/$(uname -m)-linux-gnu

cleanup() {
    local started=($(jobs -p))
    cd /
    awk -v below="$work/" 'index($2, below) == 1 { print $2 }' /proc/mounts | tac | xargs -r -n 1 umount -l || true
    [ "${#started[@]}" = 0 ] || kill "${started[@]}" 2>/dev/null || true
    wait
    rm -rf --one-file-system "$work"
}
trap cleanup EXIT

stop() { # words: says why the behaviour could not be looked at
    echo "cannot be tried: $*" >&2
    exit 2
}

unpack() { # NAME=VERSION...: Debian's packages, into $work; their programs and libraries come first, nothing is installed
    local archives=$work/archives
    mkdir -p "$archives" "$debian/usr"
    local download=(apt-get -qq -o APT::Sandbox::User=root download "$@")
    (cd "$archives" && { "${download[@]}" 2>/dev/null || { apt-get -qq update && "${download[@]}"; } }) >&2 ||
        stop "Debian has not all of these any more: $*"
    local archive top
    for archive in "$archives"/*.deb; do
        dpkg-deb --extract "$archive" "$debian"
        rm "$archive"
    done
    for top in bin sbin lib; do # all below usr, as on the system itself
        [ ! -d "$debian/$top" ] || cp -a "$debian/$top" "$debian/usr/"
    done
    export PATH="$debian/usr/bin:$debian/usr/sbin:$PATH" LD_LIBRARY_PATH="$libraries"
}

need() { # NAME or NAME=VERSION...: Debian's packages, installed; one that is there in another version is an error
    local package name version there missing=()
    for package; do
        name=${package%%=*} version=${package#"$name"} version=${version#=}
        there=$(dpkg-query -W -f '${db:Status-Status} ${Version}' "$name" 2>/dev/null) || there=""
        if [[ $there != installed\ * ]]; then
            missing+=("$package")
        elif [ -n "$version" ] && [ "$there" != "installed $version" ]; then
            stop "$name is installed in version ${there#installed }; this was seen with $version"
        fi
    done
    [ "${#missing[@]}" = 0 ] || { apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >/dev/null || stop "not to be installed: ${missing[*]}"
}

venv() { # NAME==VERSION...: packages of PyPI, in a virtual environment of their own, $work/venv
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install -q --disable-pip-version-check "$@" 2>"$work/pip" || { cat "$work/pip" >&2; stop "pip install $*"; }
}

build() { # a file system in C on standard input, for the libfuse 3 that was unpacked: $work/fs
    need gcc libc6-dev # of any version: they decide nothing here
    gcc -Wall -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DFUSE_USE_VERSION=31 -I"$debian/usr/include/fuse3" -x c -o "$work/fs" - \
        -x none "$libraries/libfuse3.so.3"
}

until_mounted() { # the folder; a file system that was started in the background mounts itself there
    local i
    for ((i = 0; i < 100; i++)); do
        mountpoint -q "$1" && return
        sleep 0.1
    done
    stop "nothing was mounted"
}

as_seen() { # what was seen now, what was seen when this was written; fails if that is not the same
    echo "$1"
    [ "$1" = "$2" ] || differs "when this was written it was:
$2"
}

differs() { # words; fails
    echo "it behaves differently now (Linux $(uname -r)); $*" >&2
    return 1
}
