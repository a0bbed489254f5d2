# syntax=docker/dockerfile:1.9
# streaming/consume.py. From the repository root:
#   docker build -f deploy/images/consumer.Dockerfile --build-arg PYTHON_DIGEST=sha256:... .
ARG PYTHON_TAG=3.11.14-slim-bookworm
# Without a digest the build stops at "invalid reference": a tag can be moved.
ARG PYTHON_DIGEST

FROM python:${PYTHON_TAG}@${PYTHON_DIGEST} AS build
COPY constraints.txt deploy/images/consumer.txt /requirements/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir \
      -r /requirements/consumer.txt -c /requirements/constraints.txt

FROM python:${PYTHON_TAG}@${PYTHON_DIGEST} AS consumer
LABEL org.opencontainers.image.title="gref-consumer" \
      org.opencontainers.image.licenses="Apache-2.0"
WORKDIR /gref
COPY --from=build /opt/venv /opt/venv
COPY contracts contracts
COPY streaming streaming
# MALLOC_ARENA_MAX: docs/benchmarks.md says why.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/gref \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=1
USER 10001:10001
EXPOSE 9100
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=20s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9100/healthz', timeout=4)"]
ENTRYPOINT ["python", "streaming/consume.py"]
