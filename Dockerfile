# docker build -t dea-daemon .      then: docker run --rm --read-only --tmpfs /tmp --tmpfs /run/dea-daemon:mode=1777 dea-daemon
# BASE: any image with python3 (3.11 or later, venv); the same for both stages, as the venv points into it.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
COPY requirements.lock ./
RUN python3 -m venv /opt/dea-daemon \
 && /opt/dea-daemon/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY . .
# pip byte-compiles what it installs: a read-only root never could, and importing ccxt without .pyc takes seconds.
RUN /opt/dea-daemon/bin/pip install --no-cache-dir --no-deps .

FROM ${BASE}
COPY --from=build /opt/dea-daemon /opt/dea-daemon
# Ledger and tape in the one, to be kept; the control socket in the other, a tmpfs.
RUN install -d -o 10001 -g 10001 -m 0700 /state \
 && install -d -o 10001 -g 10001 -m 0750 /run/dea-daemon
ENV PYTHONDONTWRITEBYTECODE=1 STATE_DIRECTORY=/state RUNTIME_DIRECTORY=/run/dea-daemon
USER 10001:10001
STOPSIGNAL SIGTERM
# Over the control socket: 1 where decisions have stopped, 69 where nobody answers.
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=3 \
  CMD ["/opt/dea-daemon/bin/dea-daemon", "status", "--health"]
ENTRYPOINT ["/opt/dea-daemon/bin/dea-daemon"]
CMD ["demo"]
