#!/bin/sh
# Downloads the wheels of requirements.txt, for Linux and Python 3.12, into a folder; for a machine without a network.
#
#     benchmarks/gpu/prepare.sh [FOLDER]      the default is .whl, which git ignores
set -eu
here=$(dirname "$0")
folder=${1:-.whl}
python=${PYTHON:-python3}
wheels="--only-binary=:all: --python-version 3.12 --implementation cp --dest $folder"
for tag in manylinux_2_28 manylinux_2_27 manylinux_2_24 manylinux_2_17 manylinux2014 manylinux1; do
    wheels="$wheels --platform ${tag}_x86_64"
done
# pydantic takes one version of pydantic-core, so that its dependencies come with it. promise has no wheel.
"$python" -m pip download $wheels pydantic
grep -v '^promise' "$here/requirements.txt" | "$python" -m pip download $wheels --no-deps --requirement /dev/stdin
"$python" -m pip wheel --no-deps --wheel-dir "$folder" "$(grep '^promise' "$here/requirements.txt")"
du -sh "$folder"
