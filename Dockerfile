# The open engine as an image: `rmldnn --config=FILE`, alone or under `mpirun -np N`, as any user id.
#
#   make image        PyTorch for CPUs, tagged rmldnn-torch:latest
#   make image-cuda   PyTorch for CUDA, tagged rmldnn-torch:cuda (the host needs NVIDIA's driver and container toolkit)
#
# or `docker build --build-arg TORCH_INDEX=URL .` with another of PyTorch's package indexes.
# Needs BuildKit, the default builder since Docker 23 (before: DOCKER_BUILDKIT=1).
FROM debian:bookworm-slim

LABEL org.opencontainers.image.title="rmldnn-torch" \
      org.opencontainers.image.description="An open engine for rmldnn configurations, on PyTorch" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.rmldnn-torch.engine="1"

RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends openmpi-bin python3 python3-venv tini \
    && rm -rf /var/lib/apt/lists/*

# An index beside PyPI, whose own torch is the CUDA build. A local version such as 2.13.0+cpu counts as newer than the
# plain 2.13.0, so it is taken where that index or the folder wheels/ has it (which is empty unless you put one there).
ARG TORCH_INDEX=""

# The packages are those of the extra `engine`, so that pyproject.toml stays the one list of them. The secret `ca` lends
# this step the host's certificates, for hosts behind an inspecting proxy; without it the image's own are used.
RUN --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    --mount=type=bind,source=wheels,target=/build/wheels \
    --mount=type=bind,source=constraints.txt,target=/build/constraints.txt \
    --mount=type=bind,source=pyproject.toml,target=/build/pyproject.toml \
    python3 -m venv /opt/rmldnn \
    && python3 -c 'import tomllib; \
project = tomllib.load(open("/build/pyproject.toml", "rb"))["project"]; \
print(*project["optional-dependencies"]["engine"], sep="\n")' > /tmp/engine.txt \
    && /opt/rmldnn/bin/pip install --no-cache-dir --no-compile --find-links /build/wheels \
        ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c /build/constraints.txt -r /tmp/engine.txt \
    && rm /tmp/engine.txt

# A container that runs as the person cannot keep bytecode, and would compile at every start what a training imports
# (3 s). Importing it once here keeps just that: 50 MB, where compiling everything would be 170 MB.
RUN /opt/rmldnn/bin/python -c 'import cv2, h5py, PIL.Image, pydantic, torch; \
weight = torch.nn.Parameter(torch.ones(1)); \
optimizer = torch.optim.Adam([weight]); \
weight.sum().backward(); \
optimizer.step()'

COPY rmldnn_contract /opt/rmldnn/lib/python3.11/site-packages/rmldnn_contract
COPY rmldnn_torch /opt/rmldnn/lib/python3.11/site-packages/rmldnn_torch
RUN printf '%s\n' '#!/opt/rmldnn/bin/python' \
        'import sys' '' 'from rmldnn_torch.__main__ import main' '' 'sys.exit(main())' > /opt/rmldnn/bin/rmldnn \
    && printf '%s\n' '#!/opt/rmldnn/bin/python' \
        'from rmldnn_torch.worker_on_streams import main' '' 'main()' > /opt/rmldnn/bin/rmldnn-worker \
    && chmod 755 /opt/rmldnn/bin/rmldnn /opt/rmldnn/bin/rmldnn-worker \
    && cd /opt/rmldnn/lib/python3.11/site-packages \
    && chmod -R a+rX rmldnn_contract rmldnn_torch \
    && /opt/rmldnn/bin/python -m compileall -q rmldnn_contract rmldnn_torch

# A user id without a passwd entry has neither a home nor a name, and PyTorch asks for both.
ENV PATH=/opt/rmldnn/bin:$PATH \
    HOME=/tmp \
    USER=rmldnn \
    LOGNAME=rmldnn \
    PYTHONUNBUFFERED=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# Open MPI: allow root, since a container has no one else unless told; no binding to cores, since a process trains with
# several threads; more processes than cores; and no copying through ptrace, which containers forbid by default.
ENV OMPI_ALLOW_RUN_AS_ROOT=1 \
    OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
    OMPI_MCA_hwloc_base_binding_policy=none \
    OMPI_MCA_rmaps_base_oversubscribe=1 \
    OMPI_MCA_btl_vader_single_copy_mechanism=none

# glibc: keep the memory of a training step for the next one instead of mapping, faulting and unmapping it again.
# On two CPU cores that saves 10 to 30 % of a step's time.
ENV MALLOC_MMAP_THRESHOLD_=17179869184 \
    MALLOC_TRIM_THRESHOLD_=17179869184 \
    MALLOC_TOP_PAD_=268435456

# The driver keeps a container of such an image for many trials: rmldnn_contract/worker_stream.py says how. It stands
# here and not with the others, since a new label there would have all that lies between made anew.
LABEL org.rmldnn-torch.worker="1"

WORKDIR /home/ubuntu

# An init that passes signals on, so that `docker stop` ends a training at once; -s: quiet below Docker's own init.
ENTRYPOINT ["tini", "-s", "--"]
CMD ["rmldnn", "--help"]
