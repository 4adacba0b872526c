# One image for every service: the command chooses, for instance `python -m services.ingest`.
FROM python:3.13.9-slim-trixie

ENV PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

RUN useradd --system --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin odooops

WORKDIR /app

# Wheels only, each with its hash, nothing resolved here. Where they come from is for pip's own settings to say.
COPY requirements.services.lock ./
RUN pip install --no-deps --only-binary=:all: --require-hashes -r requirements.services.lock

# The packages run from where they lie (PYTHONPATH), so nothing of ours is built or installed.
COPY contracts ./contracts
COPY providers ./providers
COPY read_models ./read_models
COPY gates ./gates
COPY runtime ./runtime
COPY services ./services
COPY cli ./cli
COPY migrations ./migrations
COPY ssot ./ssot
# Readable by the user below whatever the umask of the checkout was; compiled now because the root is read-only later.
RUN chmod -R a+rX /app && python -m compileall -q /app

# A volume that is mounted here for the first time takes this owner.
RUN install -d -m 0700 -o 10001 -g 10001 /spool

USER 10001:10001
