# The course in a box. Build it, then train the default experiment or anything else:
#
#   docker build -t dl-course .
#   mkdir -p runs
#   docker run --rm --user "$(id -u)" -v "$PWD/runs:/course/runs" dl-course
#   docker run --rm --user "$(id -u)" -v "$PWD/runs:/course/runs" dl-course train experiment=softmax_digits
#
# On Linux pip's torch brings CUDA along, some gigabytes. For one without, give pip the index of PyTorch's CPU builds
# (its address: pytorch.org, "Get Started"):
#
#   docker build -t dl-course --build-arg PIP_OPTIONS="--extra-index-url <address>" .

FROM python:3.12-slim

# Added to pip install.
ARG PIP_OPTIONS=""

ENV PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib

WORKDIR /build

# The dependencies are a layer of their own: it is built again only when these two files change.
COPY pyproject.toml constraints.txt ./
# hadolint ignore=SC2086
RUN python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
    > requirements.txt \
    && pip install --no-cache-dir -c constraints.txt ${PIP_OPTIONS} -r requirements.txt

COPY README.md LICENSE ./
COPY configs configs
COPY dl_course dl_course
# hadolint ignore=SC2086
RUN pip install --no-cache-dir --no-deps ${PIP_OPTIONS} .

RUN useradd --uid 1000 --create-home course \
    && install -d -o course -g course /course /course/runs /course/data
USER 1000
WORKDIR /course

ENTRYPOINT ["dl-course"]
CMD ["train"]
