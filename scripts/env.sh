#!/bin/sh
# Bring .venv up to requirements.lock and pyproject.toml. Run: make env
#
# .venv/made-from holds the project's folder and the checksums of the last complete installation. It
# is written last. If it is missing, an installation was interrupted. If it names another folder, the
# project was moved or copied, and scripts in .venv point to the old place. In both cases .venv is
# made again.
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "make env: $*" >&2
    exit 1
}

# first_python BELOW NAME...: the path of the first program that is Python 3.11 or newer, below
# 3.BELOW. For a virtual environment's Python it is the base Python, which outlives the environment.
first_python() {
    below=$1 && shift
    for name; do
        "$name" -c "if 1:
            import sys
            if not (3, 11) <= sys.version_info < (3, $below): sys.exit(1)
            print(sys._base_executable)" 2>/dev/null && return
    done
    return 1
}

sync() {
    .venv/bin/uv pip sync --python .venv --require-hashes requirements.lock "$@"
}

here=$(pwd -P)
lock=$(cksum requirements.lock) || fail "git checkout requirements.lock brings it back"
project=$(cksum pyproject.toml) || fail "git checkout pyproject.toml brings it back"

was_here='' was_lock='' was_project=''
{ IFS= read -r was_here && read -r was_lock && read -r was_project; } 2>/dev/null <.venv/made-from ||
    was_here=''
.venv/bin/python -c 'import uv' 2>/dev/null || was_here='' # its base Python may have been removed
if [ "$was_here/$was_lock/$was_project" = "$here/$lock/$project" ]; then
    exit
fi

maker=$(cat .venv/making 2>/dev/null) || maker=''
if [ "$maker" ] && kill -0 "$maker" 2>/dev/null; then
    fail "another make is at work on .venv (process $maker); wait until it has finished"
fi
mkdir -p .venv
echo $$ >.venv/making
trap 'rm -f .venv/making' EXIT

if [ "$(uname)" = Linux ]; then
    size="about 3.2 GB to download and 6 GB on disk, CUDA's libraries being most of it"
    free=$(df -Pk . | awk 'NR == 2 { print int($4 * 1024 / 1e9) }')
    [ "$free" -ge 8 ] || echo "make env: warning: only $free GB are free here; have 8 to be safe"
else
    size="about 0.3 GB to download"
fi
check="check that the network is there, the disk is not full, and requirements.lock is as git has it"

if [ "$was_here" != "$here" ]; then
    if [ "${PYTHON:-}" ]; then
        python=$(first_python 99 "$PYTHON") ||
            fail "PYTHON=$PYTHON is not Python 3.11 or newer; name one that is, or leave it out"
    else
        # some packages of the lock have no wheels for 3.15, so it is tried last
        python=$(first_python 15 python3 python3.14 python3.13 python3.12 python3.11 ||
            first_python 99 python3) ||
            fail "found no Python 3.11 or newer; install one, or name one: make env PYTHON=/its/path"
    fi
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python has no venv module; on Debian and Ubuntu, apt install python3-venv brings it"

    echo "make env: making .venv with $("$python" -V), and installing requirements.lock into it:"
    echo "make env: $size, less what uv has in its cache"
    rm -f .venv/made-from
    find .venv -mindepth 1 -maxdepth 1 ! -name making -exec rm -rf {} +
    "$python" -m venv .venv ||
        fail "making .venv with $python failed, see above; try another: make env PYTHON=/its/path"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check uv ||
        fail "installing uv from PyPI failed, see above; check that the network is there"
    sync || fail "installing requirements.lock failed, see above; $check (downloads are kept)"
elif [ "$was_lock" != "$lock" ]; then
    echo "make env: requirements.lock has changed; what is to be installed now (all of it would be" \
        "$size):"
    # if the packages cannot be downloaded, this fails while .venv is still complete
    sync --dry-run || fail "planning the update of .venv failed, see above; .venv is as it was; $check"
    rm -f .venv/made-from
    sync || fail "installing requirements.lock failed, see above; $check (downloads are kept)"
fi

.venv/bin/uv pip install --quiet --python .venv --no-deps --no-build-isolation --editable . ||
    fail "installing this project's package failed, see above; is pyproject.toml as git has it?"

printf '%s\n' "$here" "$lock" "$project" >.venv/made-from
