# Shared by the scripts in this folder: the build folder, and installation of missing Debian packages.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
# The build folder is outside of the checkout, so that another checkout reuses the compiled Tor crates.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/onionport/target}"

# The profile for building the programs. `ci` is `release` without link-time optimisation.
PROFILE="${PROFILE:-release}"

# Installs Debian packages unless they are installed: need PACKAGES PROGRAM [COMMAND THAT SUCCEEDS IF INSTALLED]
need() {
    local is_installed="${3:-command -v $2}"
    sh -c "$is_installed" >/dev/null 2>&1 && return
    local root=()
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null 2>&1; then
            echo "${2:-a package} is missing: run \`apt-get install $1\` as root" >&2
            exit 1
        fi
        root=(sudo)
    fi
    echo "installing $1 ..."
    # RUNLEVEL=1 keeps Debian from starting services: the tests start their own processes.
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 sh -c \
        "apt-get update -qq && apt-get install -y -qq --no-install-recommends $1" >/dev/null
    sh -c "$is_installed" >/dev/null 2>&1 || { echo "cannot install $1" >&2; exit 1; }
}

need_rust() {
    command -v cargo >/dev/null 2>&1 && return
    echo "cargo is missing: install Rust 1.92 or later from https://rustup.rs" >&2
    exit 1
}
