# syntax=docker/dockerfile:1.9
# Triton that serves releases. From the repository root, with the digest of the tag:
#   docker build -f deploy/images/triton.Dockerfile --target cpu --build-arg TRITON_DIGEST=sha256:... .
# Targets: gpu (profiles gpu, tensorrt, aoti), cpu (the python backend with torch, profile cpu), and
# release (cpu with a repository inside, for machines without a shared volume).
ARG TRITON_TAG=26.07-py3
# Without a digest the build stops at "invalid reference": a tag can be moved.
ARG TRITON_DIGEST

FROM nvcr.io/nvidia/tritonserver:${TRITON_TAG}@${TRITON_DIGEST} AS gpu
LABEL org.opencontainers.image.title="gref-triton" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --chmod=0444 deploy/images/triton_start.py deploy/images/triton_probe.py /opt/gref/
# A __pycache__ beside a model.py looks like a change of the model to Triton.
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1
# triton-server, which NVIDIA's image has
USER 1000:1000
EXPOSE 8001 8002
STOPSIGNAL SIGTERM
# Docker's own; Kubernetes has probes of its own. A question, for readiness is not health.
HEALTHCHECK --interval=15s --timeout=10s --start-period=300s --retries=3 \
    CMD ["python3", "/opt/gref/triton_probe.py", "live", "--routing=/routing/routing.json", "--routing=/etc/gref/routing/routing.json"]
ENTRYPOINT ["python3", "/opt/gref/triton_start.py"]

FROM gpu AS cpu
# The python backend's engines need torch and nothing else. A pip.conf that leads to the CPU builds is
# given as a secret, so that no address is baked in:  --secret id=pip,src=pip.conf
USER 0:0
COPY constraints.txt deploy/images/triton.txt /tmp/requirements/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m pip install --no-cache-dir --break-system-packages \
      -r /tmp/requirements/triton.txt -c /tmp/requirements/constraints.txt \
    && rm -r /tmp/requirements
USER 1000:1000

FROM cpu AS release
# The folder that `python training/releases.py install rNNNN --repository served` filled.
ARG REPOSITORY=served
COPY --chown=0:0 --chmod=a=rX ${REPOSITORY} /models
