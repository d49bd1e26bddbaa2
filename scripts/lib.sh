# Shared by the scripts beside it: what a fresh Debian machine lacks, and where builds go.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
# Outside of the checkout, so that a second checkout need not compile the Tor crates again.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/onionport/target}"

# The profile of the programs that are built: `ci` is the same without optimisation at link time.
PROFILE="${PROFILE:-release}"

# Installs Debian packages that are missing: need PACKAGES PROGRAM [TEST THAT THEY ARE THERE]
need() {
    local there="${3:-command -v $2}"
    sh -c "$there" >/dev/null 2>&1 && return
    local root=()
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null 2>&1; then
            echo "${2:-a package} is missing: install it with  apt-get install $1  as root" >&2
            exit 1
        fi
        root=(sudo)
    fi
    echo "installing $1 ..."
    # Tests start programs of their own; a service that Debian would start is not wanted.
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 sh -c \
        "apt-get update -qq && apt-get install -y -qq --no-install-recommends $1" >/dev/null
    sh -c "$there" >/dev/null 2>&1 || { echo "cannot install $1" >&2; exit 1; }
}

need_rust() {
    command -v cargo >/dev/null 2>&1 && return
    echo "cargo is missing: install Rust 1.92 or later, see https://rustup.rs" >&2
    exit 1
}
