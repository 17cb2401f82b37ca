# The image of every Ray pod in k8s/overlays: Ray, torch, the package and its demo model.
#
#   docker build -t rayclassify:<version> .
#   docker run --rm -p 8000:8000 --shm-size 2g --gpus all rayclassify:<version> rayclassify serve serve_config.gpu.yaml
#
# Without CUDA, and smaller (PIP_EXTRA_INDEX_URL: PyTorch's index of CPU wheels):
#   docker build --build-arg VARIANT=cpu --build-arg PIP_EXTRA_INDEX_URL=<url> -t rayclassify:<version>-cpu .
#   docker run --rm -p 8000:8000 --shm-size 2g rayclassify:<version>-cpu
#
# `--secret id=pip,src=pip.conf` hands pip an index of yours; it stays out of every layer.
# docs/image.md has sizes, other bases, the SBOM, and how each of this was tried.

# Any image with this Python, bash, grep and a user 1000 or apt; for one of Ray's own:
# --build-arg BASE=rayproject/ray:2.60.0-py311-cpu. torch's wheels bring CUDA's libraries, so no
# base needs them; Ray's version is the lock's.
ARG BASE=python:3.11-slim-bookworm

# Gigabytes that change with the lock, and not with our code.
FROM ${BASE} AS dependencies
USER root
WORKDIR /build
COPY constraints.txt pyproject.toml ./
# Extras of pyproject.toml, with commas: jwt,redaction,traces
ARG EXTRAS=
RUN python -c "import sys, tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *(r for e in sys.argv[1].split(',') if e for r in p['optional-dependencies'][e]), sep='\n')" "${EXTRAS}" > requirements.txt
# An index for pip beside its usual one; empty: none.
ARG PIP_EXTRA_INDEX_URL=
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m venv --without-pip /opt/rayclassify \
 && python -m pip --python /opt/rayclassify/bin/python --disable-pip-version-check install --no-cache-dir \
      --constraint constraints.txt --requirement requirements.txt
# cuda or cpu: the build of torch that the index must have given.
ARG VARIANT=cuda
RUN /opt/rayclassify/bin/python -c "import sys, torch; found = 'cuda' if torch.version.cuda else 'cpu'; found == sys.argv[1] or sys.exit(f'torch {torch.__version__} is built for {found}; VARIANT asks for {sys.argv[1]}. Set PIP_EXTRA_INDEX_URL to the index of that build.')" "${VARIANT}"

# The wheel carries the demo model; nothing is fetched from a model hub, here or at start.
FROM ${BASE} AS wheel
USER root
WORKDIR /build
COPY constraints.txt pyproject.toml README.md LICENSE ./
ARG PIP_EXTRA_INDEX_URL=
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m venv --without-pip /opt/hatchling \
 && python -m pip --python /opt/hatchling/bin/python --disable-pip-version-check install --no-cache-dir \
      --constraint constraints.txt hatchling
COPY deployments deployments
COPY client/rayclassify_client client/rayclassify_client
COPY models/demo models/demo
# Into an environment like the other one, over which it is laid: the image itself needs no pip.
RUN /opt/hatchling/bin/python -m hatchling build --target wheel --directory /dist \
 && python -m venv --without-pip /opt/rayclassify \
 && python -m pip --python /opt/rayclassify/bin/python --disable-pip-version-check install --no-cache-dir \
      --no-index --no-deps /dist/*.whl

FROM ${BASE}
USER root
# KubeRay's probes run bash, wget and grep. Volumes in k8s/ belong to 1000:100, as in Ray's images.
RUN { command -v wget > /dev/null \
      || { apt-get update && apt-get install --yes --no-install-recommends wget && rm -rf /var/lib/apt/lists/* /var/cache/apt/*; }; } \
 && { getent passwd 1000 > /dev/null || useradd --uid 1000 --gid 100 --create-home ray; }
COPY --from=dependencies /opt/rayclassify /opt/rayclassify
COPY --from=wheel /opt/rayclassify /opt/rayclassify

# For `docker run`; KubeRay sets its own command and sends the config itself. Not under /home/ray,
# where a volume may lie.
WORKDIR /srv/rayclassify
COPY serve_config.yaml serve_config.gpu.yaml ./
ENV PATH=/opt/rayclassify/bin:${PATH} HOME=/home/ray
# In numbers, so that runAsNonRoot can be checked. Code belongs to root: who breaks in cannot change it.
USER 1000:100
EXPOSE 8000
CMD ["rayclassify", "serve", "serve_config.yaml"]

ARG BASE
ARG VERSION=
ARG REVISION=
LABEL org.opencontainers.image.title="rayclassify" \
      org.opencontainers.image.description="Text classification with BERT on Ray Serve" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"
