# The image of every Ray pod in k8s/overlays: Ray, torch, the package and its demo model.
#
#   docker build -t rayclassify:<version> .
#   docker run --rm -p 8000:8000 --shm-size 2g rayclassify:<version>
#   docker run --rm -p 8000:8000 --shm-size 2g --gpus all rayclassify:<version> \
#     rayclassify serve serve_config.gpu.yaml
#
# Without CUDA, and smaller (PIP_EXTRA_INDEX_URL: PyTorch's index of CPU wheels):
#   docker build --build-arg VARIANT=py311-cpu --build-arg PIP_EXTRA_INDEX_URL=<url> -t rayclassify:<version> .

# Ray's version is said once: pins in constraints.txt and rayVersion in k8s/ are held to it by a test.
ARG RAY_VERSION=2.60.0
ARG VARIANT=py311-gpu
FROM rayproject/ray:${RAY_VERSION}-${VARIANT}

# The base image's own user, uid 1000 in group `users`; bash, wget and grep, which KubeRay's probes
# run, come with it.
USER ray
WORKDIR /home/ray/rayclassify

# An index for pip beside its usual one; empty: none.
ARG PIP_EXTRA_INDEX_URL=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# Dependencies first: gigabytes that change with the lock, and not with our code.
COPY --chown=ray:users constraints.txt pyproject.toml ./
RUN python -c "import tomllib; print('\n'.join(tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies']))" > requirements.txt \
 && pip install --constraint constraints.txt --requirement requirements.txt

# The wheel carries the demo model; nothing is fetched from a model hub, here or at start.
COPY --chown=ray:users README.md LICENSE ./
COPY --chown=ray:users deployments deployments
COPY --chown=ray:users client/rayclassify_client client/rayclassify_client
COPY --chown=ray:users models/demo models/demo
RUN pip install --constraint constraints.txt --no-deps .

# For `docker run`; KubeRay sets its own command and sends the config itself.
COPY --chown=ray:users serve_config.yaml serve_config.gpu.yaml ./
EXPOSE 8000
CMD ["rayclassify", "serve", "serve_config.yaml"]
