# docker build -t vermilion --build-arg TORCH_INDEX=<index of PyTorch's CPU wheels> .      CPU, small
# docker build -t vermilion:cuda .                                                         NVIDIA GPU (--gpus all)
FROM python:3.11-slim AS build
ARG TORCH_INDEX=""
WORKDIR /src
RUN python -m venv /opt/vermilion
ENV PATH=/opt/vermilion/bin:$PATH PIP_NO_CACHE_DIR=1
# PyTorch's wheels for CPUs have an index of their own (its site names it); the usual one brings CUDA along
RUN pip install "torch>=2.6,<2.14" ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install ".[server,starter,postgres]"

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 vermilion && install -d -o vermilion -g vermilion /data /models
COPY --from=build /opt/vermilion /opt/vermilion
ENV PATH=/opt/vermilion/bin:$PATH HF_HOME=/models PYTHONUNBUFFERED=1
USER vermilion
VOLUME ["/data", "/models"]
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=180s --retries=4 CMD ["python", "-c", "import sys, urllib.request as u; sys.exit(u.urlopen('http://127.0.0.1:8000/ready', timeout=4).status != 200)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["vermilion"]
# make keys first: docker run --rm -v vermilion-data:/data vermilion keys add laptop --file /data/keys.json
CMD ["serve", "--host", "0.0.0.0", "--data", "/data", "--keys", "/data/keys.json"]
