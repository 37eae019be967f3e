# syntax=docker/dockerfile:1
# The service without torch: `docker compose up --build` (docs/service.md), or alone with an embedded index in /data:
#   docker build --tag two-stage-retrieval .
#   docker run --read-only --tmpfs /tmp --volume retrieval-data:/data --publish 127.0.0.1:8000:8000 \
#     --env RETRIEVAL_READ_KEY --env RETRIEVAL_WRITE_KEY two-stage-retrieval
ARG PYTHON=3.12-slim-bookworm

FROM python:${PYTHON} AS build
# Extras of pyproject.toml to install; "serve tracing documents" also reads PDF and Office files (200 MB more).
# The lock has serve and tracing, with hashes; what other extras add is resolved when the image is built.
ARG EXTRAS="serve tracing"
WORKDIR /build
RUN python -m venv /opt/retrieval
COPY pyproject.toml requirements-lean.txt requirements-lean.lock ./
RUN /opt/retrieval/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements-lean.lock
RUN python -c "import sys, tomllib; extras = tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']; print(*(line for name in sys.argv[1:] for line in extras[name]), sep='\n')" ${EXTRAS} > requirements-extras.txt
RUN /opt/retrieval/bin/pip install --no-cache-dir --disable-pip-version-check -r requirements-lean.txt -r requirements-extras.txt
COPY LICENSE README.md ./
COPY retrieval retrieval
COPY pipelines pipelines
RUN /opt/retrieval/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps .

FROM python:${PYTHON}
RUN groupadd --gid 10001 retrieval \
    && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin retrieval \
    && install --directory --owner 10001 --group 10001 --mode 0750 /data
COPY --from=build /opt/retrieval /opt/retrieval
COPY configs/container.yaml configs/compose.yaml /etc/retrieval/
ENV PATH=/opt/retrieval/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    HF_HUB_OFFLINE=1
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as web; web.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["retrieval"]
CMD ["serve", "--config", "/etc/retrieval/container.yaml"]
