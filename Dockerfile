# The image that the steps of a Kubeflow job run in: Debian 13, its Python 3.13, TFX 1.21 and morph-tfx, all of uv.lock.
#
#   docker build --tag registry.example.com/morph-tfx:1 .
#   docker build --tag registry.example.com/morph-tfx:1-gpu --build-arg VARIANT=gpu .
#
# VARIANT=gpu adds CUDA's libraries; the driver comes from the node. To build on the very same base again, name it by its
# digest: --build-arg BASE=debian:13.1-slim@sha256:... (Debian's own packages are not in the lock, but the day's newest.)
#
# It takes Docker 23 (or 20.10 with DOCKER_BUILDKIT=1), podman or buildah. Where a proxy inspects TLS,
# --secret id=ca,src=FILE has the build trust the proxy's certificate (PEM), which stays out of the image.
#
# Module files belong into /opt/morph-tfx/modules, in an image on top of this one:
#
#   FROM registry.example.com/morph-tfx:1
#   COPY module.py /opt/morph-tfx/modules/
ARG BASE=debian:13.1-slim

FROM ${BASE} AS build
# The compiler is for pyfarmhash, which TFX requires and which is published as source only. Debian's archive keeps one
# version of a package, so a pinned one would be gone with the next security fix. Installing ca-certificates adds the
# certificate of --secret to this stage's own.
# hadolint ignore=DL3008
RUN --mount=type=secret,id=ca,target=/usr/local/share/ca-certificates/build.crt \
    apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
ARG UV_VERSION=0.13.8
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir "uv==${UV_VERSION}"
ENV UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1 UV_PYTHON=/usr/bin/python3 UV_PYTHON_DOWNLOADS=never \
    UV_SYSTEM_CERTS=true
WORKDIR /opt/morph-tfx
# First what changes rarely: everything that uv.lock names but this project.
COPY pyproject.toml uv.lock ./
ARG VARIANT=cpu
RUN case "${VARIANT}" in \
        cpu) set -- ;; \
        gpu) set -- --extra gpu ;; \
        *) echo "VARIANT is ${VARIANT}; expected cpu or gpu" >&2; exit 1 ;; \
    esac \
    && /opt/uv/bin/uv sync --frozen --no-install-project --extra tfx --extra kubeflow "$@"
COPY setup.py README.md LICENSE ./
COPY morph_core ./morph_core
COPY components ./components
COPY pipelines ./pipelines
RUN /opt/uv/bin/uv sync --frozen --inexact --no-editable --extra tfx --extra kubeflow

FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/*
# Group 0 and its rights: some clusters choose the user's number, but not the group. Kubeflow's launcher puts artifacts
# into directories at the root of the file system.
RUN useradd --uid 10001 --gid 0 --create-home morph \
    && mkdir -p /opt/morph-tfx/modules /gcs /minio /s3 \
    && chown 10001:0 /gcs /minio /s3 \
    && chmod g=u /gcs /minio /s3 /home/morph
COPY --from=build /opt/morph-tfx/.venv /opt/morph-tfx/.venv
ENV HOME=/home/morph PATH=/opt/morph-tfx/.venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 TF_CPP_MIN_LOG_LEVEL=2
WORKDIR /home/morph
USER 10001
CMD ["morph-tfx", "--help"]
