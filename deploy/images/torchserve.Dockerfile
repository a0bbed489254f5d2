# syntax=docker/dockerfile:1.9
# TorchServe, the alternative to Triton (docs/torchserve.md; the project is archived, so no fixes).
# From the repository root:
#   docker build -f deploy/images/torchserve.Dockerfile --build-arg PYTHON_DIGEST=sha256:... \
#     --secret id=pip,src=pip.conf .
ARG PYTHON_TAG=3.11.14-slim-bookworm
# Without a digest the build stops at "invalid reference": a tag can be moved.
ARG PYTHON_DIGEST

FROM python:${PYTHON_TAG}@${PYTHON_DIGEST} AS build
COPY constraints.txt deploy/images/torchserve.txt /requirements/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir \
      -r /requirements/torchserve.txt -c /requirements/constraints.txt

FROM python:${PYTHON_TAG}@${PYTHON_DIGEST} AS torchserve
LABEL org.opencontainers.image.title="gref-torchserve" \
      org.opencontainers.image.licenses="Apache-2.0"
# The distribution's Java 17 takes its security fixes, whatever their number.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends openjdk-17-jre-headless \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/venv /opt/venv
COPY --chmod=0444 deploy/images/torchserve_probe.py /opt/gref/
COPY deploy/images/torchserve.properties /etc/torchserve/config.properties
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1 \
    LOG_LOCATION=/tmp/logs \
    METRICS_LOCATION=/tmp/logs
# TorchServe writes into its working folder.
WORKDIR /tmp
USER 10001:10001
EXPOSE 8080 7070 8082
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/ping', timeout=4)"]
# As deploy/torchserve_process.py starts it: Java directly, for the command `torchserve` detaches.
# Add the archives: -m gref_r0007=gref_r0007.mar
ENTRYPOINT ["java", "-Xmx512m", \
    "-Dmodel_server_home=/opt/venv/lib/python3.11/site-packages", "-Djava.io.tmpdir=/tmp", \
    "-cp", "/opt/venv/lib/python3.11/site-packages/ts/frontend/*", "org.pytorch.serve.ModelServer", \
    "--python", "/opt/venv/bin/python", "-f", "/etc/torchserve/config.properties", \
    "-s", "/model_store", "-ncs"]
