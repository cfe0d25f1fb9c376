FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/build && python -m venv --without-pip /opt/order-monitor
WORKDIR /src
COPY deploy/build.lock deploy/notify.lock deploy/requirements.lock deploy/
# notify.lock has what messages to people need as well: docker build --build-arg LOCK=notify.lock
ARG LOCK=requirements.lock
RUN /opt/build/bin/pip install --require-hashes --no-deps -r deploy/build.lock \
 && /opt/build/bin/pip --python /opt/order-monitor install --require-hashes --no-deps -r deploy/${LOCK}
COPY pyproject.toml README.md LICENSE deploy/order-monitor-live ./
COPY order_monitor order_monitor
RUN /opt/build/bin/python -m hatchling build -t wheel -d /src/dist \
 && /opt/build/bin/pip --python /opt/order-monitor install --no-index --no-deps /src/dist/*.whl

FROM python:3.13-slim
LABEL org.opencontainers.image.title="order-monitor" \
      org.opencontainers.image.description="Finds out how a shop's open orders ended." \
      org.opencontainers.image.licenses="MIT"
RUN useradd --no-log-init --no-create-home --uid 10001 monitor && mkdir /etc/order-monitor
COPY --from=build /opt/order-monitor /opt/order-monitor
COPY --from=build /src/order-monitor-live /usr/local/bin/
ENV PATH=/opt/order-monitor/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /etc/order-monitor
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["order-monitor-live"]
ENTRYPOINT ["order-monitor"]
