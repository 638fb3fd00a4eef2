#!/bin/sh
# Bring .venv up to requirements.lock and pyproject.toml. Run: make env (TORCH=cpu or TORCH=cuda,
# EXTRAS="team server")
#
# On Linux, PyPI's build of PyTorch needs CUDA's libraries. Without an NVIDIA driver, the build for
# processors is installed instead, from PyTorch's own index; TORCH chooses one of the two. This index
# is not in requirements.lock: uv checks the sums of all other packages. If the index cannot be reached
# or has no such build, the build with CUDA is installed, which runs on processors too.
#
# EXTRAS chooses what is installed beside the packages that everybody needs: the sections of the lock
# with these names. It is kept until EXTRAS is given again; EXTRAS= removes them.
#
# .venv/made-from holds the project's folder, and of the last complete installation the checksums, the
# build of PyTorch and the extras. It is written last. If it is missing, an installation was
# interrupted. If it names another folder, the project was moved or copied, and scripts in .venv point
# to the old place. In both cases .venv is made again.
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

# Run uv. Its list of some 190 packages is left out; large downloads, the number and errors stay.
uv() {
    rm -f .venv/failed
    # no awk: some read their input in blocks, so that lines about downloads would come too late
    { .venv/bin/uv "$@" --python .venv 2>&1 || echo $? >.venv/failed; } |
        while IFS= read -r line || [ "$line" ]; do
            case "$line" in
                ' + '* | ' - '* | ' ~ '* | '+ '* | '- '* | '~ '*) ;;
                'Using Python'* | Uninstalled* | Resolved* | Prepared* | Audited* | *' Downloaded '*) ;;
                *Downloading*GiB* | *Downloading*'('[0-9][0-9][0-9]*MiB')'*) echo "make env: $line" ;;
                *Downloading*) ;;
                *) echo "make env: $line" ;;
            esac
        done
    [ ! -e .venv/failed ]
}

# The version of a package in requirements.lock, as name==version.
locked() {
    sed -n "s/^\($1==[^ ;]*\).*/\1/p" requirements.lock
}

torch_for_processors() { # OPTION...
    uv pip install --no-deps --torch-backend cpu "$@" "$(locked torch)" "$(locked torchvision)"
}

sync() {
    # a section `# extras: NAME...` is left out, unless one of the names was chosen
    awk -v chosen=" $extras " '/^# extras: / {
            left_out = 1
            for (i = 3; i <= NF; i++) if (index(chosen, " " $i " ")) left_out = 0
        }
        !left_out' requirements.lock >.venv/requirements.lock
    if [ "$build" = cuda ]; then
        # the build for processors has the same version, so that it would stay. Where it is not there,
        # nothing is reinstalled: uv downloads again what it reinstalls, even if it has it
        again=''
        [ "$was_build" != cpu ] || again='--reinstall-package torch --reinstall-package torchvision'
        uv pip sync --require-hashes $again .venv/requirements.lock "$@"
    else
        awk '/^[a-z]/ { skip = /^(torch|torchvision|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==/ \
                && !/^nvidia-ml-py==/ }
            !skip' .venv/requirements.lock >.venv/without-torch.txt
        uv pip sync --require-hashes .venv/without-torch.txt "$@" && torch_for_processors "$@"
    fi
}

has_driver() {
    [ -e /proc/driver/nvidia/version ] || [ -e /dev/nvidiactl ] || [ -e /dev/dxg ] # WSL has dxg
}

here=$(pwd -P)
lock=$(cksum requirements.lock) || fail "git checkout requirements.lock brings it back"
project=$(cksum pyproject.toml) || fail "git checkout pyproject.toml brings it back"

was_here='' was_lock='' was_project='' was_build='' was_extras=''
{ IFS= read -r was_here && read -r was_lock && read -r was_project &&
    { read -r was_build && read -r was_extras || :; }; } \
    2>/dev/null <.venv/made-from || was_here=''
.venv/bin/python -c 'import uv' 2>/dev/null || was_here='' # its base Python may have been removed
case "${TORCH:-}" in
    cpu | cuda) build=$TORCH ;;
    '') build=$was_build ;; # what is installed is kept
    *) fail "TORCH=$TORCH is neither cpu nor cuda; leave it out to choose by the machine" ;;
esac
extras=''
for name in ${EXTRAS-$was_extras}; do
    case "$name" in
        server | team) ;;
        *) fail "EXTRAS=$name is neither team nor server; leave it out to keep what is installed" ;;
    esac
done
for name in server team; do
    case " ${EXTRAS-$was_extras} " in *" $name "*) extras="$extras${extras:+ }$name" ;; esac
done
for name in $was_extras; do
    case " $extras " in
        *" $name "* | '  ') ;; # EXTRAS= removes all, as asked
        *) echo "make env: EXTRAS=$extras removes $name; to have both: make env EXTRAS=\"team server\"" ;;
    esac
done
if [ "$(uname)" != Linux ]; then
    build=cuda # there is one build for each other platform
elif [ -z "$build" ]; then
    if has_driver; then build=cuda; else build=cpu; fi
fi
if [ "$was_here/$was_lock/$was_project/$was_build/$was_extras" = \
    "$here/$lock/$project/$build/$extras" ]; then
    if [ "$build" = cpu ] && has_driver; then
        echo "make env: PyTorch is installed for processors; for this NVIDIA GPU: make env TORCH=cuda"
    fi
    exit
fi

maker=$(cat .venv/making 2>/dev/null) || maker=''
# in a new container, a killed make may have had the number of this process
if [ "$maker" ] && [ "$maker" != $$ ] && kill -0 "$maker" 2>/dev/null; then
    fail "another make is at work on .venv (process $maker); wait until it has finished, or delete \
.venv/making if process $maker is no make"
fi
mkdir -p .venv
echo $$ >.venv/making
trap 'rm -f .venv/making' EXIT
trap 'exit 130' INT TERM HUP # not all shells run the trap of EXIT when a signal ends them

# choose_size: how much there is to download, in words; warns where the disk may be too small
choose_size() {
    if [ "$(uname)" != Linux ]; then
        size="about 0.3 GB to download"
    elif [ "$build" = cpu ]; then
        size="PyTorch for processors, without the 4 GB of CUDA's libraries"
    else
        size="about 3.2 GB to download and 6 GB on disk, CUDA's libraries being most of it"
        free=$(df -Pk . | awk 'NR == 2 { print int($4 * 1024 / 1e9) }')
        [ "$free" -ge 8 ] || echo "make env: warning: only $free GB are free here; have 8 to be safe"
    fi
}

# choose_build: if the build for processors cannot be had, take the one with CUDA
choose_build() {
    if [ "$build" = cpu ] && ! reason=$(UV_HTTP_TIMEOUT=10 UV_HTTP_RETRIES=1 \
        torch_for_processors --dry-run --reinstall 2>&1); then
        echo "make env: the build of PyTorch for processors cannot be had from PyTorch's own index:"
        echo "$reason"
        echo "make env: the build with CUDA takes its place"
        build=cuda
    fi
    choose_size
}

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

    echo "make env: making .venv with $("$python" -V)"
    rm -f .venv/made-from
    find .venv -mindepth 1 -maxdepth 1 ! -name making -exec rm -rf {} +
    "$python" -m venv .venv ||
        fail "making .venv with $python failed, see above; try another: make env PYTHON=/its/path"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9 ||
        fail "installing uv from PyPI failed, see above; check that the network is there"
    choose_build
    echo "make env: installing requirements.lock: $size, less what uv has in its cache"
    sync || fail "installing requirements.lock failed, see above; $check (downloads are kept)"
elif [ "$was_lock/$was_build/$was_extras" != "$lock/$build/$extras" ]; then
    choose_build
    [ "$was_lock/$was_project/$was_build/$was_extras" != "$lock/$project/$build/$extras" ] || exit 0
    echo "make env: what changes in .venv (all of it would be $size):"
    # if the packages cannot be downloaded, this fails while .venv is still complete
    sync --dry-run || fail "planning the update of .venv failed, see above; .venv is as it was; $check"
    rm -f .venv/made-from
    sync || fail "installing requirements.lock failed, see above; $check (downloads are kept)"
fi

.venv/bin/uv pip install --quiet --python .venv --no-deps --no-build-isolation --editable . ||
    fail "installing this project's package failed, see above; is pyproject.toml as git has it?"

printf '%s\n' "$here" "$lock" "$project" "$build" "$extras" >.venv/made-from
