# syntax=docker/dockerfile:1.9
# Training, refresh, the release store, the table's upkeep and the rollout. From the repository root:
#   docker build -f deploy/images/trainer.Dockerfile --build-arg PYTHON_DIGEST=sha256:... \
#     --secret id=pip,src=pip.conf .
# pip.conf decides which torch: the CPU's, or that of the CUDA which the GPU's driver has.
ARG PYTHON_TAG=3.11.14-slim-bookworm
# Without a digest the build stops at "invalid reference": a tag can be moved.
ARG PYTHON_DIGEST

FROM python:${PYTHON_TAG}@${PYTHON_DIGEST} AS build
COPY constraints.txt deploy/images/trainer.txt /requirements/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir \
      -r /requirements/trainer.txt -c /requirements/constraints.txt

FROM python:${PYTHON_TAG}@${PYTHON_DIGEST} AS trainer
LABEL org.opencontainers.image.title="gref-trainer" \
      org.opencontainers.image.licenses="Apache-2.0"
WORKDIR /gref
COPY --from=build /opt/venv /opt/venv
COPY contracts contracts
COPY training training
COPY handlers handlers
COPY streaming streaming
COPY model_repository/base model_repository/base
COPY deploy deploy
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/gref \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MPLBACKEND=Agg \
    MPLCONFIGDIR=/tmp/matplotlib
# As Triton: what a refresh installs into the repository, Triton reads.
USER 1000:1000
STOPSIGNAL SIGTERM
# A job has no port to ask: whether its libraries load is all that can be told from outside.
HEALTHCHECK --interval=60s --timeout=30s --start-period=60s --retries=3 \
    CMD ["python", "training/releases.py", "--help"]
ENTRYPOINT ["python"]
CMD ["training/refresh.py", "--help"]
