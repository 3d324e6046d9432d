#!/usr/bin/env bash
# DeepSpeed 0.19.8 with torch 2.14.1, on a CPU: `deepspeed.init_distributed("gloo")` of one process compiles a C++ extension for
# exchanges in shared memory, although gloo does the exchanges, and says so on its standard output.
# The first start on a machine, or the first with an empty TORCH_EXTENSIONS_DIR (a home that is not shared, a container), waits for
# g++; every process of the job waits for the one that compiles.
# Seen on Python 3.11 with g++: no file before, deepspeed_shm_comm.so after.
set -euo pipefail
command -v g++ > /dev/null || { echo "needs g++"; exit 1; }
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  torch==2.14.1 numpy==2.4.6 setuptools==80.9.0 wheel==0.45.1 deepspeed==0.19.8
cat > "$folder/start.py" <<'PYTHON'
import deepspeed
deepspeed.init_distributed("gloo", rank=0, world_size=1, auto_mpi_discovery=False, verbose=False)
PYTHON
mkdir "$folder/extensions"
cd "$folder"
printed="$(PATH="$folder/venv/bin:$PATH" TORCH_EXTENSIONS_DIR="$folder/extensions" DS_ACCELERATOR=cpu CUDA_VISIBLE_DEVICES="" \
  MASTER_ADDR=127.0.0.1 MASTER_PORT=29611 RANK=0 LOCAL_RANK=0 WORLD_SIZE=1 "$folder/venv/bin/python" start.py 2> "$folder/log")" \
  || { tail -5 "$folder/log"; exit 1; }
compiled="$(find "$folder/extensions" -name '*.so' -printf '%f\n')"
echo "printed: $printed"
echo "compiled: $compiled"
test "$compiled" = deepspeed_shm_comm.so
