FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY config config
COPY relay relay
COPY workers workers
RUN python -m venv /opt/relay \
 && /opt/relay/bin/pip install --no-cache-dir --constraint constraints.txt .

FROM python:3.13-slim
COPY --from=build /opt/relay /opt/relay
ENV PATH=/opt/relay/bin:$PATH PYTHONUNBUFFERED=1
# A new volume is given the owner that its folder has here.
RUN install --directory --mode=700 --owner=10001 --group=10001 /var/lib/deploy-relay
USER 10001:10001
WORKDIR /etc/deploy-relay
ENTRYPOINT ["deploy-relay"]
CMD ["--help"]
